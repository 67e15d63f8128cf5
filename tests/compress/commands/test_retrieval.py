"""sparsify: what it writes and prints, and what it refuses."""

import pytest

import probes
from compress import retrieval_cost, sparse_embeddings
from compress.__main__ import main


def test_sparsify_writes_a_model_of_sparse_vectors_and_prints_what_they_cost(tmp_path, capsys):
    out = tmp_path / "sparse"
    options = ["--corpus", "bundled", "--languages", "en,de", "--features", "64", "--steps", "2"]
    assert main(["sparsify", "bundled", *options, "--flops", "0.5", "--seed", "3", "--out", str(out)]) == 0
    model, tokenizer = probes.load_checkpoint(out)
    done = model.config.compression
    assert (done["flops"], done["seed"], done["texts"], done["learning_rate"]) == (0.5, 3, 2400, 1e-3)
    assert capsys.readouterr().out.endswith(
        f"vectors of 64 features: {done['cost']['nonzeros']:.1f} of them not zero in a text, "
        f"{done['cost']['flops']:.2f} multiplications a pair; wrote {out}\n"
    )
    corpus = probes.load_corpus("bundled", split="train", languages=["en", "de"])
    vectors = sparse_embeddings(model, tokenizer, corpus, progress=False)
    assert retrieval_cost(vectors)["flops"] == pytest.approx(done["cost"]["flops"], rel=0.05)  # 1,024 of them


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "2"], "sparse vectors are trained on translations: give --corpus"),
        (["--steps", "0", "--corpus", "bundled"], "steps=0: expected a whole number of at least 1"),
        (["--steps", "2", "--corpus", "bundled", "--features", "0"], "features=0: expected"),
        (["--steps", "2", "--corpus", "bundled", "--flops", "-1"], "flops=-1.0: expected"),
        (["--steps", "2", "--corpus", "bundled", "--languages", "en"], "found 1200 rows in 1 language(s) (en)"),
    ],
)
def test_sparse_vectors_that_cannot_be_made_are_refused_in_one_line(refused, options, message):
    refused(message, "sparsify", "bundled", *options)
