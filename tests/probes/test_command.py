"""What all commands do alike: arguments of a corpus, lists, seeds, and how they end."""

import argparse
import errno
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import pytest

import probes
from probes.command import add_command, address, corpus_arguments, corpus_settings, folder, listed, run, seed
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
        "streaming": False,
        "languages": ["en", "de"],
        "id": "key",
        "language": "lang",
        "text": "sentence",
        "label": "label",
        "text_pair": "text_pair",
        "group": "group",
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


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: No space left on device. Make room there"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission denied. Change its permissions"),
        (OSError(errno.EROFS, "Read-only file system", "a"), "a: Read-only file system. Choose a path on a disk"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "aa"), "aa: File name too long. Choose a shorter name"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error. Check the path and the disk"),
        (RuntimeError("I/O error: no space (os error 28)"), "No space left on device. Make room there"),
    ],
)
def test_what_the_system_refuses_is_one_line_with_a_remedy(capsys, error, said):
    def command(_options):
        raise error

    assert run(parser_of(command), ["do"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1


def test_who_has_read_enough_is_not_told(capsys):
    def command(_options):
        raise BrokenPipeError

    out = sys.stdout
    try:
        assert run(parser_of(command), ["do"]) == 1
    finally:
        sys.stdout = out
    assert capsys.readouterr().err == ""


def test_where_a_run_is_kept_is_a_folder_or_a_url():
    assert address("s3://bucket/run/") == "s3://bucket/run"
    assert address("run") == Path("run")
    with pytest.raises(argparse.ArgumentTypeError, match="expected a place in a bucket"):
        address("s3://")
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected the path of a folder, found .s3://bucket.x"):
        folder("s3://bucket/x")


def test_folders_are_paths():
    assert folder("a b") == Path("a b")
    for text in ("", " ", "a\0b"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected the path of a folder, found"):
            folder(text)


def test_messages_do_not_steer_the_terminal(capsys):
    def command(_options):
        warnings.warn("red \x1b[31m", LayerscopeWarning, stacklevel=2)
        raise InputError("turned \u202e\nover")

    assert run(parser_of(command), ["do"]) == 2
    assert capsys.readouterr().err == "warning: red \\x1b[31m\nerror: turned \\u202e\\nover\n"


def test_a_command_that_is_asked_to_end_is_interrupted(capsys):
    ended, before = [], signal.getsignal(signal.SIGTERM)

    def command(options):
        options.until_done.callback(lambda: ended.append("gave back"))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    assert run(parser_of(command), ["do"]) == 130
    assert ended == ["gave back"]
    assert "the same command goes on from there" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_of_several_processes_the_first_prints_and_each_says_its_errors(capsys, monkeypatch):
    def command(_options):
        print("it is so")
        warnings.warn("mind this", LayerscopeWarning, stacklevel=1)
        raise InputError("this is wrong")

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a run")
    said = {}
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert run(parser_of(command), ["do"]) == 2
        said[rank] = tuple(capsys.readouterr())
    assert said["0"] == ("it is so\n", "warning: mind this\nerror: this is wrong\n")
    assert said["1"] == ("", "rank 1: error: this is wrong\n")
