"""Study: what the papers behind the training methods claim, at the scale of the bundled models, three seeds each.

    make study-training

About half an hour of two cores. Runs are kept in runs/study-training/; an interrupted study goes on from there. Writes
training.csv (a row a run) and training.md (what came out) beside this file, and a table of the page of the reference on
healing. Of the runs that are there so far, without making any:

    python notebooks/studies/training.py --so-far

One part alone is made by its name, as in `python notebooks/studies/training.py --only healing`, and written beside
what is there of the others.
"""

from __future__ import annotations

import sys
from typing import Any

import common
import numpy as np
import pandas as pd
import training_runs as of
from common import SEEDS
from training_runs import CODES, DIFFUSION, GRADIENT, HEALING, REWARD, SENTENCES, TOKENS, WORDS

from probes.files import write_whole
from probes.models.fingerprint import weights_fingerprint

FOLDER = common.ROOT / "runs" / "study-training"
HEALING_PAGE = common.ROOT / "notebooks" / "reference" / "compress" / "objectives" / "replaced_tokens.md"
METHODS: dict[str, list[str]] = {
    HEALING: list(of.HEALED),
    CODES: list(of.CODED),
    TOKENS: list(of.OF_TOKENS),
    SENTENCES: list(of.OF_SENTENCES),
    WORDS: list(of.NEAR),
    DIFFUSION: ["deterministic", "stochastic"],
    GRADIENT: [f"k = {k}" for k in of.DRAWS],
    REWARD: ["likeness", "BLEU"],
}
COLUMNS: dict[str, list[str]] = {
    HEALING: ["retrieval", "alignment gap", "separability", "accuracy"],
    CODES: ["bytes", "nats"],
    TOKENS: ["nats", "spread"],
    SENTENCES: ["words", "order"],
    WORDS: ["nats"],
    DIFFUSION: [],
    GRADIENT: ["cosine"],
    REWARD: [],
}
SAMPLED = [(name, w) for w in (0, 1) for name in ("teacher 64", "teacher 4", "student 4")]
VERDICTS = {"confirmed": "holds", "contradicted": "does not hold", "not confirmed": "cannot tell"}


def settings() -> list[dict[str, Any]]:
    """All runs. What draws nothing has a single one: nothing but the pruning of the model, here."""
    every = [{"part": part, "method": method, "seed": seed} for part, methods in METHODS.items()
             for method in methods for seed in SEEDS]  # fmt: skip
    return [s for s in every if s["method"] != "none" or s["part"] != HEALING or s["seed"] == SEEDS[0]]


