"""How often is a verdict wrong, and how often does it find what there is?

    PYTHONPATH=tests python -m calibration.verdicts [--runs 300] [--ids 500] [--seed 0]

Of made comparisons: 24 languages, a sentence as hard in one as in another with a correlation of 0.5, models that
exchange some answers and lose some. Printed is a table in Markdown. `most` is what no test of 5 % can do better: one of
the mean over all languages with its spread known, of one model and one side alone.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from judged import right_answers, table_of
from scipy.stats import norm

from probes.results.draws import POOLED
from probes.results.verdict import verdict

LANGUAGES, SHARE = 24, 0.8
# The models, each by its loss and the answers that it exchanges; and what is tolerated.
CASES = {
    "nothing changed, 4 models": ([(0.0, 0.02)] * 4, 0.01),
    "nothing changed nor tolerated, 4 models": ([(0.0, 0.02)] * 4, 0.0),
    "all lose twice 0.01, 2 % exchanged": ([(0.02, 0.02)], 0.01),
    "all lose twice 0.01, none exchanged": ([(0.02, 0.0)], 0.01),
    "all lose twice 0.03, 2 % exchanged": ([(0.06, 0.02)], 0.03),
    "all lose twice 0.05, 2 % exchanged": ([(0.10, 0.02)], 0.05),
    "one loses twice 0.05, 2 % exchanged": ([([0.10] + [0.0] * 23, 0.02)], 0.05),
    "all lose what is tolerated, 0.01, 2 % exchanged": ([(0.01, 0.02)] * 4, 0.01),
    "all lose 0.012 of 0.01, none exchanged": ([(0.012, 0.0)], 0.01),
    "one loses 0.012 of 0.01, none exchanged": ([([0.012] + [0.0] * 23, 0.0)], 0.01),
    "one loses 0.032 of 0.03, 1 % exchanged": ([([0.032] + [0.0] * 23, 0.01)], 0.03),
}


def counted(models: list, tolerance: float, ids: int, runs: int, seed: int) -> dict[str, float]:
    """Return the share of comparisons in which any model is lost, or any is kept, and what could be found at most."""
    states, gaps = [], []
    for number in range(runs):
        rng = np.random.default_rng([seed, number])
        found = verdict(
            table_of(right_answers(rng, ids, LANGUAGES, SHARE, models), rng), tolerance={"accuracy": tolerance}
        )
        states.append({found.state(f"m{i + 1}") for i in range(len(models))})
        pooled = found.languages[found.languages["language"] == POOLED]
        gaps.append(float(pooled["difference"].iloc[0]))
    lost, kept = (sum(name in one for one in states) / runs for name in ("lost", "kept"))
    room = -np.mean(gaps) - tolerance
    return {"lost": lost, "kept": kept, "most": float(norm.cdf(room / np.std(gaps) - norm.ppf(0.95)))}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300, help="comparisons of each kind (%(default)s)")
    parser.add_argument("--ids", type=int, nargs="+", default=[500], help="sentences (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    options = parser.parse_args()
    print("| ids | comparisons | said lost | said kept | most |\n|---|---|---|---|---|", flush=True)
    for ids in options.ids:
        for words, (models, tolerance) in CASES.items():
            found = counted(models, tolerance, ids, options.runs, options.seed)
            cells = pd.Series(found).map("{:.1%}".format)
            print(f"| {ids} | {words} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
