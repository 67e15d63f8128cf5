"""Which relations of a small graph of facts can be read from the layers of a decoder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.errors import InputError, LayerscopeWarning
from probes.measures.attribution.relations import (
    RANK,
    ReadOut,
    Sentences,
    Vocabulary,
    Ways,
    directions_of,
    forward,
    posteriors,
)
from probes.measures.probe import LARGE, Probe, Run
from probes.models.facts import name_of
from probes.results.draws import check_draws, sample, weighted_ratios
from probes.results.intervals import interval
from probes.results.result import result
from probes.states.before_words import states_before
from probes.states.graphs import Graph, check_graph, found_in, words_of
from probes.states.representations import as_strings, from_arrays

FEWEST = 30  # subjects, to learn from and test on
READ = 0.5  # the probability of a fact among those of its subject from which on it counts as read
_FOLDS = 3


def facts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    graph: Graph,
    *,
    layers: Sequence[int] | None = None,
    languages: Sequence[str] | None = None,
    draws: int = 200,
    seed: int = 0,
    name: str | None = None,
    progress: bool = True,
    **settings: Any,
) -> xr.Dataset:
    """Measure which relations of a small graph of facts can be read from each layer of a decoder.

    A read-out of frozen states says each next word, or that a relation of the sentence's subject is
    stated and the name of its object comes; all ways to split the sentence are summed. It knows the
    subject's facts, and has to tell from the state which of them is being stated. Higher is better
    read.

    Args:
        model: one that predicts the next token.
        tokenizer: of it, one that says where its tokens stand.
        graph: of `load_graph`.
        layers: by default all, 0 the embeddings.
        languages: of the sentences; by default all.
        draws, seed: of the bootstrap by subject; the seed is also of the folds.
        name: what the model is called; by default the name it was loaded by.
        progress: show a progress bar.
        settings: of `capture`: max_length, device, batch_size, batch_tokens.

    Returns:
        `value, low, high (layer, language)`: nats a word that the read-out saves against one of words
        alone, all languages together as `pooled`. Beside them:

        | | |
        |---|---|
        | `perplexity (reader, layer, language)` | of a word, "relations" and "words"; unknown words spelled |
        | `without_states (language)`, `_low`, `_high` | what a read-out that sees no state saves |
        | `over_none (layer, language)`, `_low`, `_high` | what states add to that |
        | `posterior (layer, statement)` | the share of each statement in all ways to split its sentence |
        | `chosen (layer, statement)` | what the state before it gives its fact, among those of the subject |

        Along `statement`, in each language in which the name of an object stands in a sentence about
        its subject: `subject, relation, object, id, of_language, text, start, end` (letters).

    Raises:
        InputError: before the model runs: it predicts no next token, the graph does not fit together
            or has no sentence in a language, fewer than 30 subjects.

    Notes:
        Latent relation language models: Hayashi et al. 2020, arXiv 1908.07690. Here states are
        frozen, of a fact only its relation is scored, and what is read are 16 directions of each
        layer, linearly. Three folds of subjects. Words that come once are unknown and spelled by
        pairs of letters; a name that a relation gives is not, which is most of what is saved:
        compare with `without_states`.

    See also:
        `load_graph`, `lost_facts`, `declare_facts` for a comparison, `lens`.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled-decoder")
        >>> whole = probes.load_graph("bundled")
        >>> some = Graph(whole.aliases, whole.facts, whole.sentences.select(range(400)))
        >>> found = facts(model, tokenizer, some, layers=[3], languages=["en"], progress=False)
        >>> bool(found.low.sel(language="en")[0] > 0)
        True
    """
    how: dict[str, Any] = {"layers": layers, "languages": languages, "draws": draws, "seed": seed, "progress": progress}
    return measured_facts(model, tokenizer, graph, name=name, **how, **settings)[0]


def measured_facts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    graph: Graph,
    *,
    layers: Sequence[int] | None,
    languages: Sequence[str] | None,
    draws: int,
    seed: int,
    name: str | None,
    progress: bool,
    **settings: Any,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Return what `facts` does, and what states add as a result of its own."""
    check_draws(draws, seed)
    graph = check_graph(some_of(graph, languages))
    corpus, who = graph.sentences, name or name_of(model)
    subjects = sorted(set(corpus["group"]))
    if len(subjects) < FEWEST:
        raise InputError(
            f"facts: expected sentences about at least {FEWEST} subjects, to learn from some and test on others; found "
            f"{len(subjects)} of {len(corpus)} sentences. Give more"
        )
    given = {column: corpus[column] for column in ("id", "language", "text", "group")}
    texts = from_arrays(np.zeros((len(corpus), 1)), **given, name=who)
    drawn = sample(texts, draws=draws, seed=seed)
    where = [words_of(text) for text in corpus["text"]]
    states, numbers = states_before(
        model, tokenizer, corpus, where, layers=layers, name=who, who="facts", progress=progress, **settings
    )
    read = _Read.all(graph, where, states, seed, progress)
    words = np.array([len(w) for w in where], float)
    saved = weighted_ratios(drawn, read.likely[0] - read.likely[1], words)
    nats = [weighted_ratios(drawn, -of, words) for of in read.likely]
    own = {language: of[:, :-1] for language, of in saved.items()}

    def missing(at: tuple[int, ...], language: str) -> str:
        return f"layer {numbers[at[0]]}: its states are not finite"

    at: dict[str, Any] = {"over": {"layer": np.array(numbers)}, "missing": missing}
    out = result(texts, drawn, own, FACTS.about(), **at)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerscopeWarning)  # missing where that is, which has said so
        added = {language: of[:, :-1] - of[:, -1:] for language, of in saved.items()}
        over = result(texts, drawn, added, FACTS_OVER_NONE.about(), **at)
    blind = np.stack([of[:, -1] for of in saved.values()], axis=-1)
    perplexity = np.exp(np.stack([np.stack([of[0, :-1] for of in one.values()], axis=-1) for one in nats]))
    about = read.statements
    out = (
        out.assign(
            perplexity=(("reader", "layer", "language"), perplexity),
            posterior=(("layer", "statement"), read.shares[0]),
            chosen=(("layer", "statement"), read.shares[1]),
            **_with_ends("without_states", ("language",), blind),
            over_none=over["value"],
            over_none_low=over["low"],
            over_none_high=over["high"],
        )
        .assign_coords(reader=as_strings(["relations", "words"]))
        .assign_coords({c: ("statement", as_strings(about[c])) for c in about if c not in ("start", "end")})
        .assign_coords({c: ("statement", about[c].to_numpy(np.int64)) for c in ("start", "end")})
    )
    return out, over


