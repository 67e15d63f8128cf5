"""Sentences token by token, as a page shows them: spans of a text, how much each moved, what both models hold."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

_FULL, _SURPRISED = 2.0, 10.0  # nats of KL, and of surprise, whose colour is full


def parts_of(sentence: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the text of a sentence in parts that follow each other, coloured by what is said of their tokens.

    Tokens that share letters, as the bytes of one do, or that begin with a mark on the letter before,
    are one part, which takes the largest KL and surprise of them, and the layers of the one that moved
    most. What no token stands for, as spaces, is a part without colour.

    Returns:
        Parts with `text`, `shade`, by the KL, and `surprise`, by minus the log of the probability in
        the smaller model (0 to 1), `worst`, whether the token that moved most is in it, `about`, both
        models' likeliest tokens in words, and `layers`, as `layers_of` gives them.

    Example:
        >>> top = [[("cat", 0.5)], [("dog", 0.9)]]
        >>> one = {"place": 1, "start": 2, "end": 5, "p": [0.5, 0.1], "kl": 1.0, "top": top}
        >>> [(p["text"], p["shade"]) for p in parts_of({"text": "a cat", "tokens": [one], "worst": 1})]
        [('a ', 0.0), ('cat', 0.5)]
    """
    text, end = str(sentence["text"]), 0
    parts: list[dict[str, Any]] = []
    for token in sorted((t for t in sentence["tokens"] if t["end"] > t["start"]), key=lambda t: (t["start"], t["end"])):
        # Letters of the part before, or marks on one, which stand alone in no script.
        if parts and (token["start"] < end or unicodedata.category(text[token["start"]])[0] == "M"):
            part = parts[-1]
        else:
            if token["start"] > end:
                parts.append(_plain(text[end : token["start"]]))
            parts.append(part := _plain("") | {"start": token["start"]})
        end = max(end, token["end"])
        shade = min((token["kl"] or 0.0) / _FULL, 1.0)
        if layers := layers_of(token):
            part["layers"] = layers if shade >= part["shade"] else part["layers"] or layers
        part["text"] = text[part["start"] : end]
        part["shade"] = max(part["shade"], shade)
        part["surprise"] = max(part["surprise"], _surprise(token["p"][-1]))
        part["worst"] |= token["place"] == sentence.get("worst")
        part["about"] += ("\n" if part["about"] else "") + _about(token)
    if end < len(text):
        parts.append(_plain(text[end:]))
    return parts


def _plain(text: str) -> dict[str, Any]:
    return {"text": text, "shade": 0.0, "surprise": 0.0, "worst": False, "about": "", "layers": []}


def _surprise(p: float | None) -> float:
    if p is None:
        return 0.0
    return min(-math.log(p) / _SURPRISED, 1.0) if p > 0 else 1.0


def sentences_of(provenance: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    """Return what a report shows of the tokens that moved most: model -> sentences with their parts.

    Args:
        provenance: of a comparison.
        names: of languages, by their codes.
    """
    out = {}
    for model, sentences in (provenance.get("tokens") or {}).items():
        shown = []
        for sentence in (one for one in sentences if "worst" in one):
            worst = next(t for t in sentence["tokens"] if t["place"] == sentence["worst"])
            language = names.get(sentence["language"], sentence["language"])
            about = {
                "language": language,
                "id": sentence["id"],
                "kl": f"{worst['kl']:.2f}",
                "text": _text(sentence, worst),
            }
            about |= dict(zip(("before", "after"), (f"{p:.0%}".replace("%", " %") for p in worst["p"]), strict=True))
            about |= dict(zip(("base_top", "top"), (_tops(top) for top in worst["top"]), strict=True))
            shown.append(about | {"parts": parts_of(sentence), "layers": layers_of(worst)})
        out[model] = shown
    return out


def layers_of(token: Mapping[str, Any]) -> list[list[str]]:
    """Return what each layer of both models would say in the place of a token: the layer, and for each model the
    likeliest token with the probability of the right one; the deeper model has more rows.

    Example:
        >>> layers_of({"layers": [[("cat", 0.5), ("dog", 0.25)], [("cow", 0.0)]]})
        [['0', "'cat' 0.50", "'cow' 0.00"], ['1', "'dog' 0.25", '']]
    """
    both = token.get("layers") or []
    cell = lambda said, k: f"{said[k][0]!r} {said[k][1]:.2f}" if k < len(said) else ""  # noqa: E731
    return [[str(k), *(cell(said, k) for said in both)] for k in range(max(map(len, both), default=0))]


def _text(sentence: Mapping[str, Any], token: Mapping[str, Any]) -> str:
    return sentence["text"][token["start"] : token["end"]] or "(end of the text)"


def _about(token: Mapping[str, Any]) -> str:
    """What both models hold of a token, in lines."""
    if token["kl"] is None:
        return "nothing predicts the first token"
    lines = [f"KL {token['kl']:.3f} nats; probability {token['p'][0]:.3f}, then {token['p'][1]:.3f}"]
    lines += [f"{who}: {_tops(top)}" for who, top in zip(("baseline", "model"), token["top"], strict=True)]
    return "\n".join(lines)


def _tops(top: Sequence[Sequence[Any]]) -> str:
    return ", ".join(f"{text!r} {share:.2f}" for text, share in top)
