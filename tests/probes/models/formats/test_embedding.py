"""Folders of sentence-transformers: what their files say is what is done, and what they cannot say is refused.

The files are written by hand as sentence-transformers 6.2 and, by the old names, 5.1 write them. Vectors of a folder
that 6.2 itself had saved were equal to those of its `encode` to 1e-7 (first token and mean, prompt left out, cut).
"""

import json

import pytest

import compress
import probes
from probes.errors import LayerscopeWarning
from probes.models.checkpoint import check_checkpoint
from probes.models.formats.embedding import Embedding, embedding_of

MODE = "pooling_mode_"
OLD, NEW = "sentence_transformers.models.", "sentence_transformers.sentence_transformer.modules.pooling."


def said(folder, modules=None, pooling=None, length=None, prompts=None, where=""):
    """Write the files of sentence-transformers into a folder with a model."""
    kinds = modules or [f"{OLD}Transformer", f"{OLD}Pooling"]
    listed = [
        {"idx": i, "name": str(i), "path": where if i == 0 else f"{i}_{kind.rpartition('.')[2]}", "type": kind}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling or {"pooling_mode": "mean"}))
    for name, content in (("sentence_bert_config.json", length), ("config_sentence_transformers.json", prompts)):
        if content is not None:
            (folder / where / name if name.startswith("sentence_") else folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, Embedding(pooling="mean_all")),
        ({"pooling": {"pooling_mode": "lasttoken", "embedding_dimension": 12}}, Embedding(pooling="last")),
        (
            {"pooling": {f"{MODE}cls_token": True, f"{MODE}mean_tokens": False}, "length": {"max_seq_length": 8}},
            Embedding(pooling="first", max_length=8),
        ),
        (
            {
                "modules": [f"{OLD}Transformer", f"{NEW}Pooling", f"{OLD}Dropout", f"{OLD}Normalize"],
                "pooling": {"pooling_mode_mean_tokens": True, "include_prompt": False},
                "prompts": {"prompts": {"query": "q: "}, "default_prompt_name": "query", "truncate_dim": 4},
                "length": {"max_seq_length": None, "do_lower_case": True},
            },
            Embedding("mean_all", None, "q: ", False, True, True, 4),
        ),
        ({"pooling": {f"{MODE}max_tokens": True, f"{MODE}cls_token": True}}, Embedding(pooling="max+first")),
        ({"prompts": {"prompts": {"query": "q: "}, "default_prompt_name": None}}, Embedding(pooling="mean_all")),
    ],
)  # fmt: skip
def test_what_the_files_say_is_what_the_model_says(folder, files, expected):
    said(folder, **files)
    model, _ = probes.load_checkpoint(folder)
    assert embedding_of(model) == embedding_of(check_checkpoint(folder)[0]) == expected


def test_a_model_in_a_folder_of_its_own_is_found(folder):
    inner = folder / "0_Transformer"
    inner.mkdir()
    for file in [f for f in folder.iterdir() if f.is_file()]:
        file.rename(inner / file.name)
    said(folder, pooling={"pooling_mode": "cls"}, length={"max_seq_length": 8}, where="0_Transformer")
    model, _ = probes.load_checkpoint(folder)
    assert embedding_of(model) == Embedding(pooling="first", max_length=8)
    assert model.name_or_path == str(folder)


def test_what_a_checkpoint_says_goes_with_a_model_that_was_made_of_it(folder, tmp_path):
    model, tokenizer = probes.load_checkpoint(said(folder, pooling={"pooling_mode": "cls"}))
    compress.save(compress.prune(model, sparsity=0.5), tmp_path / "pruned", tokenizer)
    assert embedding_of(probes.load_checkpoint(tmp_path / "pruned")[0]) == Embedding(pooling="first")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"modules": [f"{OLD}StaticEmbedding"]}, "texts are read by StaticEmbedding: expected a Transformer"),
        ({"where": "../other"}, "names the folder '../other': expected names of folders of its own only"),
        ({"prompts": {"prompts": {}, "default_prompt_name": "query"}}, "='query' is none of its prompts"),
        ({"length": {"max_seq_length": "8"}}, r"max_seq_length'\]: expected a whole number"),
        ({"pooling": {"pooling_mode": 3}}, r"pooling_mode'\]: expected a text or a list"),
    ],
)  # fmt: skip
def test_files_of_another_form_are_refused(folder, files, message):
    where = files.get("where", "")
    if where:
        (folder / where).mkdir()
    with pytest.raises(probes.InputError, match=message):
        probes.load_checkpoint(said(folder, **files))


def test_a_pooling_that_lacks_its_file_is_refused(folder):
    said(folder)
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(probes.InputError, match="names a pooling in '1_Pooling', and there is no"):
        probes.load_checkpoint(folder)


def test_modules_that_are_not_applied_are_said(folder):
    said(folder, modules=[f"{OLD}Transformer", f"{OLD}Pooling", f"{OLD}Dense", f"{OLD}Normalize"])
    with pytest.warns(LayerscopeWarning, match="modules.json names Dense after the model: left out"):
        model, _ = probes.load_checkpoint(folder)
    assert embedding_of(model).normalize
