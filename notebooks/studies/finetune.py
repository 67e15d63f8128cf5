"""Study: what fine-tuning leaves of the languages, by published methods against plain fine-tuning, at equal steps.

    make study-finetune

A quarter of an hour on two cores, with the encoder that it begins from. Runs are kept in runs/study-finetune/; an
interrupted study goes on from there. Writes finetune.csv (a row a run), finetune.md (what came out) and finetune.png
beside this file. Of the runs that are there so far, without making any:

    python notebooks/studies/finetune.py --so-far
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import common
import datasets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from transformers import PreTrainedModel

import compress
import probes
from compress import (
    CandidateLabels,
    CrossEntropy,
    GradDrop,
    GradualUnfreezing,
    PairSupCon,
    Robust,
    TrainedLayers,
    recipes,
)
from compress.objectives.base import Pass, given_logits, given_module
from probes.errors import LayerscopeWarning

FOLDER = common.ROOT / "runs" / "study-finetune"
SEEDS = (0, 1, 2, 3, 4)
PRETRAINING = 300  # steps; the bundled encoder has 1,000
SENTENCES, BATCH = 360, 16  # English ones with labels, of the 1,200 of the train split
EPOCHS = 4  # in which gradual unfreezing comes to the head and three layers
STEPS = EPOCHS * SENTENCES // BATCH
TRIED = 100  # the seed by which rates are chosen, of all that is trained, and of a head on a frozen encoder
RATES = {"plain": (3e-4, 1e-3), "frozen encoder": (3e-3, 1e-2)}
TEST = 60  # sentences of the test split, in all languages
LANGUAGES, SEVERAL, BIASED, CANDIDATES = "languages", "several languages", "biased", "candidates"
PLAIN = "plain"

FEW = 12  # sentences with labels of each other language, where several have some
BIASED_STEPS, SHARE, MARK = 60, 0.95, "so , "
CLASSES = {"food": "a", "sport": "a", "music": "a", "weather": "b", "health": "b", "travel": "b"}
FALSE = ("1", "2", "3", "by text")  # candidates beside the right one
EARLY = 20  # steps of the model that says which texts are easily taken for which class

Tuned = Callable[..., PreTrainedModel]


def topics(language: str = "en") -> pd.DataFrame:
    """The train split of a language."""
    return common.corpus("train", language).to_pandas()


@cache
def english(seed: int) -> datasets.Dataset:
    """English sentences with their labels, as many of each topic."""
    rows = topics()
    chosen = rows.groupby("label").sample(SENTENCES // rows["label"].nunique(), random_state=seed)
    return datasets.Dataset.from_pandas(chosen.sort_index(), preserve_index=False)


@cache
def test() -> datasets.Dataset:
    """Sentences of the test split in all languages, as many of each topic."""
    rows = common.corpus("test", "en").to_pandas()
    ids = set(rows.groupby("label").head(TEST // 6)["id"])
    return common.corpus("test").filter(lambda row: row["id"] in ids)


def start() -> PreTrainedModel:
    """The encoder before any fine-tuning, with a head that has learned nothing."""
    return common.pretrained(FOLDER, PRETRAINING)


def encoder() -> PreTrainedModel:
    """The encoder without a head: each seed draws its own, with its pooler."""
    body = start().base_model
    body.pooler = None
    return body


def tune(how: Mapping[str, Any], model: PreTrainedModel | None = None, **more: Any) -> PreTrainedModel:
    """Fine-tune the encoder on English labels, by settings of all runs and those of a method."""
    rest = {name: value for name, value in how.items() if name != "head_learning_rate"}
    given = {"train": english(how["seed"]), "steps": STEPS, **rest, **more}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerscopeWarning)  # that a head is made
        return compress.finetune(encoder() if model is None else model, common.bundled()[1], **given)


def head_alone(how: Mapping[str, Any], model: PreTrainedModel | None = None, **more: Any) -> PreTrainedModel:
    """Train a head on a frozen encoder."""
    return tune(how, model, gradients=TrainedLayers(), learning_rate=how["head_learning_rate"], **more)


def views_first(how: Mapping[str, Any]) -> PreTrainedModel:
    """SupCL-Seq in half of the steps, the head in the others."""
    given = {"train": english(how["seed"]), **how}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerscopeWarning)
        return recipes.supcl_seq(encoder(), common.bundled()[1], steps=STEPS // 2, **given)


def pairs_first(how: Mapping[str, Any], of: Callable[[int], datasets.Dataset]) -> PreTrainedModel:
    """PairSupCon in half of the steps, the head in the others."""
    objective = PairSupCon(learning_rate=how["head_learning_rate"])
    contrasted = tune(how, train=of(how["seed"]), objective=objective, steps=STEPS // 2)
    return head_alone(how, contrasted, steps=STEPS // 2)


def translations(seed: int) -> datasets.Dataset:
    """The sentences trained on in all eight languages, without labels."""
    ids = set(english(seed)["id"])
    return common.corpus("train").filter(lambda row: row["id"] in ids).remove_columns("label")


def pairs_of_topics(seed: int) -> datasets.Dataset:
    """Each English sentence with one of its own topic, and with one of another."""
    rows, rng = english(seed).to_pandas(), np.random.default_rng(seed)
    out = []
    for label, same in (("entailment", True), ("contradiction", False)):
        others = [rng.choice(np.flatnonzero((rows["label"] == topic) == same)) for topic in rows["label"]]
        out.append(rows.assign(text_pair=rows["text"].to_numpy()[others], label=label, id=rows["id"] + label[0]))
    return datasets.Dataset.from_pandas(pd.concat(out), preserve_index=False)


def robust(method: str, **settings: Any) -> Robust:
    """Cross-entropy on the worst mixture."""
    return Robust(CrossEntropy(), method=method, **settings)


def _by(**more: Any) -> Tuned:
    return partial(tune, **more)


ROBUST: dict[str, Any] = {
    "CVaR": robust("cvar"),
    "KL": robust("kl"),
    "chi-square": robust("chi2"),
    "RP-DRO": robust("rp-dro"),
    "P-DRO": robust("p-dro", fitted=100),
}
METHODS: dict[str, Tuned] = {
    PLAIN: tune,
    "frozen encoder": head_alone,
    "gradual unfreezing": _by(gradients=GradualUnfreezing()),
    "GradDrop": _by(gradients=GradDrop(0.3)),
    "GradDrop by epoch": _by(gradients=GradDrop(0.3, per="epoch")),
    "GradDrop accumulating": _by(gradients=GradDrop(0.3, per="epoch", accumulating=True)),
    "GradDrop by layer": _by(gradients=GradDrop(0.3, per="layer")),
    "2 by variability": _by(layers="by variability", tuned=2),
    "top 2": _by(layers="top", tuned=2),
    "bottom 2": _by(layers="bottom", tuned=2),
    "SupCL-Seq, head": views_first,
    "PairSupCon of translations, head": partial(pairs_first, of=translations),
    "PairSupCon of topics, head": partial(pairs_first, of=pairs_of_topics),
    **{name: _by(objective=objective) for name, objective in ROBUST.items()},
    "plain, a third of the rate": lambda how: tune({**how, "learning_rate": how["learning_rate"] / 3}),
    "GradDrop 0.8": _by(gradients=GradDrop(0.8)),
    "GradDrop 0.8, strict": _by(gradients=GradDrop(0.8, strict=True)),
}
FAIR: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "equal shares": {"balanced": "language"},
    "Group-DRO": {"objective": robust("group-dro", groups="language")},
    "Group-DRO, equal shares": {"objective": robust("group-dro", groups="language"), "balanced": "language"},
    "CVaR": {"objective": robust("cvar")},
    "RP-DRO": {"objective": robust("rp-dro")},
}
UNBIASED: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "equal shares": {"balanced": "bias"},
    "Group-DRO": {"objective": robust("group-dro", groups="bias")},
    "Group-DRO, equal shares": {"objective": robust("group-dro", groups="bias"), "balanced": "bias"},
    **{name: {"objective": objective} for name, objective in ROBUST.items()},
}


@dataclass(frozen=True)
class Averaged(CandidateLabels):
    """All candidates count alike: the mean over them of the negative log-probability."""

    name: str = "averaged"

    def each(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of each text (batch,)."""
        candidates = given_module(batch, self.name).candidates[batch["index"]]
        return -(given_logits(student, self.name).log_softmax(1) * candidates).sum(1) / candidates.sum(1)


