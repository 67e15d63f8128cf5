"""finetune and restore: what they write and print, and what they refuse."""

import pytest
from patched import corpus_of
from trained import make_corpus

import compress
import probes
from compress.__main__ import main


@pytest.fixture
def pruned(tiny_folder, tmp_path_factory):
    model, tokenizer = probes.load_checkpoint(tiny_folder)
    return compress.save(compress.prune(model, sparsity=0.9), tmp_path_factory.mktemp("pruned") / "it", tokenizer)


@pytest.fixture
def texts(tmp_path_factory):
    file = tmp_path_factory.mktemp("texts") / "texts.csv"
    corpus_of().to_csv(file)
    return str(file)


def test_restore_writes_a_model_and_prints_a_summary(tiny_folder, pruned, texts, tmp_path, capsys):
    out = tmp_path / "mended"
    given = ["--from", str(tiny_folder), "--corpus", texts, "--budget", "2", "--units", "blocks"]
    assert main(["restore", str(pruned), *given, "--out", str(out)]) == 0
    done = probes.load_checkpoint(out)[0].config.compression
    assert done["given"]
    assert done["before"]["method"] == "prune"
    printed = capsys.readouterr().out
    assert printed.startswith(f"gave back {len(done['given'])} parts, ")
    assert printed.endswith(f"of the damage on the texts of the choice is gone; wrote {out}\n")


def test_restore_refuses_what_cannot_be(tiny_folder, pruned, texts, refused):
    refused("give --corpus", "restore", pruned, "--from", str(tiny_folder))
    given = ["--from", str(tiny_folder), "--corpus", texts]
    refused("budget=0.0: expected a number above 0", "restore", pruned, *given, "--budget", "0")


@pytest.fixture
def labelled(tmp_path_factory):
    file = tmp_path_factory.mktemp("labelled") / "labelled.csv"
    make_corpus().to_csv(file)
    return str(file)


def test_finetune_makes_a_head_and_keeps_the_best_step(tiny_models, make_tokenizer, labelled, tmp_path, capsys):
    body, out = tmp_path / "body", tmp_path / "tuned"
    compress.save(tiny_models("BertModel"), body, make_tokenizer())
    given = ["--corpus", labelled, "--steps", "10", "--out", str(out), "--seed", "3"]
    assert main(["finetune", str(body), *given, "--best", "accuracy", "--recipe", "graddrop"]) == 0
    model, _ = probes.load_checkpoint(out)
    done = model.config.compression
    assert (list(model.config.id2label.values()), done["seed"], done["steps"]) == (["x", "y", "z"], 3, 10)
    assert (done["gradients"]["rule"], done["best"]["measure"]) == ("GradDrop", "accuracy")
    printed, said = capsys.readouterr()
    assert "it has no head for labels, so one for one class a text, of 'x', 'y', 'z', was made, by seed 3" in said
    assert printed.startswith(f"accuracy is best at step {done['best']['step']}\n")
    assert printed.endswith(f"wrote {out}\n")


def test_finetune_places_the_head_by_variability(make_classifier, tokenizer, labelled, tmp_path, capsys):
    folder = compress.save(make_classifier(), tmp_path / "from", tokenizer)
    given = ["--corpus", labelled, "--steps", "1", "--layers", "by variability", "--tuned", "1", "--keep-zeros"]
    assert main(["finetune", str(folder), *given, "--out", str(tmp_path / "it")]) == 0
    done = probes.load_checkpoint(tmp_path / "it")[0].config.compression
    assert done["layers"] == [done["head_layer"]]
    assert done["keep_zeros"] is True
    assert capsys.readouterr().out.startswith(f"the head reads layer {done['head_layer']}\n")


@pytest.mark.parametrize(("recipe", "rate"), [("rp_dro", 2e-5), ("supcl_seq", 1e-3)])
def test_finetune_takes_the_rate_of_a_recipe(make_classifier, tokenizer, labelled, tmp_path, recipe, rate):
    folder = compress.save(make_classifier(), tmp_path / "from", tokenizer)
    given = ["--corpus", labelled, "--steps", "1", "--recipe", recipe]
    assert main(["finetune", str(folder), *given, "--out", str(tmp_path / "it")]) == 0
    assert probes.load_checkpoint(tmp_path / "it")[0].config.compression["training"]["learning_rate"] == rate


def test_finetune_rewards_what_a_decoder_writes(tiny_models, make_tokenizer, tiny_folder, texts, tmp_path):
    writer = compress.save(
        tiny_models("LlamaForCausalLM", pad_token_id=0, num_hidden_layers=1), tmp_path / "from", make_tokenizer()
    )
    given = ["--corpus", texts, "--steps", "1", "--batch-size", "2", "--reward-length", "4"]
    given += ["--reward", str(tiny_folder), "--teacher", str(writer)]
    assert main(["finetune", str(writer), *given, "--out", str(tmp_path / "it")]) == 0
    assert probes.load_checkpoint(tmp_path / "it")[0].config.compression["objective"] == ["similarity_reward"]


def test_words_are_replaced_as_the_options_say(make_classifier, tokenizer, labelled, tmp_path):
    folder = compress.save(make_classifier(), tmp_path / "from", tokenizer)
    given = ["--corpus", labelled, "--steps", "1", "--replace-words", "very fast", "--replace-upto", "0.5"]
    given += ["--replace-k", "3"]
    assert main(["finetune", str(folder), *given, "--out", str(tmp_path / "it")]) == 0
    done = probes.load_checkpoint(tmp_path / "it")[0].config.compression
    assert done["replace_words"] == compress.NearestWords("very fast", upto=0.5, k=3).said()


def test_finetune_refuses_what_cannot_be(tiny_folder, labelled, refused):
    refused("training needs text: give --corpus", "finetune", tiny_folder, "--steps", "2")
    both = ["--recipe", "graddrop", "--layers", "top"]
    refused("give one of them", "finetune", tiny_folder, "--steps", "2", "--corpus", labelled, *both)
    given = ["--steps", "2", "--corpus", labelled]
    refused("--teacher what writes those to be like: give both", "finetune", tiny_folder, *given, "--reward", "bundled")
    refused("--reward-length is of --reward: give both", "finetune", tiny_folder, *given, "--reward-length", "4")
    both = ["--recipe", "graddrop", "--reward", "bundled", "--teacher", "bundled"]
    refused("both say what is trained for: give one of them", "finetune", tiny_folder, *given, *both)
    said = "--replace-own-words says how words are replaced: give --replace-words too, one of static, linear"
    refused(said, "finetune", tiny_folder, *given, "--replace-own-words", "0.1")
    much = ["--replace-words", "linear", "--replace-upto", "2"]
    refused("upto=2.0: expected a share", "finetune", tiny_folder, *given, *much)
