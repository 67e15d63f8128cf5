"""Cautions are found in pieces of a corpus, and are those of all of it."""

import pandas as pd
import pytest

import probes
from probes import pitfalls, streamed
from probes.pitfalls import swallowed

N = 60


def table():
    """A table with all that misleads."""
    label = [f"c{i // 30}" for i in range(N)]
    rows = pd.DataFrame(
        {
            "id": [f"s{i}" for i in range(N)] * 2 + ["1", "1.0", "lonely"],
            "language": ["en"] * N + ["FR"] * N + ["fr", "fr", "fr"],
            "text": [f"{'long ' * (i // 30 * 9)}text {i % 25}" for i in range(N)] * 2 + ["a", "b", '"c ""d"" e"'],
            "label": label + label[::-1] + ["c0", "C0", "rare"],
        }
    )
    rows.loc[110, "text"] = "A cat\n1,en,A dog\n2,en,A bird,c\n"
    return rows


@pytest.mark.parametrize("piece", [7, 1000])
def test_they_do_not_depend_on_the_pieces(piece, monkeypatch):
    corpus = probes.load_corpus(table()[:-1].drop(index=110))
    for module in (streamed, pitfalls):
        monkeypatch.setattr(module, "PIECE", piece)
    assert probes.cautions(corpus) == [
        "languages that look alike, and count as different: 'FR' and 'fr'",
        "labels that look alike, and count as different: 'c0' and 'C0'",
        "ids that look alike, and count as different: '1' and '1.0'",
        "ids missing in a language: en lacks 2 of 62, FR lacks 3 of 62, fr lacks 60 of 62",
        "duplicated texts: 20 rows in en, 20 rows in FR",
        "translations of one sentence carry different labels: 59 ids",
        *(
            f"label readable from text length alone in {language}: accuracy 1.00, largest class {share:.2f}"
            for language, share in (("en", 0.5), ("FR", 30 / 59))
        ),
        "rows sorted by label in en, FR: never take the first n rows",
        "classes of one example: 'c0', 'C0' in fr",
    ]


@pytest.mark.parametrize("piece", [7, 1000])
def test_swallowed_rows_and_marks_are_found_in_any_piece(piece, monkeypatch):
    with pytest.warns(probes.LayerscopeWarning, match="text in row 110 holds line breaks"):
        corpus = probes.load_corpus(table())
    for module in (streamed, pitfalls):
        monkeypatch.setattr(module, "PIECE", piece)
    said = "text in row 110 holds line breaks and, after them, as many separators as rows of the table"
    assert swallowed(corpus).startswith(said)
    found = probes.cautions(corpus)
    assert found[0].startswith(said)
    assert any(one.startswith("cells begin and end with quotation marks: text in 1 of 123 rows") for one in found)
