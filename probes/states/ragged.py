"""The states of tokens or words in Representations: how they lie, how they are read in pieces, and
each of them as an example of its own.

`tokens (layer, token, feature)` holds those of all texts end to end; those of an example are
`token_count` many from `token_start` on, so that Representations of some examples read right too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from probes.errors import InputError
from probes.states.representations import LEFT_OUT, as_strings, check_representations
from probes.states.units import Units

PIECE = 2**15  # tokens that are read at once, of whole texts


def with_units(dataset: xr.Dataset, units: Units) -> xr.Dataset:
    """Return a data set that says where the tokens of each example lie, and which they are."""
    return dataset.assign_coords(token_text=("vocabulary", as_strings(units.names))).assign(
        token_start=("example", units.bounds[:-1]),
        token_count=("example", units.counts),
        token_place=("token", units.place),
        token_code=("token", units.code),
    )


def check_tokens(reps: xr.Dataset, who: str) -> xr.Dataset:
    """Raise `InputError` where Representations have no states of tokens.

    Args:
        reps: Representations.
        who: asks, as messages begin.
    """
    if "tokens" not in check_representations(reps):
        raise InputError(
            f"{who}: model {reps.attrs.get('model', '?')} has no states of tokens. Capture them: "
            "probes.capture(..., tokens=True), or words=True"
        )
    return reps


def tokens_at(reps: xr.Dataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which tokens are those of some examples (token,), and how many each has (row,).

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"]).select(range(4))
        >>> reps = probes.capture(model, tokenizer, corpus, words=True, progress=False)
        >>> at, counts = tokens_at(reps, np.array([1]))
        >>> reps.token_text.values[reps.token_code.values[at]].tolist()[:4], corpus["text"][1][:18]
        (['If', 'everything', 'goes', 'well'], 'If everything goes')
    """
    starts, counts = (reps[name].values[rows] for name in ("token_start", "token_count"))
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(starts, counts) + within, counts


def states_of_tokens(reps: xr.Dataset, layer: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the states of the tokens of some examples at one layer (by position), end to end in
    float64, (token, feature), and how many each has, (row,).
    """
    at, counts = tokens_at(reps, rows)
    variable = reps["tokens"].variable
    if len(at) and len(at) == at[-1] - at[0] + 1 and (np.diff(at) == 1).all():
        x = variable.isel(layer=layer, token=slice(int(at[0]), int(at[-1]) + 1)).values.astype(np.float64)
    else:
        x = variable.isel(layer=layer, token=at).values.astype(np.float64)
    if LEFT_OUT in reps.coords:
        x[:, reps[LEFT_OUT].values[layer]] = 0.0
    return x, counts


def in_pieces(reps: xr.Dataset, rows: np.ndarray, most: int = PIECE) -> Iterator[np.ndarray]:
    """Yield some of the examples at a time, with at most so many tokens, or one text."""
    ends = np.cumsum(reps["token_count"].values[rows])
    start = 0
    while start < len(rows):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield rows[start:stop]
        start = stop


def broken_tokens(reps: xr.Dataset, layer: int, rows: np.ndarray) -> int:
    """Return how many tokens of some examples are not finite at a layer (by position)."""
    pieces = (states_of_tokens(reps, layer, part)[0] for part in in_pieces(reps, rows))
    return sum(int((~np.isfinite(x).all(axis=1)).sum()) for x in pieces)


def each_token(reps: xr.Dataset) -> xr.Dataset:
    """Return Representations in which each token, or word, is an example: every probe takes them.

    Where the corpus has `tags`, one of each word, they are the labels: class probes and the linear
    probe then are of words. All words of a sentence, and of its translations, are of one group, so
    that folds and draws keep them together.

    Args:
        reps: as `capture` gives them with `words=True`, or, without tags, `tokens=True`.

    Returns:
        `hidden (layer, example, feature)`, an example a token, read when it is needed; `id` names
        sentence, language and place (no two languages share one), `text` is the token, `group` the
        group of the sentence, or its id.

    Raises:
        InputError: there are no states of tokens; tags are there, and states are of tokens; there
            are not as many tags as words.

    See also:
        `capture`, `linear_probe`, `snr`.

    Example:
        >>> import datasets, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> texts = {"text": ["A red dog", "The cat sat"], "tags": ["DET ADJ NOUN", "DET NOUN VERB"]}
        >>> corpus = datasets.Dataset.from_dict({"id": ["a", "b"], "language": ["en", "en"]} | texts)
        >>> words = each_token(probes.capture(model, tokenizer, corpus, words=True, progress=False))
        >>> words.id.values[4], words.text.values[4], words.label.values[4], words.group.values[4]
        ('b:en:1', 'cat', 'NOUN', 'b')
    """
    check_tokens(reps, "each_token")
    tagged = "tags" in reps.coords
    if tagged and reps.attrs.get("tokens") != "words":
        raise InputError(
            f"each_token: tags are of words, and model {reps.attrs.get('model', '?')} was captured with tokens. "
            "Capture it with words=True"
        )
    rows = np.arange(reps.sizes["example"])
    at, counts = tokens_at(reps, rows)
    of = np.repeat(rows, counts)
    place = reps["token_place"].values[at]
    ids, languages = reps["id"].values, reps["language"].values
    coordinates = {
        "id": [f"{ids[row]}:{languages[row]}:{number}" for row, number in zip(of, place, strict=True)],
        "language": languages[of],
        "text": reps["token_text"].values[reps["token_code"].values[at]],
        "group": (reps["group"] if "group" in reps.coords else reps["id"]).values[of],
    }
    if "split" in reps.coords:
        coordinates["split"] = reps["split"].values[of]
    if tagged:
        tags, texts = [cell.split() for cell in reps["tags"].values], reps["text"].values
        for row in rows:
            if len(texts[row].split()) != len(tags[row]):
                raise InputError(
                    f"each_token: row {row} (id {ids[row]!r}, language {languages[row]!r}): expected as many tags as "
                    f"words, found {len(tags[row])} tags of {len(texts[row].split())} words"
                )
        coordinates["label"] = [tags[row][number] for row, number in zip(of, place, strict=True)]
    hidden = reps["tokens"].variable
    whole = len(at) == hidden.shape[1] and (np.diff(at) == 1).all()
    hidden = hidden if whole else hidden.isel(token=at)
    out = xr.Dataset(
        {"hidden": xr.Variable(("layer", "example", "feature"), hidden._data, hidden.attrs)},
        coords={"layer": reps["layer"].values} | {k: ("example", as_strings(list(v))) for k, v in coordinates.items()},
        attrs={k: v for k, v in reps.attrs.items() if k != "fingerprint"},
    )
    return out.assign_coords({LEFT_OUT: reps[LEFT_OUT]}) if LEFT_OUT in reps.coords else out
