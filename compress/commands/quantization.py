"""Fewer bits a weight, or bits in place of words: `quantize`, `product-quantize`, `code-outputs`."""

from __future__ import annotations

import argparse
from typing import Any

import datasets
from transformers import PreTrainedModel

from compress import recipes
from compress.commands.arguments import load, model_arguments, refuse_corpus, training, training_settings, write
from compress.objectives.codes import MIXTURES
from compress.quantization.allocate_bits import allocate_bits
from compress.quantization.backends import BACKENDS
from compress.quantization.bit_damage import DAMAGES
from compress.quantization.code_outputs import code_outputs
from compress.quantization.codebooks import product_quantize
from compress.quantization.codewords import ASSIGNMENTS
from compress.quantization.fitted import METHODS
from compress.quantization.interchange import save_codes
from compress.quantization.quantize import quantize
from compress.quantization.quantizers import RANGES
from probes.command import add_command
from probes.errors import InputError
from probes.printing import printable
from probes.states.ranks import ranks_of


def add(commands: Any) -> None:
    """Give these commands to a parser."""
    both = argparse.ArgumentParser(add_help=False, parents=[model_arguments(), training()])
    both.add_argument("--only", metavar="RE", help="of the matrices only those whose name this expression finds")
    both.add_argument("--embeddings", action="store_true", help="the token embeddings too")
    both.add_argument("--distilled", action="store_true", help="train on what the original gives, not on labels alone")

    rounded = add_command(commands, "quantize", "round weights and inputs to a few bits", _quantize, both)
    rounded.add_argument("--bits", type=int, help="of the weights, 1 to 8 (8); 1 with --ranges least_squares")
    rounded.add_argument("--average-bits", type=float, help="in place of --bits: to each matrix as many as it needs")
    rounded.add_argument(
        "--damage",
        nargs="+",
        choices=DAMAGES,
        default=["alignment"],
        help="what --average-bits keeps low (alignment)",
    )
    rounded.add_argument("--backend", choices=BACKENDS, help="make a model that runs in int8, in place of a simulation")
    rounded.add_argument(
        "--method", choices=METHODS, default="rtn", help="to nearest, or by what is fed on --corpus (%(default)s)"
    )
    rounded.add_argument("--act-order", action="store_true", help="of gptq: inputs of the largest mean square first")
    rounded.add_argument("--damping", type=float, default=0.01, help="of gptq and awq (%(default)s)")
    rounded.add_argument(
        "--compressed-tensors",
        action="store_true",
        help="store codes as that library does, for other tools",
    )
    rounded.add_argument(
        "--grid", default="channel", help="weights of one grid: tensor, channel or so many inputs (%(default)s)"
    )
    rounded.add_argument("--affine", action="store_true", help="with a zero point, for weights that lean to one side")
    rounded.add_argument("--ranges", choices=RANGES, default="minmax", help="(%(default)s)")
    rounded.add_argument(
        "--activation-bits",
        type=_bits_or_none,
        default="auto",
        help="of the inputs, or none (8; of gptq and awq none)",
    )
    rounded.add_argument(
        "--calibrate", action="store_true", help="measure the ranges of inputs on --corpus, and fix them"
    )
    rounded.add_argument(
        "--noise", type=float, default=0.1, help="share of the weights rounded in training (%(default)s)"
    )

    shared = add_command(
        commands, "product-quantize", "let groups of weights share a few codewords", _product_quantize, both
    )
    shared.add_argument("--codes", type=int, default=256, help="codewords a matrix (%(default)s)")
    shared.add_argument("--block", type=int, default=8, help="weights that share one (%(default)s)")

    coded = add_command(
        commands,
        "code-outputs",
        "let the output layer say bits of a codeword for each word",
        _code_outputs,
        model_arguments(),
        training(),
    )
    coded.add_argument("--bits", type=int, required=True, help="of a codeword, at least log2 of the vocabulary")
    coded.add_argument(
        "--assignment", choices=ASSIGNMENTS, default="embedding", help="which word has which codeword (%(default)s)"
    )
    coded.add_argument("--mixture", choices=MIXTURES, help="in training, read a part of what the model itself says")


