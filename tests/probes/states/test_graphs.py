"""Graphs of facts: the bundled world is consistent, names are found, and what does not fit is refused."""

from dataclasses import replace
from pathlib import Path

import datasets
import pytest

import probes
from probes.states.graphs import check_graph, found_in, words_of

WORLD = Path(__file__).parents[3] / "data" / "world"


@pytest.fixture(scope="module")
def graph():
    return probes.load_graph(WORLD)


def test_the_world_is_consistent_in_all_languages(graph):
    assert graph.languages == ["en", "fr", "de", "es", "ru", "ar", "hi", "zh"]
    assert 290 <= len(graph.aliases) <= 310
    assert len(graph.relations) == 10
    assert sum(path.stat().st_size for path in WORLD.iterdir()) < 300_000
    for language in graph.languages:
        names = [name for of in graph.aliases.values() for name in of[language]]
        assert len(set(names)) == len(names)  # a name says one entity
    stated = {}
    for row in graph.sentences:
        words = [row["text"][a:b] for a, b in words_of(row["text"])]
        said = set()
        for relation, there in graph.about(row["group"]):
            for name in graph.aliases[there][row["language"]]:
                if found_in(words, [name[a:b] for a, b in words_of(name)]):
                    said.add((relation, there))
        assert 1 <= len(said) <= 2, row["text"]
        stated.setdefault(row["id"], []).append(said)
    assert all(len(of) == 8 and all(s == of[0] for s in of) for of in stated.values())


def test_words_are_runs_of_letters_with_their_marks_or_letters_alone():
    texts = {"Ab-c 12.": ["Ab", "-", "c", "12", "."], "किताब।": ["किताब", "।"], "河ก": ["河", "ก"], " ": []}
    for text, words in texts.items():
        assert [text[a:b] for a, b in words_of(text)] == words


def test_a_folder_is_read_and_what_is_missing_is_named(tmp_path, graph):
    for path in WORLD.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert probes.load_graph(tmp_path).facts == graph.facts
    (tmp_path / "facts.tsv").write_text("subject\trelation\nx\ty\n", encoding="utf-8")
    with pytest.raises(probes.InputError, match="expected the columns subject, relation, object; object not found"):
        probes.load_graph(tmp_path)
    (tmp_path / "facts.tsv").write_text("subject\trelation\tobject\nx\ty\n", encoding="utf-8")
    with pytest.raises(probes.InputError, match=r"facts.tsv, line 2: expected 3 columns, found 2"):
        probes.load_graph(tmp_path)
    with pytest.raises(probes.InputError, match="expected a file of tab-separated columns"):
        probes.load_graph(tmp_path / "nowhere")


def test_what_does_not_fit_together_is_refused(graph):
    some = graph.sentences.select(range(16))
    few = replace(graph, sentences=some)
    _, there = graph.about(some["group"][0])[0]
    no_russian = {k: {x: n for x, n in v.items() if (k, x) != (there, "ru")} for k, v in graph.aliases.items()}
    bad = {
        rf"no alias in language 'ru' of 1 objects, as '{there}'": replace(few, aliases=no_russian),
        "there is no entity 'nobody'": replace(few, facts=[*graph.facts, ("person_001", "plays", "nobody")]),
        "row 0 of the sentences is about": replace(few, facts=[f for f in graph.facts if f[0] != some["group"][0]]),
        "have no column 'group'": replace(few, sentences=some.remove_columns("group")),
    }
    for says, one in bad.items():
        with pytest.raises(probes.InputError, match=says):
            check_graph(one)
    with pytest.raises(probes.InputError, match=r"expected a graph, as probes\.load_graph"):
        check_graph(datasets.Dataset.from_dict({}))
