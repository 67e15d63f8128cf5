"""`layerscope footprint`: what checkpoints cost, side by side."""

import json

import compress
import probes
from compress.__main__ import layerscope


def test_checkpoints_stand_side_by_side(capsys, tiny_folder, tmp_path):
    model, tokenizer = probes.load_checkpoint(tiny_folder)
    small = compress.save(compress.drop_layers(model, [0]), tmp_path / "small", tokenizer)
    assert layerscope(["footprint", f"base={tiny_folder}", f"small={small}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["base", "small"]
    assert any(line.startswith("times as fast, 32 texts") and "[" in line for line in lines)
    assert layerscope(["footprint", str(tiny_folder), str(small), "--json"]) == 0
    one, other = json.loads(capsys.readouterr().out)
    assert [one["model"], other["model"]] == [str(tiny_folder), str(small)]
    assert other["bytes"] == (small / "model.safetensors").stat().st_size < one["bytes"]
    assert other["operations"] < one["operations"]
    assert (one["speed_32"], other["speed_32"] > 0) == (None, True)


def test_a_checkpoint_that_is_given_twice_or_is_none_is_one_sentence(capsys, tiny_folder, tmp_path):
    for given, said in (
        ([str(tiny_folder)] * 2, "expected each checkpoint once"),
        ([str(tmp_path)], "without a model"),
    ):
        assert layerscope(["footprint", *given]) == 2
        assert said in capsys.readouterr().err