def claims(table: pd.DataFrame) -> pd.DataFrame:
    """Hold each claim against the mean over seeds of the difference, oriented as claimed, and its interval."""
    rows: list[dict[str, str]] = []

    def values(part: str, method: str, column: str) -> pd.Series:
        there = (table["part"] == part) & (table["method"] == method)
        if column not in table or not there.any():
            return pd.Series(dtype=float)
        return table[there].set_index("seed")[column].dropna()

    def claim(text: str, source: str, part: str, one: tuple[str, str], other: tuple[str, str], more: bool = False,
              share: float = 1.0, slack: float = 0.0, digits: int = 2) -> None:  # fmt: skip
        """Of `one`, a method and a column: less than of `other`, give or take `slack`, or `more` than a share of it."""
        a, b = (values(part, *side) for side in (one, other))
        constant = part == HEALING and "none" in (one[0], other[0])
        if constant and len(b) == 1:
            b = pd.Series(float(b.iloc[0]), index=a.index)
        gains = ((a - share * b) if more else (b - a + slack)).dropna()
        row = {"claim": f"{text} ({source})"}
        command = f'`make study-training ONLY="{part}"`'
        if gains.empty:
            rows.append(row | {"measured": "", "gain": "", "verdict": "not run", "command": command})
            return
        a, b = a[gains.index], b[gains.index]
        mean, low, high = common.interval(gains)
        shown = f"{a.mean():.{digits}f} ({a.min():.{digits}f} to {a.max():.{digits}f}) against "
        shown += f"{b.mean():.{digits}f} ({b.min():.{digits}f} to {b.max():.{digits}f})"
        gain = f"{mean:+.{digits}f}"
        found = "too few seeds"
        if len(gains) == len(SEEDS):
            gain += f" ({low:+.{digits}f} to {high:+.{digits}f})"
            found = VERDICTS[common.verdict(low, high)]
        rows.append(row | {"measured": f"{_said(*one)}: {shown}", "gain": gain, "verdict": found, "command": command})

    codes, nce, bi = "arXiv 1901.07002", "Gutmann and Hyvarinen 2010", "arXiv 1602.06064"
    for one, other in (("embedding, bits", "frequency, bits"), ("frequency, bits", "random, bits"),
                       ("embedding, bits", "random, bits"), ("embedding, loss", "random, loss")):  # fmt: skip
        by = "the bits" if one.endswith("bits") else "the renormalised loss"
        text = f"Codewords by {one.split(',')[0]} lose less than by {other.split(',')[0]}, trained by {by}"
        claim(text, codes, CODES, (one, "nats"), (other, "nats"))
    names = {12: "12 bits, embedding, bits", of.BITS: "embedding, bits", 100: "100 bits, embedding, bits"}
    for more, less in ((of.BITS, 12), (100, of.BITS)):
        claim(f"{more} bits lose less than {less}, trained by the bits", codes, CODES, (names[more], "nats"),
              (names[less], "nats"))  # fmt: skip
    for mixture in ("curriculum", "differentiable"):
        claim(f"Latent mixture sampling, {mixture}, loses less than none", codes, CODES,
              (f"embedding, bits, {mixture}", "nats"), ("embedding, bits", "nats"))  # fmt: skip
    for by in ("bits", "loss"):
        said = {"bits": "the bits", "loss": "the renormalised loss"}[by]
        claim(f"Codewords, trained by {said}, lose less than an SVD of equal bytes", "expected of it", CODES,
              (f"embedding, {by}", "nats"), ("SVD, loss", "nats"))  # fmt: skip
    claim("With k = 1,000 the gradient is nearer to maximum likelihood than with k = 10", nce, GRADIENT,
          ("k = 1000", "cosine"), ("k = 10", "cosine"), more=True)  # fmt: skip
    claim("Against noise log Z spreads less than by a softmax", "arXiv 1206.6426", TOKENS, ("noise", "spread"),
          ("softmax", "spread"))  # fmt: skip
    claim("Against noise the model loses at most 0.05 nats more than by a softmax", "arXiv 1206.6426", TOKENS,
          ("noise", "nats"), ("softmax", "nats"), slack=0.05)  # fmt: skip
    both, after = "both, sentences of noise", "both, one after the other"
    pseudo, left = "both, pseudo-likelihood", "one direction, likelihood"
    for column in ("words", "order"):
        among = f"among corrupted {column}" if column == "words" else "among other orders"
        claim(f"Of both sides, sentences of noise find more than the pseudo-likelihood, {among}", bi, SENTENCES,
              (both, column), (pseudo, column), more=True)  # fmt: skip
        claim(f"So does the pseudo-likelihood with sentences of noise after it, {among}", bi, SENTENCES,
              (after, column), (pseudo, column), more=True)  # fmt: skip
        claim(f"One direction finds more than both sides against noise, {among}", bi, SENTENCES, (left, column),
              (both, column), more=True)  # fmt: skip
    better = {"retrieval": "translations are found more often", "separability": "topics lie further apart",
              "accuracy": "the old head is right more often"}  # fmt: skip
    for column, what in better.items():
        claim(f"Healed by replaced tokens {what} than by masked ones", "arXiv 2003.10555, 2211.17135", HEALING,
              ("replaced", column), ("masked", column), more=True, digits=3)  # fmt: skip
        for name in ("masked", "replaced"):
            claim(f"Healed by {name} tokens {what} than not healed", "expected of it", HEALING, (name, column),
                  ("none", column), more=True, digits=3)  # fmt: skip
    near = "arXiv 1809.05916"
    for name in ("static 0.2", "exponential 0.2"):
        claim(f"Near words, {name}, lose less than none", near, WORDS, (name, "nats"), ("none", "nats"))
    for name in ("linear 0.8", "sigmoid 0.8"):
        claim(f"Near words, static 0.2, lose less than {name}", near, WORDS, ("static 0.2", "nats"), (name, "nats"))
    claim("Near words with own ones lose less than near ones alone", near, WORDS,
          ("static 0.2, own words 0.2", "nats"), ("static 0.2", "nats"))  # fmt: skip
    for column, what in (("trained", "on the prompts trained on, "), ("reward", "on other prompts, "),
                         ("word_movers", "word movers, other prompts, "),
                         ("sliding_windows", "sliding windows, other prompts, ")):  # fmt: skip
        claim(f"Rewarded by a sentence encoder, a decoder writes more like the reference: {what}than before",
              "arXiv 1909.03622", REWARD, ("likeness", column), ("likeness", f"{column} before"), more=True,
              digits=3)  # fmt: skip
    for column in ("reward", "word_movers", "sliding_windows"):
        claim(f"Rewarded by a sentence encoder, more like the reference on other prompts than rewarded by BLEU: "
              f"{'by the encoder' if column == 'reward' else column.replace('_', ' ')}", "arXiv 1909.03622", REWARD,
              ("likeness", column), ("BLEU", column), more=True, digits=3)  # fmt: skip
    for w in (0, 1):
        d, new, old = "arXiv 2210.03142", f"student 4, w={w}", f"teacher 64, w={w}"
        here = f"guidance {w}"
        det = "deterministic"
        claim(f"In 4 steps at least 0.9 of the accuracy in 64, {here}", d, DIFFUSION, (det, f"{new}: accuracy"),
              (det, f"{old}: accuracy"), more=True, share=0.9)  # fmt: skip
        claim(f"In 4 steps nearer to real digits (Fréchet) than the teacher in 4, {here}", d, DIFFUSION,
              (det, f"{new}: Fréchet"), (det, f"teacher 4, w={w}: Fréchet"))  # fmt: skip
        claim(f"In 4 steps as near to real digits (Fréchet, at most 1 more) as in 64, {here}", d, DIFFUSION,
              (det, f"{new}: Fréchet"), (det, f"{old}: Fréchet"), slack=1.0)  # fmt: skip
        claim(f"In 4 steps the stochastic sampler is nearer to real digits than the deterministic, {here}", d,
              DIFFUSION, ("stochastic", f"{new}: Fréchet"), (det, f"{new}: Fréchet"))  # fmt: skip
        claim(f"4 steps take less than a tenth of the time of 64, {here}", d, DIFFUSION, (det, f"{old}: seconds"),
              (det, f"{new}: seconds"), more=True, share=10.0)  # fmt: skip
    return pd.DataFrame(rows)


