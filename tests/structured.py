"""What the tests of pruning share."""

import torch
import transformers

ARCHITECTURES = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "xlm-roberta": "XLMRobertaForSequenceClassification",
    "camembert": "CamembertForSequenceClassification",
    "electra": "ElectraForSequenceClassification",
    "distilbert": "DistilBertForSequenceClassification",
}


def make(family, heads=4, channels=20, layers=3, seed=0, **changes):
    """A tiny random model of every family: heads of 3 features in a width of 12."""
    kind = getattr(transformers, ARCHITECTURES[family])
    sizes = {"hidden_size": 12, "num_attention_heads": heads, "num_hidden_layers": layers, "num_labels": 3}
    sizes |= {"vocab_size": 27, "max_position_embeddings": 40, "embedding_size": 8} | changes
    sizes["hidden_dim" if family == "distilbert" else "intermediate_size"] = channels
    if family != "electra":
        del sizes["embedding_size"]
    if family == "distilbert":
        sizes |= {"dim": sizes.pop("hidden_size"), "n_heads": heads, "n_layers": layers}
        del sizes["num_attention_heads"], sizes["num_hidden_layers"]
    if family in ("roberta", "xlm-roberta", "camembert"):
        sizes |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    torch.manual_seed(seed)
    model = kind(kind.config_class(**sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def parts(model, layer):
    """What a layer's heads and channels are read and written with: {part: (reading maps, writing map)}."""
    if model.config.model_type == "distilbert":
        block = model.base_model.transformer.layer[layer]
        a, f = block.attention, block.ffn
        return {"heads": ((a.q_lin, a.k_lin, a.v_lin), a.out_lin), "channels": ((f.lin1,), f.lin2)}
    block = model.base_model.encoder.layer[layer]
    a = block.attention.self
    return {
        "heads": ((a.query, a.key, a.value), block.attention.output.dense),
        "channels": ((block.intermediate.dense,), block.output.dense),
    }


def inputs():
    torch.manual_seed(1)
    ids = torch.randint(4, 27, (3, 9))
    mask = torch.ones_like(ids)
    mask[1, 6:] = mask[2, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def outputs(model):
    return model(**inputs()).logits


def close(one, other, tolerance=1e-5):
    return torch.allclose(outputs(one), outputs(other), rtol=0, atol=tolerance)