def lost_facts(base: xr.Dataset, other: xr.Dataset, *, layer: int | None = None) -> pd.DataFrame:
    """List the statements of facts that can be read from a model and not from a compressed one.

    Args:
        base, other: results of `facts` on the same graph, the original first.
        layer: by default the one from which most can be read in the original.

    Returns:
        A row a statement to whose fact the state gives at least 0.5 (`chosen`) in the original and
        less in the other, the largest fall first: `subject, relation, object, language, text, start,
        end, before, after`.

    Raises:
        InputError: the two are not of the same sentences and graph; one has no such layer.

    Notes:
        Of each model the read-out is fitted anew, so that what is listed could not be read even so.
        Near 0.5 chance decides: compare the number of rows with that of `lost_facts(other, base)`,
        what is read of the compressed model alone.

    See also:
        `facts`.

    Example:
        >>> named = ("subject", "relation", "object", "id", "of_language", "text")
        >>> about = {k: ("statement", [k]) for k in named} | {"start": ("statement", [0])}
        >>> base = xr.Dataset(
        ...     {"chosen": (("layer", "statement"), [[0.9]])},
        ...     coords=about | {"end": ("statement", [4]), "layer": [3]},
        ... )
        >>> lost_facts(base, base.assign(chosen=base.chosen / 3))[["before", "after"]].values.tolist()
        [[0.9, 0.3]]
    """
    columns = ["subject", "relation", "object", "id", "of_language", "start"]
    for one in (base, other):
        if "chosen" not in one:
            raise InputError("lost_facts: expected two results of probes.facts, the original's first")
    keys = [list(zip(*(one[c].values for c in columns), strict=True)) for one in (base, other)]
    if keys[0] != keys[1]:
        raise InputError(
            f"lost_facts: the two are of other statements ({len(keys[0])} and {len(keys[1])}): measure both models on "
            "one graph, in the same languages"
        )
    if layer is None:
        layer = int(base["layer"].values[int((base["chosen"] >= READ).sum("statement").argmax("layer"))])
    for one in (base, other):
        if layer not in one["layer"].values:
            there = ", ".join(map(str, one["layer"].values))
            raise InputError(f"lost_facts: layer {layer} was not measured of both models; one has {there}")
    before, after = (one["chosen"].sel(layer=layer).values for one in (base, other))
    frame = pd.DataFrame({c: base[c].values for c in (*columns[:3], "of_language", "text", "start", "end")})
    frame = frame.rename(columns={"of_language": "language"}).assign(before=before, after=after)
    frame = frame[(before >= READ) & (after < READ)]
    order = (frame["after"] - frame["before"]).sort_values(kind="stable").index
    return frame.loc[order].reset_index(drop=True)


