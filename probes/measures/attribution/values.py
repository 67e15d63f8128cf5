"""Representer values: what every training row adds to a prediction, summed and sorted."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from probes.errors import InputError
from probes.states.representations import BLOCK

_ENTRIES = 2**22  # of one block of values
_NAMED = 5


@dataclass(frozen=True)
class Certificate:
    """How well the values explain what they are to explain.

    Attributes:
        gradient_norm: Frobenius norm of the gradient of the objective; 0 at a stationary point.
        error: largest difference between a test logit and the sum of its values over all training
            rows.
        relative_error: the same, divided by the largest test logit.
        correlation_train: Pearson correlation of all probabilities with the given ones, on the
            training rows.
        correlation_test: the same on the test rows, which the solution has not seen.
        agreement: share of the test rows whose most probable class is the given one.
        iterations: Newton steps.

    The given probabilities are those of the head that is explained. Where values are trained on
    labels they are those of the trained head itself, so that the last three say only that the sums
    are right.
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
    """Values alpha_ij f_i.f_t of training rows i for the logit j of test rows t.

    Positive ones support the class; summed over all training rows they are the logit. The target,
    where none is given, is the predicted class: of the model that is explained, or of the head that
    was trained on labels.

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
        """Return the training rows that speak most for a class of a sentence, and most against it.

        Args:
            test_id: the sentence, in every language there is; by default all test rows. For bare
                arrays the row.
            k: how many of each kind; fewer where fewer have a value of that sign.
            language: only the test row of this language.
            target: the class; by default the predicted one.

        Returns:
            One row a test row and training row: `test_id, test_language, target, side`
            ("excitatory" or "inhibitory"), `rank, value`, and the training row's `id, language`
            and, where there are any, `label, text`.

        Raises:
            InputError: the id, the language or the class is unknown; k is no whole number above 0.

        Example:
            >>> import probes
            >>> y = np.arange(300) % 3
            >>> x = np.random.default_rng(0).normal(size=(300, 8)) + 2 * np.eye(8)[y]
            >>> values = probes.representers(x[:240], x[240:], labels=y[:240])
            >>> values.top(7, k=2)[["target", "side", "rank", "label"]].head(2)
              target        side  rank label
            0      1  excitatory     1     1
            1      1  excitatory     2     1
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
        """Return what every training language adds to the logit of each test row's predicted class.

        Returns:
            A table (test row, training language) whose rows sum to the logits, and the logits
            (test row,).

        Example:
            >>> import probes
            >>> y = np.arange(300) % 3
            >>> x = np.random.default_rng(0).normal(size=(300, 8)) + 2 * np.eye(8)[y]
            >>> values = probes.representers(x[:240], x[240:], labels=y[:240])
            >>> table, logits = values.support()
            >>> bool(np.allclose(table.sum(axis=1), logits))
            True
        """
        codes = self._targets(None, np.arange(len(self.test)))
        group, names = pd.factorize(self.train["language"])
        return pd.DataFrame(self._net(group, len(names), codes), columns=list(names)), self._picked(codes)

    def by_language(self) -> pd.DataFrame:
        """Return how much the training rows of each language support predictions in each language.

        Returns:
            One row a test language and training language: `excitatory` and `inhibitory`, the sums
            of the positive and of the negative values for the predicted class, and `net`, both
            together, as means over the `n` test rows. Over the training languages `net` sums to the
            mean logit of the predicted class.

        Example:
            >>> import probes
            >>> y = np.arange(300) % 3
            >>> x = np.random.default_rng(0).normal(size=(300, 8)) + 2 * np.eye(8)[y]
            >>> values = probes.representers(x[:240], x[240:], labels=y[:240])
            >>> values.by_language()[["test_language", "train_language", "n"]]
              test_language train_language   n
            0           und            und  60
        """
        return self._by("test_language", self.test["language"], "train_language", self.train["language"])

    def by_class(self) -> pd.DataFrame:
        """Return how much the training rows of each label support the predictions of each class.

        Returns:
            As `by_language`, one row a `predicted` class of test rows and `train_label`.

        Raises:
            InputError: the training rows have no labels.

        Example:
            >>> import probes
            >>> y = np.arange(300) % 3
            >>> x = np.random.default_rng(0).normal(size=(300, 8)) + 2 * np.eye(8)[y]
            >>> values = probes.representers(x[:240], x[240:], labels=y[:240])
            >>> table = values.by_class()
            >>> own = table["predicted"] == table["train_label"]
            >>> bool((table.loc[own, "net"] > 0).all())
            True
        """
        return self._by("predicted", pd.Series(self.predicted), "train_label", self._labels())

    def mislabelled(self) -> pd.DataFrame:
        """Return the training rows by how hard the head has to pull to get their label right.

        Hardest first, by |alpha| of the row's own label. Trained on labels, wrong ones come first;
        where a model is explained by its own outputs, alpha says how much a row weighs, and little
        about its label.

        Returns:
            `rank, alpha` and the coordinates of the row, indexed by its position in train.

        Raises:
            InputError: the training rows have no labels, or labels that are not classes.

        Example:
            >>> import probes
            >>> y = np.arange(300) % 3
            >>> x = np.random.default_rng(0).normal(size=(300, 8)) + 4 * np.eye(8)[y]
            >>> y[17] = (y[17] + 1) % 3
            >>> values = probes.representers(x[:240], x[240:], labels=y[:240], l2=1e-2)
            >>> int(values.mislabelled().index[0])
            17
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
        """Return the values (test row, train row) themselves; they are many, so ask for `rows`.

        Args:
            rows: positions of test rows, or a mask; by default all.
            target: the class; by default the predicted one of each row.

        Example:
            >>> import probes
            >>> y = np.arange(300) % 3
            >>> x = np.random.default_rng(0).normal(size=(300, 8)) + 2 * np.eye(8)[y]
            >>> values = probes.representers(x[:240], x[240:], labels=y[:240])
            >>> logits = values.logits[[4, 7]].max(axis=1)
            >>> bool(np.allclose(values.matrix([4, 7]).sum(axis=1), logits))
            True
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
        """Sum of the values of each group of training rows for each test row: the logits of that
        group's head.
        """
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


def _pieces(rows: np.ndarray) -> Iterator[np.ndarray]:
    for i in range(0, len(rows), 4 * BLOCK):
        yield rows[i : i + 4 * BLOCK]
