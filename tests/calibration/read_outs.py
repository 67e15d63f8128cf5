"""How often do intervals of `facts` hold what the read-outs say of all other sentences?

    PYTHONPATH=tests python -m calibration.read_outs [samples]

Each sample is of some subjects of the bundled world, with read-outs of its own; its truth is what these say of the
sentences about all other subjects. Printed are the rows of the table on the reference page of `probes.facts`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any

import numpy as np

import probes
from probes.measures.attribution import facts
from probes.results.draws import sample, weighted_ratios
from probes.results.intervals import interval
from probes.states.before_words import states_before
from probes.states.graphs import words_of

LANGUAGE, LAYER = "en", 6


def counted(subjects: int, samples: int) -> dict[str, tuple[float, float]]:
    """Give, of `value` and `over_none`, the share of samples whose interval holds the truth, and its width over 3.92
    standard deviations of what values are off by.
    """
    whole = probes.load_graph("bundled")
    rows = np.flatnonzero(np.asarray(whole.sentences["language"], object) == LANGUAGE)
    whole = replace(whole, sentences=whole.sentences.select(rows))
    texts, subject = list(whole.sentences["text"]), np.asarray(whole.sentences["group"], object)
    where = [words_of(text) for text in texts]
    words, starts = np.array([len(w) for w in where], float), np.cumsum([0, *map(len, where)])
    model, tokenizer = probes.load_checkpoint("bundled-decoder")
    how: dict[str, Any] = {"layers": [LAYER], "name": "bundled-decoder", "who": "facts", "progress": False}
    states, _ = states_before(model, tokenizer, whole.sentences, where, **how)
    names = sorted(set(subject))
    # What is off is taken as far as it would be off of subjects without end.
    shrink = np.sqrt(1 / (1 + subjects / (len(names) - subjects)))
    off, ends = np.zeros((samples, 2)), np.zeros((samples, 2, 2))
    for number in range(samples):
        drawn_names = np.random.default_rng(number).permutation(names)[:subjects]
        fold = {name: k % 3 for k, name in enumerate(drawn_names)}
        of_row = np.array([fold.get(name, -1) for name in subject])
        own, others = np.flatnonzero(of_row >= 0), np.flatnonzero(of_row < 0)
        likely, truth = np.full((2, len(texts), 2), np.nan), np.zeros(2)
        for k in range(3):
            train, test = np.flatnonzero((of_row >= 0) & (of_row != k)), np.flatnonzero(of_row == k)
            parts = [train, np.concatenate([test, others])]
            given = [facts._sentences(whole, LANGUAGE, part, texts, where)[0] for part in parts]
            at = [np.concatenate([np.arange(starts[r], starts[r + 1]) for r in part]) for part in parts]
            found, _ = facts._of_fold(given, [states[:, a] for a in at], len(whole.relations))
            likely[:, test] = found[:, : len(test)]
            saved = (found[0] - found[1])[len(test) :].sum(axis=0) / words[others].sum() / 3
            truth += saved[0], saved[0] - saved[1]
        reps = probes.from_arrays(np.zeros((len(own), 1)), id=own, group=subject[own].astype(str))
        drawn = sample(reps, draws=200, seed=0)
        saved = weighted_ratios(drawn, (likely[0] - likely[1])[own], words[own])["und"]
        both = np.stack([saved[:, 0], saved[:, 0] - saved[:, 1]], axis=-1)
        off[number] = both[0] - truth
        ends[number] = np.stack(interval(both[0], both[1:])) - both[0]
    near = off.mean(axis=0) + shrink * (off - off.mean(axis=0))
    holds = ((near + ends[:, 0] <= 0) & (near + ends[:, 1] >= 0)).mean(axis=0)
    width = (ends[:, 1] - ends[:, 0]).mean(axis=0) / (3.92 * near.std(axis=0, ddof=1))
    return {name: (float(holds[k]), float(width[k])) for k, name in enumerate(("value", "over_none"))}


if __name__ == "__main__":
    os.nice(5)
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    for count in (40, 80):
        cells = [f"{x:.2f}" for pair in counted(count, many).values() for x in pair]
        print(f"| {count} | {many} | " + " | ".join(cells) + " |", flush=True)
