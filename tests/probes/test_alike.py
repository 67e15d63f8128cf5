"""Values that look alike and conventions that mix: what is said, and that nothing is where nothing is mixed."""

import pandas as pd
import pytest

import probes
from probes.alike import alike, conventions, quoted

LENGTHS = "languages by codes of two letters and of three: of two letters"
JOINTS = "codes of languages are joined by '-' and by '_': with '-'"


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        (["en", "fr", "deu_Latn", "ceb"], f"{LENGTHS} 'deu_Latn' is 'de'"),
        (["de", "deu"], f"{LENGTHS} 'deu' is 'de', which is there too and counts as another language"),
        (["en", "zho_Hans", "zho_Hant"], f"{LENGTHS} 'zho_Hans' is 'zh_Hans'; 'zho_Hant' is 'zh_Hant'"),
        (["en-US", "pt-BR", "fr_FR"], f"{JOINTS} 'fr_FR' would be 'fr-FR'"),
    ],
)
def test_codes_of_two_conventions_are_said_with_what_would_be_what(codes, said):
    assert conventions(pd.Series(codes)) == [said]
    frame = pd.DataFrame({"id": range(len(codes)), "language": codes, "text": [f"t{i}" for i in range(len(codes))]})
    assert said in probes.cautions(probes.load_corpus(frame))


@pytest.mark.parametrize(
    "codes",
    [
        ["en", "fr", "ceb", "yue", "zh-CN", "pt-BR"],
        ["eng_Latn", "ceb_Latn", "zho_Hans", "zho_Hant"],
        ["english", "German", "l0", "l1"],
        ["eng", "deu", "fil"],
    ],
)
def test_codes_of_one_convention_are_no_caution(codes):
    assert conventions(pd.Series(codes)) == []


def test_quoted_cells_are_said_and_speech_is_not():
    assert quoted([pd.DataFrame({"text": ['"a"', '"b"', "c"]})]) != []
    assert quoted([pd.DataFrame({"text": ['"a ""b"" c"', "b", "c", "d", "e"]})]) != []
    assert quoted([pd.DataFrame({"text": ['"Go!"', "b", '"Stop," she said, "now"', '"', ""]})]) == []


def test_a_tab_separated_file_with_quotes_gets_a_caution(tmp_path):
    path = tmp_path / "c.tsv"
    path.write_text('id\tlanguage\ttext\n1\ten\t"a ""b"" c"\n2\ten\td\n')
    found = probes.cautions(probes.load_corpus(path))
    assert found == [c for c in found if c.startswith("cells begin and end with quotation marks: text in 1 of 2 rows")]
    assert len(found) == 1


def test_what_cannot_be_told_apart_is_shown_by_its_code_points():
    assert alike(pd.Series(["a", "a\u200b"]), "label") == [
        "labels that look alike, and count as different: 'a' and 'a\\u200b'"
    ]
    assert alike(pd.Series([f"x{i}" for i in range(9)]), "label") == []
