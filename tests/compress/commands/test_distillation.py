"""distill: what it writes and prints, and what it refuses."""

import pytest


def test_distill_writes_a_smaller_model(written_smaller):
    given = ["--corpus", "bundled", "--split", "train", "--languages", "en", "--steps", "2", "--batch-size", "4"]
    written_smaller("distill", "--layers", "2", *given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layers", "2", "--steps", "5"], "takes text: give --corpus"),
    ],
)
def test_what_distill_cannot_do_is_refused_in_one_line(refused, tiny_folder, options, message):
    refused(message, "distill", tiny_folder, *options)