def _quantize(options: argparse.Namespace) -> None:
    if options.calibrate and options.corpus is None:
        raise InputError("--calibrate measures ranges on text: give --corpus")
    if options.compressed_tensors and (options.backend is not None or options.packed):
        raise InputError("--compressed-tensors stores the codes of a simulation: leave --backend and --packed out")
    if options.activation_bits == "auto":
        options.activation_bits = 8 if options.method == "rtn" else None
    if options.compressed_tensors and options.activation_bits is not None:
        raise InputError("--compressed-tensors holds codes of weights alone: give --activation-bits none")
    if options.method != "rtn" and options.corpus is None:
        raise InputError(f"--method {options.method} looks at text: give --corpus")
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
    model, tokenizer, corpus, how = _before(options)
    grid: dict[str, Any] = {"symmetric": not options.affine, "ranges": options.ranges}
    grid["group"] = int(options.grid) if options.grid.isdecimal() else options.grid
    bits: Any = 8 if options.bits is None else options.bits
    if options.average_bits is not None:
        bits = allocate_bits(model, corpus, tokenizer, average_bits=options.average_bits, damage=options.damage, **grid)
    how |= {"bits": bits, "activation_bits": options.activation_bits, "backend": options.backend, **grid}
    how |= {"method": options.method, "act_order": options.act_order, "damping": options.damping}
    how |= {"calibrate": corpus if options.calibrate or options.method != "rtn" else None} | (
        {"noise": options.noise} if options.steps else {}
    )
    make = recipes.self_distilled_quantization if options.distilled else quantize
    _write(make(model, **how), options, tokenizer)


def _product_quantize(options: argparse.Namespace) -> None:
    model, tokenizer, _, how = _before(options)
    how |= {"codes": options.codes, "block": options.block}
    if options.distilled:
        quantised = recipes.self_distilled_quantization(model, host="product", **how)
    else:
        quantised = product_quantize(model, **how)
    _write(quantised, options, tokenizer)


def _code_outputs(options: argparse.Namespace) -> None:
    counted = options.assignment == "frequency"
    if (options.steps or counted) and options.corpus is None:
        raise InputError(f"{'--assignment frequency counts' if counted else '--steps trains on'} text: give --corpus")
    if not options.steps and not counted:
        refuse_corpus(options, "--steps to train on it, or --assignment frequency")
    model, tokenizer, corpus = load(options)
    how: dict[str, Any] = {"bits": options.bits, "assignment": options.assignment, "mixture": options.mixture}
    how |= {"train": corpus, "tokenizer": tokenizer, "steps": options.steps, "seed": options.seed}
    coded = code_outputs(model, **how, **(training_settings(options) if options.steps else {}))
    write(coded, options, tokenizer)
    done = coded.config.compression
    print(
        f"output layer of {done['words']:,} words in {done['bits']} bits: {done['output_bytes_of_parent']:,} -> "
        f"{done['output_bytes']:,} bytes; wrote {printable(options.out)}"
    )


def _before(options: argparse.Namespace) -> tuple[Any, Any, datasets.Dataset | None, dict[str, Any]]:
    """Return model, tokenizer, corpus, and the settings that both ways of quantising have."""
    if options.steps and options.corpus is None:
        raise InputError("--steps trains on text: give --corpus")
    read = options.steps or getattr(options, "calibrate", False) or getattr(options, "average_bits", None) is not None
    read = read or getattr(options, "method", "rtn") != "rtn"
    if not read:
        refuse_corpus(options, "--steps to train on it")
    if options.distilled and not options.steps:
        raise InputError("--distilled is about training: give --steps and --corpus")
    model, tokenizer, corpus = load(options)
    how: dict[str, Any] = {"tokenizer": tokenizer, "only": options.only, "embeddings": options.embeddings}
    how |= {"train": corpus if options.steps else None, "steps": options.steps, "seed": options.seed}
    if options.steps:
        how |= training_settings(options)
    return model, tokenizer, corpus, how


def _write(model: PreTrainedModel, options: argparse.Namespace, tokenizer: Any) -> None:
    if getattr(options, "compressed_tensors", False):
        ranks_of(options.out).first(save_codes, model, options.out, tokenizer)
    else:
        write(model, options, tokenizer)
    done = model.config.compression
    size = f"{done['bytes_of_model'] / 1e6:.2f} MB"
    if "backend" not in done:
        written = sum(f.stat().st_size for f in options.out.iterdir() if f.suffix == ".safetensors")
        bits = f"{done['average_bits']:.2f} bits a weight"
        size = f"{bits}: {size} if they were stored so; simulated, {written / 1e6:.2f} MB"
        if getattr(options, "compressed_tensors", False):
            size = f"{bits}, {written / 1e6:.2f} MB in codes"
    print(f"{size}; wrote {printable(options.out)}")


def _bits_or_none(text: str) -> int | str | None:
    if text == "auto":  # the default
        return text
    if text != "none" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected 2 to 8 or none, found {text!r}")
    return None if text == "none" else int(text)
