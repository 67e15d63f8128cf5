"""Train further, `finetune`; give back what was taken away, `restore`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

from compress import recipes
from compress.commands.arguments import load, model_arguments, training, training_settings, write, write_smaller
from compress.objectives.reward import SimilarityReward
from compress.outcomes import MEASURES
from compress.tuning.chosen_layers import CHOICES
from compress.tuning.finetune import finetune
from compress.tuning.given_back import UNITS
from compress.tuning.restore import restore
from probes.command import add_command
from probes.errors import InputError
from probes.files import in_words
from probes.models.checkpoint import load_checkpoint
from probes.printing import printable

# Recipes of which model, tokenizer, text and steps are all that has to be said.
RECIPES: dict[str, Callable[..., PreTrainedModel]] = {
    "graddrop": recipes.graddrop,
    "gradual_unfreezing": recipes.gradual_unfreezing,
    "variability_tuning": recipes.variability_tuning,
    "p_dro": recipes.p_dro,
    "rp_dro": recipes.rp_dro,
    "supcl_seq": recipes.supcl_seq,
    "pair_sup_con": recipes.pair_sup_con,
    "plsp": recipes.plsp,
    "noise_contrast": recipes.noise_contrast,
    "replaced_tokens": recipes.replaced_tokens,
}


def add(commands: Any) -> None:
    """Give these commands to a parser."""
    about = "train a model further, with a head if it has none"
    tuned = add_command(
        commands, "finetune", about, _finetune, model_arguments(), training(None, required=True, learning_rate=None)
    )
    tuned.add_argument("--recipe", choices=RECIPES, help="a published method (plain)")
    tuned.add_argument("--layers", choices=CHOICES, help="which are trained beside the head (all)")
    tuned.add_argument("--tuned", type=int, metavar="N", help="how many --layers those are (2)")
    tuned.add_argument("--keep-zeros", action="store_true", help="weights that a pruning set to zero stay so")
    tuned.add_argument(
        "--reward",
        metavar="ENCODER",
        help="let a causal model write on, and reward it for texts that ENCODER finds like those of --teacher",
    )
    tuned.add_argument("--teacher", metavar="MODEL", help="of --reward: what writes the texts to come close to")
    tuned.add_argument("--reward-length", type=int, metavar="N", help="tokens that are written at most (32)")
    measures = list(dict.fromkeys(name for names in MEASURES.values() for name in names))
    tuned.add_argument(
        "--best",
        choices=[*measures, "nats"],
        help="keep the step where this is best on split dev, in the languages that are trained on (the last step)",
    )

    about = "give a smaller model back what it lacks most"
    mended = add_command(commands, "restore", about, _restore, model_arguments())
    mended.add_argument("--from", dest="base", metavar="BASE", required=True, help="the original of MODEL")
    mended.add_argument("--budget", type=float, default=0.02, help="a share of the bytes of MODEL (%(default)s)")
    mended.add_argument("--units", choices=UNITS, help="what is given back together (bits, or matrices)")
    mended.add_argument("--texts", type=int, default=256, help="to choose on, at most (%(default)s)")
    mended.add_argument("--pivot", help="of a model without a head: the language of retrieval")


def _finetune(options: argparse.Namespace) -> None:
    if options.corpus is None:
        raise InputError("training needs text: give --corpus")
    if options.recipe is not None and options.layers is not None:
        raise InputError("--recipe and --layers both say which weights are trained: give one of them")
    if (options.reward is None) != (options.teacher is None):
        raise InputError("--reward says what finds texts alike, and --teacher what writes those to be like: give both")
    if options.reward_length is not None and options.reward is None:
        raise InputError("--reward-length is of --reward: give both, or leave it out")
    if options.recipe is not None and options.reward is not None:
        raise InputError("--recipe and --reward both say what is trained for: give one of them")
    settings = training_settings(options)
    model, tokenizer, corpus = load(options)
    how: dict[str, Any] = {"steps": options.steps, "seed": options.seed, **settings}
    if options.reward is not None:
        encoder, teacher = (
            load_checkpoint(one, allow_pickle=options.allow_pickle) for one in (options.reward, options.teacher)
        )
        length = {} if options.reward_length is None else {"length": options.reward_length}
        how |= {"objective": SimilarityReward(encoder, **length), "teacher": teacher[0]}
    how |= {name: value for name in ("layers", "tuned", "best") if (value := getattr(options, name)) is not None}
    how |= {"keep_zeros": True} if options.keep_zeros else {}
    made = RECIPES.get(options.recipe, finetune)(model, tokenizer, corpus, **how)
    done = made.config.compression
    for name in ("best", "head_layer"):
        if name in done:
            found = done[name]
            print(
                f"{found['measure']} is best at step {found['step']}"
                if name == "best"
                else f"the head reads layer {found}"
            )
    write_smaller(model, made, options, tokenizer)


def _restore(options: argparse.Namespace) -> None:
    if options.corpus is None:
        raise InputError("what it lacks most is measured on text: give --corpus")
    model, tokenizer, corpus = load(options)
    base, _ = load_checkpoint(options.base, allow_pickle=options.allow_pickle)
    how = {name: getattr(options, name) for name in ("budget", "units", "texts", "seed", "pivot")}
    mended = restore(model, base, tokenizer, corpus, **how)
    write(mended, options, tokenizer)
    done = mended.config.compression
    left = 1 - done["damage_after"] / done["damage_before"] if done["damage_before"] else 0.0
    print(
        f"gave back {len(done['given'])} parts, {in_words(done['bytes'] - done['bytes_before'])} of at most "
        f"{in_words(done['budget_bytes'])}: {in_words(done['bytes_before'])} -> {in_words(done['bytes'])} "
        f"({done['stored_as']}); {left:.0%} of the damage on the texts of the choice is gone; wrote "
        f"{printable(options.out)}"
    )
