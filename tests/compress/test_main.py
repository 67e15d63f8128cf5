"""The command line: what it prints, what it writes, and how it fails."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import probes
from compress import prune, quantize, retrieval_cost, sparse_embeddings
from compress.__main__ import main


def test_prune_writes_a_model_and_prints_a_summary(tiny_folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["prune", str(tiny_folder), "--sparsity", "0.6", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    original, _ = probes.load_checkpoint(tiny_folder)
    expected = prune(original, sparsity=0.6)
    done = expected.config.compression
    assert printed.out == (
        f"pruned 18 matrices: {done['sparsity_of_pruned']:.1%} of their weights are zero, "
        f"{done['sparsity_of_model']:.1%} of all; wrote {out}\n"
    )
    assert 0.59 < done["sparsity_of_pruned"] < 0.61
    model, tokenizer = probes.load_checkpoint(out)
    assert all(torch.equal(v, expected.state_dict()[k]) for k, v in model.state_dict().items())
    assert len(tokenizer) == len(probes.load_checkpoint(tiny_folder)[1])
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("model", "sparsity", "out", "message"),
    [
        ("/no/such/model", "0.5", "out", "error: /no/such/model: no such folder. Check the path\n"),
        ("no-such-model", "0.5", "out", "error: no-such-model: the model could not be loaded"),
        ("no tokenizer", "0.5", "out", "tokenizer"),
        ("tiny", "1", "out", "error: --sparsity 1.0: expected at least 0 and below 1\n"),
        ("tiny", "nan", "out", "error: --sparsity nan: expected at least 0 and below 1\n"),
        ("tiny", "0.5", "full", "full exists and is not an empty folder; it is left as it is. Choose another one\n"),
        ("tiny", "0.5", "full/mine.txt/out", "cannot be written to"),
    ],
)
def test_bad_input_ends_in_status_2_and_one_line_and_leaves_nothing(
    tiny_folder, tmp_path, capsys, model, sparsity, out, message
):
    work = tmp_path / "work"
    (work / "full").mkdir(parents=True)
    (work / "full" / "mine.txt").write_text("mine")
    if model == "no tokenizer":
        model = shutil.copytree(tiny_folder, tmp_path / "bare")
        for path in model.glob("tokenizer*"):
            path.unlink()
    model = tiny_folder if model == "tiny" else model
    assert main(["prune", str(model), "--sparsity", sparsity, "--out", str(work / out)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert [str(p.relative_to(work)) for p in sorted(work.rglob("*"))] == ["full", "full/mine.txt"]


def test_pickled_weights_need_to_be_asked_for(tiny_folder, tmp_path, capsys):
    folder = shutil.copytree(tiny_folder, tmp_path / "pickled")
    torch.save(probes.load_checkpoint(folder)[0].state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    command = ["prune", str(folder), "--sparsity", "0.5", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "--allow-pickle" in capsys.readouterr().err
    assert main([*command, "--allow-pickle"]) == 0


@pytest.mark.parametrize("arguments", [[], ["prune"], ["prune", "m", "--out", "o", "--sparsity", "much"], ["squeeze"]])
def test_an_unusable_command_line_ends_in_status_2_and_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m compress" in capsys.readouterr().err


def test_the_module_runs_as_a_program_and_ends_without_a_traceback(tmp_path):
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "compress", "prune", "/no/such/model", "--sparsity", "0.5", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=root, env=os.environ, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "error: /no/such/model: no such folder. Check the path\n",
    )


def test_structure_removes_heads_channels_and_layers(tmp_path, capsys):
    out = tmp_path / "small"
    given = ["--corpus", "bundled", "--split", "dev", "--languages", "en"]
    options = ["--heads", "0.5", "--channels", "0.5", "--layers", "1", *given]
    assert main(["structure", "bundled", *options, "--out", str(out)]) == 0
    model, tokenizer = probes.load_checkpoint("bundled")
    smaller, again = probes.load_checkpoint(out)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (model, smaller)]
    assert f"{sizes[0]:,} parameters -> {sizes[1]:,} parameters; wrote {out}" in capsys.readouterr().out
    assert smaller.config.num_hidden_layers == model.config.num_hidden_layers - 1
    assert smaller.config.heads_kept == [2] * 5
    assert len(again) == len(tokenizer)


def test_vocabulary_keeps_the_tokens_of_a_corpus(tmp_path, capsys):
    out = tmp_path / "small"
    given = ["--corpus", "bundled", "--languages", "en"]
    assert main(["vocabulary", "bundled", *given, "--out", str(out)]) == 0
    smaller, tokenizer = probes.load_checkpoint(out)
    assert len(tokenizer) == smaller.config.vocab_size < 1500
    assert f"4,000 -> {len(tokenizer):,} tokens" in capsys.readouterr().out


def test_prune_trains_where_it_is_asked_to(tmp_path, capsys):
    out = tmp_path / "pruned"
    given = ["--corpus", "bundled", "--split", "train", "--languages", "en"]
    how = ["--criterion", "lamp", "--schedule", "cubic", "--prunings", "2", "--steps", "4", "--batch-size", "4"]
    assert main(["prune", "bundled", "--sparsity", "0.5", *how, *given, "--out", str(out)]) == 0
    assert "50.0% of their weights are zero" in capsys.readouterr().out
    assert (out / "history.csv").is_file()


def test_a_recipe_prunes_as_its_function_does(tmp_path, capsys):
    out = tmp_path / "pruned"
    given = ["--corpus", "bundled", "--split", "train", "--languages", "en", "--steps", "4", "--batch-size", "4"]
    assert (
        main(["prune", "bundled", "--recipe", "aligned_weights", "--sparsity", "0.5", *given, "--out", str(out)]) == 0
    )
    assert "50.0% of their weights are zero" in capsys.readouterr().out
    done = probes.load_checkpoint(out)[0].config.compression
    assert done["objective"] == ["cross_entropy", "aligned_weights_cosine"]
    assert done["criterion"] == "magnitude, layer-wise, uniform"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["prune", "--sparsity", "0.5", "--recipe", "aligned_weights"],
            "prunes while it trains: give --corpus and --steps",
        ),
        (["structure"], "nothing to remove: give --heads, --channels or --layers"),
        (["structure", "--layers", "1"], "is measured on text: give --corpus"),
        (["vocabulary"], "which tokens stay is read from text: give --corpus"),
        (["prune", "--sparsity", "0.5", "--steps", "3"], "training needs text: give train=..., a corpus"),
    ],
)
def test_what_a_command_lacks_is_said(tmp_path, capsys, arguments, message):
    assert main([arguments[0], "bundled", *arguments[1:], "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_quantize_writes_what_its_function_makes(tiny_folder, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--bits", "4", "--group", "4", "--affine", "--activation-bits", "none"]
    assert main(["quantize", str(tiny_folder), *options, "--out", str(out)]) == 0
    original, _ = probes.load_checkpoint(tiny_folder)
    expected = quantize(original, bits=4, group=4, symmetric=False, activation_bits=None)
    model, _ = probes.load_checkpoint(out)
    assert all(torch.equal(v, expected.state_dict()[k]) for k, v in model.state_dict().items())
    done = expected.config.compression
    size = f"{done['average_bits']:.2f} bits a weight: {done['bytes_of_model'] / 1e6:.2f} MB if they were stored so"
    written = (out / "model.safetensors").stat().st_size
    assert capsys.readouterr().out == f"{size}; simulated, {written / 1e6:.2f} MB; wrote {out}\n"


def test_quantize_with_bits_by_damage(tiny_folder, tmp_path, capsys):
    out = tmp_path / "out"
    rows = ["id,language,text", "1,en,red dog", "1,de,big cat", "2,en,small bird sang", "2,de,house"]
    (tmp_path / "few.csv").write_text("\n".join(rows))
    given = ["--corpus", str(tmp_path / "few.csv")]
    assert main(["quantize", str(tiny_folder), "--average-bits", "4", *given, "--out", str(tmp_path / "text")]) == 0
    options = ["--average-bits", "4", "--damage", "weights"]
    assert main(["quantize", str(tiny_folder), *options, "--out", str(out)]) == 0
    done = probes.load_checkpoint(out)[0].config.compression
    uniform = quantize(probes.load_checkpoint(tiny_folder)[0], bits=4).config.compression
    assert done["bytes_of_quantized"] <= uniform["bytes_of_quantized"]
    assert f"{done['average_bits']:.2f} bits a weight" in capsys.readouterr().out


def test_quantize_for_a_backend(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["quantize", "bundled", "--backend", "onnxruntime", "--out", str(out)]) == 0
    model, _ = probes.load_checkpoint(out)
    assert type(model).__name__ == "OnnxModel"
    assert f"{model.config.compression['bytes_of_model'] / 1e6:.2f} MB; wrote" in capsys.readouterr().out


def test_quantize_and_product_quantize_in_training(tmp_path, capsys):
    given = ["--corpus", "bundled", "--split", "train", "--languages", "en", "--steps", "8", "--batch-size", "4"]
    noisy, shared = tmp_path / "noisy", tmp_path / "shared"
    assert main(["quantize", "bundled", "--bits", "4", "--distilled", *given, "--out", str(noisy)]) == 0
    done = probes.load_checkpoint(noisy)[0].config.compression
    assert done["objective"] == ["cross_entropy", "soft_labels", "attention_outputs"]
    how = ["--codes", "16", "--block", "8", "--only", "query"]
    assert main(["product-quantize", "bundled", *how, *given, "--out", str(shared)]) == 0
    done = probes.load_checkpoint(shared)[0].config.compression
    assert (done["codes"], len(done["quantized"]), done["objective"]) == (16, 6, ["cross_entropy"])
    assert "bits a weight" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["quantize", "--bits", "9"], "bits=9: expected"),
        (["quantize", "--group", "7"], "group=7"),
        (["quantize", "--calibrate"], "--calibrate measures ranges on text: give --corpus"),
        (["quantize", "--average-bits", "4"], "--average-bits measures damage on text: give --corpus"),
        (["quantize", "--steps", "3"], "--steps trains on text: give --corpus"),
        (["quantize", "--distilled"], "--distilled is about training: give --steps and --corpus"),
        (["quantize", "--backend", "torchao", "--bits", "3"], "bits=3: backend='torchao' runs 4 or 8 bits"),
        (["quantize", "--backend", "torchao", "--average-bits", "3", "--corpus", "bundled"], "--backend torchao takes"),
        (["quantize", "--average-bits", "3", "--only", "key", "--corpus", "bundled"], "shared out over all matrices"),
        (["quantize", "--backend", "onnxruntime", "--packed"], "--packed leaves out zeros, and --backend onnxruntime"),
        (["quantize", "--backend", "onnxruntime", "--group", "tensor"], "group=... is of the simulation"),
        (["quantize", "--corpus", "bundled"], "--corpus is given and nothing reads it"),
        (["product-quantize", "--only", "["], "only='[' is no regular expression"),
        (["prune", "--sparsity", "0.5", "--corpus", "bundled"], "train=... is given, and steps=0 trains nothing"),
        (["product-quantize", "--codes", "1"], "codes=1: expected"),
        (["product-quantize", "--block", "7"], "block=7"),
    ],
)
def test_what_cannot_be_quantised_is_refused_in_one_line(tiny_folder, tmp_path, capsys, options, message):
    command, *rest = options
    assert main([command, str(tiny_folder), *rest, "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_distill_fuse_and_factorize_write_smaller_models(tmp_path, capsys):
    model, _ = probes.load_checkpoint("bundled")
    given = ["--corpus", "bundled", "--split", "train", "--languages", "en", "--steps", "2", "--batch-size", "4"]
    for command, options in (
        ("distill", ["--layers", "2", *given]),
        ("fuse", ["--share", "0.5", *given]),
        ("factorize", ["--budget", "0.5"]),
    ):
        out = tmp_path / command
        assert main([command, "bundled", *options, "--out", str(out)]) == 0
        smaller, _ = probes.load_checkpoint(out)
        sizes = [sum(p.numel() for p in m.parameters()) for m in (model, smaller)]
        assert sizes[1] < 0.8 * sizes[0]
        assert capsys.readouterr().out.endswith(f"{sizes[0]:,} parameters -> {sizes[1]:,} parameters; wrote {out}\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["distill", "--layers", "2", "--steps", "5"], "takes text: give --corpus"),
        (["fuse", "--similarity", "cka"], "takes text: give --corpus"),
        (["fuse", "--share", "2"], "share=2.0: expected"),
        (["fuse", "--corpus", "bundled"], "--corpus is given and nothing reads it: give --steps to train on it or"),
        (["factorize", "--rank", "4", "--corpus", "bundled"], "--corpus is given and nothing reads it: give --method"),
        (["factorize", "--rank", "4", "--method", "activation"], "--method activation looks at what"),
        (["factorize", "--rank", "999"], "rank=999"),
    ],
)
def test_what_cannot_be_made_smaller_is_refused_in_one_line(tiny_folder, tmp_path, capsys, options, message):
    command, *rest = options
    assert main([command, str(tiny_folder), *rest, "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not any(tmp_path.iterdir())


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
def test_sparse_vectors_that_cannot_be_made_are_refused_in_one_line(tmp_path, capsys, options, message):
    assert main(["sparsify", "bundled", *options, "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not any(tmp_path.iterdir())