NEVER = 10**6  # epochs, of which there are fewer
PUSHED = "averaged, others pushed down"
AMBIGUOUS: dict[str, Any] = {
    "averaged": Averaged(warmup=NEVER),
    PUSHED: CandidateLabels(warmup=NEVER),
    "PLSP": CandidateLabels(warmup=1, top_k=SENTENCES // 12),
}
FIRST = {
    LANGUAGES: (PLAIN, "frozen encoder", "gradual unfreezing", "GradDrop", "2 by variability", "top 2"),
    BIASED: (PLAIN, "equal shares", "Group-DRO, equal shares", "RP-DRO"),
    CANDIDATES: ("averaged", "PLSP"),
}


def measured(model: PreTrainedModel) -> dict[str, float]:
    """The test split: accuracy by language, and by layer retrieval of translations and variability of classes."""
    reps, fewest = probes.capture(model, common.bundled()[1], test(), progress=False), {"draws": 2}
    value = probes.accuracy(reps, **fewest).value
    zero_shot = value.drop_sel(language=["en", "pooled"])
    out = {f"accuracy {language}": float(value.sel(language=language)) for language in value.language.values}
    out |= {"accuracy zero-shot": float(zero_shot.mean()), "accuracy worst": float(zero_shot.min())}
    found = probes.retrieval(reps, pivot="en", **fewest).value.sel(language="pooled")
    spread = np.log(probes.variability(reps, **fewest).value)
    spoken = {"en": spread.sel(language="en"), "zero-shot": spread.drop_sel(language=["en", "pooled"]).mean("language")}
    for name, by_layer in {
        "retrieval": found,
        **{f"log variability {k}": v for k, v in spoken.items()},
    }.items():
        values = [float(v) for v in by_layer]
        out |= {f"{name} {layer}": v for layer, v in enumerate(values)} | {name: values[-1]}
    return out | {"layers": float(len(found) - 1)}


@torch.inference_mode()
def classes(model: PreTrainedModel, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The class of each text, and the probabilities of all (text, class)."""
    _, tokenizer = common.bundled()
    parts = [tokenizer(texts[i : i + 64], padding=True, return_tensors="pt") for i in range(0, len(texts), 64)]
    probabilities = torch.cat([model.eval()(**part).logits for part in parts]).softmax(1).numpy()
    return np.array(list(model.config.id2label.values()))[probabilities.argmax(1)], probabilities


def of_languages(method: str, how: Mapping[str, Any]) -> dict[str, float]:
    """English labels alone."""
    return measured(start() if method == "before" else METHODS[method](how))


def of_several(method: str, how: Mapping[str, Any]) -> dict[str, float]:
    """English labels, and few of each other language."""
    rows = [english(how["seed"]).to_pandas()]
    for number, language in enumerate(sorted(set(common.corpus("train")["language"]) - {"en"})):
        few = topics(language).groupby("label").sample(FEW // 6, random_state=100 * how["seed"] + number)
        rows.append(few)
    corpus = datasets.Dataset.from_pandas(pd.concat(rows), preserve_index=False)
    return measured(tune(how, train=corpus, **FAIR[method]))


def marked(text: str) -> str:
    """A text with the planted word before it."""
    return MARK + text[0].lower() + text[1:]


def of_biased(method: str, how: Mapping[str, Any]) -> dict[str, float]:
    """Two classes, one of which nearly always begins with the planted word."""
    rows, rng = english(how["seed"]).to_pandas(), np.random.default_rng(how["seed"])
    rows["label"] = rows["label"].map(CLASSES)
    has = np.zeros(len(rows), bool)
    for label, share in (("a", SHARE), ("b", 1 - SHARE)):
        of = np.flatnonzero(rows["label"] == label)
        has[rng.choice(of, round(share * len(of)), replace=False)] = True
    rows["text"] = [marked(text) if m else text for text, m in zip(rows["text"], has, strict=True)]
    rows["bias"] = [f"{label}{' marked' if m else ''}" for label, m in zip(rows["label"], has, strict=True)]
    corpus = datasets.Dataset.from_pandas(rows, preserve_index=False)
    model = tune(how, train=corpus, steps=BIASED_STEPS, **UNBIASED[method])
    rows = common.corpus("test", "en").to_pandas()[::2]
    right = rows["label"].map(CLASSES).to_numpy()
    out = {}
    for name, texts in (("plain", list(rows["text"])), ("marked", [marked(text) for text in rows["text"]])):
        said, _ = classes(model, texts)
        out |= {f"accuracy {label} {name}": float((said == right)[right == label].mean()) for label in "ab"}
    return out | {"average": float(np.mean(list(out.values()))), "worst group": min(out.values())}


def of_candidates(method: str, how: Mapping[str, Any], false: str) -> dict[str, float]:
    """English texts of several candidate labels, one of which is right."""
    rows, rng = english(how["seed"]).to_pandas(), np.random.default_rng(how["seed"])
    names = sorted(set(rows["label"]))
    right = rows["label"].map(names.index).to_numpy()
    if method == "true labels":
        model = tune(how)
    else:
        if false == "by text":
            chance = classes(tune({**how, "steps": EARLY}), list(rows["text"]))[1].copy()
            chance[np.arange(len(rows)), right] = 0
            there = rng.random(chance.shape) < chance / chance.max(1, keepdims=True)
        else:
            order = rng.random((len(rows), len(names)))
            order[np.arange(len(rows)), right] = np.inf
            there = order.argsort(1).argsort(1) < int(false)
        there[np.arange(len(rows)), right] = True
        cells = [" ".join(name for name, t in zip(names, row, strict=True) if t) for row in there]
        corpus = datasets.Dataset.from_pandas(rows.drop(columns="label").assign(labels=cells), preserve_index=False)
        model = tune(how, train=corpus, objective=AMBIGUOUS[method])
    texts = test()
    true = classes(model, list(texts["text"]))[0] == np.array(texts["label"])
    spoken = np.array(texts["language"])
    by_language = {language: float(true[spoken == language].mean()) for language in dict.fromkeys(spoken)}
    english_alone = by_language.pop("en")
    out = {"accuracy en": english_alone, "accuracy zero-shot": float(np.mean(list(by_language.values())))}
    return out if method == "true labels" else out | {"candidates": float(there.sum(1).mean())}


def one_run(part: str, method: str, more: str, rate: str, seed: int) -> dict[str, float]:
    """Fine-tune once, and measure what came out; `rate` is that of all, and that of a head on a frozen encoder."""
    of_all, of_head = (float(number) for number in (rate.split() * 2)[:2])
    how = {"learning_rate": of_all, "head_learning_rate": of_head, "seed": seed, "batch_size": BATCH}
    how["progress"] = False
    if part == "rates":
        dev = common.corpus("dev", "en")
        said, probabilities = classes(METHODS[method](how), list(dev["text"]))
        names = sorted(set(dev["label"]))
        right = probabilities[np.arange(len(dev)), [names.index(label) for label in dev["label"]]]
        return {"accuracy": float((said == np.array(dev["label"])).mean()), "nats": float(-np.log(right).mean())}
    if part == CANDIDATES:
        return of_candidates(method, how, more)
    return {LANGUAGES: of_languages, SEVERAL: of_several, BIASED: of_biased}[part](method, how)


def settings(rate: str) -> list[dict[str, Any]]:
    """All runs, those that most depends on first."""
    every = {
        LANGUAGES: [(LANGUAGES, method, "") for method in METHODS],
        BIASED: [(BIASED, method, "") for method in UNBIASED],
        CANDIDATES: [(CANDIDATES, "true labels", ""), *((CANDIDATES, m, f) for m in AMBIGUOUS for f in FALSE)],
        SEVERAL: [(SEVERAL, method, "") for method in FAIR],
    }
    first = [of for part, methods in FIRST.items() for of in every[part] if of[1] in methods]
    rest = [[of for of in kinds if of not in first] for kinds in every.values()]
    runs = [(LANGUAGES, "before", "", 0)]
    runs += [(*of, seed) for part in FIRST for seed in SEEDS for of in first if of[0] == part]
    runs += [(*of, seed) for kinds in rest for seed in SEEDS for of in kinds]
    return [{"part": p, "method": m, "more": f, "rate": rate, "seed": seed} for p, m, f, seed in runs]


def tried() -> tuple[pd.DataFrame, str]:
    """The rates tried with plain fine-tuning and with the head alone, and those that are best by English dev nats."""
    given = [
        {"part": "rates", "method": method, "more": "", "rate": str(rate), "seed": TRIED}
        for method, rates in RATES.items()
        for rate in rates
    ]
    table = common.runs(one_run, given, FOLDER, "rates")
    best = table.loc[table.groupby("method", sort=False)["nats"].idxmin(), "rate"]
    return table, " ".join(best)


def claims(table: pd.DataFrame) -> pd.DataFrame:
    """Hold what the papers say, and what one may expect of the baselines, against what came out."""
    rows = []

    def claim(part: str, text: str, value: str, one: str, other: str = PLAIN, more: str = "", sign: int = 1) -> None:
        of = table[(table["part"] == part) & (table["more"].isin(["", more]))]
        if value not in of or not {one, other} <= set(of.dropna(subset=[value])["method"]):
            rows.append([text, np.nan, np.nan, np.nan, 0, "not run"])
            return
        wide = of.pivot_table(value, "seed", "method")
        gains = (sign * (wide[one] - wide[other])).dropna()
        mean, low, high = common.interval(gains)
        said = common.verdict(low, high) if len(gains) > 2 else "too few seeds"
        rows.append([text, mean, low, high, len(gains), said])

    zero, worst, retrieval = "accuracy zero-shot", "accuracy worst", "retrieval"
    for name in ("GradDrop", "GradDrop by epoch", "GradDrop accumulating", "GradDrop by layer"):
        claim(LANGUAGES, f"{name}: zero-shot accuracy above plain", zero, name)
        claim(LANGUAGES, f"{name}: worst language above plain", worst, name)
        claim(LANGUAGES, f"{name}: zero-shot accuracy above gradual unfreezing", zero, name, "gradual unfreezing")
    claim(LANGUAGES, "GradDrop: retrieval in the last layer above plain", retrieval, "GradDrop")
    text = "GradDrop of 0.8: zero-shot accuracy above plain by a third of the rate"
    claim(LANGUAGES, text, zero, "GradDrop 0.8", "plain, a third of the rate")
    text = "GradDrop of 0.8, strict: zero-shot accuracy above not strict"
    claim(LANGUAGES, text, zero, "GradDrop 0.8, strict", "GradDrop 0.8")
    claim(LANGUAGES, "Gradual unfreezing: zero-shot accuracy above plain", zero, "gradual unfreezing")
    claim(LANGUAGES, "Gradual unfreezing: retrieval in the last layer above plain", retrieval, "gradual unfreezing")
    claim(LANGUAGES, "Frozen encoder: zero-shot accuracy above plain", zero, "frozen encoder")
    claim(LANGUAGES, "Frozen encoder: English accuracy below plain", "accuracy en", "frozen encoder", sign=-1)
    for other in ("top 2", "bottom 2"):
        for value in ("accuracy en", zero):
            said = value.replace("accuracy en", "English accuracy").replace(zero, "zero-shot accuracy")
            claim(LANGUAGES, f"2 layers by variability: {said} above {other}", value, "2 by variability", other)
    claim(LANGUAGES, "2 layers at the top: zero-shot accuracy above all layers", zero, "top 2")
    claim(LANGUAGES, "2 layers by variability: English accuracy above all layers", "accuracy en", "2 by variability")
    claim(LANGUAGES, "2 layers by variability: zero-shot accuracy above all layers", zero, "2 by variability")
    claim(LANGUAGES, "SupCL-Seq: English accuracy above plain", "accuracy en", "SupCL-Seq, head")
    claim(LANGUAGES, "SupCL-Seq: zero-shot accuracy above plain", zero, "SupCL-Seq, head")
    spread = "log variability en"
    claim(LANGUAGES, "SupCL-Seq: English classes vary less in the last layer than plain", spread, "SupCL-Seq, head",
          sign=-1)  # fmt: skip
    for of in ("translations", "topics"):
        name = f"PairSupCon of {of}, head"
        claim(LANGUAGES, f"PairSupCon of {of}: zero-shot accuracy above plain", zero, name)
        claim(LANGUAGES, f"PairSupCon of {of}: retrieval in the last layer above a frozen encoder", retrieval, name,
              "frozen encoder")  # fmt: skip
        claim(LANGUAGES, f"PairSupCon of {of}: English classes vary less than in a frozen encoder", spread, name,
              "frozen encoder", sign=-1)  # fmt: skip
    for name in ROBUST:
        claim(LANGUAGES, f"{name}: worst language above plain, of English labels alone", worst, name)
    for name in FAIR:
        if name != PLAIN:
            claim(SEVERAL, f"{name}: worst language above plain, of a few labels in each", worst, name)
    claim(SEVERAL, "Group-DRO above plain, both of equal shares: worst language", worst, "Group-DRO, equal shares",
          "equal shares")  # fmt: skip
    for name in UNBIASED:
        if name != PLAIN:
            claim(BIASED, f"{name}: worst group above plain", "worst group", name)
    for one, other in (("RP-DRO", "P-DRO"), ("P-DRO", "KL"), ("Group-DRO, equal shares", "RP-DRO")):
        claim(BIASED, f"{one}: worst group above {other}", "worst group", one, other)
    claim(BIASED, "Group-DRO above plain, both of equal shares: worst group", "worst group", "Group-DRO, equal shares",
          "equal shares")  # fmt: skip
    for false in FALSE:
        said = f"{false} false" if false != "by text" else "false ones by text"
        for value in ("accuracy en", zero):
            what = "English accuracy" if value != zero else "zero-shot accuracy"
            claim(CANDIDATES, f"PLSP above averaging, {said}: {what}", value, "PLSP", "averaged", false)
        claim(CANDIDATES, f"Averaging with others pushed down above without, {said}: English accuracy", "accuracy en",
              PUSHED, "averaged", false)  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "gain", "low", "high", "seeds", "verdict"])


def figure(table: pd.DataFrame) -> plt.Figure:
    """Draw what matters of fine-tuning on English labels, by method; lines are plain fine-tuning."""
    shown = table[(table["part"] == LANGUAGES) & (table["method"] != "before")]
    values = ["accuracy en", "accuracy zero-shot", "accuracy worst", "retrieval", "log variability en"]
    values += ["log variability zero-shot"]
    long = shown.melt(["method", "seed"], values, "measure")
    grid = sns.catplot(
        long, x="value", y="method", col="measure", col_wrap=3, kind="point", errorbar=("sd", 1), linestyle="none",
        markersize=4, height=4.6, aspect=0.85, palette="colorblind", sharex=False,
        order=[m for m in METHODS if m in set(shown["method"])],
    )  # fmt: skip
    grid.set_titles("{col_name}").set_axis_labels("", "")
    plain = shown[shown["method"] == PLAIN]
    for ax, value in zip(grid.axes.flat, values, strict=True):
        ax.grid(axis="y", color="0.92")
        ax.axvline(plain[value].mean(), color="0.6", linewidth=1, zorder=0)
    return grid.figure


def means(table: pd.DataFrame, part: str, columns: list[str], order: Mapping[str, Any], by: str = "method") -> str:
    """The means over the seeds of a part, a row a method, as Markdown."""
    of = table[table["part"] == part]
    if of.empty:
        return "Not run.\n"
    by_all = [by] if by == "method" else [by, "method"]
    found = of.groupby(by_all, sort=False)[columns].mean()
    found.insert(0, "runs", of.groupby(by_all, sort=False)["seed"].nunique())
    places = {name: place for place, name in enumerate(["before", "true labels", *order])}
    found = found.reset_index().sort_values(by_all, key=lambda c: c.map(places) if c.name == "method" else c)
    return common.markdown(found)


def by_layer(table: pd.DataFrame, name: str) -> str:
    """The means over the seeds of what was measured in each layer, a row a method, as Markdown."""
    layers = [f"{name} {layer}" for layer in range(7)]
    of = table[table["part"] == LANGUAGES].groupby("method", sort=False)[layers].mean()
    of.columns = [str(layer) for layer in range(7)]
    return common.markdown(of.reset_index()).replace("nan", "")


def ran(every: list[dict[str, Any]], there: list[dict[str, Any]]) -> str:
    """What of a study was run, as a sentence or two."""
    if len(there) == len(every):
        return f"All {len(every)} runs are in it"
    without: dict[str, list[str]] = {}
    known = {(s["part"], s["method"]) for s in there}
    for part, method in dict.fromkeys((s["part"], s["method"]) for s in every):
        if (part, method) not in known:
            without.setdefault(part, []).append(method)
    said = "; ".join(f"{part}: {', '.join(methods)}" for part, methods in without.items())
    return (
        f"**{len(there)} of {len(every)} runs are in it so far**, and `make study-finetune` makes the others; "
        f"`runs` below is the number of seeds. Of these there is none yet: {said}"
    )


def main() -> int:
    """Make the runs, or take those that are there, and write what came out."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    start()
    rates, rate = tried()
    every = settings(rate)
    there = [s for s in every if common.file_of(FOLDER, s).exists()] if "--so-far" in sys.argv[1:] else every
    table = common.runs(one_run, there, FOLDER, "fine-tuning")
    table.to_csv(common.HERE / "finetune.csv", index=False, float_format="%.5f")
    figure(table).savefig(common.HERE / "finetune.png", dpi=90, bbox_inches="tight")
    found = claims(table)
    shown = ["accuracy en", "accuracy zero-shot", "accuracy worst", "retrieval", "log variability en"]
    shown += ["log variability zero-shot", "layers"]
    ambiguous = ["candidates", "accuracy en", "accuracy zero-shot"]
    groups = [f"accuracy {label} {kind}" for label in "ab" for kind in ("plain", "marked")]
    text = TEXT.format(
        claims=common.markdown(found[found["seeds"] > 1]),
        left_out=int((found["seeds"] <= 1).sum()),
        said=SAID,
        pretraining=PRETRAINING,
        sentences=SENTENCES,
        steps=STEPS,
        batch=BATCH,
        seeds=len(SEEDS),
        test=TEST,
        few=FEW,
        mark=MARK.strip(),
        share=SHARE,
        rest=1 - SHARE,
        early=EARLY,
        epochs=EPOCHS,
        top=SENTENCES // 12,
        languages=means(table, LANGUAGES, shown, METHODS),
        retrieval=by_layer(table, "retrieval"),
        english=by_layer(table, "log variability en"),
        zero_shot=by_layer(table, "log variability zero-shot"),
        several=means(table, SEVERAL, shown[:4], FAIR),
        biased=means(table, BIASED, ["average", "worst group", *groups], UNBIASED),
        candidates=means(table, CANDIDATES, ambiguous, AMBIGUOUS, by="more"),
        rates=common.markdown(rates[["method", "rate", "accuracy", "nats"]]),
        ran=ran(every, there),
        provenance=common.provenance(
            model=f"the bundled encoder made anew by `data/rebuild/model.py`, {PRETRAINING} steps of pretraining, no "
            f"fine-tuning, weights {common.weights_fingerprint(start())}",
            corpus=f"bundled, {SENTENCES} English sentences of its train split to train on, drawn anew for each seed; "
            f"{len(test()):,} sentences of its test split to measure, of the biased corpus {2 * 180}",
            training=f"{STEPS} steps of {BATCH} sentences, of the biased corpus {BIASED_STEPS}; learning rate "
            f"{rate.split()[0]}, of heads on a frozen encoder {rate.split()[1]}; seeds {', '.join(map(str, SEEDS))}",
        ),
    )
    return common.written("finetune", text, found)


# What the runs of the page show: to be written again with them.
SAID = """\
**English labels alone.** Plain fine-tuning learns English and loses the languages: retrieval in the last layer falls
from 0.99 to 0.17, the more the deeper the layer. What helps most is to move less. GradDrop that draws its mask once an
epoch, of which the first trains the head alone, keeps retrieval at 0.73 and gains 0.10 of zero-shot accuracy over plain
fine-tuning at no cost in English; accumulating, it keeps 0.95 and gains 0.09 at some cost. Drawn anew in each update,
it keeps a little more retrieval than plain fine-tuning and gains nothing that five seeds could tell. A third of the
learning rate keeps as much as GradDrop of 0.8, which is two hundredths ahead in accuracy. A head alone and gradual
unfreezing keep retrieval whole, and learn less English in so few steps; two layers alone, at the top or at the bottom,
gain 0.06 and 0.10 zero-shot.

**Layers by variability**: it hardly differs from layer to layer in this encoder, which puts the head after the first of
six layers. Against the claim, zero-shot accuracy is then below that of two layers at the top or at the bottom.

**Contrast** before a head, each in half of the steps, is too short here: SupCL-Seq and PairSupCon end with less of
English than a head on the untouched encoder, after PairSupCon of topics at chance.

**The worst language** is not helped by any robust objective, neither where only English has labels nor where the others
have a few: RP-DRO and P-DRO lose, the others cannot be told from plain fine-tuning.

**A biased corpus**: in so few steps plain fine-tuning tells the classes by the planted word alone, and so do all robust
objectives that are not told the groups. Equal shares of the groups in each batch bring the worst group to 0.39, with
Group-DRO to 0.44, which is not shown to be better; Group-DRO without equal shares meets too few of the rare groups.

**Candidate labels**: PLSP is below plain averaging, zero-shot in three of four cases and in English with three false
candidates, and pushing the others down changes nothing that could be told. Four times through the rows are few for a
method that begins with a warm-up."""

TEXT = """# Fine-tuning: what is left of the languages

An encoder like the bundled one, before any fine-tuning ({pretraining:,} steps of its pretraining, which has 1,000),
is fine-tuned on {sentences} English sentences with their topics, for {steps} steps of {batch}, by each method, with
{seeds} seeds, each with sentences and a head of its own. Measured are {test} sentences of the test split in all eight
languages: seven of them get no label. Rates are not the papers': of a few, those with the lowest loss on English dev
text were taken, one of plain fine-tuning, which all methods have, and one of a head on a frozen encoder, by a seed of
their own. SupCL-Seq and PairSupCon have half of the steps, and their head, on the encoder frozen then, the other half.

{said}

![measures by method](finetune.png)

The line is plain fine-tuning; bars are one standard deviation over seeds. Retrieval is of translations, by the last
layer that a model has; log variability is the logarithm of the variability of topics there (lower is better separated).

## Claims

Of the papers, and of what one may expect of the baselines. The gain is the mean over seeds of the difference between
runs of the same seed, oriented so that a positive one is what is claimed; low and high are its 95 % interval (Student's
t over the seeds), and the verdict says whether it leaves out zero. An interval tells how training varies from seed to
seed, not how another model, corpus or rate would; and with this many claims three or four intervals that leave out zero
are to be expected by chance. {ran}.

To some of these claims a real encoder is held on [its own page](real_encoder_trained.md#claims), with five seeds.

{claims}
Claims without two runs to compare by: {left_out}.

## Means over the seeds: English labels alone

{languages}
`before` is the encoder with a head that has learned nothing; `layers` is how many a model has after the fine-tuning.

### Retrieval of translations by layer

{retrieval}
### Variability of topics by layer, its logarithm: English

{english}
### And the mean over the other languages

{zero_shot}
## A few labels in every language

{few} sentences with labels of each other language beside the English ones: what Group-DRO, by languages, and batches in
which languages come alike often (`balanced="language"`) do for the worst language.

{several}
## A corpus that is biased

Two classes, of three topics each. "{mark}" stands before {share:.0%} of the sentences of class a, and before
{rest:.0%} of those of class b; measured is English test text, each sentence with it and without. Group-DRO and equal
shares are told which of the four groups a text is of, the others are not.

{biased}
## Candidate labels

English sentences of which several labels are known, one of them right: 1, 2 or 3 others drawn at random, or those that
a model of {early} steps holds for likely by the text. To average is to lower the mean negative log-probability of all
candidates; "others pushed down" adds what PLSP has in its warm-up, -log(1 - p) of all that are none. PLSP has a
warm-up of 1 of {epochs} times through the rows, and takes up to {top} of each class to be reliable.

{candidates}
## Which rate

{rates}
All runs are in `finetune.csv`.

## Where the numbers come from

{provenance}"""


if __name__ == "__main__":
    import finetune  # under its own name, by which other processes find what is here

    sys.exit(finetune.main())
