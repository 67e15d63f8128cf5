"""prune, structure and vocabulary: what they write and print, and what they refuse."""

import pytest
import torch

import probes
from compress import prune
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


def test_prune_by_second_order_and_a_pattern(tiny_folder, tmp_path, capsys):
    (tmp_path / "few.csv").write_text("id,language,text\n" + "\n".join(f"{i},en,red dog sat" for i in range(9)))
    out, how = (
        tmp_path / "out",
        ["--sparsity", "0.5", "--criterion", "sparsegpt", "--pattern", "2:4", "--damping", "0.1"],
    )
    assert main(["prune", str(tiny_folder), *how, "--corpus", str(tmp_path / "few.csv"), "--out", str(out)]) == 0
    original, tokenizer = probes.load_checkpoint(tiny_folder)
    settings = {"train": probes.load_corpus(tmp_path / "few.csv"), "tokenizer": tokenizer, "progress": False}
    expected = prune(original, sparsity=0.5, criterion="sparsegpt", pattern="2:4", damping=0.1, **settings)
    model, _ = probes.load_checkpoint(out)
    assert all(torch.equal(v, expected.state_dict()[k]) for k, v in model.state_dict().items())
    assert "50.0% of their weights are zero" in capsys.readouterr().out


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
    ("how", "criterion"),
    [
        (["--recipe", "snip", "--steps", "1", "--batch-size", "4"], "gradient, global, one shot"),
        (["--criterion", "obd"], "obd, global, one shot"),
        (["--criterion", "fisher", "--scope", "matrix"], "fisher, layer-wise, one shot"),
    ],
)
def test_prune_by_what_the_loss_says(how, criterion, tiny_folder, tmp_path, capsys):
    lines = ["id,language,text,label", *(f"{i},en,red dog sat,{i % 3}" for i in range(6))]
    (tmp_path / "few.csv").write_text("\n".join(lines))
    given = ["--sparsity", "0.5", "--corpus", str(tmp_path / "few.csv"), "--out", str(tmp_path / "out")]
    assert main(["prune", str(tiny_folder), *how, *given]) == 0
    assert probes.load_checkpoint(tmp_path / "out")[0].config.compression["criterion"] == criterion
    assert "50.0% of their weights are zero" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["prune", "--sparsity", "0.5", "--recipe", "aligned_weights"],
            "prunes while it trains: give --corpus and --steps",
        ),
        (["structure"], "nothing to remove: give --heads, --channels or --layers"),
        (["structure", "--layers", "1"], "is measured on text: give --corpus"),
        (["structure", "--heads", "0.5", "--importance", "fisher"], "importance by gradients, is measured on text"),
        (["vocabulary"], "which tokens stay is read from text: give --corpus"),
        (["prune", "--sparsity", "0.5", "--steps", "3"], "training needs text: give train=..., a corpus"),
    ],
)
def test_what_a_command_lacks_is_said(tmp_path, capsys, arguments, message):
    assert main([arguments[0], "bundled", *arguments[1:], "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
