"""Names and scripts of languages, as people call them."""

import pytest

from probes.views.language_names import language_name, language_names, script_name


@pytest.mark.parametrize(
    ("code", "name", "script"),
    [
        ("en", "English", "Latin"),
        ("eng_Latn", "English", "Latin"),
        ("swh_Latn", "Swahili", "Latin"),
        ("arb_Arab", "Arabic", "Arabic"),
        ("ekk_Latn", "Estonian", "Latin"),
        ("zh-Hans", "Chinese", "Simplified Han"),
        ("zh_Hans_CN", "Chinese", "Simplified Han"),
        ("pt-BR", "Portuguese", "Latin"),
        ("ru", "Russian", "Cyrillic"),
        ("KO", "Korean", "Korean"),
    ],
)
def test_codes_of_all_conventions(code: str, name: str, script: str) -> None:
    assert (language_name(code), script_name(code)) == (name, script)


@pytest.mark.parametrize("code", ["", "xx", "dialect 7", "=1+1", "<b>", "english", "en_Latn_US_x"])
def test_what_is_no_known_code_stays_as_it_is(code: str) -> None:
    assert language_name(code) == code
    assert script_name(code) == ""


def test_two_of_one_name_are_told_apart() -> None:
    assert language_names(["zho_Hans", "zho_Hant", "fra_Latn"]) == [
        "Chinese (Simplified Han)",
        "Chinese (Traditional Han)",
        "French",
    ]
    assert language_names(["en", "eng", "de"]) == ["English (en)", "English (eng)", "German"]
    assert language_names(["7", "7"]) == ["7", "7"]