def some_of(graph: Graph, languages: Sequence[str] | None) -> Graph:
    """Return a graph with the sentences of some languages; raise `InputError` where it has none."""
    if languages is None or not isinstance(graph, Graph):
        return graph
    there = graph.languages
    unknown = [language for language in languages if language not in there]
    if unknown or not languages:
        raise InputError(
            f"languages={list(languages)}: the graph has sentences in {', '.join(map(repr, there))}. Choose some "
            "of them"
        )
    keep = np.flatnonzero(np.isin(np.asarray(graph.sentences["language"], object), list(languages)))
    return Graph(graph.aliases, graph.facts, graph.sentences.select(keep))


def _with_ends(name: str, dims: tuple[str, ...], statistics: np.ndarray) -> dict[str, Any]:
    low, high = interval(statistics[0], statistics[1:])
    return {name: (dims, statistics[0]), f"{name}_low": (dims, low), f"{name}_high": (dims, high)}


@dataclass
class _Read:
    """What the read-outs say of held-out sentences."""

    likely: np.ndarray  # (reader, sentence, layer and none) log-likelihood
    shares: np.ndarray  # (posterior and probability of the fact, layer, statement)
    statements: pd.DataFrame

    @classmethod
    def all(
        cls, graph: Graph, where: list[list[tuple[int, int]]], states: np.ndarray, seed: int, progress: bool
    ) -> _Read:
        corpus = graph.sentences
        language, subject = (np.asarray(corpus[c], object) for c in ("language", "group"))
        texts = list(corpus["text"])
        starts = np.cumsum([0, *map(len, where)])
        names = sorted(set(subject))
        place = dict(zip(names, np.random.default_rng(seed).permutation(len(names)), strict=True))
        fold = np.array([place[s] % _FOLDS for s in subject])
        out = cls(np.full((2, len(texts), len(states) + 1), np.nan), np.zeros((2, len(states), 0)), pd.DataFrame())
        shares, tables = [], []
        bar = tqdm(total=len(graph.languages) * _FOLDS, desc="facts", unit="fit", disable=not progress)
        with bar:
            for one in graph.languages:
                for number in range(_FOLDS):
                    parts = [np.flatnonzero((language == one) & ((fold == number) == test)) for test in (False, True)]
                    given = [_sentences(graph, one, rows, texts, where) for rows in parts]
                    at = [np.concatenate([np.arange(starts[r], starts[r + 1]) for r in rows]) for rows in parts]
                    out.likely[:, parts[1]], share = _of_fold(
                        [x for x, _ in given], [states[:, k] for k in at], len(graph.relations)
                    )
                    shares.append(share)
                    tables.append(given[1][1])
                    bar.update()
        out.shares, out.statements = np.concatenate(shares, axis=2), pd.concat(tables, ignore_index=True)
        order = out.statements.sort_values(["of_language", "id", "start", "relation"], kind="stable").index
        out.shares, out.statements = out.shares[..., order], out.statements.loc[order].reset_index(drop=True)
        return out


