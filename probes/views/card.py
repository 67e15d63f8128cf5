"""What a comparison says of one model, for its page: the verdict, a table, and where they are from."""

from __future__ import annotations

from huggingface_hub import EvalResult, ModelCardData

from probes.costs import as_rows
from probes.errors import InputError, check_choice
from probes.printing import printable
from probes.results.cells import NO_LAYER
from probes.results.draws import POOLED
from probes.results.table import Table
from probes.results.verdict import Verdict
from probes.views.paper import as_markdown, plain
from probes.views.reading import read


def as_card(table: Table, found: Verdict, model: str, dataset: str, digits: int) -> str:
    """Return a page of Markdown; the arguments are those of `Comparison.to_model_card`.

    Args:
        table: the comparison.
        found: its verdict.
        model: whose page it is.
        dataset: what the corpus is called.
        digits: decimal places.
    """
    others = [name for name in table.provenance["models"] if name != table.baseline]
    check_choice("model", model, others)
    if not dataset.strip():
        raise InputError(f"dataset={dataset!r}: expected what the corpus is called")
    reading = next(one for one in read(found, table)[0] if one.model == model)
    probes = found.languages["probe"].drop_duplicates().tolist()
    about = table.provenance
    languages = about["corpus"]["languages"]
    texts = sum(one["texts"] for one in languages.values())
    head = ModelCardData(model_name=printable(model), eval_results=_results(table, model, probes, dataset))
    costs = [row for row in as_rows(table.models) if row["model"] in (table.baseline, model)]
    lines = [
        "---",
        head.to_yaml(),
        "---",
        "",
        f"# {plain(model)}",
        "",
        f"Compared with {plain(table.baseline)} on {texts:,} texts in {len(languages)} "
        f"language{'s' * (len(languages) > 1)} of {plain(dataset)}.",
        "",
        f"**{reading.state.upper()}**: " + "; ".join(plain(printable(one)) for one in reading.sentences) + ".",
        "",
        as_markdown(table, probes, None, None, digits, [table.baseline, model]),
    ]
    if costs:
        names = list(costs[0])
        lines += [f"| {' | '.join(names)} |", f"|{' :-- |' * len(names)}"]
        lines += [f"| {' | '.join(plain(row[name]) for name in names)} |" for row in costs]
        lines.append("")
    versions = ", ".join(f"{k} {about['versions'][k]}" for k in ("layerscope", "torch", "transformers"))
    lines += [f"Measured with {versions}; {about['draws']} draws, seed {about['seed']}.", ""]
    return "\n".join(lines)


def _results(table: Table, model: str, probes: list[str], dataset: str) -> list[EvalResult]:
    """The values at the last layer, of all languages together and of each, as the hub lists them."""
    rows = table.table[(table.table["model"] == model) & table.table["probe"].isin(probes)]
    rows = rows[rows["layer"] == rows.groupby("probe")["layer"].transform("max")]
    out = []
    for row in rows[rows["value"].notna()].itertuples():
        title = table.provenance["probes"][row.probe]["title"]
        where = "" if row.layer == NO_LAYER else f", layer {row.layer}"
        out.append(
            EvalResult(
                task_type="feature-extraction",
                dataset_type=dataset,
                dataset_name=dataset,
                dataset_config="all" if row.language == POOLED else str(row.language),
                metric_type=str(row.probe),
                metric_name=f"{title}{where}",
                metric_value=round(float(row.value), 4),
            )
        )
    return out
