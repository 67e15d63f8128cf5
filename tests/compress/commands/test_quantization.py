"""quantize, product-quantize and code-outputs: what they write and print, and what they refuse."""

import pytest
import torch

import probes
from compress import quantize
from compress.__main__ import main


def test_quantize_writes_what_its_function_makes(tiny_folder, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--bits", "4", "--grid", "4", "--affine", "--activation-bits", "none"]
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


def test_quantize_by_what_is_fed(tiny_folder, tmp_path, capsys):
    (tmp_path / "few.csv").write_text("id,language,text\n" + "\n".join(f"{i},en,red dog sat" for i in range(9)))
    given = ["--corpus", str(tmp_path / "few.csv"), "--bits", "3"]
    out, how = tmp_path / "out", ["--method", "gptq", "--act-order", "--damping", "0.1"]
    assert main(["quantize", str(tiny_folder), *how, *given, "--out", str(out)]) == 0
    original, tokenizer = probes.load_checkpoint(tiny_folder)
    corpus = probes.load_corpus(tmp_path / "few.csv")
    settings = {"act_order": True, "damping": 0.1, "calibrate": corpus, "tokenizer": tokenizer, "progress": False}
    expected = quantize(original, bits=3, method="gptq", activation_bits=None, **settings)
    model, _ = probes.load_checkpoint(out)
    assert all(torch.equal(v, expected.state_dict()[k]) for k, v in model.state_dict().items())
    assert "bits a weight" in capsys.readouterr().out
    assert main(["quantize", str(tiny_folder), "--method", "gptq", "--out", str(tmp_path / "no")]) == 2
    assert "--method gptq looks at text: give --corpus" in capsys.readouterr().err


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
        (["quantize", "--grid", "7"], "group=7"),
        (["quantize", "--calibrate"], "--calibrate measures ranges on text: give --corpus"),
        (["quantize", "--average-bits", "4"], "--average-bits measures damage on text: give --corpus"),
        (["quantize", "--steps", "3"], "--steps trains on text: give --corpus"),
        (["quantize", "--distilled"], "--distilled is about training: give --steps and --corpus"),
        (["quantize", "--backend", "torchao", "--bits", "3"], "bits=3: backend='torchao' runs 4 or 8 bits"),
        (["quantize", "--backend", "torchao", "--average-bits", "3", "--corpus", "bundled"], "--backend torchao takes"),
        (["quantize", "--average-bits", "3", "--only", "key", "--corpus", "bundled"], "shared out over all matrices"),
        (["quantize", "--backend", "onnxruntime", "--packed"], "--packed leaves out zeros, and --backend onnxruntime"),
        (["quantize", "--backend", "onnxruntime", "--grid", "tensor"], "group=... is of the simulation"),
        (["quantize", "--corpus", "bundled"], "--corpus is given and nothing reads it"),
        (["product-quantize", "--only", "["], "only='[' is no regular expression"),
        (["prune", "--sparsity", "0.5", "--corpus", "bundled"], "train=... is given, and steps=0 trains nothing"),
        (["product-quantize", "--codes", "1"], "codes=1: expected"),
        (["product-quantize", "--block", "7"], "block=7"),
    ],
)
def test_what_cannot_be_quantised_is_refused_in_one_line(refused, tiny_folder, options, message):
    command, *rest = options
    refused(message, command, tiny_folder, *rest)


def test_code_outputs_writes_a_model_of_codewords_and_says_how_small_its_layer_is(tiny_folder, tmp_path, capsys):
    (tmp_path / "few.csv").write_text(
        "id,language,text,label\n" + "\n".join(f"{i},en,red dog sat,{i % 3}" for i in range(9))
    )
    out, given = tmp_path / "out", ["--corpus", str(tmp_path / "few.csv"), "--assignment", "frequency", "--seed", "3"]
    options = ["--bits", "4", "--steps", "2", "--batch-size", "4", *given]
    assert main(["code-outputs", str(tiny_folder), *options, "--out", str(out)]) == 0
    model, _ = probes.load_checkpoint(out)
    done = model.config.compression
    assert (model.config.output_codes, done["assignment"], done["seed"], done["steps"]) == (
        {"bits": 4},
        "frequency",
        3,
        2,
    )
    assert capsys.readouterr().out.endswith(
        f"output layer of 3 words in 4 bits: {3 * 13 * 4} -> {4 * 13 * 4 + 3} bytes; wrote {out}\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bits", "2"], "bits=2: 2 bits make 4 codewords at most, and there are 6 words"),
        (["--bits", "8", "--assignment", "frequency"], "--assignment frequency counts text: give --corpus"),
        (["--bits", "8", "--steps", "2"], "--steps trains on text: give --corpus"),
        (["--bits", "8", "--corpus", "bundled"], "--corpus is given and nothing reads it: give --steps to train on it"),
        (
            ["--bits", "8", "--mixture", "curriculum"],
            "mixes tokens that are read, and the model puts texts into classes",
        ),
    ],
)
def test_codewords_that_cannot_be_made_are_refused_in_one_line(refused, options, message):
    refused(message, "code-outputs", "bundled", *options)
