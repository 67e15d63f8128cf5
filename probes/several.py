"""One comparison on each of several corpora: together where they say the same kind of thing, apart where states are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

import datasets
import pandas as pd

from probes.corpus import check_corpus
from probes.errors import InputError, address_of
from probes.files import file_name
from probes.models.series import Series
from probes.remote import Address, exists, locked_at, read_at, read_json_at, within, write_whole_at
from probes.results.agreed import Agreement, agreement
from probes.results.cells import plain_layers
from probes.results.saved import INDEX, check_folder
from probes.results.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from probes.views.drawing import Shows

_INDEX = {"corpora": {str: str}}  # the hash of the provenance of each
_MOST_NAMED = 8  # languages that a message lists


class Several(Mapping[str, Any]):
    """Comparisons of the same models by the corpus that each is on; see `Comparisons`."""

    one: ClassVar[Any]  # the class of a single comparison

    def __init__(self, comparisons: Mapping[str, Any]) -> None:
        """Hold comparisons that were made apart: the same models, with the same baseline."""
        if not isinstance(comparisons, Mapping) or not comparisons:
            raise InputError("expected a dict name -> Comparison, at least one")
        self._comparisons: dict[str, Any] = {}
        for name, comparison in comparisons.items():
            check_name(name)
            if not isinstance(comparison, Table):
                raise InputError(f"corpus {name!r}: expected a Comparison, found {type(comparison).__name__}")
            self._comparisons[name] = comparison
        (first, base), *others = self._comparisons.items()
        for name, other in others:
            if set(other.provenance["models"]) != set(base.provenance["models"]) or other.baseline != base.baseline:
                raise InputError(
                    f"corpora {first!r} and {name!r}: expected the same models and baseline, found "
                    f"{_models(base)} and {_models(other)}"
                )
        check_common({name: _languages(one.provenance["corpus"]["languages"]) for name, one in self.items()})

    def __getitem__(self, corpus: str) -> Any:
        """Return the comparison on one corpus."""
        if corpus not in self._comparisons:
            raise KeyError(f"no corpus {corpus!r}; there are {', '.join(map(repr, self))}")
        return self._comparisons[corpus]

    def __iter__(self) -> Iterator[str]:
        """Go through the names of the corpora."""
        return iter(self._comparisons)

    def __len__(self) -> int:
        """How many corpora there are."""
        return len(self._comparisons)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {', '.join(map(repr, self))} of {_models(next(iter(self.values())))}>"

    def __getattr__(self, name: str) -> Any:
        """Say of what a single comparison has that it is of one corpus."""
        if not name.startswith("_") and hasattr(self.one, name):
            first = next(iter(self))
            raise AttributeError(f"{name!r} is of one corpus: say which, as in comparisons[{first!r}].{name}")
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    @property
    def baseline(self) -> str:
        """The model that the others are compared with."""
        return str(next(iter(self.values())).baseline)

    @property
    def table(self) -> pd.DataFrame:
        """The tables of all corpora, with a column `corpus` first."""
        return self._stacked(lambda one: one.table)

    @property
    def models(self) -> pd.DataFrame:
        """What each model costs on each corpus."""
        return self._stacked(lambda one: one.models)

    def to_dataframe(self) -> pd.DataFrame:
        """Return the tidy table, with a column `corpus` first; p is adjusted within each corpus."""
        return self.table

    def summary(self) -> pd.DataFrame:
        """Return the summaries of all corpora, with a column `corpus` first."""
        return self._stacked(lambda one: one.summary())

    def adjusted(self, over: Sequence[str] = ("layer",), *, draws: int | None = None) -> pd.DataFrame:
        """Return the tidy table with p and intervals for a family of each corpus; as
        `Comparison.adjusted`.
        """
        return self._stacked(lambda one: one.adjusted(over, draws=draws))

    def difference(self, model: str, baseline: str, *, over: Sequence[str] = ("layer",)) -> pd.DataFrame:
        """Return the differences of a model to any other one; as `Comparison.difference`."""
        return self._stacked(lambda one: one.difference(model, baseline, over=over))

    def steps(
        self, series: str | None = None, *, against: str = "first", over: Sequence[str] = ("layer",)
    ) -> pd.DataFrame:
        """Return the rows of a training by step; as `Comparison.steps`, on each corpus."""
        return self._stacked(lambda one: one.steps(series, against=against, over=over))

    def since(
        self, series: str | None = None, *, against: str = "first", over: Sequence[str] = ("model",)
    ) -> pd.DataFrame:
        """Return when a change began on each corpus; as `Comparison.since`."""
        return self._stacked(lambda one: one.since(series, against=against, over=over))

    def to_markdown(
        self,
        probes: Sequence[str] | None = None,
        *,
        layer: int | None = None,
        languages: Sequence[str] | None = None,
        digits: int = 2,
    ) -> str:
        """Return one table of all corpora for a page; as `Comparison.to_markdown`, the corpus first."""
        from probes.views.paper import as_markdown

        return as_markdown(self, probes, layer, languages, digits)

    def to_latex(
        self,
        probes: Sequence[str] | None = None,
        *,
        layer: int | None = None,
        languages: Sequence[str] | None = None,
        digits: int = 2,
        label: str | None = None,
    ) -> str:
        """Return one table of all corpora for LaTeX; as `Comparison.to_latex`, the corpus first."""
        from probes.views.paper import as_latex

        return as_latex(self, probes, layer, languages, digits, label)

    def verdict(self, *, judge: Sequence[str] | None = None, tolerance: Mapping[str, float] | None = None) -> Agreement:
        """Return what holds on every corpus: "lost" or "kept" where each says so by itself.

        Args:
            judge, tolerance: as in `Comparison.verdict`; by default the measures by which a
                comparison would be judged on every corpus.

        Raises:
            InputError: as there; no measure can be judged on every corpus.
        """
        from probes.views.several import in_words

        found = agreement(self, judge=judge, tolerance=tolerance)
        return replace(found, words=in_words(found, self))

    def plot(
        self,
        probe: str | None = None,
        *,
        languages: str | Sequence[str] | None = None,
        simultaneous: bool = False,
        **shown: Unpack[Shows],
    ) -> Figure:
        """Draw layer curves as `Comparison.plot` does: a row a probe, a column a corpus."""
        from probes.views.several import curves

        return curves(self, probe, languages, simultaneous, shown)

    def plot_change(
        self, probe: str, *, languages: str | Sequence[str] | None = None, **shown: Unpack[Shows]
    ) -> Figure:
        """Draw what changed as `Comparison.plot_change` does: a row a model, a column a corpus, all
        on one scale.
        """
        from probes.views.several import change

        return change(self, probe, languages, shown)

    def plot_languages(
        self,
        probe: str | None = None,
        *,
        judge: Sequence[str] | None = None,
        tolerance: Mapping[str, float] | None = None,
        languages: str | Sequence[str] | None = None,
        **shown: Unpack[Shows],
    ) -> Figure:
        """Draw what each language lost or gained as `Comparison.plot_languages` does: a row a model,
        a column a corpus.
        """
        from probes.views.several import ranking

        return ranking(self, agreement(self, judge=judge, tolerance=tolerance), probe, languages, shown)

    def report(self, path: str | Path) -> Path | str:
        """Write one self-contained HTML page: what holds on every corpus, and the page of each."""
        from probes.views.several import write

        return write(self, address_of(path, "path"))

    def add(
        self,
        name: str,
        model: Any,
        *,
        corpus: Mapping[str, datasets.Dataset] | None = None,
        store: str | Path | None = None,
        **asked: Any,
    ) -> Self:
        """Return these comparisons with one model more, as `Comparison.add` does on each corpus.

        Args:
            name, model: as there; Representations are of one corpus, and added to one comparison.
            corpus: by name.
            store: a folder, in it one a corpus.
            asked: as there.

        Raises:
            InputError: as there.
        """
        check_models({name: model})
        unknown = [k for k in corpus or {} if k not in self]
        if unknown:
            raise InputError(f"corpus=...: there is no corpus {unknown[0]!r}; there are {', '.join(map(repr, self))}")
        grown = {}
        for of, one in self.items():
            with on_corpus(of):
                about = {"corpus": None if corpus is None else corpus.get(of), "store": store_of(store, of)}
                grown[of] = one.add(name, model, **about, **asked)
        return type(self)(grown)

    def against(self, baseline: str) -> Self:
        """Return these comparisons with another of their models as the baseline; as
        `Comparison.against`.
        """
        return type(self)({name: one.against(baseline) for name, one in self.items()})

    def save(self, folder: str | Path, *, overwrite: bool = False, wait: bool = True) -> Path | str:
        """Write each comparison into a folder of its own, and `corpora.json`, which says which.

        Args:
            folder: where to; it is made where it is missing.
            overwrite, wait: as in `Comparison.save`.

        Raises:
            InputError: the folder holds a comparison already, and `overwrite` was not asked for.
        """
        folder = address_of(folder, "folder")
        with locked_at(within(folder, "corpora"), wait=wait):
            check_folders(folder, self, overwrite=overwrite)
            index = {}
            for name, one in self.items():
                own = one.save(within(folder, file_name(name)), overwrite=overwrite, wait=wait)
                digest = hashlib.sha256(read_at(within(own, "provenance.json")) or b"").hexdigest()
                index[name] = digest
            write_whole_at(within(folder, INDEX), json.dumps({"corpora": index}, indent=2, ensure_ascii=False) + "\n")
        return folder

    @classmethod
    def open(cls, folder: str | Path, *, store: str | Path | None = None) -> Self:
        """Read what `save` wrote.

        Args:
            folder: of the comparisons.
            store: the folder of states that `compare` was given.

        Raises:
            InputError: there are none in the folder, or they do not belong together.
        """
        folder = address_of(folder, "folder")
        if not exists(within(folder, INDEX)):
            single = exists(within(folder, "comparison.csv"))
            hint = "it holds one comparison: open it with probes.Comparison.open" if single else "found none"
            raise InputError(f"{folder}: expected {INDEX} in it, as Comparisons.save writes it; {hint}")
        found = {}
        for name, digest in read_json_at(within(folder, INDEX), _INDEX)["corpora"].items():
            own = within(folder, file_name(name))
            if hashlib.sha256(read_at(within(own, "provenance.json")) or b"").hexdigest() != digest:
                raise InputError(
                    f"{own}: this is not the comparison that {INDEX} belongs to: it was changed, or its writing "
                    "was interrupted. Save the comparisons again"
                )
            found[name] = cls.one.open(own, store=store_of(store, name))
        return cls(found)

    def _stacked(self, frame: Callable[[Any], pd.DataFrame]) -> pd.DataFrame:
        frames = []
        for name, one in self.items():
            own = frame(one)
            frames.append(own.assign(corpus=name)[["corpus", *own.columns]])
        first = frames[0].attrs
        whole = plain_layers(pd.concat(frames, ignore_index=True))
        whole.attrs = dict(first)
        return whole


@contextmanager
def on_corpus(name: str) -> Iterator[None]:
    """Within it, what is refused is said of a corpus.

    Example:
        >>> with on_corpus("sib200"):
        ...     raise InputError("no pivot")
        Traceback (most recent call last):
            ...
        probes.errors.InputError: corpus 'sib200': no pivot
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"corpus {name!r}: {error}") from error


