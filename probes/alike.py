"""What in a column looks alike, or is written by two conventions: cautions; nothing is changed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import pandas as pd

# Codes of two letters (ISO 639-1), and those of three that mean the same (639-2, 639-3 and their macrolanguages).
_TWO_AND_THREE = """
aa:aar ab:abk ae:ave af:afr ak:aka|twi am:amh an:arg ar:ara|arb as:asm av:ava ay:aym|ayr az:aze|azj ba:bak be:bel
bg:bul bi:bis bm:bam bn:ben bo:bod|tib br:bre bs:bos ca:cat ce:che ch:cha co:cos cr:cre cs:ces|cze cu:chu cv:chv
cy:cym|wel da:dan de:deu|ger dv:div dz:dzo ee:ewe el:ell|gre en:eng eo:epo es:spa et:ekk|est eu:baq|eus
fa:fas|per|pes ff:fuc|ful fi:fin fj:fij fo:fao fr:fra|fre fy:fry ga:gle gd:gla gl:glg gn:grn|gug gu:guj gv:glv
ha:hau he:heb hi:hin ho:hmo hr:hrv ht:hat hu:hun hy:arm|hye hz:her ia:ina id:ind ie:ile ig:ibo ii:iii ik:ipk io:ido
is:ice|isl it:ita iu:ike|iku ja:jpn jv:jav ka:geo|kat kg:kng|kon ki:kik kj:kua kk:kaz kl:kal km:khm kn:kan ko:kor
kr:kau|knc ks:kas ku:kmr|kur kv:kom|kpv kw:cor ky:kir la:lat lb:ltz lg:lug li:lim ln:lin lo:lao lt:lit lu:lub
lv:lav|lvs mg:mlg|plt mh:mah mi:mao|mri mk:mac|mkd ml:mal mn:khk|mon mr:mar ms:may|msa|zsm mt:mlt my:bur|mya na:nau
nb:nob nd:nde ne:nep|npi ng:ndo nl:dut|nld nn:nno no:nor nr:nbl nv:nav ny:nya oc:oci oj:ojg|oji om:gaz|orm
or:ori|ory os:oss pa:pan pi:pli pl:pol ps:pbu|pus pt:por qu:que|quz rm:roh rn:run ro:ron|rum ru:rus rw:kin sa:san
sc:srd sd:snd se:sme sg:sag si:sin sk:slk|slo sl:slv sm:smo sn:sna so:som sq:alb|als|sqi sr:srp ss:ssw st:sot su:sun
sv:swe sw:swa|swh ta:tam te:tel tg:tgk th:tha ti:tir tk:tuk tn:tsn to:ton tr:tur ts:tso tt:tat ty:tah ug:uig uk:ukr
ur:urd uz:uzb|uzn ve:ven vi:vie vo:vol wa:wln wo:wol xh:xho yi:yid yo:yor za:zha|zyb zh:chi|cmn|zho zu:zul
"""
_TWO = {three: word[:2] for word in _TWO_AND_THREE.split() for three in word[3:].split("|")}
_CODE = re.compile(r"([a-z]{2,3})(?:([-_])([A-Z][a-z]{3}))?(?:([-_])([A-Z]{2}|\d{3}))?")


def alike(column: Iterable[str], what: str) -> list[str]:
    """Say which values of a column can be told apart only with care.

    Args:
        column: texts, in order; what looks like no other may be left out.
        what: what they are; ids may well differ by case.

    Returns:
        A sentence, or none.

    Example:
        >>> alike(pd.Series(["1", "1.0", "2"]), "id")
        ["ids that look alike, and count as different: '1' and '1.0'"]
    """
    groups: dict[str, list[str]] = {}
    for value in dict.fromkeys(column):
        groups.setdefault(look_of(value, what), []).append(value)
    found = [values for values in groups.values() if len(values) > 1]
    if not found:
        return []
    # What looks the same is shown by its code points.
    shown = [" and ".join(map(repr if _told_apart(values) else ascii, values)) for values in found[:5]]
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return [f"{what}s that look alike, and count as different: {'; '.join(shown)}{more}"]


def look_of(value: str, what: str) -> str:
    """Return what a value looks like: composed, without what cannot be seen, 1.0 as 1, and but for
    ids in lower case.

    Example:
        >>> look_of("Ａ\u200b", "label"), look_of("1.0", "id")
        ('a', '1')
    """
    if value.isascii() and value.isalnum():  # as most ids are
        return value if what == "id" else value.casefold()
    key = "".join(c for c in unicodedata.normalize("NFKC", value) if unicodedata.category(c) != "Cf")
    key = re.sub(r"^([+-]?\d+)\.0*$", r"\1", " ".join(key.split()))
    return key if what == "id" else key.casefold()


def _told_apart(values: list[str]) -> bool:
    """Whether values can be told apart when they are printed."""
    return len({unicodedata.normalize("NFKC", value) for value in values}) == len(values)


def conventions(languages: pd.Series) -> list[str]:
    """Say where the codes of languages follow two conventions, and what would be what in one.

    Args:
        languages: codes, as "en", "eng", "eng_Latn", "pt-BR". One without a code of two letters, as
            "ceb", goes with all.

    Returns:
        At most a sentence on their length and one on what joins their parts.

    Example:
        >>> print(*conventions(pd.Series(["en", "deu_Latn", "ceb"])))
        languages by codes of two letters and of three: of two letters 'deu_Latn' is 'de'
    """
    parts = {code: of.groups() for code in dict.fromkeys(languages) if (of := _CODE.fullmatch(code))}
    found: list[str] = []
    long = {code: _TWO[letters] for code, (letters, *_) in parts.items() if letters in _TWO}
    if long and any(len(letters) == 2 for letters, *_ in parts.values()):
        # Of one language in two scripts the script is what tells them apart.
        short = {
            code: f"{two}_{parts[code][2]}" if list(long.values()).count(two) > 1 and parts[code][2] else two
            for code, two in long.items()
        }
        told = [
            f"{code!r} is {two!r}" + (", which is there too and counts as another language" if two in parts else "")
            for code, two in short.items()
        ]
        found.append(f"languages by codes of two letters and of three: of two letters {_first(told)}")
    joined: dict[str, list[str]] = {}
    for code, (_, before_script, _, before_region, _) in parts.items():
        for joint in {before_script, before_region} - {None}:
            joined.setdefault(joint, []).append(code)
    if len(joined) > 1:
        fewer = min(joined, key=lambda joint: len(joined[joint]))
        other = "-" if fewer == "_" else "_"
        told = [f"{code!r} would be {code.replace(fewer, other)!r}" for code in joined[fewer]]
        found.append(f"codes of languages are joined by '-' and by '_': with {other!r} {_first(told)}")
    return found


def quoted(frames: Iterable[pd.DataFrame]) -> list[str]:
    """Say where cells begin and end with quotation marks, which tab-separated text keeps.

    Args:
        frames: of columns of texts, some rows of a table each.

    Returns:
        A sentence, or none. Some texts that are wholly quoted are none; half of a column's, or a
        doubled mark within one, are.

    Example:
        >>> quoted([pd.DataFrame({"text": ['"a ""b"" c"', "d"]})])  # doctest: +ELLIPSIS
        ['cells begin and end with quotation marks: text in 1 of 2 rows. Were they written with ...
    """
    counts: dict[str, int] = {}
    doubled, rows = set(), 0
    for frame in frames:
        rows += len(frame)
        for column in frame:
            wrapped = frame[column].str.fullmatch(r'"(?:[^"]|"")*"', flags=re.DOTALL)
            counts[column] = counts.get(column, 0) + int(wrapped.sum())
            if (wrapped & frame[column].str[1:-1].str.contains('""', regex=False)).any():
                doubled.add(column)
    told = [
        f"{column} in {count} of {rows} rows"
        for column, count in counts.items()
        if column in doubled or count * 2 > rows
    ]
    if not told:
        return []
    return [
        f"cells begin and end with quotation marks: {', '.join(told)}. Were they written with quotes? Tab-separated "
        "text is read without, so that the marks are part of them: call the file .csv, which may have tabs, or take "
        "them off"
    ]


def _first(told: list[str]) -> str:
    return "; ".join(told[:10]) + (f" and {len(told) - 10} more" if len(told) > 10 else "")
