"""Facts of a graph as probes of a comparison, which has to be told of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import xarray as xr

from probes.measures import catalogue
from probes.measures.attribution.facts import FACTS, FACTS_OVER_NONE, measured_facts, some_of
from probes.measures.probe import Run
from probes.results.result import stack_measures
from probes.states.graphs import Graph, check_graph


def declare_facts(
    graph: Graph, *, layers: Sequence[int] | None = None, languages: Sequence[str] | None = None
) -> list[str]:
    """Make probes of `compare` of what can be read of a graph of facts, and return their names.

    A comparison then has "facts", nats a word that a read-out of words and relations saves, and
    "facts_over_none", what states add to that, of the sentences of the graph, whatever its corpus.

    Args:
        graph: of `load_graph`.
        layers: by default all.
        languages: of the sentences of the graph; by default all.

    Returns:
        The names of the probes. Those of an earlier graph are no longer there.

    Raises:
        InputError: the graph does not fit together, or has no sentence in a language.

    Notes:
        `n` is the number of sentences of the graph, which are drawn by subject; models that predict
        masked tokens cannot be measured.

    See also:
        `facts`, `compare`, `probe`.

    Example:
        >>> import probes
        >>> names = declare_facts(probes.load_graph("bundled"), layers=[3, 6], languages=["en"])
        >>> names  # probes.compare(models, corpus, probes=[*names, "next_token"])
        ['facts', 'facts_over_none']
    """
    check_graph(some_of(graph, languages))

    def measure(run: Run) -> xr.Dataset:
        assert run.models is not None  # it needs models to run
        _, model, tokenizer = run.models
        how: dict[str, Any] = {k: v for k, v in run.settings.items() if k != "prompt"}
        how |= {"layers": layers, "languages": languages, "draws": run.draws, "seed": run.seed}
        how |= {"name": str(run.reps.attrs.get("model", "?")), "progress": run.progress}
        # Draws are of subjects of the graph, with or without groups of the corpus.
        found = run.once("facts", lambda: measured_facts(model, tokenizer, graph, **how))
        return stack_measures([found[0][list(found[1].data_vars)], found[1]])

    for one in (FACTS, FACTS_OVER_NONE):
        catalogue.OWN[one.name] = replace(one, measure=measure)
    return [FACTS.name, FACTS_OVER_NONE.name]
