"""Where the numbers of a comparison come from: models, probes, corpus, settings and versions."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from probes.errors import InputError
from probes.files import file_name
from probes.measures import catalogue
from probes.measures.probe import Run
from probes.remote import Address, within
from probes.results.difference import adjustment
from probes.states.representations import open_representations


def provenance_of(
    measured: dict[str, dict[str, xr.Dataset]],
    representations: dict[str, xr.Dataset],
    said: list[str],
    baseline: str,
    shared: Run,
) -> dict[str, Any]:
    """Return what stands beside a table, as JSON keeps it.

    Args:
        measured: model -> probe -> result.
        representations: model -> what was measured.
        said: the cautions of the corpus.
        baseline: the model that the others are compared with.
        shared: what is the same for all models.
    """
    results = {probe: result for by_probe in measured.values() for probe, result in by_probe.items()}
    declared = {name: probe for name, probe in catalogue.by_name().items() if name in results}
    more = ("interval", "kind", "symmetric")  # of the draws, and of measures of similarity
    first = next(iter(representations.values()))
    codes, languages = pd.factorize(first["language"].values)
    begins = np.unique(codes, return_index=True)[1]
    shown = first["text"].variable[begins].values  # the first text of each language
    sizes = zip(languages.tolist(), np.bincount(codes).tolist(), shown.tolist(), strict=True)
    packages = ("layerscope", "torch", "transformers", "tokenizers", "numpy", "scipy", "scikit-learn", "xarray", "zarr")
    return {
        "baseline": baseline,
        "pivot": shared.pivot,
        "draws": shared.draws,
        "drawn": shared.sample.what,
        "seed": shared.seed,
        "p_adjusted": adjustment(["layer"]),
        "models": {
            name: {k: v for k, v in reps.attrs.items() if k not in ("model", "torch", "transformers")}
            for name, reps in representations.items()
        },
        "probes": {
            name: probe.for_tables() | {k: results[name].attrs[k] for k in more if k in results[name].attrs}
            for name, probe in declared.items()
        },
        "corpus": {
            "languages": {language: {"texts": count, "example": text} for language, count, text in sizes},
            "cautions": said,
        },
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages},
    }


def states_of(provenance: Mapping[str, Any], store: Address) -> dict[str, xr.Dataset]:
    """Return the Representations that a table was made of, from the folder that they were kept in.

    Args:
        provenance: of the table.
        store: the folder, or its URL.

    Raises:
        InputError: those of a model are not there, or are of other weights, texts or settings.
    """
    out = {}
    for name, about in provenance["models"].items():
        path = within(store, f"{file_name(f'{name} (1)' if 'replicates' in about else name)}.zarr")
        reps = open_representations(path).assign_attrs(model=name)
        if reps.attrs.get("fingerprint") != about.get("fingerprint"):
            other = [k for k in ("weights", "corpus", "tokenizer") if reps.attrs.get(k) != about.get(k)]
            raise InputError(
                f"{path}: these are not the states that the table is of: other {' and '.join(other) or 'settings'}. "
                "Give the folder that was store= then, or compare again"
            )
        out[name] = reps.assign_attrs({k: about[k] for k in ("replicates", "states_of") if k in about})
    return out
