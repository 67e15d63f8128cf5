"""Representer values: which training sentences, of which languages, carry a model's prediction."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import xarray as xr
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import logsumexp, softmax
from threadpoolctl import ThreadpoolController
from tqdm.auto import tqdm

from probes.errors import InputError, LayerscopeWarning
from probes.measures.probe import LARGE, Probe, Run
from probes.models.fingerprint import weights_fingerprint
from probes.results.draws import POOLED, sample
from probes.results.result import result
from probes.states.representations import BLOCK, as_strings, check_representations, states

_ENTRIES = 2**22  # of one block of values
_MOST_STEPS = 100  # of Newton; 15 are many
_REACHED = 1e-9  # what the sums may miss of the training logits, relative to them
_WARN = 1e-6
# Multiplications in one product of the search. Below, threads cost more than they bring where cores are shared.
_LARGE = 10**8
_NAMED = 5
L2 = 3e-4  # strength of the penalty
# Made once: it looks through all libraries that are loaded.
_threads = cache(ThreadpoolController)


@dataclass(frozen=True)
class Certificate:
    """How well the values explain what they are to explain.

    Attributes:
        gradient_norm: Frobenius norm of the gradient of the objective; 0 at a stationary point.
        error: largest difference between a test logit and the sum of its values over all training rows.
        relative_error: the same, divided by the largest test logit.
        correlation_train: Pearson correlation of all probabilities with the given ones, on the training rows.
        correlation_test: the same on the test rows, which the solution has not seen.
        agreement: share of the test rows whose most probable class is the given one.
        iterations: Newton steps.

    The given probabilities are those of the head that is explained. Where values are trained on labels they are those
    of the trained head itself, so that the last three say only that the sums are right.
    """

    gradient_norm: float
    error: float
    relative_error: float
    correlation_train: float
    correlation_test: float
    agreement: float
    iterations: int


@dataclass(frozen=True, eq=False, repr=False)
class RepresenterValues:
    """Values alpha_ij f_i.f_t of training rows i for the logit j of test rows t; positive ones support the class.

    Summed over all training rows they are the logit. The target, where none is given, is the predicted class: of the
    model that is explained, or of the head that was trained on labels.

    Attributes:
        alpha: (train row, class).
        theta: (class, feature + 1), the head, its bias last.
        train_features, test_features: (row, feature + 1), the constant 1 last.
        train, test: id and language of the rows, and their label and text where there are any.
        classes: names of the classes.
        logits: (test row, class), the sums of the values.
        predicted: (test row,) names of the predicted classes.
        explains: what the values explain, in words.
        l2: strength of the penalty.
        certificate: how well they explain it.
    """

    alpha: np.ndarray
    theta: np.ndarray
    train_features: np.ndarray
    test_features: np.ndarray
    train: pd.DataFrame
    test: pd.DataFrame
    classes: list[str]
    logits: np.ndarray
    predicted: np.ndarray
    explains: str
    l2: float
    certificate: Certificate

    def __repr__(self) -> str:
        c = self.certificate
        return (
            f"<RepresenterValues of {self.explains}: {len(self.train):,} training x {len(self.test):,} test rows, "
            f"{len(self.classes)} classes, l2={self.l2:g}; relative error {c.relative_error:.0e}, "
            f"correlation on test {c.correlation_test:.6f}>"
        )

    def top(
        self, test_id: object = None, k: int = 5, *, language: str | None = None, target: str | None = None
    ) -> pd.DataFrame:
        """Return the training rows that speak most for a class of a test sentence, and most against it.

        Args:
            test_id: the sentence, in every language there is; by default all test rows. For bare arrays the row.
            k: how many of each kind; fewer where fewer have a value of that sign.
            language: only the test row of this language.
            target: the class; by default the predicted one.

        Returns:
            One row a test row and training row: `test_id, test_language, target, side` ("excitatory" or
            "inhibitory"), `rank, value`, and the training row's `id, language` and, where there are any, `label, text`.

        Raises:
            InputError: the id, the language or the class is unknown; k is not a whole number above 0.
        """
        if not isinstance(k, numbers.Integral) or k < 1:
            raise InputError(f"k={k!r}: expected a whole number of at least 1")
        rows = self._rows(test_id, language)
        codes = self._targets(target, rows)
        k = min(int(k), len(self.train))
        tables = []
        for part, values in self._blocks(rows, codes):
            for side, sign in (("excitatory", -1), ("inhibitory", 1)):
                signed = sign * values
                best = np.argpartition(signed, k - 1, axis=1)[:, :k]
                order = np.lexsort((best, np.take_along_axis(signed, best, axis=1)))
                best = np.take_along_axis(best, order, axis=1)
                value = np.take_along_axis(values, best, axis=1)
                row, rank = np.nonzero(sign * value < 0)
                head = {
                    "at": rows[part][row],
                    "target": np.array(self.classes, dtype=object)[codes[part][row]],
                    "side": side,
                    "rank": rank + 1,
                    "value": value[row, rank],
                    "train": best[row, rank],
                }
                tables.append(pd.DataFrame(head))
        out = pd.concat(tables, ignore_index=True).sort_values(["at", "side", "rank"], ignore_index=True)
        found = self.test.iloc[out["at"]].reset_index(drop=True)
        out.insert(0, "test_id", found["id"])
        out.insert(1, "test_language", found["language"])
        there = self.train.iloc[out["train"]].reset_index(drop=True)
        return pd.concat([out.drop(columns=["at", "train"]), there], axis=1)

    def support(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Return what every training language adds to the logit of every test row's predicted class, and that logit.

        Returns:
            A table (test row, training language) whose rows sum to the logits, and the logits (test row,).
        """
        codes = self._targets(None, np.arange(len(self.test)))
        group, names = pd.factorize(self.train["language"])
        return pd.DataFrame(self._net(group, len(names), codes), columns=list(names)), self._picked(codes)

    def by_language(self) -> pd.DataFrame:
        """Return how much the training rows of each language support the predictions in each test language.

        Returns:
            One row a test language and training language: `excitatory` and `inhibitory`, the sums of the positive and
            of the negative values for the predicted class, and `net`, both together, as means over the `n` test rows.
            Over the training languages `net` sums to the mean logit of the predicted class.
        """
        return self._by("test_language", self.test["language"], "train_language", self.train["language"])

    def by_class(self) -> pd.DataFrame:
        """Return how much the training rows of each label support the predictions of each class.

        Returns:
            As `by_language`, one row a `predicted` class of test rows and `train_label`.

        Raises:
            InputError: the training rows have no labels.
        """
        return self._by("predicted", pd.Series(self.predicted), "train_label", self._labels())

    def mislabelled(self) -> pd.DataFrame:
        """Return the training rows by how hard the head has to pull to get their label right, hardest first.

        Sorted by |alpha| of the row's own label. Trained on labels, wrong ones come first; where a model is explained
        by its own outputs, alpha says how much a row weighs, and little about its label.

        Returns:
            `rank, alpha` and the coordinates of the row, indexed by its position in train.

        Raises:
            InputError: the training rows have no labels, or labels that are not classes.
        """
        labels = self._labels()
        unknown = sorted(set(labels) - set(self.classes))
        if unknown:
            raise InputError(
                f"label {unknown[0]!r} of the training rows is not among the classes "
                f"{', '.join(map(repr, self.classes))}. Give the rows the labels of the head, or leave head out"
            )
        codes = pd.Categorical(labels, self.classes).codes
        alpha = self.alpha[np.arange(len(codes)), codes]
        order = np.argsort(-np.abs(alpha), kind="stable")
        out = self.train.iloc[order].copy()
        out.index.name = "row"
        out.insert(0, "rank", np.arange(1, len(order) + 1))
        out.insert(1, "alpha", alpha[order])
        return out

    def matrix(self, rows: npt.ArrayLike | None = None, *, target: str | None = None) -> np.ndarray:
        """Return the values (test row, train row) themselves: as large as both sets together allow, so ask for `rows`.

        Args:
            rows: positions of test rows, or a mask; by default all.
            target: the class; by default the predicted one of each row.
        """
        chosen = np.arange(len(self.test))[slice(None) if rows is None else np.atleast_1d(np.asarray(rows))]
        codes = self._targets(target, chosen)
        out = np.empty((len(chosen), len(self.train)))
        for part, values in self._blocks(chosen, codes):
            out[part] = values
        return out

    def _rows(self, test_id: object, language: str | None) -> np.ndarray:
        keep = np.ones(len(self.test), bool)
        if test_id is not None:
            keep = (self.test["id"] == str(test_id)).to_numpy()
            if not keep.any():
                known = ", ".join(map(repr, self.test["id"].unique()[:_NAMED]))
                raise InputError(f"no test row has the id {str(test_id)!r}; there are {known}, ...")
        if language is not None:
            there = self.test["language"][keep].unique()
            keep = keep & (self.test["language"] == language).to_numpy()
            if not keep.any():
                raise InputError(
                    f"no test row {'' if test_id is None else f'of id {str(test_id)!r} '}has the language "
                    f"{language!r}; there are {', '.join(map(repr, there))}"
                )
        return np.flatnonzero(keep)

    def _targets(self, target: str | None, rows: np.ndarray) -> np.ndarray:
        if target is None:
            return pd.Categorical(self.predicted[rows], self.classes).codes.astype(int)
        if str(target) not in self.classes:
            raise InputError(f"no class {str(target)!r}; there are {', '.join(map(repr, self.classes))}")
        return np.full(len(rows), self.classes.index(str(target)))

    def _labels(self) -> pd.Series:
        if "label" not in self.train:
            raise InputError(
                "this needs the labels of the training rows, and there are none. Capture a corpus with a label"
            )
        return self.train["label"]

    def _blocks(self, rows: np.ndarray, codes: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the values of all training rows for a few test rows at a time."""
        step = max(1, _ENTRIES // len(self.train))
        for i in range(0, len(rows), step):
            part = slice(i, i + step)
            values = self.test_features[rows[part]] @ self.train_features.T
            values *= self.alpha.T[codes[part]]
            yield part, values

    def _picked(self, codes: np.ndarray) -> np.ndarray:
        return self.logits[np.arange(len(codes)), codes]

    def _net(self, group: np.ndarray, n: int, codes: np.ndarray) -> np.ndarray:
        """Sum of the values of each group of training rows for each test row: the logits of that group's head."""
        out = np.empty((len(codes), n))
        for g in range(n):
            rows = np.flatnonzero(group == g)
            own = sum(self.alpha[r].T @ self.train_features[r] for r in _pieces(rows))
            out[:, g] = (self.test_features @ own.T)[np.arange(len(codes)), codes]
        return out

    def _by(self, test_name: str, of_test: pd.Series, train_name: str, of_train: pd.Series) -> pd.DataFrame:
        codes = self._targets(None, np.arange(len(self.test)))
        group, names = pd.factorize(of_train)
        member = np.eye(len(names))[group]
        excitatory = np.empty((len(codes), len(names)))
        for part, values in self._blocks(np.arange(len(codes)), codes):
            excitatory[part] = np.maximum(values, 0, out=values) @ member
        net = self._net(group, len(names), codes)
        # The rest of the net sum; above 0 only by rounding.
        inhibitory = np.minimum(net - excitatory, 0)
        tables = []
        at, there = pd.factorize(of_test)
        for i, name in enumerate(there):
            rows = at == i
            means = {
                "excitatory": excitatory[rows].mean(axis=0),
                "inhibitory": inhibitory[rows].mean(axis=0),
                "net": net[rows].mean(axis=0),
            }
            tables.append(pd.DataFrame({test_name: name, train_name: names, **means, "n": int(rows.sum())}))
        return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class _Rows:
    """One side, train or test: features with the constant 1, coordinates, and the outputs that are explained."""

    features: np.ndarray
    frame: pd.DataFrame
    outputs: np.ndarray | None


def representers(
    train: xr.Dataset | npt.ArrayLike,
    test: xr.Dataset | npt.ArrayLike,
    *,
    labels: npt.ArrayLike | None = None,
    head: torch.nn.Module | None = None,
    layer: object = None,
    l2: float = L2,
) -> RepresenterValues:
    """Split every prediction into what each training sentence adds to it.

    A linear head Theta on the features f is brought to the minimum of (1/n) sum_i CE(target_i, Theta f_i) +
    l2 ||Theta||^2. There Theta f_t = sum_i alpha_i f_i.f_t with alpha_i = (target_i - p_i) / (2 l2 n): every logit is
    a sum over the training rows. alpha_ij f_i.f_t above 0 is excitatory (row i speaks for class j), below 0 inhibitory.

    Args:
        train, test: Representations of one model, or arrays (example, feature). Those that explain a model need its
            outputs: `logits` and, unless a layer is named, `head_input`.
        labels: (example,) of the training rows, beside arrays. Representations have their own, as `label`.
        head: explain this head by its own outputs, not by labels: the model that the Representations were captured
            from, or, beside arrays, the `torch.nn.Linear` that they are the input of. One with a single output z is
            two classes, "0" and "1", with logits -z/2 and z/2.
        layer: which layer's states are the features. By default the input of the model's last linear layer where a
            model is explained, and the last layer where there are labels.
        l2: strength of the penalty. Larger: values that cancel less, of a head that is less sure than the given one.
            Smaller: a closer copy of the given head, of larger values of both signs, and a longer search. The default
            is for explaining a head; labels that the features cannot separate want 1e-2 or more.

    Returns:
        RepresenterValues: `top(id)`, `by_language()`, `by_class()`, `support()`, `mislabelled()`, `matrix(rows)`,
        `logits` and `certificate`. Read the certificate first: it says how well the values sum to the logits, and how
        well these agree with the given head on rows that the solution has not seen.

    Raises:
        InputError: before the search, where train, test, labels and head do not fit together, or a row is not finite.

    Notes:
        Yeh, Kim, Yen and Ravikumar 2018, arXiv 1811.09720. As there, a constant 1 is appended to the features, so that
        the bias is penalised too, and a given model is explained by its own probabilities. Different: the minimum is
        found by Newton's method in float64 to the level of rounding, not by gradient descent to 1/200 of the first
        gradient, since the sums miss the logits by f_t.gradient / (2 l2); and l2 is a tenth of their 0.003, which gives
        correlations with the given probabilities above 0.9999 on unseen rows also for 15 classes. The penalty knows
        the scale of the features: where they are small, a smaller l2 is needed, as the certificate shows. The
        predicted class is that of the given model, also where another layer would have it otherwise. Values do not
        change with the order of rows or with which test rows are asked for.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(300) % 3
        >>> x = rng.normal(size=(300, 8)) + 2 * np.eye(8)[y]
        >>> values = representers(x[:240], x[240:], labels=y[:240])
        >>> bool(np.allclose(values.matrix().sum(axis=1), values.logits.max(axis=1)))
        True
        >>> top = values.top(7, k=2)
        >>> top[["target", "side", "rank", "label"]].head(2)
          target        side  rank label
        0      1  excitatory     1     1
        1      1  excitatory     2     1
    """
    if isinstance(l2, bool) or not isinstance(l2, numbers.Real) or not (np.isfinite(l2) and l2 > 0):
        raise InputError(f"l2={l2!r}: expected a number above 0; 3e-4 is the default")
    if labels is not None and head is not None:
        raise InputError("labels and head exclude each other: train on labels, or explain the outputs of a head")
    if isinstance(train, xr.Dataset) and isinstance(test, xr.Dataset):
        a, b, classes, explains = rows_of_representations(train, test, labels, head, layer)
    elif isinstance(train, xr.Dataset) or isinstance(test, xr.Dataset):
        kinds = ("Representations" if isinstance(x, xr.Dataset) else "an array" for x in (train, test))
        raise InputError("expected two Representations or two arrays; found train: {}, test: {}".format(*kinds))
    else:
        a, b, classes, explains = _of_arrays(train, test, labels, head, layer)
    return solved(a, b, classes, explains, float(l2))


def representer_support(
    reps: xr.Dataset, *, draws: int = 200, seed: int = 0, l2: float = L2, progress: bool = True
) -> xr.Dataset:
    """Measure which share of the predictions in each language the training sentences of every language carry.

    At every layer, `representers` splits the logits of the predicted classes of the test rows into what each training
    row adds; summed by language and divided by the sum of the logits these are shares.

    Args:
        reps: Representations whose `split` holds "train" and "test". With logits the model's own predictions are
            explained; without, those of a head that is trained on the labels.
        draws, seed: of the bootstrap by sentence id. The test rows are drawn; the training rows are what they are.
        l2: as in `representers`.
        progress: show a progress bar.

    Returns:
        `value, low, high (layer, other_language, language)`: of test language `language` (all together as `pooled`) the
        share that training language `other_language` has. Shares sum to 1, and one is below 0 where a language speaks
        against what is predicted. `n` is the number of test rows.

    Raises:
        InputError: there is no such split, or neither logits nor labels; an id is in both splits.

    Example:
        >>> import probes
        >>> y = np.arange(90) % 3
        >>> x = np.random.default_rng(0).normal(size=(90, 8)) + 3 * np.eye(8)[y]
        >>> split = ("example", np.where(np.arange(90) < 60, "train", "test"))
        >>> reps = probes.from_arrays(x, label=y).assign_coords(split=split)
        >>> float(representer_support(reps, progress=False).value.squeeze().sel(language="pooled").round(6))
        1.0
    """
    return _support(reps, draws, seed, l2, progress)


def _support(reps: xr.Dataset, draws: int, seed: int, l2: float, progress: bool) -> xr.Dataset:
    parts = check_splits(reps)
    train, test = (reps.isel(example=rows) for rows in parts.values())
    drawn = sample(test, draws=draws, seed=seed)
    names = list(dict.fromkeys(train["language"].values))
    found: dict[str, list[np.ndarray]] = {group: [] for group in [*drawn.languages, POOLED]}
    reasons: dict[int, str] = {}
    outputs = "logits" in reps
    unknown = 0
    if outputs:
        given = reps["logits"].values[np.concatenate(list(parts.values()))]
        unknown = int((~np.isfinite(given).all(axis=1)).sum())
    bar = tqdm(
        reps["layer"].values, desc=f"representers {reps.attrs.get('model', '?')}", unit="layer", disable=not progress
    )
    for i, layer in enumerate(bar):
        used = states(reps, i, np.concatenate(list(parts.values())))
        if bad := int((~np.isfinite(used).all(axis=1)).sum()):
            reasons[i] = f"layer {layer}: {bad} rows are not finite"
        elif unknown:
            reasons[i] = f"every layer: the logits of {unknown} rows are not finite"
        if i in reasons:
            for shares in found.values():
                shares.append(np.full((len(drawn.weights), len(names)), np.nan))
            continue
        values = solved(*rows_of_representations(train, test, None, None, layer, outputs=outputs), l2)
        table, logits = values.support()
        for group in found:
            rows = drawn.group(group)
            w = drawn.weights[:, drawn.ids[rows]].astype(np.float64)
            with np.errstate(invalid="ignore", divide="ignore"):
                found[group].append((w @ table[names].to_numpy()[rows]) / (w @ logits[rows])[:, None])
    return result(
        test,
        drawn,
        {group: np.stack(layers, axis=1) for group, layers in found.items()},
        REPRESENTER_SUPPORT.about(),
        over={"layer": reps["layer"].values, "other_language": as_strings(names)},
        missing=lambda at, language: reasons.get(at[0], f"layer {reps['layer'].values[at[0]]}: all logits are 0"),
    )


def check_splits(reps: xr.Dataset) -> dict[str, np.ndarray]:
    """Return the rows of split "train" and "test"; raise `InputError` where one has none, or they share an id."""
    check_representations(reps)
    split = reps["split"].values if "split" in reps.coords else np.array([], object)
    parts = {name: np.flatnonzero(split == name) for name in ("train", "test")}
    for name, rows in parts.items():
        if not len(rows):
            raise InputError(
                f"representer_support: no row has the split {name!r}; expected a coordinate 'split' that holds 'train' "
                "and 'test'. Capture a corpus with a column 'split'"
            )
    both = sorted(set(reps["id"].values[parts["train"]]) & set(reps["id"].values[parts["test"]]))
    if both:
        raise InputError(
            f"id {both[0]!r} is in split 'train' and in split 'test', so a sentence would be explained by its own "
            "translations. Give all rows of an id the same split"
        )
    return parts


def solved(a: _Rows, b: _Rows, classes: list[str], explains: str, l2: float) -> RepresenterValues:
    """Bring the head to its minimum on the training rows a, and split what it says of the test rows b."""
    if a.outputs is None:
        target = np.eye(len(classes))[pd.Categorical(a.frame["label"], classes).codes]
    else:
        target = softmax(a.outputs, axis=1)
    small = a.features.size * len(classes) < _LARGE
    with _threads().limit(limits=1, user_api="blas") if small else nullcontext():
        theta, p, iterations = _minimum(a.features, target, l2)
        alpha = (target - p) / (2 * l2 * len(target))
        # From here on everything goes by way of the alphas, so that what they miss is seen.
        summed = alpha.T @ a.features
        logits, direct = b.features @ summed.T, b.features @ theta.T
        given = direct if b.outputs is None else b.outputs
        error = float(np.abs(logits - direct).max())
        certificate = Certificate(
            gradient_norm=float(2 * l2 * np.linalg.norm(theta - summed)),
            error=error,
            relative_error=error / max(float(np.abs(direct).max()), np.finfo(float).tiny),
            correlation_train=_correlation(p, p if a.outputs is None else target),
            correlation_test=_correlation(softmax(logits, axis=1), softmax(given, axis=1)),
            agreement=float(np.mean(logits.argmax(axis=1) == given.argmax(axis=1))),
            iterations=iterations,
        )
    if certificate.relative_error > _WARN and error > 1e-12:  # all logits may be 0
        warnings.warn(
            "representers: the head has not come to a stationary point (gradient norm "
            f"{certificate.gradient_norm:.1e} after {iterations} steps): the values miss the logits by "
            f"{certificate.relative_error:.1e} of the largest. Use a larger l2, or subtract the mean of the features "
            "and scale them down",
            LayerscopeWarning,
            stacklevel=3,
        )
    return RepresenterValues(
        alpha=alpha,
        theta=theta,
        train_features=a.features,
        test_features=b.features,
        train=a.frame,
        test=b.frame,
        classes=classes,
        logits=logits,
        predicted=np.array(classes, dtype=object)[given.argmax(axis=1)],
        explains=explains,
        l2=l2,
        certificate=certificate,
    )


def rows_of_representations(
    train: xr.Dataset,
    test: xr.Dataset,
    labels: npt.ArrayLike | None,
    head: torch.nn.Module | None,
    layer: object,
    *,
    outputs: bool = False,
) -> tuple[_Rows, _Rows, list[str], str]:
    """Read both sides. Explained are the outputs of a head, or those that the Representations hold, or labels."""
    outputs = outputs or head is not None
    if labels is not None:
        raise InputError(
            "labels go beside arrays; Representations carry their own. Set them with reps.assign_coords(label=...)"
        )
    sides = {"train": check_representations(train), "test": check_representations(test)}
    for name, reps in sides.items():
        if 0 in reps["hidden"].shape:
            raise InputError(f"{name} is empty: expected hidden (layer, example, feature), found {dict(reps.sizes)}")
    for key in ("weights", "pooling"):
        if key in train.attrs and key in test.attrs and train.attrs[key] != test.attrs[key]:
            raise InputError(
                f"train and test differ in {key}: {train.attrs[key]!r} and {test.attrs[key]!r}. Capture both with one "
                "model and the same settings"
            )
    frames = {
        name: pd.DataFrame({c: as_strings(reps[c].values) for c in ("id", "language", "label", "text") if c in reps})
        for name, reps in sides.items()
    }
    model = train.attrs.get("model", "given")
    if not outputs:
        classes = _classes_of_labels(frames["train"], frames["test"])
        layer = train["layer"].values[-1] if layer is None else layer
        explains = f"labels from layer {layer} of model {model}"
    else:
        classes = _classes_of_outputs(sides, head)
        explains = f"model {model} from " + ("the input of its head" if layer is None else f"layer {layer}")
    widths = {}
    for name, reps in sides.items():
        if layer is None and "head_input" not in reps:
            raise InputError(
                f"{name}: no head_input, the input of the model's last linear layer. Capture it with a model that has "
                f"one, or name the layer to explain from: layer={reps['layer'].values[-1]}"
            )
        if layer is not None and layer not in reps["layer"].values.tolist():
            raise InputError(
                f"layer={layer!r}: no such layer in {name}; there are {', '.join(map(str, reps['layer'].values))}"
            )
        widths[name] = reps["head_input" if layer is None else "hidden"].shape[-1]
    _check_widths(widths)
    shared = set(frames["train"]["id"]) & set(frames["test"]["id"])
    if shared:
        warnings.warn(
            f"representers: {len(shared)} of {frames['test']['id'].nunique()} test ids are also in train (the row "
            "itself or a translation): what supports such a row is mostly itself. Split by id",
            LayerscopeWarning,
            stacklevel=3,
        )
    out = []
    for name, reps in sides.items():
        position = None if layer is None else reps["layer"].values.tolist().index(layer)
        features = _filled(_reader(reps, position), widths[name], frames[name], name, layer)
        out.append(_Rows(features, frames[name], _logits(reps, name, frames[name]) if outputs else None))
    return out[0], out[1], classes, explains


def _of_arrays(
    train: npt.ArrayLike, test: npt.ArrayLike, labels: npt.ArrayLike | None, head: torch.nn.Module | None, layer: object
) -> tuple[_Rows, _Rows, list[str], str]:
    if layer is not None:
        raise InputError(f"layer={layer!r} is for Representations; arrays (example, feature) have no layers")
    if labels is None and head is None:
        raise InputError("expected labels, one a training row, or head, the torch.nn.Linear that the arrays feed")
    arrays = {"train": np.asarray(train), "test": np.asarray(test)}
    for name, x in arrays.items():
        if x.ndim != 2 or 0 in x.shape or x.dtype.kind not in "fiub":
            raise InputError(
                f"{name}: expected real numbers (example, feature), none of the two 0; found {x.shape} of {x.dtype}"
            )
    _check_widths({name: x.shape[1] for name, x in arrays.items()})
    frames = {name: pd.DataFrame({"id": as_strings(range(len(x))), "language": "und"}) for name, x in arrays.items()}
    if head is None:
        given = np.asarray(labels)
        if given.shape != (len(arrays["train"]),):
            raise InputError(f"labels: expected {len(arrays['train'])}, one a training row; found {given.shape}")
        null = np.flatnonzero(pd.isna(given.astype(object)))
        if len(null):
            raise InputError(f"labels: null in row {null[0]}. Every training row needs one: fill it, or drop the row")
        frames["train"]["label"] = as_strings(given)
        # In their own order: numbers not as if they were words.
        classes = list(as_strings(np.unique(given))) if given.dtype.kind in "iub" else None
        classes = _classes_of_labels(frames["train"], frames["test"], classes)
    else:
        if not isinstance(head, torch.nn.Linear):
            raise InputError(
                f"head: expected the torch.nn.Linear that the arrays feed, found {type(head).__name__}. To explain a "
                "whole model give Representations, from probes.capture(...)"
            )
        if head.in_features != arrays["train"].shape[1]:
            raise InputError(
                f"head takes {head.in_features} features, and the arrays have {arrays['train'].shape[1]}. Give what is "
                "fed to it"
            )
        classes = [str(c) for c in range(max(head.out_features, 2))]
    out = []
    for name, x in arrays.items():
        features = _filled(x.__getitem__, x.shape[1], frames[name], name, None)
        out.append(_Rows(features, frames[name], None if head is None else _outputs(head, features)))
    return out[0], out[1], classes, "labels" if head is None else "a linear head"


def _classes_of_labels(train: pd.DataFrame, test: pd.DataFrame, classes: list[str] | None = None) -> list[str]:
    if "label" not in train:
        raise InputError(
            "expected head=model, to explain its outputs, or a coordinate 'label' on train, to train on; found neither"
        )
    classes = sorted(set(train["label"])) if classes is None else classes
    if len(classes) < 2:
        raise InputError(f"expected at least 2 classes among the training labels, found only {classes[0]!r}")
    if "label" in test and (unseen := sorted(set(test["label"]) - set(classes))):
        raise InputError(
            f"test row {int(np.flatnonzero(test['label'] == unseen[0])[0])} has the label {unseen[0]!r}, which no "
            f"training row has; those are {', '.join(map(repr, classes))}. Add such rows to train, or drop it from test"
        )
    return classes


def _classes_of_outputs(sides: dict[str, xr.Dataset], head: torch.nn.Module | None) -> list[str]:
    """Return the classes of the logits, having checked that they are those of this model."""
    kind = getattr(getattr(head, "config", None), "problem_type", None)
    if kind not in (None, "single_label_classification"):
        raise InputError(
            f"head: its problem_type is {kind!r}; only single_label_classification, one class a text, can be explained"
        )
    own = None if head is None else weights_fingerprint(head)
    for name, reps in sides.items():
        if "logits" not in reps:
            raise InputError(
                f"{name}: no logits, the outputs that are to be explained. Capture a model with a classification head, "
                "or leave head out to train on labels"
            )
        if own is not None and reps.attrs.get("weights") != own:
            raise InputError(
                f"{name}: expected states of the model that head is (weights {own}), found "
                f"{reps.attrs.get('weights', 'none named')}. Capture {name} again with this model"
            )
        if reps.sizes["class"] < 2:
            raise InputError(f"{name}: expected logits of at least 2 classes, found one; a regression has no classes")
    return list(as_strings(sides["train"]["class"].values))


def _check_widths(widths: dict[str, int]) -> None:
    if widths["train"] != widths["test"]:
        raise InputError(
            f"train has {widths['train']} features and test {widths['test']}. Both must come from the same layer of "
            "the same model"
        )


def _reader(reps: xr.Dataset, position: int | None) -> Callable[[slice], np.ndarray]:
    if position is None:
        return lambda rows: reps["head_input"].variable.isel(example=rows).values
    return lambda rows: states(reps, position, rows)


def _filled(
    read: Callable[[slice], np.ndarray], width: int, frame: pd.DataFrame, name: str, layer: object
) -> np.ndarray:
    """Return the features (row, feature + 1) in float64, the constant 1 last, having checked that all are finite."""
    out = np.empty((len(frame), width + 1))
    out[:, -1] = 1
    for i in range(0, len(out), BLOCK):
        part = out[i : i + BLOCK]
        part[:, :-1] = read(slice(i, i + len(part)))
        _check_finite(part, i, frame, name, "" if layer is None else f", layer {layer}")
    return out


def _check_finite(x: np.ndarray, start: int, frame: pd.DataFrame, name: str, where: str) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        bad = np.flatnonzero(~np.isfinite(np.einsum("ij,ij->i", x, x)))  # also where a square is too large
    if len(bad):
        row = start + int(bad[0])
        raise InputError(
            f"{name} row {row} (id {frame['id'][row]!r}, language {frame['language'][row]!r}{where}): not finite. Find "
            "out which text or weight causes it, or drop the row"
        )


def _logits(reps: xr.Dataset, name: str, frame: pd.DataFrame) -> np.ndarray:
    logits = reps["logits"].variable.transpose("example", "class").values.astype(np.float64)
    _check_finite(logits, 0, frame, name, ", logits")
    return logits


def _outputs(head: torch.nn.Linear, features: np.ndarray) -> np.ndarray:
    weight = head.weight.detach().cpu().double().numpy()
    bias = np.zeros(len(weight)) if head.bias is None else head.bias.detach().cpu().double().numpy()
    z = features[:, :-1] @ weight.T + bias
    return np.concatenate([-z / 2, z / 2], axis=1) if len(weight) == 1 else z


def _pieces(rows: np.ndarray) -> Iterator[np.ndarray]:
    for i in range(0, len(rows), 4 * BLOCK):
        yield rows[i : i + 4 * BLOCK]


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson correlation over all entries; NaN where one of the two is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = np.linalg.norm(x) * np.linalg.norm(y)
    return float(np.vdot(x, y) / scale) if scale > 0 else float("nan")


def _minimum(features: np.ndarray, target: np.ndarray, l2: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Return Theta at the minimum of mean CE(target, Theta f) + l2 ||Theta||^2, its probabilities, and the steps taken.

    Newton's method, its equations solved by conjugate gradients on products with the Hessian over whitened features.
    For large sets these products are in float32, as long as that gets on: the gradient, in float64, says how far it is.
    """
    n, width = features.shape
    classes = target.shape[1]
    # A mean far from 0 would drown the logits in rounding: with Theta' = basis @ v, the features of v are centred.
    basis = np.eye(width)
    basis[-1, :-1] = -features[:, :-1].mean(axis=0)
    x = features.copy()
    x[:, :-1] += basis[-1, :-1]
    penalty = 2 * l2 * (basis.T @ basis)
    inverse = np.linalg.inv(basis)
    # In products with the Hessian, what new whitened features cost.
    dear = width * (n + 3 * width) / (4 * n * classes)

    def objective(logits: np.ndarray, v: np.ndarray) -> float:
        fit = logsumexp(logits, axis=1) - np.einsum("ij,ij->i", target, logits)
        return float(fit.mean() + l2 * np.square(basis @ v).sum())

    v, logits = np.zeros((width, classes)), np.zeros((n, classes))
    best = np.inf, v, softmax(logits, axis=1)
    whiten, shrink = np.zeros((2, width, width))
    white = np.empty(x.shape, np.float32 if x.size * classes >= _LARGE else np.float64)
    products, first, close, steps = np.inf, 0.0, False, 0
    while True:
        p = softmax(logits, axis=1)
        gradient = x.T @ (p - target) / n + penalty @ v
        # By how much the sums of the values miss the training logits.
        missed = float(np.linalg.norm(x @ (inverse @ (inverse.T @ gradient))) / (2 * l2))
        stalled = close and missed > best[0] / 2
        if missed < best[0] or not close:
            best = missed, v, p
        if stalled and white.dtype == np.float32:
            white, products, stalled = np.empty(x.shape), np.inf, False
        if stalled or missed <= _REACHED * np.linalg.norm(logits) or not gradient.any() or steps == _MOST_STEPS:
            return (basis @ best[1]).T, best[2], steps
        if products > dear:
            whiten = _whitening(x, (1 - np.square(p).sum(axis=1)) / (classes - 1) / n, penalty)
            shrink = whiten.T @ penalty @ whiten
            for i in range(0, n, BLOCK):
                white[i : i + BLOCK] = x[i : i + BLOCK] @ whiten
        products = 0
        share = p.astype(white.dtype)

        def curvature(
            u: np.ndarray, share: np.ndarray = share, white: np.ndarray = white, shrink: np.ndarray = shrink
        ) -> np.ndarray:
            nonlocal products
            products += 1
            u = u.reshape(width, classes)
            change = white @ u.astype(white.dtype)
            change -= np.einsum("ij,ij->i", share, change)[:, None]
            change *= share
            return (white.T @ change / n + shrink @ u).ravel()

        g = (whiten.T @ gradient).ravel()
        size = float(np.linalg.norm(g))
        first = first or size
        # Roughly at first, and closely near the minimum, where a Newton step pays.
        rough = min(0.3, max(1e-3, np.sqrt(size / first)))
        u, _ = cg(LinearOperator((g.size, g.size), matvec=curvature, dtype=float), -g, rtol=rough, maxiter=200)
        direction = whiten @ u.reshape(width, classes)
        slope = float(g @ u)
        now, change, length = objective(logits, v), x @ direction, 1.0
        # So close that the objective says no more than rounding: the gradient decides.
        close = -slope < 1e-11 * now
        while not close and objective(logits + length * change, v + length * direction) > now + 1e-4 * length * slope:
            length /= 2
        v = v + length * direction
        logits = x @ v
        steps += 1


def _whitening(x: np.ndarray, weights: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Return the matrix W for which the curvature along x @ W would be the identity, were it alike in all classes."""
    gram = penalty.copy()
    for i in range(0, len(x), 4 * BLOCK):
        part = x[i : i + 4 * BLOCK] * np.sqrt(weights[i : i + 4 * BLOCK, None])
        gram += part.T @ part
    gram.flat[:: len(gram) + 1] += 1e-14 * np.trace(gram)
    return np.linalg.inv(np.linalg.cholesky(gram)).T


def _check(run: Run) -> None:
    check_splits(run.reps)


REPRESENTER_SUPPORT = Probe(
    name="representer_support",
    title="support for the prediction",
    estimator="share of the logits of the predicted classes that the training sentences of a language add up to",
    range="-infinity to infinity; the shares of all training languages sum to 1",
    higher_is="more support",
    unchanged_by=("rotation", "order"),
    paper="Yeh, Kim, Yen, Ravikumar 2018, arXiv 1811.09720",
    needs=("labels or logits", "splits"),
    interval=f"{LARGE} of test rows",
    measure=lambda run: _support(run.reps, run.draws, run.seed, L2, run.progress),
    check=_check,
)
