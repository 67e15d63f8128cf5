import numpy as np
import pytest
import yaml

import compress
import probes


@pytest.fixture(scope="module")
def compared():
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = probes.load_corpus("bundled", split="dev", languages=["en", "zh"])
    pruned = compress.prune(model, sparsity=0.9)
    how = {"tokenizer": tokenizer, "pivot": "en", "probes": ["retrieval", "label_loyalty", "accuracy"], "draws": 50}
    models = {"base": model, "small_*": pruned}
    return pruned, tokenizer, probes.compare(models, corpus, timing=False, progress=False, **how)


def test_a_page_says_what_the_comparison_says(compared):
    _, _, made = compared
    page = made.to_model_card("small_*", dataset="made sentences", digits=3)
    _, head, body = page.split("---\n", 2)
    index = yaml.safe_load(head)["model-index"][0]
    assert index["name"] == "small_*"
    listed = [
        (one["dataset"]["config"], metric["type"], metric["value"])
        for one in index["results"]
        for metric in one["metrics"]
    ]
    value = made.table.query("model == 'small_*' and probe == 'accuracy' and language == 'zh'")["value"].item()
    assert ("zh", "accuracy", round(value, 4)) in listed
    assert made.verdict().state("small_*").upper() in body
    assert f"{value:.3f} [" in body
    assert r"# small\_\*" in body
    texts = made.provenance["corpus"]["languages"]["zh"]["texts"]
    assert f"Compared with base on {2 * texts:,} texts in 2 languages of made sentences." in body
    assert "| file |" in body or "| stored |" in body


def test_it_is_written_beside_the_model_that_it_is_of(compared, tmp_path):
    pruned, tokenizer, made = compared
    folder = compress.save(pruned, tmp_path / "small", tokenizer, comparison=made)
    assert (folder / "README.md").read_text(encoding="utf-8") == made.to_model_card("small_*")
    probes.load_checkpoint(folder)
    other = compress.prune(pruned, sparsity=0.95)
    with pytest.raises(probes.InputError, match=r"none of its models beside the baseline \(base, small_\*\) has the"):
        compress.save(other, tmp_path / "other", tokenizer, comparison=made)
    assert not (tmp_path / "other").exists()


def test_what_is_no_model_beside_the_baseline_is_refused(compared):
    _, _, made = compared
    with pytest.raises(probes.InputError, match="base"):
        made.to_model_card("base")
    with pytest.raises(probes.InputError, match="dataset=' ': expected what the corpus is called"):
        made.to_model_card("small_*", dataset=" ")
    assert np.isfinite(made.table["value"]).all()
