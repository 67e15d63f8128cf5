"""What all commands do alike: arguments of a corpus, lists, seeds, and how they end."""

import argparse
import warnings

import pytest

import probes
from probes.command import add_command, corpus_arguments, corpus_settings, listed, run, seed
from probes.errors import InputError, LayerscopeWarning


def parser_of(command):
    parser = argparse.ArgumentParser(prog="p")
    add_command(parser.add_subparsers(required=True), "do", "do a thing", command, corpus_arguments())
    return parser


def test_a_corpus_is_read_as_its_arguments_say(tmp_path):
    (tmp_path / "c.csv").write_text("key,lang,sentence,split\n1,en,red dog,dev\n1,fr,chien,dev\n2,en,cat,train\n")
    found = []
    given = [
        "do",
        "--split",
        "dev",
        "--languages",
        "en, de,",
        "--id",
        "key",
        "--language",
        "lang",
        "--text",
        "sentence",
    ]
    assert run(parser_of(lambda options: found.append(corpus_settings(options))), given) == 0
    assert found[0] == {
        "split": "dev",
        "languages": ["en", "de"],
        "id": "key",
        "language": "lang",
        "text": "sentence",
        "label": "label",
        "text_pair": "text_pair",
    }
    corpus = probes.load_corpus(tmp_path / "c.csv", **found[0] | {"languages": ["en"]})
    assert corpus["text"][:] == ["red dog"]


def test_bad_input_is_one_line_and_an_interruption_says_what_is_kept(capsys):
    def fails(error):
        def command(_options):
            raise error

        return command

    assert run(parser_of(fails(InputError("this is wrong"))), ["do"]) == 2
    assert capsys.readouterr().err == "error: this is wrong\n"
    assert run(parser_of(fails(KeyboardInterrupt())), ["do"]) == 130
    assert "goes on from there" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):  # a defect is shown as one
        run(parser_of(fails(ZeroDivisionError())), ["do"])


def test_warnings_of_this_project_are_said_in_a_line_and_others_are_not(capsys):
    def command(_options):
        warnings.warn("of a library", UserWarning, stacklevel=2)
        warnings.warn("few sentences", LayerscopeWarning, stacklevel=2)

    assert run(parser_of(command), ["do"]) == 0
    assert capsys.readouterr().err == "warning: few sentences\n"


def test_seeds_and_lists():
    assert (seed("0"), seed(str(2**32 - 1))) == (0, 2**32 - 1)
    for text in ("-1", "1.5", str(2**32), "many"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number of at least 0"):
            seed(text)
    assert listed(" en,fr ,,zh") == ["en", "fr", "zh"]
