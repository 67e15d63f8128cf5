"""What a comparison can draw of itself (curves, changes, languages, steps), and its tables by step and for papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from probes.results.steps import began, by_step
from probes.results.table import Table
from probes.results.verdict import verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from probes.views.drawing import Shows


class Plots(Table):
    """A table that draws its figures; matplotlib is imported where one is drawn."""

    def plot(
        self,
        probe: str | None = None,
        *,
        languages: str | Sequence[str] | None = None,
        simultaneous: bool = False,
        **shown: Unpack[Shows],
    ) -> Figure | Axes:
        """Draw layer curves with their bands, one panel a probe; points by language of what has no
        layer.

        A probe that has more to a number than its layer is drawn as maps, one a model: similarities
        layer by layer, the error of modules by layer, representer values by language.

        Args:
            probe: the probe; by default all that have curves.
            languages: one or several, a panel each; by default all of them together, and each of
                what has no layer.
            simultaneous: draw the bands wider, such that they hold for all layers of a curve at
                once: 95 % of corpora have none outside.
            shown: `models`, `layers`: only these; `width`: of the figure in inches, one panel can
                be read at 3.3 (or see `probes.style`); `caption=False`: no sentence below it; `ax`: a
                matplotlib panel to draw one panel into.

        Returns:
            A figure, whose `axes` are the panels; or the panel that was given as `ax`. So do all
            that draw.

        Raises:
            InputError: the probe was not measured; there is no such model, layer or language; there
                are several panels for one `ax`.

        Example:
            >>> import numpy as np, probes
            >>> x, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
            >>> near, far = (probes.from_arrays(x + k * np.eye(8)[y], label=y) for k in (1, 3))
            >>> comparison = probes.compare({"far": far, "near": near}, probes=["snr"])
            >>> comparison.plot("snr").axes[0].get_title()
            'signal-to-noise ratio, higher is better'

        See also:
            `Comparison.plot_change`, `Comparison.plot_languages`, `Comparison.report`.
        """
        from probes.views.figures import curves, maps

        chosen = self.names(probe)
        flat = [p for p in chosen if not self.is_map(p)]
        if flat:
            return _drawn(curves(self, flat, languages, simultaneous=simultaneous, **shown), shown.get("ax"))
        return _drawn(maps(self, chosen[0], languages, **shown), shown.get("ax"))

    def plot_change(
        self, probe: str, *, languages: str | Sequence[str] | None = None, **shown: Unpack[Shows]
    ) -> Figure | Axes:
        """Draw the difference to the baseline, languages by layers; dots mark what is significant.

        That is p < 0.05, adjusted over layers and languages. Red is damage and blue gain where more
        or less of the probe is better; other colours stand for less and more where it is not.

        Args:
            probe: a probe that has differences, at each layer and language.
            languages: only these.
            shown: as in `plot`.

        Raises:
            InputError: as `plot` does; the probe compares with the baseline itself; there is only
                one model.

        Example:
            >>> import numpy as np, probes
            >>> x = np.random.default_rng(0).normal(size=(2, 60, 8))
            >>> far, near = (probes.from_arrays(states, label=np.arange(60) % 3) for states in x)
            >>> compared = probes.compare({"far": far, "near": near}, probes=["snr"])
            >>> compared.plot_change("snr").axes[0].get_title()
            'near minus far'

        See also:
            `Comparison.plot`, `Comparison.summary`.
        """
        from probes.views.figures import change

        return _drawn(change(self, self.names(probe)[0], languages, **shown), shown.get("ax"))

    def plot_languages(
        self,
        probe: str | None = None,
        *,
        judge: Sequence[str] | None = None,
        tolerance: Mapping[str, float] | None = None,
        languages: str | Sequence[str] | None = None,
        **shown: Unpack[Shows],
    ) -> Figure | Axes:
        """Draw what each language lost or gained, most lost first: a panel a model.

        Args:
            probe: a judged measure; by default the first.
            judge, tolerance: as in `verdict`.
            languages: only these.
            shown: as in `plot`, but for `layers`: a verdict is of the end of a model.

        Raises:
            InputError: as `verdict` and `plot` do; the measure is not among those that are judged.

        Example:
            >>> import numpy as np, probes
            >>> rng = np.random.default_rng(0)
            >>> x, noise = rng.normal(size=(100, 8)), rng.normal(size=(200, 8))
            >>> about = {"id": np.tile(np.arange(100), 2), "language": np.repeat(["en", "sw"], 100)}
            >>> both = np.concatenate([x, x])
            >>> models = {"base": both + 0.01 * noise, "poor": noise}
            >>> models = {name: probes.from_arrays(states, **about) for name, states in models.items()}
            >>> comparison = probes.compare(models, pivot="en", probes=["retrieval"])
            >>> comparison.plot_languages().axes[0].get_title()
            'poor: lost'

        See also:
            `Comparison.verdict`, `Comparison.plot_change`.
        """
        from probes.views.ranking import ranking

        found = verdict(self, judge=judge, tolerance=tolerance)
        return _drawn(ranking(found, self, probe, languages, **shown), shown.get("ax"))

    def steps(
        self, series: str | None = None, *, against: str = "first", over: Sequence[str] = ("layer",)
    ) -> pd.DataFrame:
        """Return the rows of a training by step, with what changed.

        Args:
            series: as it is called, where there are several.
            against: what differences are to: the "first" step, the "baseline", or the step "before".
            over: what varies within the family that p is adjusted over, as in `adjusted`; "model"
                for all steps.

        Returns:
            The columns of `to_dataframe`, and `step`.

        Raises:
            InputError: there is no series, or several and none is named.

        Example:
            >>> import numpy as np, probes
            >>> x, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
            >>> run = [(k, probes.from_arrays(x + k * np.eye(8)[y], label=y)) for k in (1, 2, 3)]
            >>> comparison = probes.compare({"run": probes.series(run)}, probes=["snr"])
            >>> table = comparison.steps(against="before").query("language == 'pooled'")
            >>> table[["step", "value", "difference"]].round(2).values.tolist()
            [[1.0, 1.08, nan], [2.0, 1.24, 0.17], [3.0, 1.48, 0.24]]

        See also:
            `series`, `Comparison.since`, `Comparison.plot_steps`.
        """
        return by_step(self, series, against, over)

    def since(
        self, series: str | None = None, *, against: str = "first", over: Sequence[str] = ("model",)
    ) -> pd.DataFrame:
        """Return when a change began: the first step from which a difference stays.

        Stays: at this and all later steps its interval, which holds for all steps at once, leaves
        out 0 on the same side.

        Args:
            series, against: as in `steps`.
            over: what the intervals hold for at once: all steps ("model"), and with "layer" and
                "language" all of these too.

        Returns:
            A row a probe, language and layer: `step`, empty where nothing stays; there
            `difference, adjusted_low, adjusted_high`.

        Raises:
            InputError: as `steps`.

        Example:
            >>> import numpy as np, probes
            >>> x, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
            >>> run = [(k, probes.from_arrays(x + max(k, 2) * np.eye(8)[y], label=y)) for k in range(5)]
            >>> comparison = probes.compare({"run": probes.series(run)}, probes=["snr"])
            >>> comparison.since()["step"].tolist()
            [3, 3]

        See also:
            `series`, `Comparison.steps`.
        """
        return began(self, series, against, over)

    def plot_steps(
        self,
        probe: str,
        *,
        series: str | None = None,
        layer: int | None = None,
        languages: str | Sequence[str] | None = None,
        width: float | None = None,
        ax: Axes | Sequence[Axes] | None = None,
    ) -> Figure | Axes | Sequence[Axes]:
        """Draw a probe along a training: by step at one layer, and layers by steps what changed
        since the first.

        Args:
            probe: what is drawn.
            series: as it is called, where there are several.
            layer: of the curve; by default the last.
            languages: of the curve; by default all of them together. The map is of the first.
            width: of the figure, in inches.
            ax: a matplotlib panel for the curve, or two for the curve and the map.

        Returns:
            A figure; or what was given as `ax`.

        Raises:
            InputError: there is no series; the probe was not measured, or has more to a number than
                layer and language; there is no such layer or language.

        Example:
            >>> import numpy as np, probes
            >>> x, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
            >>> run = [(k, probes.from_arrays(x + k * np.eye(8)[y], label=y)) for k in (1, 2, 3)]
            >>> comparison = probes.compare({"run": probes.series(run)}, probes=["snr"])
            >>> comparison.plot_steps("snr").axes[0].get_xlabel()
            'step of run'

        See also:
            `Comparison.steps`, `Comparison.since`.
        """
        from probes.views.steps import by_steps

        return _drawn(by_steps(self, probe, series, layer, languages, width, ax), ax)

    def plot_step_similarity(
        self,
        series: str | None = None,
        *,
        measure: str = "cka",
        against: str = "before",
        steps: Sequence[int] | None = None,
        width: float | None = None,
        ax: Axes | None = None,
    ) -> Figure | Axes:
        """Draw how similar layers are between steps of a training: a map a step, layers by layers.

        Args:
            series: as it is called, where there are several.
            measure: of similarity, as in `similarity`.
            against: the step "before", the "first", or the "baseline".
            steps: only these.
            width, ax: as in `plot`.

        Raises:
            InputError: there is no series, or one step alone; the states are not at hand.

        Example:
            >>> import numpy as np, probes
            >>> x = np.random.default_rng(0).normal(size=(3, 2, 60, 8))
            >>> run = probes.series([(step, probes.from_arrays(states)) for step, states in enumerate(x)])
            >>> comparison = probes.compare({"run": run}, probes=["norm"], progress=False)
            >>> [axis.get_title() for axis in comparison.plot_step_similarity().axes[:2]]
            ['step 1 with step 0', 'step 2 with step 1']

        See also:
            `similarity`, `Comparison.plot_steps`.
        """
        from probes.views.scene import representations_of
        from probes.views.steps import similarity_of_steps

        states = representations_of(self)
        return _drawn(similarity_of_steps(self, states, series, measure, against, width, ax, steps), ax)

    def to_markdown(
        self,
        probes: Sequence[str] | None = None,
        *,
        layer: int | None = None,
        languages: Sequence[str] | None = None,
        digits: int = 2,
    ) -> str:
        """Return values with their intervals as a table of Markdown: a row a probe and model, a
        column a language; marked where they differ from the baseline.

        Args:
            probes: by default all that have no more to a number than layer and language.
            layer: by default the last of each model; what has no layer is there in any case.
            languages: by default all of them together, and then each.
            digits: decimal places.

        Raises:
            InputError: a probe was not measured, or is a map; a language or layer is not there.

        Example:
            >>> import numpy as np, probes
            >>> x, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
            >>> near, far = (probes.from_arrays(x + k * np.eye(8)[y], label=y) for k in (1, 3))
            >>> comparison = probes.compare({"far": far, "near": near}, probes=["snr"])
            >>> print(comparison.to_markdown(languages=["pooled"]).splitlines()[3])
            | signal-to-noise ratio | near | 1.08 [1.02, 1.12]\\* |

        See also:
            `Comparison.to_latex`, `Comparison.to_dataframe`.
        """
        from probes.views.paper import as_markdown

        return as_markdown(self, probes, layer, languages, digits)

    def to_model_card(self, model: str, *, dataset: str = "corpus", digits: int = 2) -> str:
        """Return a page for a compressed model: what it lost, a table by language, what it costs,
        and the `model-index` of the Hugging Face hub.

        `compress.save(..., comparison=comparison)` writes it beside the model.

        Args:
            model: one beside the baseline.
            dataset: what the corpus is called.
            digits: decimal places.

        Raises:
            InputError: there is no such model beside the baseline; as `verdict`.

        Example:
            >>> import numpy as np, probes
            >>> rng = np.random.default_rng(0)
            >>> x, about = rng.normal(size=(60, 8)), {"id": np.tile(np.arange(60), 2)}
            >>> about["language"] = np.repeat(["en", "sw"], 60)
            >>> states = {k: np.tile(x, (2, 1)) + s * rng.normal(size=(120, 8)) for k, s in (("a", 0.1), ("b", 2.0))}
            >>> models = {name: probes.from_arrays(z, **about) for name, z in states.items()}
            >>> comparison = probes.compare(models, pivot="en", probes=["retrieval"], progress=False)
            >>> comparison.to_model_card("b").splitlines()[:3]
            ['---', 'model-index:', '- name: b']

        See also:
            `Comparison.verdict`, `Comparison.to_markdown`.
        """
        from probes.views.card import as_card

        return as_card(self, verdict(self), model, dataset, digits)

    def to_latex(
        self,
        probes: Sequence[str] | None = None,
        *,
        layer: int | None = None,
        languages: Sequence[str] | None = None,
        digits: int = 2,
        label: str | None = None,
    ) -> str:
        """Return the table of `to_markdown` for LaTeX, with packages booktabs and multirow.

        Args:
            probes, layer, languages, digits: as there.
            label: for references to it.

        Raises:
            InputError: as `to_markdown`.

        Example:
            >>> import numpy as np, probes
            >>> x, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
            >>> near, far = (probes.from_arrays(x + k * np.eye(8)[y], label=y) for k in (1, 3))
            >>> comparison = probes.compare({"far": far, "near": near}, probes=["snr"])
            >>> r"\\toprule" in comparison.to_latex()
            True

        See also:
            `Comparison.to_markdown`.
        """
        from probes.views.paper import as_latex

        return as_latex(self, probes, layer, languages, digits, label)

    def plot_tradeoff(
        self,
        probe: str | None = None,
        *,
        against: str = "bytes",
        judge: Sequence[str] | None = None,
        tolerance: Mapping[str, float] | None = None,
        ax: Axes | None = None,
        width: float | None = None,
    ) -> Figure | Axes:
        """Draw quality against what it costs, all languages together and the worst one, with their
        intervals; a line joins the models that no other beats in both.

        Args:
            probe: a judged measure; by default the first.
            against: "bytes" (as stored), "operations" or "seconds" (of 32 texts), of `models`.
            judge, tolerance: as in `verdict`.
            ax, width: as in `plot`.

        Returns:
            A figure; or the panel that was given as `ax`.

        Raises:
            InputError: as `verdict` does; the measure is not among those that are judged; what it
                is drawn against was measured of fewer than two models.

        Example:
            >>> import compress, probes
            >>> model, tokenizer = probes.load_checkpoint("bundled")
            >>> models = {"base": model, "pruned": compress.prune(model, sparsity=0.9)}
            >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"]).select(range(40))
            >>> how = {"tokenizer": tokenizer, "probes": ["accuracy"], "progress": False}
            >>> probes.compare(models, corpus, **how).plot_tradeoff().axes[0].get_xlabel()
            'megabytes as stored'

        See also:
            `Comparison.verdict`, `Comparison.plot_languages`.
        """
        from probes.views.tradeoff import tradeoff

        found = verdict(self, judge=judge, tolerance=tolerance)
        return _drawn(tradeoff(found, self, probe, against, ax=ax, width=width), ax)


def _drawn(figure: Figure, ax: Any) -> Any:
    """What is given back: the panels that were given, or else the figure."""
    return figure if ax is None else ax