def _said(method: str, column: str) -> str:
    """What was measured, in words."""
    return {"nats": "nats a token", "spread": "spread of log Z", "words": "share found", "order": "share found"}.get(
        column, column.split(": ")[-1].replace("trained", "reward").replace("_", " ")
    )


def spread(values: pd.Series, digits: int) -> str:
    """Mean, least and largest of a number over seeds."""
    if values.nunique() < 2:
        return f"{values.mean():,.{digits}f}" if len(values) else ""
    return f"{values.mean():.{digits}f} ({values.min():.{digits}f} to {values.max():.{digits}f})"


def means(table: pd.DataFrame, part: str) -> str:
    """The means of a part over seeds, with the ends, a row a method, as Markdown."""
    rows = []
    for method in METHODS[part]:
        runs = table[(table["part"] == part) & (table["method"] == method)]
        if len(runs):
            cells = {c: spread(runs[c], 0 if c == "bytes" else 3) for c in COLUMNS[part]}
            rows.append({"": method, "seeds": str(len(runs))} | cells)
    return common.markdown(pd.DataFrame(rows)) if rows else "Not run.\n"


def rewarded(table: pd.DataFrame) -> str:
    """What a reward brought, before and after, as Markdown."""
    runs = table[table["part"] == REWARD]
    if runs.empty:
        return "Not run.\n"
    rows, columns = [], ("trained", "reward", "word_movers", "sliding_windows", "length")
    for name, method, end in (
        ("before", "likeness", " before"),
        ("by likeness", "likeness", ""),
        ("by BLEU", "BLEU", ""),
    ):
        one = runs[runs["method"] == method]
        row = {"": name, "seeds": str(len(one))} | {c: spread(one[c + end], 3) for c in columns}
        row["trained"] = row["trained"] if method == "likeness" else ""  # there it is another number
        rows.append(row)
    return common.markdown(pd.DataFrame(rows).rename(columns={"trained": "reward, trained on"}))


