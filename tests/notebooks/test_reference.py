"""The pages of the reference: one for each public name, where Python finds what the name stands for."""

import importlib
import importlib.util
from functools import partial
from pathlib import Path

import pytest
from declared import WORDS

from probes.measures.probe import Probe

TOP = Path(__file__).parents[2]


def load():
    spec = importlib.util.spec_from_file_location("reference", TOP / "notebooks/reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference():
    return load()


@pytest.fixture
def small(tmp_path):
    """The reference of a package of one module, in a folder of its own."""
    module = load()
    module.ROOT, module.PACKAGES, module.NAMESPACES = tmp_path, ("house",), ()
    (tmp_path / "house/room").mkdir(parents=True)
    (tmp_path / "house/__init__.py").write_text(
        '"""A house."""\nfrom house.room.door import knock\n__all__ = ["knock"]\n'
    )
    (tmp_path / "house/room/__init__.py").write_text('"""What opens?"""\n')
    (tmp_path / "house/words.py").write_text('"""Words."""\nclass Word:\n    """A word."""\n')
    (tmp_path / "house/room/door.py").write_text(
        '"""A door."""\nfrom house.words import Word\n'
        'class Answer(Word):\n    """What is said."""\n'
        'def knock() -> Answer:\n    """Knock."""\n'
        'def lock():\n    """Lock."""\n'
    )
    return module


def test_every_public_name_is_found_where_python_finds_it(reference):
    names = reference.public_names()
    for space in (*reference.PACKAGES, *reference.NAMESPACES):
        module = importlib.import_module(space)
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if f"{space}.{name}" in reference.NAMESPACES:
                assert f"{space}.{name}" in reference.pages()
            else:
                assert names[f"{space}.{name}"] == f"{thing.__module__}.{thing.__qualname__}"


def test_every_public_name_has_one_page_at_the_path_of_its_module(reference):
    texts = reference.texts()
    for where in reference.public_names().values():
        module = where.rpartition(".")[0]
        showing = [place for place, text in texts.items() if f"::: {where}\n" in text]
        assert showing == [reference.path(module)]
        at = TOP / module.replace(".", "/")
        assert at.with_suffix(".py").exists() or (at / "__init__.py").exists()


def test_every_page_stands_in_the_navigation_once(reference):
    def places(nav):
        for entry in nav:
            inner = next(iter(entry.values())) if isinstance(entry, dict) else entry
            yield from [inner] if isinstance(inner, str) else places(inner)

    assert sorted(places(reference.nav())) == sorted(reference.texts())


def test_a_page_shows_the_public_names_and_what_they_give_back(small):
    assert small.pages() == {
        "house": [],
        "house.room": [],
        "house.room.door": ["house.room.door.Answer", "house.room.door.knock"],
    }
    texts = small.texts()
    page = texts["notebooks/reference/house/room/door.md"]
    assert "heading: house.knock\n" in page
    assert page.count("inherited_members") == 1  # an Answer's are those of a Word, which has no page
    assert "What opens?" in texts["notebooks/reference/house/room/README.md"]
    assert "| [door](door.md) | A door. |" in texts["notebooks/reference/house/room/README.md"]
    assert "| `house.knock` | Knock. |" in texts["notebooks/reference/README.md"]


def test_a_name_that_nothing_defines_is_refused(small):
    (small.ROOT / "house/room/door.py").write_text('"""A door."""\n')
    with pytest.raises(
        LookupError, match=r"house\.room\.door promises knock, and no file of this repository defines it"
    ):
        small.texts()


def test_a_written_part_is_shown_on_the_page_of_its_module_and_refused_without_one(small):
    part = small.ROOT / "notebooks/reference/house/room/door.md"
    part.parent.mkdir(parents=True)
    part.write_text("# How loud\n\nVery.\n")
    assert small.texts()["notebooks/reference/house/room/door.md"].endswith(
        "toc_label: knock\n\n## How loud\n\nVery.\n"
    )
    part.rename(part.with_name("window.md"))
    with pytest.raises(LookupError, match=r"notebooks/reference/house/room/window\.md belongs to no page"):
        small.texts()


def test_a_page_shows_what_its_probes_say_of_themselves(small):
    def measure():
        """Stand for a function of the door."""

    measure.__module__ = "house.room.door"
    said = {"name": "knocks", "title": "knocks a minute", "estimator": "their number", "higher_is": "louder"}
    probe = Probe(
        **WORDS | said | {"paper": ""},
        unchanged_by=("order", "colour"),
        compares=True,
        needs=("a door",),
        interval="",
        measure=partial(measure),
    )
    page = small.texts([probe])["notebooks/reference/house/room/door.md"]
    assert page.endswith(
        "\n## Probe `knocks`\n\n| | knocks a minute |\n|---|---|\n| estimator | their number |\n"
        "| range | 0 to infinity |\n| better | neither; higher is louder |\n| unchanged by | order, colour |\n"
        "| compares with the baseline | yes; 1 where nothing has changed |\n| needs | a door |\n"
        "| measured | where it is asked for |\n"
    )
    measure.__module__ = "house.cellar"
    with pytest.raises(LookupError, match=r"knocks is measured in house\.cellar, which has no page"):
        small.texts([probe])


def test_names_in_text_lead_to_what_they_stand_for(small):
    assert small.identifier("house.knock") == "house.room.door.knock"
    assert small.identifier("house.room.door") == "house.room.door"
    assert small.identifier("house.room.door.lock") is None  # there, and not public
    assert small.identifier("house.room.door.bell") == "house.room.door.bell"  # nowhere, so the site is refused
    assert small.identifier("house.cellar") == "house.cellar"
