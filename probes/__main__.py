"""The command line: python -m probes compare base=... pruned=... --corpus ... --out ..."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import datasets
import pandas as pd

from probes.command import (
    add_command,
    address,
    corpus_arguments,
    corpus_settings,
    from_module,
    listed,
    loading_arguments,
    output_argument,
    run,
)
from probes.comparison import Comparison, Comparisons, compare
from probes.corpus import describe, load_corpus
from probes.errors import InputError, LayerscopeWarning, check_choice
from probes.measures import catalogue
from probes.measures.own import named_in_modules
from probes.pitfalls import cautions
from probes.printing import printable
from probes.remote import locked_at, within
from probes.results.agreed import Agreement
from probes.results.calibration import p_text
from probes.results.cells import NO_LAYER
from probes.results.table import Table
from probes.several import check_folders, on_corpus
from probes.states.pooling import POOLINGS, OfTokens
from probes.states.ranks import ranks_of
from probes.states.running import LONG_TEXTS
from probes.views.report import check_path

_CORPUS = "CSV, TSV, Parquet, JSON, Excel, a pattern of files, a hub name, or 'bundled'"
_MODELS = (
    "a folder, a hub name, 'bundled' or 'bundled-decoder'; one NAME for several, as trained with several seeds, makes "
    "them replicates of "
    "one model"
)
# What --fail-on asks for, and the states that fail by it.
_FAILS = {"lost": ("lost",), "cannot-tell": ("lost", "cannot tell")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m probes", description="Measure representations layer by layer.")
    add(parser.add_subparsers(required=True, metavar="COMMAND"))
    return run(parser, arguments)


def add(commands: Any) -> None:
    """Give these commands to a parser."""
    about = "compare checkpoints layer by layer"
    measure = add_command(commands, "compare", about, _compare, corpus_arguments())
    measure.add_argument("models", nargs="+", metavar="NAME=CHECKPOINT", help=_MODELS)
    measure.add_argument(
        "--corpus",
        required=True,
        action="append",
        help=f"{_CORPUS}; NAME=CORPUS, given several times, for several, which have a language in common",
    )
    output_argument(measure, "folder, or URL, for comparison.csv, report.html and the states", address)
    measure.add_argument("--overwrite", action="store_true", help="replace a run that is in the folder already")
    measure.add_argument("--pivot", help="language that alignment is measured against, and that linear probes learn")
    measure.add_argument("--baseline", help="model that the others are compared with (the first)")
    measure.add_argument(
        "--probes",
        type=listed,
        help="names or families, separated by commas (the usual ones that models and corpus allow), or MODULE:FUNCTION "
        "for one of your own (probes.probe); "
        f"families: {', '.join(catalogue.families())}; probes: {', '.join(catalogue.by_name())}",
    )
    measure.add_argument(
        "--judge", type=listed, help="measures of the verdict, by commas (those of a head, or else retrieval)"
    )
    measure.add_argument(
        "--tolerance",
        type=_tolerance,
        action="extend",
        default=[],
        metavar="PROBE=LOSS",
        help="the largest loss that does not matter, as retrieval=0.02,accuracy=0.01 (0.01; of label loyalty 0.05)",
    )
    measure.add_argument(
        "--fail-on",
        choices=list(_FAILS),
        help="exit with status 1 where a model is lost; with 'cannot-tell', also where one is not shown to be kept",
    )
    measure.add_argument(
        "--patching",
        action="store_true",
        help="also ask which layers cause what was lost: run models with the original's blocks, one at a time",
    )
    measure.add_argument("--draws", type=int, default=200, help="bootstrap draws (%(default)s)")
    measure.add_argument("--seed", type=int, default=0, help="of the bootstrap (%(default)s)")
    measure.add_argument(
        "--jobs", type=int, dest="n_jobs", metavar="N", help="probes measured at once; -1: one a core (1)"
    )
    measure.add_argument(
        "--pooling",
        type=_pooling,
        help=f"tokens -> one vector: {', '.join(POOLINGS)} (as the checkpoint says; mean), or MODULE:FUNCTION for one "
        "of your own (probes.pooling)",
    )
    measure.add_argument("--max-length", type=int, help="cut texts at so many tokens (the limit of the model)")
    measure.add_argument(
        "--long-texts", choices=LONG_TEXTS, default="cut", help="longer texts are cut, or read in windows (%(default)s)"
    )
    measure.add_argument("--overlap", type=int, metavar="N", help="tokens that two windows share (a quarter)")
    measure.add_argument("--prompt", help="put before every text (as the checkpoint says; none)")
    measure.add_argument("--dimensions", type=int, help="keep so many features, the first ones (all)")
    measure.add_argument(
        "--without-outliers",
        type=int,
        default=0,
        metavar="N",
        help="leave the N largest features of every layer out of all that is measured of states (%(default)s)",
    )
    loading_arguments(measure, ["float32", "bfloat16", "auto"], "; bfloat16: mixed precision")
    measure.add_argument("--device", help="cuda, mps or cpu (the first there is)")
    measure.add_argument("--batch-size", type=int, default=64, help="most texts in a batch (%(default)s)")
    measure.add_argument("--batch-tokens", type=int, default=4096, help="most tokens in a batch (%(default)s)")
    measure.add_argument(
        "--allow-pickle", action="store_true", help="also open pickled weights, which can run any code"
    )

    measure.add_argument(
        "--no-timing",
        dest="timing",
        action="store_false",
        help="run no model to count its operations and measure its time, so that two runs give the same files",
    )

    about = "count a corpus and say what in it misleads"
    show = add_command(
        commands, "describe", about, lambda options: describe(_corpus(options.corpus, options)), corpus_arguments()
    )
    show.add_argument("corpus", help=_CORPUS)


def _tolerance(text: str) -> list[tuple[str, float]]:
    found = []
    for part in text.split(","):
        probe, separator, loss = part.partition("=")
        try:
            found.append((probe.strip(), float(loss)))
        except ValueError:
            separator = ""
        if not separator:
            raise argparse.ArgumentTypeError(f"expected PROBE=LOSS, as in retrieval=0.02; found {part!r}")
    return found


def _pooling(text: str) -> str:
    if text in POOLINGS or ":" in text:
        return text
    raise argparse.ArgumentTypeError(f"expected {', '.join(POOLINGS)}, or MODULE:FUNCTION; found {text!r}")


def _compare(options: argparse.Namespace) -> int:
    models: dict[str, list[str | Path]] = {}
    for given in options.models:
        name, separator, checkpoint = given.partition("=")
        if not separator or not name or not checkpoint:
            raise InputError(f"{given!r}: expected NAME=CHECKPOINT, as in base=path/to/checkpoint")
        models.setdefault(name, []).append(checkpoint)
    if options.probes:
        options.probes = named_in_modules(options.probes)
    if ":" in (options.pooling or ""):
        given = options.pooling
        function, options.pooling = from_module("--pooling", given, "last_two")
        if not isinstance(options.pooling, OfTokens):
            raise InputError(
                f"--pooling {given}: expected a function {function!r} in it that is made a pooling by @probes.pooling"
            )
    for probe in [*(options.judge or []), *(probe for probe, _ in options.tolerance)]:
        check_choice("judge", probe, catalogue.by_name())
    ranks = ranks_of(options.out)
    sources = _sources(options.corpus)

    def free() -> None:
        options.until_done.enter_context(locked_at(within(options.out, "comparison"), wait=options.wait))
        check_folders(options.out, [name for name in sources if name], overwrite=options.overwrite)
        check_path(within(options.out, "report.html"))

    ranks.first(free)
    corpora = {}
    for name, source in sources.items():
        with on_corpus(name) if name else nullcontext():
            corpora[name] = _corpus(source, options)
        for caution in cautions(corpora[name]) if ranks.number == 0 else ():
            print(f"caution: {f'{printable(name)}: ' * bool(name)}{printable(caution)}", file=sys.stderr)
    corpus: Any = corpora.get("", corpora)
    comparison: Comparison | Comparisons = compare(
        {name: given if len(given) > 1 else given[0] for name, given in models.items()},
        corpus,
        pivot=options.pivot,
        baseline=options.baseline,
        probes=options.probes,
        draws=options.draws,
        seed=options.seed,
        store=within(options.out, "representations"),
        allow_pickle=options.allow_pickle,
        timing=options.timing,
        without_outliers=options.without_outliers,
        patching=options.patching,
        n_jobs=options.n_jobs,
        pooling=options.pooling,
        max_length=options.max_length,
        long_texts=options.long_texts,
        overlap=options.overlap,
        prompt=options.prompt,
        dimensions=options.dimensions,
        dtype=options.dtype,
        device_map=options.device_map,
        offload_folder=options.offload_folder,
        device=options.device,
        batch_size=options.batch_size,
        batch_tokens=options.batch_tokens,
        wait=options.wait,
    )
    if ranks.number:  # the first of the processes of torchrun writes
        return 0
    # The table last: where it is, the run is whole, and the same command is not asked for again.
    report = comparison.report(within(options.out, "report.html"))
    comparison.save(options.out, overwrite=options.overwrite)
    status = _told(comparison, options)
    if isinstance(comparison, Comparisons):
        print("\n\n".join(f"on {printable(name)}: {_text(one)}" for name, one in comparison.items()))
    else:
        print(_text(comparison))
    table = "corpora.json" if isinstance(comparison, Comparisons) else "comparison.csv"
    print(f"\nwrote {printable(within(options.out, table))} and {printable(report)}")
    return status


def _told(comparison: Comparison | Comparisons, options: argparse.Namespace) -> int:
    """Print the verdict, and return the exit status that it asks for: on any corpus."""
    asked = options.fail_on or options.judge or options.tolerance
    first = next(iter(comparison.values())) if isinstance(comparison, Comparisons) else comparison
    if len(first.provenance["models"]) == 1 and not asked:
        return 0
    try:
        verdict = comparison.verdict(judge=options.judge, tolerance=dict(options.tolerance))
    except InputError as error:
        if asked:  # the table and the report are there already
            raise
        print(f"no verdict: {printable(error)}\n")
        return 0
    print(f"{verdict.words}\n")
    each = verdict.corpora.values() if isinstance(verdict, Agreement) else [verdict]
    worst = {one.state(model) for one in each for model in one.models["model"]}
    return int(not worst.isdisjoint(_FAILS.get(options.fail_on, ())))


def _text(comparison: Table) -> str:
    """The summary for a terminal: numbers with their intervals in one cell each."""
    summary, about = comparison.summary(), comparison.provenance["probes"]

    def cell(value: float, low: float, high: float) -> str:
        return "" if pd.isna(value) else f"{value:.3f}" + ("" if pd.isna(low) else f" [{low:.3f}, {high:.3f}]")

    def chance(p: float) -> str:
        return "" if pd.isna(p) else p_text(p, comparison.provenance["draws"])

    if summary.empty:
        return "none of these probes is better or worse when it is higher: see the table and the report"
    table = summary[["probe", "better", "layer", "model"]].copy()
    table["model"] = table["model"].map(printable)
    table["layer"] = ["output" if layer == NO_LAYER else str(layer) for layer in summary["layer"]]
    table["value [95 %]"] = [cell(*v) for v in summary[["value", "low", "high"]].to_numpy()]
    others = summary[["difference", "difference_low", "difference_high"]].to_numpy()
    if not pd.isna(others).all():
        table[f"minus {printable(comparison.baseline)} [95 %]"] = [cell(*v) for v in others]
        table["p"] = [chance(p) for p in summary["p_adjusted"]]
    if summary["worst_language"].any():
        worst = summary[["probe", "worst_language", "its_difference", "its_p"]].itertuples(index=False)
        # A comparison with the baseline is no difference, so it has no sign.
        signs = {p: "" if about[p]["compares"] else "+" for p in about}
        table["lost or moved most"] = [f"{printable(k)} {v:{signs[x]}.3f}" if k else "" for x, k, v, _ in worst]
        if summary["its_p"].notna().any():
            table["its p"] = summary["its_p"].map(chance)
    if summary["no_value"].any():
        table["no value at layers"] = summary["no_value"]
    title = (
        "all languages pooled, at the layer where the baseline is best (layer 0 = embeddings);\n"
        "what compares with the baseline: at the layer farthest from it;\n"
        "beside it the language that lost most there, or moved farthest from the baseline;\n"
        "p is adjusted over layers, that of this language over layers and languages"
    )
    return f"{title}\n\n{table.to_string(index=False)}"


def _sources(given: Sequence[str]) -> dict[str, str]:
    """Where each corpus is, by name; of one that has none under ""."""
    named: dict[str, str] = {}
    for one in given:
        name, separator, source = one.partition("=")
        if not separator or not name or not source or set(name) & set("/\\:") or Path(one).exists():
            if len(given) == 1:
                return {"": one}
            raise InputError(f"--corpus {one!r}, one of {len(given)}: expected NAME=CORPUS, as in sib200=path/to/file")
        if name in named:
            raise InputError(f"--corpus: {name!r} is given twice. Give each corpus a name of its own")
        named[name] = source
    return named


def _corpus(source: str, options: argparse.Namespace) -> datasets.Dataset:
    """The corpus of a command that says all its cautions, so that what reads it says none of them before."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*did two quotation marks swallow", LayerscopeWarning)
        return load_corpus(source, **corpus_settings(options))


if __name__ == "__main__":
    sys.exit(main())
