"""The command line: python -m compress prune MODEL --sparsity 0.6 --out pruned/"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
from transformers import PreTrainedModel

from compress import recipes
from compress.distillation.distill import distill
from compress.distillation.kept_layers import KEEP
from compress.factorization.factorize import METHODS, factorize
from compress.fusion.fuse import MERGES, fuse
from compress.pruning.criteria import SCOPES
from compress.pruning.drop_layers import drop_layers
from compress.pruning.prune import SCHEDULES, prune
from compress.pruning.structure import prune_channels, prune_heads
from compress.pruning.vocabulary import prune_vocabulary
from compress.quantization.allocate_bits import allocate_bits
from compress.quantization.bit_damage import DAMAGES
from compress.quantization.codebooks import product_quantize
from compress.quantization.deploy import BACKENDS
from compress.quantization.quantize import quantize
from compress.quantization.quantizers import RANGES
from compress.retrieval.sparsify_embeddings import sparsify_embeddings
from compress.saving import check_new, save
from probes.command import run
from probes.corpus import load_corpus
from probes.errors import InputError
from probes.models.checkpoint import load_checkpoint

# Those that need no second model.
_RECIPES: dict[str, Callable[..., PreTrainedModel]] = {
    "magnitude_pruning": recipes.magnitude_pruning,
    "self_distilled_pruning": recipes.self_distilled_pruning,
    "aligned_weights": recipes.aligned_weights,
    "sparse_progressive_distillation": recipes.sparse_progressive_distillation,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    return run(_parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m compress", description="Make a model smaller.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("model", metavar="MODEL", help="a folder, a hub name or 'bundled'")
    common.add_argument("--out", type=Path, required=True, help="a new folder for the smaller model and its tokenizer")
    common.add_argument("--allow-pickle", action="store_true", help="also open pickled weights, which can run any code")
    common.add_argument("--corpus", help="where text is needed: a file, a hub name, or 'bundled'")
    common.add_argument("--split", help="keep this split of the corpus only")
    common.add_argument("--languages", type=_list, help="keep these languages only, separated by commas")
    common.add_argument(
        "--packed", action="store_true", help="leave zeros out on disk: smaller, but for layerscope alone to read"
    )
    common.add_argument("--seed", type=_seed, default=0, help="(%(default)s)")

    weights = commands.add_parser(
        "prune", parents=[common], help="set the weights that matter least to zero, at once or while training"
    )
    weights.add_argument("--sparsity", type=float, required=True, help="share of the weights that become zero, 0 to 1")
    weights.add_argument(
        "--recipe", choices=list(_RECIPES), help="a published method, ready set; needs --corpus and --steps"
    )
    weights.add_argument("--criterion", choices=list(SCOPES), default="magnitude", help="(%(default)s)")
    weights.add_argument("--scope", choices=["matrix", "global", "unit"], help="what is compared (what suits)")
    weights.add_argument("--schedule", choices=SCHEDULES, help="(one_shot, or that of the recipe)")
    weights.add_argument("--prunings", type=int, help="how many times, over the training (10)")
    weights.add_argument("--steps", type=int, default=0, help="updates of the weights; 0 for no training")
    weights.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    weights.add_argument("--learning-rate", type=float, default=5e-5, help="(%(default)s)")
    weights.set_defaults(run=_prune)

    structure = commands.add_parser("structure", parents=[common], help="remove attention heads, channels or layers")
    structure.add_argument("--heads", type=float, default=0.0, help="share of each layer's heads that goes, 0 to 1")
    structure.add_argument("--channels", type=float, default=0.0, help="share of each layer's channels that goes")
    structure.add_argument("--layers", type=int, default=0, help="how many layers go, those that matter least first")
    structure.add_argument(
        "--importance", choices=["magnitude", "taylor", "random"], default="magnitude", help="of heads and channels"
    )
    structure.set_defaults(run=_structure)

    vocabulary = commands.add_parser("vocabulary", parents=[common], help="keep the tokens that a corpus uses")
    vocabulary.set_defaults(run=_vocabulary)
    trained = argparse.ArgumentParser(add_help=False)
    trained.add_argument("--only", metavar="RE", help="of the matrices only those whose name this expression finds")
    trained.add_argument("--embeddings", action="store_true", help="the token embeddings too")
    trained.add_argument(
        "--distilled", action="store_true", help="train on what the original gives, not on labels alone"
    )
    trained.add_argument("--steps", type=int, default=0, help="updates of the weights on --corpus; 0 for no training")
    trained.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    trained.add_argument("--learning-rate", type=float, default=5e-5, help="(%(default)s)")

    rounded = commands.add_parser("quantize", parents=[common, trained], help="round weights and inputs to a few bits")
    rounded.add_argument("--bits", type=int, help="of the weights, 2 to 8 (8)")
    rounded.add_argument("--average-bits", type=float, help="in place of --bits: to each matrix as many as it needs")
    rounded.add_argument(
        "--damage",
        nargs="+",
        choices=DAMAGES,
        default=["alignment"],
        help="what --average-bits keeps low (alignment)",
    )
    rounded.add_argument("--backend", choices=BACKENDS, help="make a model that runs in int8, in place of a simulation")
    rounded.add_argument("--group", default="channel", help="tensor, channel or so many inputs (%(default)s)")
    rounded.add_argument("--affine", action="store_true", help="with a zero point, for weights that lean to one side")
    rounded.add_argument("--ranges", choices=RANGES, default="minmax", help="(%(default)s)")
    rounded.add_argument(
        "--activation-bits", type=_bits_or_none, default=8, help="of the inputs, or none (%(default)s)"
    )
    rounded.add_argument(
        "--calibrate", action="store_true", help="measure the ranges of inputs on --corpus, and fix them"
    )
    rounded.add_argument(
        "--noise", type=float, default=0.1, help="share of the weights rounded in training (%(default)s)"
    )
    rounded.set_defaults(run=_quantize)

    shared = commands.add_parser(
        "product-quantize", parents=[common, trained], help="let groups of weights share a few codewords"
    )
    shared.add_argument("--codes", type=int, default=256, help="codewords a matrix (%(default)s)")
    shared.add_argument("--block", type=int, default=8, help="weights that share one (%(default)s)")
    shared.set_defaults(run=_product_quantize)
    fewer = argparse.ArgumentParser(add_help=False)
    fewer.add_argument("--steps", type=int, help="updates of the weights on --corpus")
    fewer.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    fewer.add_argument("--learning-rate", type=float, default=5e-5, help="(%(default)s)")

    student = commands.add_parser("distill", parents=[common, fewer], help="train a smaller model to do as it does")
    student.add_argument("--layers", type=int, help="of the smaller model (as many)")
    student.add_argument("--hidden-size", type=int, help="of the smaller model (the same)")
    student.add_argument("--keep", choices=KEEP, default="uniform", help="which layers it starts from (%(default)s)")
    student.set_defaults(run=_distill)

    fused = commands.add_parser("fuse", parents=[common, fewer], help="let layers that are alike share their weights")
    fused.add_argument("--share", type=float, default=0.5, help="share of the tensors that go (%(default)s)")
    fused.add_argument(
        "--similarity", default="euclidean", help="of weights, or cka, of states on --corpus (%(default)s)"
    )
    fused.add_argument("--merge", choices=MERGES, default="mean", help="(%(default)s)")
    fused.add_argument("--unit", choices=["matrix", "layer"], default="matrix", help="(%(default)s)")
    fused.set_defaults(run=_fuse)

    factors = commands.add_parser("factorize", parents=[common], help="make matrices products of smaller ones")
    size = factors.add_mutually_exclusive_group(required=True)
    size.add_argument("--rank", type=int, help="of every matrix")
    size.add_argument("--energy", type=float, help="share of the squared singular values that is kept")
    size.add_argument("--budget", type=float, help="share of the parameters that is kept, shared out over all matrices")
    factors.add_argument("--method", choices=METHODS, default="svd", help="(%(default)s)")
    factors.add_argument("--only", metavar="RE", help="of the matrices only those whose name this expression finds")
    factors.add_argument("--embeddings", action="store_true", help="the token embeddings too")
    factors.set_defaults(run=_factorize)

    sparse = commands.add_parser(
        "sparsify", parents=[common], help="train sparse vectors of texts, for retrieval by an inverted index"
    )
    sparse.add_argument("--steps", type=int, required=True, help="updates of the weights on --corpus")
    sparse.add_argument("--features", type=int, default=512, help="of a vector (%(default)s)")
    sparse.add_argument("--flops", type=float, default=0.1, help="how hard it is pushed to be sparse (%(default)s)")
    sparse.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    sparse.add_argument("--learning-rate", type=float, default=1e-3, help="(%(default)s)")
    sparse.set_defaults(run=_sparsify)
    return parser


def _prune(options: argparse.Namespace) -> None:
    if not 0 <= options.sparsity < 1:
        raise InputError(f"--sparsity {options.sparsity}: expected at least 0 and below 1")
    if options.recipe is not None and (options.corpus is None or not options.steps):
        raise InputError(f"--recipe {options.recipe} prunes while it trains: give --corpus and --steps")
    check_new(options.out)
    corpus = _corpus(options)
    model, tokenizer = load_checkpoint(options.model, allow_pickle=options.allow_pickle)
    how: dict[str, Any] = {"sparsity": options.sparsity, "steps": options.steps, "seed": options.seed}
    how |= {"criterion": options.criterion, "scope": options.scope}
    if options.schedule is not None:
        how |= {"schedule": options.schedule}
    if options.prunings is not None:
        how |= {"prunings": options.prunings}
    if options.steps:
        how |= {"batch_size": options.batch_size, "learning_rate": options.learning_rate}
    if options.recipe is None:
        pruned = prune(model, train=corpus, tokenizer=tokenizer, **how)
    else:
        pruned = _RECIPES[options.recipe](model, tokenizer, corpus, **how)
    save(pruned, options.out, tokenizer, packed=options.packed)
    done = pruned.config.compression
    print(
        f"pruned {len(done['pruned'])} matrices: {done['sparsity_of_pruned']:.1%} of their weights are zero, "
        f"{done['sparsity_of_model']:.1%} of all; wrote {options.out}"
    )


def _structure(options: argparse.Namespace) -> None:
    if not (options.heads or options.channels or options.layers):
        raise InputError("nothing to remove: give --heads, --channels or --layers")
    if (options.layers or options.importance == "taylor") and options.corpus is None:
        raise InputError("which layers matter, and importance by Taylor, is measured on text: give --corpus")
    check_new(options.out)
    corpus = _corpus(options)
    model, tokenizer = load_checkpoint(options.model, allow_pickle=options.allow_pickle)
    smaller = model
    given: dict[str, Any] = {"corpus": corpus, "tokenizer": tokenizer}
    how: dict[str, Any] = {"importance": options.importance, "seed": options.seed, **given}
    if options.heads:
        smaller = prune_heads(smaller, options.heads, **how)
    if options.channels:
        smaller = prune_channels(smaller, options.channels, **how)
    if options.layers:
        smaller = drop_layers(smaller, options.layers, **given)
    _save_smaller(model, smaller, options, tokenizer)


def _vocabulary(options: argparse.Namespace) -> None:
    if options.corpus is None:
        raise InputError("which tokens stay is read from text: give --corpus")
    check_new(options.out)
    corpus = _corpus(options)
    model, tokenizer = load_checkpoint(options.model, allow_pickle=options.allow_pickle)
    assert corpus is not None
    smaller, fewer = prune_vocabulary(model, tokenizer, corpus)
    save(smaller, options.out, fewer, packed=options.packed)
    print(f"{len(tokenizer):,} -> {len(fewer):,} tokens, {_size(model)} -> {_size(smaller)}; wrote {options.out}")


def _quantize(options: argparse.Namespace) -> None:
    if options.calibrate and options.corpus is None:
        raise InputError("--calibrate measures ranges on text: give --corpus")
    if options.average_bits is not None and options.corpus is None and options.damage != ["weights"]:
        raise InputError("--average-bits measures damage on text: give --corpus")
    if options.packed and options.backend is not None:
        raise InputError(f"--packed leaves out zeros, and --backend {options.backend} stores codes: give one of them")
    if options.average_bits is not None and (
        options.only is not None or options.embeddings or options.bits is not None
    ):
        raise InputError("--average-bits is shared out over all matrices: leave --only, --embeddings and --bits out")
    if options.average_bits is not None and options.backend is not None:
        raise InputError(f"--backend {options.backend} takes as many bits for all: give --bits, not --average-bits")
    model, tokenizer, corpus, how = _before_quantising(options)
    grid: dict[str, Any] = {"symmetric": not options.affine, "ranges": options.ranges}
    grid["group"] = int(options.group) if options.group.isdecimal() else options.group
    bits: Any = 8 if options.bits is None else options.bits
    if options.average_bits is not None:
        bits = allocate_bits(
            model,
            corpus,
            tokenizer,
            average_bits=options.average_bits,
            damage=options.damage,
            **grid,
        )
    how |= {"bits": bits, "activation_bits": options.activation_bits, "backend": options.backend, **grid}
    how |= {"calibrate": corpus if options.calibrate else None} | ({"noise": options.noise} if options.steps else {})
    make = recipes.self_distilled_quantization if options.distilled else quantize
    _saved_quantised(make(model, **how), options, tokenizer)


def _product_quantize(options: argparse.Namespace) -> None:
    model, tokenizer, _, how = _before_quantising(options)
    how |= {"codes": options.codes, "block": options.block}
    if options.distilled:
        quantised = recipes.self_distilled_quantization(model, host="product", **how)
    else:
        quantised = product_quantize(model, **how)
    _saved_quantised(quantised, options, tokenizer)


def _before_quantising(options: argparse.Namespace) -> tuple[Any, Any, datasets.Dataset | None, dict[str, Any]]:
    """Return model, tokenizer, corpus, and the settings that both ways of quantising have."""
    if options.steps and options.corpus is None:
        raise InputError("--steps trains on text: give --corpus")
    read = options.steps or getattr(options, "calibrate", False) or getattr(options, "average_bits", None) is not None
    if options.corpus is not None and not read:
        raise InputError("--corpus is given and nothing reads it: give --steps to train on it, or leave it out")
    if options.distilled and not options.steps:
        raise InputError("--distilled is about training: give --steps and --corpus")
    check_new(options.out)
    corpus = _corpus(options)
    model, tokenizer = load_checkpoint(options.model, allow_pickle=options.allow_pickle)
    how: dict[str, Any] = {"tokenizer": tokenizer, "only": options.only, "embeddings": options.embeddings}
    how |= {"train": corpus if options.steps else None, "steps": options.steps, "seed": options.seed}
    if options.steps:
        how |= {"batch_size": options.batch_size, "learning_rate": options.learning_rate}
    return model, tokenizer, corpus, how


def _saved_quantised(model: PreTrainedModel, options: argparse.Namespace, tokenizer: Any) -> None:
    save(model, options.out, tokenizer, packed=options.packed)
    done = model.config.compression
    size = f"{done['bytes_of_model'] / 1e6:.2f} MB"
    if "backend" not in done:
        written = sum(f.stat().st_size for f in options.out.iterdir() if f.suffix == ".safetensors")
        bits = f"{done['average_bits']:.2f} bits a weight"
        size = f"{bits}: {size} if they were stored so; simulated, {written / 1e6:.2f} MB"
    print(f"{size}; wrote {options.out}")


def _distill(options: argparse.Namespace) -> None:
    if options.corpus is None and (options.steps or options.keep == "matched"):
        raise InputError("to train, or to choose layers that match, takes text: give --corpus")
    check_new(options.out)
    corpus = _corpus(options)
    model, tokenizer = load_checkpoint(options.model, allow_pickle=options.allow_pickle)
    how: dict[str, Any] = {"batch_size": options.batch_size, "learning_rate": options.learning_rate}
    smaller = distill(
        model,
        layers=options.layers,
        hidden_size=options.hidden_size,
        keep=options.keep,
        train=corpus,
        tokenizer=tokenizer,
        steps=options.steps,
        seed=options.seed,
        **(how if corpus is not None and options.steps != 0 else {}),
    )
    _save_smaller(model, smaller, options, tokenizer)


def _fuse(options: argparse.Namespace) -> None:
    if options.corpus is None and (options.steps or options.similarity == "cka"):
        raise InputError("to train, or to compare states by cka, takes text: give --corpus")
    if options.corpus is not None and not options.steps and options.similarity != "cka":
        raise InputError(
            "--corpus is given and nothing reads it: give --steps to train on it or --similarity cka, or leave it out"
        )
    check_new(options.out)
    corpus = _corpus(options)
    model, tokenizer = load_checkpoint(options.model, allow_pickle=options.allow_pickle)
    how: dict[str, Any] = {"similarity": options.similarity, "merge": options.merge, "unit": options.unit}
    if options.similarity == "cka":
        how |= {"corpus": corpus, "tokenizer": tokenizer}
    if options.steps:
        how |= {"train": corpus, "tokenizer": tokenizer, "steps": options.steps}
        how |= {"batch_size": options.batch_size, "learning_rate": options.learning_rate}
    smaller = fuse(model, share=options.share, seed=options.seed, **how)
    _save_smaller(model, smaller, options, tokenizer)


def _factorize(options: argparse.Namespace) -> None:
    if options.corpus is None and options.method == "activation":
        raise InputError("--method activation looks at what the matrices are fed: give --corpus")
    if options.corpus is not None and options.method != "activation":
        raise InputError(
            "--corpus is given and nothing reads it: give --method activation, which looks at text, or leave it out"
        )
    check_new(options.out)
    corpus = _corpus(options)
    model, tokenizer = load_checkpoint(options.model, allow_pickle=options.allow_pickle)
    how: dict[str, Any] = {"method": options.method, "only": options.only, "embeddings": options.embeddings}
    if options.method == "activation":
        how |= {"calibrate": corpus, "tokenizer": tokenizer}
    smaller = factorize(model, rank=options.rank, energy=options.energy, budget=options.budget, **how)
    _save_smaller(model, smaller, options, tokenizer)


def _sparsify(options: argparse.Namespace) -> None:
    if options.corpus is None:
        raise InputError("sparse vectors are trained on translations: give --corpus")
    check_new(options.out)
    corpus = _corpus(options)
    assert corpus is not None
    model, tokenizer = load_checkpoint(options.model, allow_pickle=options.allow_pickle)
    sparse = sparsify_embeddings(
        model,
        train=corpus,
        tokenizer=tokenizer,
        steps=options.steps,
        features=options.features,
        flops=options.flops,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    save(sparse, options.out, tokenizer, packed=options.packed)
    done = sparse.config.compression
    print(
        f"vectors of {done['features']} features: {done['cost']['nonzeros']:.1f} of them not zero in a text, "
        f"{done['cost']['flops']:.2f} multiplications a pair; wrote {options.out}"
    )


def _bits_or_none(text: str) -> int | None:
    if text != "none" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected 2 to 8 or none, found {text!r}")
    return None if text == "none" else int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0 and below 2**32, found {text!r}")
    return int(text)


def _size(model: PreTrainedModel) -> str:
    return f"{sum(p.numel() for p in model.parameters()):,} parameters"


def _save_smaller(model: Any, smaller: Any, options: argparse.Namespace, tokenizer: Any) -> None:
    save(smaller, options.out, tokenizer, packed=options.packed)
    print(f"{_size(model)} -> {_size(smaller)}; wrote {options.out}")


def _corpus(options: argparse.Namespace) -> datasets.Dataset | None:
    if options.corpus is None:
        return None
    return load_corpus(options.corpus, split=options.split, languages=options.languages)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


if __name__ == "__main__":
    sys.exit(main())