def _sentences(
    graph: Graph, language: str, rows: np.ndarray, texts: list[str], where: list[list[tuple[int, int]]]
) -> tuple[Sentences, pd.DataFrame]:
    """Sentences as numbers, and what their spans state."""
    relations = {relation: k for k, relation in enumerate(graph.relations)}
    corpus = graph.sentences.select(rows)
    words = [[texts[r][a:b] for a, b in where[r]] for r in rows]
    spans: list[tuple[int, int, int, int, int]] = []
    facts_of, names_of, about = [], [], []
    for i, (row, topic, number) in enumerate(zip(rows, corpus["group"], corpus["id"], strict=True)):
        known = graph.about(topic)
        for k, (relation, there) in enumerate(known):
            aliases = [[name[a:b] for a, b in words_of(name)] for name in graph.aliases[there][language]]
            for j, name in enumerate(aliases):
                for start in found_in(words[i], name):
                    spans.append((i, start, start + len(name), k, j))
                    facts_of.append([relations[r] for r, _ in known])
                    names_of.append([len(a) for a in aliases])
                    ends = where[row][start][0], where[row][start + len(name) - 1][1]
                    about.append((topic, relation, there, number, language, texts[row], *ends))
    columns = ["subject", "relation", "object", "id", "of_language", "text", "start", "end"]
    numbers = np.array(spans, np.int64).reshape(-1, 5)
    starts = np.cumsum([0, *map(len, words)])[:-1]
    sentence, first, stop, fact, alias = numbers.T
    given = Sentences(words, starts, sentence, first, stop, fact, alias, _padded(facts_of, -1), _padded(names_of, 0))
    return given, pd.DataFrame(about, columns=columns)


def _padded(rows: list[list[int]], fill: int) -> np.ndarray:
    out = np.full((len(rows), max(map(len, rows), default=1)), fill, np.int64)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return out


def _of_fold(given: list[Sentences], states: list[np.ndarray], relations: int) -> tuple[np.ndarray, np.ndarray]:
    """Fit on the first sentences; log-likelihoods (reader, sentence, layer), and posteriors and
    probabilities of the fact (2, layer, span), of the second."""
    vocabulary = Vocabulary.of(given[0].words)
    known = [vocabulary.look_up([w for words in one.words for w in words]) for one in given]
    layers = len(states[0]) + 1  # the last reads nothing
    shape = {"vocabulary": len(vocabulary.numbers) + 1, "layers": layers}
    both = ReadOut(RANK, relations=relations, **shape)
    # Words alone may read more directions, until they have at least as many weights.
    more = next(r for r in range(RANK, 10**6) if (r + 1) * shape["vocabulary"] >= both.size)
    alone = ReadOut(more, relations=0, **shape)
    finite = [bool(np.isfinite(x).all()) for x in np.concatenate(states, axis=1)]
    z = [torch.zeros(layers, x.shape[1], more) for x in states]
    for k in (k for k, fine in enumerate(finite) if fine):
        mean, by = directions_of(states[0][k].astype(np.float64), more)
        for side, x in zip(z, states, strict=True):
            side[k] = torch.from_numpy((x[k] - mean) @ by).float()
    bad = np.flatnonzero(~np.array([*finite, True]))
    likely, share = [], np.zeros((2, layers, 0))
    for readout in (both, alone):
        inputs = [(a, torch.from_numpy(n), torch.from_numpy(c).float()) for a, (n, c) in zip(z, known, strict=True)]
        readout.fit(*inputs[0], given[0])
        with torch.no_grad():
            words, spans = readout.said(*inputs[1], given[1])
            ways = Ways.of(given[1]) if readout is both else Ways()
            likely.append(forward(words, spans, ways).T.numpy())
            if readout is both:
                share = np.stack([posteriors(words, spans, ways).numpy(), both.chosen(inputs[1][0], given[1]).exp()])
    found = np.stack(likely)
    found[..., bad], share[:, bad] = np.nan, np.nan
    return found, share[:, :-1]


def _undeclared(run: Run) -> xr.Dataset:
    raise InputError("facts has to know the graph: call probes.declare_facts(graph) first")


FACTS = Probe(
    name="facts",
    title="facts that are read",
    estimator="nats a word of held-out sentences that a read-out of words and relations saves against one of words "
    "alone with as many weights",
    range="-infinity to infinity; 0 where relations say nothing",
    better="higher",
    higher_is="better read",
    unchanged_by=("rotation", "shift", "common scale", "order"),
    paper="after Hayashi et al. 2020, arXiv 1908.07690",
    needs=("predicted tokens", "models to run"),
    interval=LARGE,
    measure=_undeclared,
)
FACTS_OVER_NONE = replace(
    FACTS,
    name="facts_over_none",
    title="facts that are read, by states alone",
    estimator="facts minus what the same read-out saves without states",
    range="-infinity to infinity; 0 where states say nothing",
)