def check_corpora(models: Mapping[str, Any], corpora: Mapping[str, Any]) -> dict[str, datasets.Dataset]:
    """Return corpora, each checked.

    Raises:
        InputError: there is none, one is no corpus, or they have no language in common; a model is
            given as Representations.
    """
    if not corpora:
        raise InputError("corpus={}: expected at least one corpus by name")
    check_models(models)
    checked = {}
    for name, corpus in corpora.items():
        check_name(name)
        with on_corpus(name):
            checked[name] = check_corpus(corpus)
    check_common({name: _languages(corpus["language"]) for name, corpus in checked.items()})
    return checked


def check_models(models: Mapping[str, Any]) -> None:
    """Raise `InputError` where a model is given as Representations, which are of one corpus."""
    for name, model in models.items():
        several = model.steps.values() if isinstance(model, Series) else model
        for one in several if isinstance(several, Sequence) and not isinstance(several, str) else [several]:
            if type(one).__module__.startswith("xarray"):
                raise InputError(
                    f"model {name!r}: Representations are of one corpus. Give models or checkpoints, or compare on "
                    "each corpus alone and join them: probes.Comparisons({name: comparison, ...})"
                )


def check_name(name: object) -> None:
    """Raise `InputError` where a corpus has no name."""
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"corpus {name!r}: expected a name, as in {{'sib200': corpus}}")


