"""Tables as text: what is read back is what was written, and a spreadsheet runs none of it."""

import csv
import io

import numpy as np
import pandas as pd
import pyarrow
import pytest
import seaborn as sns
from matplotlib.figure import Figure

from probes.errors import InputError
from probes.results.cells import COLUMNS, NO_LAYER, from_csv, to_csv

HOSTILE = [
    "=HYPERLINK(1)",
    "+1",
    "-1",
    "@SUM(1)",
    "\ttab",
    "\rreturn",
    "\nline",
    "＝1",
    "'quoted",
    "''=1",
    "'",
    "a\rb",
    "a\r\nb",
    'a "b", c',
    "NA",
    "nan",
    "1.0",
    "001",
    " x ",
    "日本語",
    "a\x1b[31m",
    "",
]


def table(names, **columns):
    n = len(names)
    base = {"model": names, "layer": [0] * n, "language": names, "probe": "snr"}
    numbers = np.random.default_rng(0).normal(size=(n, 11)) * 10.0 ** np.arange(-4, 7)
    base |= dict(zip(COLUMNS[4:], numbers.T, strict=True)) | {"n": np.arange(n)}
    return pd.DataFrame(base | columns).astype({"model": object, "language": object})


def again(frame):
    return from_csv(io.BytesIO(to_csv(frame).encode()), "t.csv")


@pytest.mark.parametrize("names", [HOSTILE, [n for n in HOSTILE if "\r" not in n], *[[name] for name in HOSTILE]])
def test_what_is_read_is_what_was_written(names):
    frame = table(names)
    back = again(frame)
    assert back["model"].tolist() == back["language"].tolist() == names
    for column in COLUMNS[4:]:
        assert back[column].tolist() == frame[column].tolist()  # to the last bit
    assert str(back["layer"].dtype) == "int64"


def test_every_number_is_read_to_the_last_bit():
    bits = np.random.default_rng(0).integers(0, 2**64, 3000, dtype=np.uint64)
    numbers = np.concatenate([bits.view(float), [5e-324, -0.0, 1 / 3, np.inf, -np.inf]])
    numbers = numbers[~np.isnan(numbers)]
    back = again(table(["a"] * len(numbers), value=numbers))
    np.testing.assert_array_equal(back["value"].to_numpy().view("u8"), numbers.view("u8"))


def test_no_cell_of_text_begins_as_a_formula_and_numbers_are_numbers():
    text = to_csv(table(HOSTILE, value=-0.5))
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["model"][:1] for row in rows if row["model"][:1] in tuple("=+-@\t\r\n＝＋－＠")] == []
    assert {row["value"] for row in rows} == {"-0.5"}


def test_gaps_stay_gaps():
    frame = table(["a", "b"], layer=[1, NO_LAYER], module=[None, "=x"], value=[np.nan, np.inf])
    back = again(frame)
    assert back["layer"].tolist() == [1, NO_LAYER]
    assert (back["module"].isna().tolist(), back["module"][1]) == ([True, False], "=x")
    assert back["value"].tolist()[1] == np.inf


def test_layers_are_whole_numbers_wherever_the_file_is_read_and_in_one_that_says_nothing_of_the_output():
    written = to_csv(table(["a", "b"], layer=[1, NO_LAYER], baseline_layer=[2, NO_LAYER]))
    plainly = pd.read_csv(io.StringIO(written))
    assert (plainly["layer"].dtype, plainly["layer"].tolist()) == (np.int64, [1, NO_LAYER])
    earlier = from_csv(io.BytesIO(written.replace(f",{NO_LAYER},", ",,").encode()), "t.csv")
    assert earlier[["layer", "baseline_layer"]].to_numpy().tolist() == [[1, 2], [NO_LAYER, NO_LAYER]]


def test_layers_are_taken_by_what_draws_and_reads_tables():
    frame = table(list("abcdefghijklm"), layer=range(13))
    figure = Figure()
    sns.lineplot(frame, x="n", y="value", hue="layer", ax=figure.subplots())
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()][:3] == ["0", "2", "4"]
    as_polars_reads = pyarrow.Table.from_pandas(frame[["layer"]]).schema
    assert as_polars_reads.field("layer").type == pyarrow.int64()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("value", "worth"), "no column 'value'"),
        (lambda text: text.replace(",0,", ",zero,", 1), "expected the table that Comparison.save writes"),
        (lambda text: "", "No columns to parse"),
        (lambda text: "\0" * 50, "expected the table"),
        (lambda text: text.splitlines()[0] + "\na,0,en,snr,x,,,,,,,,,,\n", "expected the table"),
        (lambda text: text.splitlines()[0] + "\na,0,en,snr,1,,,x,,,,,,,\n", "column 'n' holds what is no number"),
    ],
)
def test_another_table_is_refused(change, message):
    with pytest.raises(InputError, match=r"t\.csv: ") as caught:
        from_csv(io.BytesIO(change(to_csv(table(["a"]))).encode()), "t.csv")
    assert message in str(caught.value)
