"""fuse: what it writes and prints, and what it refuses."""

import pytest


def test_fuse_writes_a_smaller_model(written_smaller):
    given = ["--corpus", "bundled", "--split", "train", "--languages", "en", "--steps", "2", "--batch-size", "4"]
    written_smaller("fuse", "--share", "0.5", *given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--similarity", "cka"], "takes text: give --corpus"),
        (["--share", "2"], "share=2.0: expected"),
        (["--corpus", "bundled"], "--corpus is given and nothing reads it: give --steps to train on it or"),
    ],
)
def test_what_fuse_cannot_do_is_refused_in_one_line(refused, tiny_folder, options, message):
    refused(message, "fuse", tiny_folder, *options)