def check_common(languages: Mapping[str, Sequence[str]]) -> None:
    """Raise `InputError` where corpora have no language in common."""
    if len(languages) < 2 or set.intersection(*map(set, languages.values())):
        return
    from probes.views.language_names import language_name

    there = "; ".join(f"{name}: {_listed(codes)}" for name, codes in languages.items())
    (first, codes), *others = languages.items()
    alike = [
        f"{code!r} of {first} and {other!r} of {name} are both {language_name(code)}"
        for name, own in others
        for code in codes
        for other in own
        if code != other and language_name(code) == language_name(other)
    ]
    hint = f" ({alike[0]})" if alike else ""
    raise InputError(
        f"the corpora have no language in common, which are matched by their codes ({there}). Write the codes of "
        f"one as the other has them{hint}, or compare on each corpus alone"
    )


def check_folders(folder: Address, corpora: Mapping[str, Any] | Sequence[str], *, overwrite: bool) -> None:
    """Raise `InputError` where comparisons cannot be saved into a folder, one a corpus."""
    if not overwrite and exists(within(folder, INDEX)):
        raise InputError(
            f"{folder} already holds a run. Choose another folder, or replace it with overwrite=True (--overwrite)"
        )
    for own in (folder, *(within(folder, file_name(name)) for name in corpora)):
        check_folder(own, overwrite=overwrite)


def store_of(store: str | Path | None, corpus: str) -> Address | None:
    """Return the folder of the states on one corpus."""
    return None if store is None else within(address_of(store, "store"), file_name(corpus))


def _languages(codes: Any) -> list[str]:
    return list(map(str, dict.fromkeys(codes)))


def _listed(codes: Sequence[str]) -> str:
    more = f" and {len(codes) - _MOST_NAMED} more" if len(codes) > _MOST_NAMED else ""
    return ", ".join(map(repr, codes[:_MOST_NAMED])) + more


def _models(one: Table) -> str:
    return ", ".join(map(repr, one.provenance["models"]))
