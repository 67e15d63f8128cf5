"""A small graph of facts with the sentences that state them: load, check, and find names in text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import groupby
from pathlib import Path

import datasets

from probes.corpus import check_corpus
from probes.errors import InputError, path_of

_FILES = {
    "entities.tsv": ("entity", "kind"),
    "facts.tsv": ("subject", "relation", "object"),
    "sentences.tsv": ("id", "subject", "language", "text"),
}
# Scripts whose letters are words here: they are written without spaces.
_ALONE = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


@dataclass(frozen=True)
class Graph:
    """Facts, the names of what they are about, and sentences about their subjects.

    Attributes:
        aliases: entity -> language -> its names there, the usual one first.
        facts: (subject, relation, object).
        sentences: a corpus whose `group` is the subject of each sentence.
    """

    aliases: Mapping[str, Mapping[str, Sequence[str]]]
    facts: Sequence[tuple[str, str, str]]
    sentences: datasets.Dataset

    @property
    def relations(self) -> list[str]:
        """All relations, in the order of the alphabet."""
        return sorted({relation for _, relation, _ in self.facts})

    @property
    def languages(self) -> list[str]:
        """The languages of the sentences, in their order."""
        return list(dict.fromkeys(self.sentences["language"]))

    def about(self, subject: str) -> list[tuple[str, str]]:
        """Return relation and object of each fact of a subject."""
        return [(relation, there) for one, relation, there in self.facts if one == subject]


def load_graph(source: str | Path) -> Graph:
    """Load a graph of facts: "bundled", an invented world in eight languages, or a folder.

    Args:
        source: "bundled", or a folder with three files of tab-separated columns, in UTF-8:
            entities.tsv (entity, kind, and for each language a column of aliases, with | between
            them), facts.tsv (subject, relation, object) and sentences.tsv (id, subject, language,
            text; the same id = translations).

    Raises:
        InputError: a file or column is missing, or what they say does not fit together.

    See also:
        `facts`.

    Example:
        >>> graph = load_graph("bundled")
        >>> len(graph.aliases), len(graph.relations), graph.languages[:2]
        (306, 10, ['en', 'fr'])
        >>> graph.aliases["river_001"]["en"], graph.facts[0]
        (['Sevi'], ('person_001', 'born_in', 'town_033'))
    """
    if source == "bundled":
        with resources.as_file(resources.files("probes.data") / "world") as folder:
            return _loaded(folder)
    return _loaded(path_of(source, "source"))


def _loaded(folder: Path) -> Graph:
    tables = {name: _table(folder / name, columns) for name, columns in _FILES.items()}
    aliases: dict[str, dict[str, list[str]]] = {}
    for row in tables["entities.tsv"]:
        entity = row.pop("entity")
        row.pop("kind")
        aliases[entity] = {language: [a for a in names.split("|") if a] for language, names in row.items()}
    rows = tables["sentences.tsv"]
    corpus = {"id": "id", "language": "language", "text": "text", "group": "subject"}
    sentences = datasets.Dataset.from_dict({column: [row[of] for row in rows] for column, of in corpus.items()})
    facts = [(row["subject"], row["relation"], row["object"]) for row in tables["facts.tsv"]]
    return check_graph(Graph(aliases, facts, sentences))


def _table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a file of tab-separated columns in UTF-8 ({error})") from error
    head = lines[0].split("\t") if lines else []
    if lacking := [c for c in columns if c not in head]:
        raise InputError(f"{path}: expected the columns {', '.join(columns)}; {', '.join(lacking)} not found")
    rows = [line.split("\t") for line in lines[1:]]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(head):
            raise InputError(f"{path}, line {number}: expected {len(head)} columns, found {len(row)}")
    return [dict(zip(head, row, strict=True)) for row in rows]


def check_graph(graph: Graph) -> Graph:
    """Return a graph; raise `InputError` where its parts do not fit together.

    Raises:
        InputError: a fact has an entity that is not known; the subject of a sentence has no fact; an
            object has no alias in a language of the sentences.
    """
    if not isinstance(graph, Graph):
        raise InputError(
            f"expected a graph, as probes.load_graph('bundled') gives it; found {type(graph).__name__}. Give one, or a "
            "probes.states.graphs.Graph"
        )
    check_corpus(graph.sentences)
    if "group" not in graph.sentences.column_names:
        raise InputError("the sentences of the graph have no column 'group': it has to name the subject of each")
    for subject, relation, there in graph.facts:
        for entity in (subject, there):
            if entity not in graph.aliases:
                raise InputError(f"fact ({subject}, {relation}, {there}): there is no entity {entity!r}")
    known, topics = {subject for subject, *_ in graph.facts}, set(graph.sentences["group"])
    for row, subject in enumerate(graph.sentences["group"]):
        if subject not in known:
            raise InputError(f"row {row} of the sentences is about {subject!r}, of which there is no fact")
    objects = sorted({there for subject, _, there in graph.facts if subject in topics})
    for language in graph.languages:
        lacking = [entity for entity in objects if not graph.aliases[entity].get(language)]
        if lacking:
            raise InputError(
                f"the graph has no alias in language {language!r} of {len(lacking)} objects, as {lacking[0]!r}: name "
                "them there, or leave out its sentences (languages=[...])"
            )
    return graph


def words_of(text: str) -> list[tuple[int, int]]:
    """Return where the words of a text begin and end: runs of letters, marks and digits, letters of
    scripts without spaces and signs one by one.

    Example:
        >>> [text[a:b] for text in ("It's नदी, 河流.",) for a, b in words_of(text)]
        ['It', "'", 's', 'नदी', ',', '河', '流', '.']
    """
    return list(_words(text))


def _words(text: str) -> Iterator[tuple[int, int]]:
    at = 0
    for kind, run in groupby(text, _kind):
        size = len(list(run))
        if kind == "word":
            yield at, at + size
        elif kind != "space":
            yield from ((k, k + 1) for k in range(at, at + size))
        at += size


def _kind(letter: str) -> str:
    if letter.isspace():
        return "space"
    if unicodedata.category(letter)[0] not in "LMN":
        return "sign"
    return "alone" if unicodedata.name(letter, "").startswith(_ALONE) else "word"


def found_in(words: Sequence[str], name: Sequence[str]) -> list[int]:
    """Return at which words a name of several begins.

    Example:
        >>> found_in(["in", "New", "York", "or", "York"], ["York"])
        [2, 4]
    """
    size = len(name)
    return [k for k in range(len(words) - size + 1) if list(words[k : k + size]) == list(name)] if size else []
