"""factorize: what it writes and prints, and what it refuses."""

import pytest


def test_factorize_writes_a_smaller_model(written_smaller):
    written_smaller("factorize", "--budget", "0.5")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rank", "4", "--corpus", "bundled"], "--corpus is given and nothing reads it: give --method"),
        (["--rank", "4", "--method", "activation"], "--method activation looks at what"),
        (["--rank", "999"], "rank=999"),
    ],
)
def test_what_factorize_cannot_do_is_refused_in_one_line(refused, tiny_folder, options, message):
    refused(message, "factorize", tiny_folder, *options)
