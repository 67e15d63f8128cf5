"""`layerscope check`: a table for readers and JSON for programs."""

import json

import compress
import probes
from compress.__main__ import layerscope


def test_a_table_says_what_a_checkpoint_is_and_what_can_be_done(capsys, tiny_folder):
    assert layerscope(["check", str(tiny_folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"model         BertForSequenceClassification of {tiny_folder}; architecture 'bert'"
    verbs = {line[:21].strip(): line[21:].split()[0] for line in lines[lines.index("") + 2 :]}
    assert list(verbs) == list(compress.check(tiny_folder)["verb"])
    assert verbs["prune"] == "100%"
    assert verbs["sparsify_embeddings"] == "yes"


def test_json_holds_the_same(capsys, tiny_folder):
    assert layerscope(["check", str(tiny_folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == probes.check(tiny_folder).to_dict("records")
    assert [row["verb"] for row in found["verbs"]] == list(compress.check(tiny_folder)["verb"])
    assert next(row for row in found["verbs"] if row["verb"] == "sparsify_embeddings")["covers"] is None


def test_a_folder_without_a_model_is_one_sentence(capsys, tmp_path):
    assert layerscope(["check", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