def sampled(table: pd.DataFrame) -> str:
    """What samples of the digits are worth, a row a model and weight of guidance, as Markdown."""
    rows = []
    for method in METHODS[DIFFUSION]:
        runs = table[(table["part"] == DIFFUSION) & (table["method"] == method)]
        for name, w in SAMPLED if len(runs) else []:
            row = {"sampler": method, "": f"{name} steps", "guidance": str(w), "seeds": str(len(runs))}
            row |= {c: spread(runs[f"{name}, w={w}: {c}"], 2) for c in ("accuracy", "Fréchet", "seconds")}
            rows.append(row)
    return common.markdown(pd.DataFrame(rows)) if rows else "Not run.\n"


def main() -> int:
    """Make the runs, or take those that are there, and write what came out."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    given = sys.argv[1:]
    if "--only" in given:
        only = given[given.index("--only") + 1]
        if only not in METHODS:
            raise SystemExit(f"--only: no part is {only!r}; there are {', '.join(METHODS)}")
        common.runs(of.one_run, [s for s in settings() if s["part"] == only], FOLDER, only)
        given = ["--so-far"]
    there = [s for s in settings() if "--so-far" not in given or common.file_of(FOLDER, s).exists()]
    table = common.runs(of.one_run, there, FOLDER, "training methods")
    table.to_csv(common.HERE / "training.csv", index=False, float_format="%.5f")
    found = claims(table)
    model, _ = of.decoder()
    at = dict(zip(of.STEPS, (f"{of.STEPS[p]} updates of {of.BATCH[p]}" for p in of.STEPS), strict=True))
    healed = means(table, HEALING)
    text = TEXT.format(
        claims=common.markdown(found), said=SAID, runs=len(there), every=len(settings()),
        minutes=table["cpu seconds"].sum() / 60, seeds=len(SEEDS), bits=of.BITS, rank=of.RANK,
        codes=means(table, CODES), codes_at=at[CODES], gradient=means(table, GRADIENT), tokens=means(table, TOKENS),
        tokens_at=at[TOKENS], sentences=means(table, SENTENCES), sentences_at=at[SENTENCES], healing=healed,
        healing_at=at[HEALING], pruned=of.PRUNED, words=means(table, WORDS), words_at=at[WORDS], few=of.TEXTS[WORDS],
        reward=rewarded(table), reward_at=at[REWARD], prompts=of.PROMPTS, written=of.WRITTEN, diffusion=sampled(table),
        **of.UPDATES,
        provenance=common.provenance(
            model=f"bundled-decoder, weights {weights_fingerprint(model)}; healing: bundled, weights "
            f"{weights_fingerprint(common.bundled()[0])}",
            corpus="bundled: its train split to train on, its dev split to measure; diffusion: the 8x8 digits of "
            "scikit-learn",
            training=f"{common.seeds()}; what is drawn, and the models that begin at random, differ by seed",
        ),
    )  # fmt: skip
    page = HEALING_PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- table -->\n", "<!-- end -->"
    before, rest = page.split(begin)
    write_whole(HEALING_PAGE, before + begin + healed + end + rest.split(end)[1])
    print(f"{len(there)} of {len(settings())} runs; smallest share of seeds: {np.min(table.groupby('part').size())}")
    return common.written("training", text, found)


# What the runs of the page show: to be written again with them.
SAID = """\
**Output codes** bear the paper out in their order: codewords by embedding lose least, then by frequency, then at
random, and with 32 bits all lose less than an SVD of the same bytes. Trained by the bits more of them help up to 32
and harm at 100, since each bit adds to what is minimised and 60 updates are few; by the loss renormalised over words
the same codewords lose 1.4 nats less. Latent mixture sampling moves nothing that three seeds could tell.

**Noise contrast** does what its theory says: the gradient tends to that of maximum likelihood with k, and log Z spreads
a quarter as far as by a softmax; whether that costs 0.05 nats cannot be told. Sentences of noise do not show what their
paper claims: after 200 updates from scratch a model of both sides is at chance, where the pseudo-likelihood finds 0.89
of the changed words, and going on from there with noise unlearns half of it.

**Healing** by forty updates on text without labels does not heal the pruned encoder: by either objective the head that
it had fits the states less well than before, topics lie closer together, the alignment gap halves, and translations,
which the pruned model finds often, are found no more often, with replaced tokens a little less often. Replaced tokens
are not shown to be better than masked ones, or worse. To get a head back that fits, train it again, or give
`SoftLabels` beside the objective.

**Near words** cost a small model from scratch 0.2 to 0.3 nats at a share of 0.2, where the paper gains; larger shares
cost more, and own words beside them do not help.

