"""What the tests of distillation share."""

import torch
import transformers

from probes.models.parts import FAMILIES

KINDS = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "xlm-roberta": "XLMRobertaForSequenceClassification",
    "camembert": "CamembertForSequenceClassification",
    "distilbert": "DistilBertForSequenceClassification",
}


def build(family="bert", layers=3, kind=None, seed=0, **changes):
    """A tiny random model: 4 heads of 3 features in a width of 12, and 20 channels."""
    kind = getattr(transformers, kind or KINDS[family])
    sizes = {"hidden_size": 12, "num_attention_heads": 4, "num_hidden_layers": layers, "intermediate_size": 20}
    if family == "distilbert":
        sizes = {"dim": 12, "n_heads": 4, "n_layers": layers, "hidden_dim": 20}
    sizes |= {"vocab_size": 27, "max_position_embeddings": 40, "id2label": dict(enumerate("xyz"))}
    if family in ("roberta", "xlm-roberta", "camembert"):
        sizes |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    torch.manual_seed(seed)
    model = kind(kind.config_class(**(sizes | changes))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@torch.no_grad()
def logits(model):
    torch.manual_seed(1)
    ids = torch.randint(4, 27, (3, 9))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return model(input_ids=ids, attention_mask=mask).logits


def blocks(model):
    return model.base_model.get_submodule(FAMILIES[model.config.model_type].blocks)