**Rewards** rise on the prompts trained on, and on others by nothing that three seeds could tell; texts become shorter.
That it is better to be rewarded by an encoder than by BLEU, as the paper claims, three seeds cannot tell either.

**Guided diffusion** holds what its paper claims: four steps keep the accuracy of 64 at a sixteenth of the time or less,
and are nearer to real digits than the teacher's own four. With guidance all samplers draw typical digits, 13 to 35
times as far from the real ones by Fréchet as without; there the stochastic sampler is the nearest."""

TEXT = """# Training methods: what their papers claim

Six methods that train what is compressed, or train to compress, each held against what its paper claims of it, on the
bundled models and with {seeds} seeds: output codes, noise contrast, replaced tokens, near words, rewards, and guided
diffusion in few steps. Trainings are short, rates are one for all that are compared and not the papers', and models and
texts are small: a claim that does not hold here may hold where the paper tried it.

{said}

## Claims

Measured are the means of what is named first and second in the claim, with the ends over seeds. The gain is the mean
over seeds of their difference, oriented so that a positive one is what is claimed (of a claim with a margin or a share,
what is left beyond it), with its 95 % interval (Student's t over {seeds} seeds, which is wide). A claim *holds* where
the interval is above zero, and *does not hold* where it is below; in between one *cannot tell*. Of one or two seeds
there is no verdict. The interval tells how training varies from seed to seed, not how another model, corpus or rate
would; with this many claims one or two are to be expected on the wrong side by chance. {runs} of {every} runs are in
it, {minutes:.0f} minutes of the processor.

{claims}
Not run: output codes beside hierarchical and adaptive softmax, which are not here, and beside scheduled sampling (arXiv
1901.07002); summaries of long documents by an encoder that was pretrained by replaced tokens from nothing (arXiv
2211.17135); image captions (arXiv 1909.03622); of images anything but digits (arXiv 2210.03142).

## Output codes

The output layer of the bundled decoder as {bits} bits a word, or as given, against an SVD of rank {rank}; {codes_at}
texts in all languages, nats a token on 30 sentences of dev in each language. "Bits" and "loss" are what was trained
by: the bits alone, or the loss renormalised over words. More in the
[reference](../reference/compress/quantization/code_outputs.md).

{codes}
## Noise contrast

The cosine of the gradient of the decoder's weights on 64 sentences with that of the cross-entropy; unigram noise,
normalised logits. More in the [reference](../reference/compress/objectives/noise.md).

{gradient}
The decoder trained further on English, {tokens_at}; noise has k = 25. `spread` is that of log Z over tokens.

{tokens}
Recurrent models of 64 features, from scratch, {sentences_at}: the share of 120 English sentences found among nine with
other words, or with words in another order; chance is 0.1. See also
[which sentences models find](../reference/compress/objectives/rescoring.md).

{sentences}
## Replaced tokens

The bundled encoder, {pruned:.0%} of its weights set to zero, trained on text of all languages without labels,
{healing_at}, zeros kept. Its last states on 60 sentences of dev in all languages; `accuracy` is by the head that it
had, which is not trained. More in the [reference](../reference/compress/objectives/replaced_tokens.md).

{healing}
## Near words

A recurrent model of 64 features, from scratch, on {few} English sentences, {words_at}, near by the embeddings of the
bundled decoder: nats a token on English dev. For code-switching see the
[reference](../reference/compress/training/replaced_words.md).

{words}
## Rewards

The bundled decoder in three of its layers, distilled in 60 updates, then {reward_at}, rewarded for being like what the
whole one writes after {prompts} prompts of four words, as the bundled encoder finds it or by BLEU of tokens (up to
four, one added to counts beyond single ones); the others are of {written} prompts of dev, `reward` by the encoder. More
in the [reference](../reference/compress/objectives/reward.md).

{reward}
## Guided diffusion

The denoiser of [tutorial 12](../12_a_distilled_diffusion_model.ipynb): {teacher:,} updates, {guidance:,} for guidance
in one pass and {halving} for each of four halvings. Of 1,000 samples: the accuracy of a small classifier, the Fréchet
distance to the real digits of what it computes before its answer, and seconds of the processor.

{diffusion}
All runs are in `training.csv`.

## Where the numbers come from

{provenance}"""


if __name__ == "__main__":
    sys.exit(main())
