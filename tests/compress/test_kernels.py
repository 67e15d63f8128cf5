"""Convolutions and LSTM layers: pruned, quantised and fused as linear maps are, saved, loaded, counted, or refused."""

import numpy as np
import pytest
import torch
from speaking import masking, spoken
from torch import nn
from trained import QUIET, same, weights
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

import compress
import probes
from compress.factorization.lstm_model import LSTMConfig, LSTMLanguageModel
from compress.fusion.pairs import groups_of
from compress.kernels import KernelMatrix, check_linear, kernel_matrices
from compress.matrices import coverage, every_matrix, matrices_in, matrices_of
from compress.objectives.base import Pass
from compress.pruning.criteria import scores
from compress.quantization.quantizers import dequantize, quantize_tensor
from probes.errors import InputError
from probes.models.formats.shared_layers import apply_sharing, unshare
from probes.models.weights import block_weights


class Convolved(PreTrainedModel):
    """Embeddings, and blocks of two convolutions and a depthwise one."""

    config_class = PretrainedConfig

    def __init__(self, config):
        super().__init__(config)
        torch.manual_seed(0)
        self.embeddings = nn.Embedding(30, 8)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "wide": nn.Conv1d(8, 8, 3, padding=1),
                    "deep": nn.Conv1d(8, 8, 1, groups=8),
                    "square": nn.Conv2d(2, 4, 3, padding=1),
                }
            )
            for _ in range(3)
        )
        self.post_init()

    def _init_weights(self, module):
        pass

    def get_input_embeddings(self):
        return self.embeddings

    def forward(self, input_ids, attention_mask=None, **_):
        x = self.embeddings(input_ids).transpose(1, 2)
        for block in self.blocks:
            x = block["deep"](block["wide"](x).relu())
            two = block["square"](torch.stack([x, x.flip(1)], 1))
            x = x + two.mean(1)
        return BaseModelOutput(last_hidden_state=x.transpose(1, 2))


@pytest.fixture
def convolved():
    return Convolved(PretrainedConfig(hidden_size=8, num_hidden_layers=3, vocab_size=30)).eval()


@pytest.fixture
def recurrent():
    torch.manual_seed(0)
    return LSTMLanguageModel(LSTMConfig(40, hidden_size=12, num_hidden_layers=3)).eval()


LAYER = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def test_a_convolution_is_a_matrix_of_units_and_all_they_are_fed_and_a_depthwise_one_none(convolved):
    found = kernel_matrices(convolved)
    assert list(found) == [f"blocks.{i}.{kind}.weight" for i in range(3) for kind in ("wide", "square")]
    matrix, weight = found["blocks.1.square.weight"], convolved.blocks[1]["square"].weight
    assert isinstance(matrix, KernelMatrix)
    assert (matrix.shape, matrix.numel(), matrix.dtype, matrix.element_size()) == ((4, 18), 72, torch.float32, 4)
    assert torch.equal(matrix.detach(), weight.detach().reshape(4, 18))
    assert matrix.grad is None
    weight.square().sum().backward()
    assert torch.equal(matrix.grad, 2 * matrix.detach())
    matrix.detach().zero_()
    assert not weight.any()
    deep = sum(block["deep"].weight.numel() for block in convolved.blocks)
    every = sum(p.numel() for p in block_weights(convolved).values())
    assert coverage(convolved, every_matrix(convolved)) == pytest.approx(1 - deep / every)


def test_the_layers_of_an_lstm_and_its_output_layer_are_matrices_of_a_model_without_blocks(recurrent):
    names = [f"lstm.weight_{kind}_l{i}" for i in range(3) for kind in ("ih", "hh")]
    assert set(matrices_of(recurrent)) == {*names, "output.weight"}
    assert coverage(recurrent, matrices_of(recurrent)) == 1
    assert list(matrices_in(recurrent, ["lstm.1"])) == names[2:4]
    cost = compress.footprint(recurrent).iloc[0]
    assert cost["encoder"] == sum(w.numel() for w in matrices_of(recurrent).values())


@pytest.mark.parametrize("scope", ["matrix", "unit", "global"])
@pytest.mark.parametrize("kind", ["convolved", "recurrent"])
def test_they_are_pruned_by_size_as_by_hand(kind, scope, request):
    model = request.getfixturevalue(kind)
    pruned = compress.prune(model, sparsity=0.5, scope=scope)
    before, after = ({n: w.detach().flatten(1) for n, w in matrices_of(m).items()} for m in (model, pruned))
    middle = torch.cat([w.abs().flatten() for w in before.values()]).median()
    for name, weight in before.items():
        size = weight.abs()
        limit = {"matrix": size.median(), "unit": size.median(dim=1, keepdim=True).values, "global": middle}[scope]
        kept = after[name] != 0
        assert torch.equal(kept, size > limit)
        assert torch.equal(after[name][kept], weight[kept])
    assert compress.footprint(pruned).iloc[0]["encoder_nonzero"] < 0.6 * compress.footprint(model).iloc[0]["encoder"]


@pytest.mark.parametrize("kind", ["convolved", "recurrent"])
def test_they_are_quantised_on_the_grids_of_their_units_and_counted(kind, request):
    model = request.getfixturevalue(kind)
    quantized = compress.quantize(model, bits=4, activation_bits=None)
    after, packed = matrices_of(quantized), 0
    for name, weight in matrices_of(model).items():
        rows = weight.detach().flatten(1)
        assert torch.equal(after[name].detach().flatten(1), dequantize(quantize_tensor(rows, 4)))
        packed += -(-rows.numel() // 2) + 4 * len(rows)
    done = quantized.config.compression
    rest = sum(p.numel() for p in model.parameters()) - sum(w.numel() for w in after.values())
    assert (done["bytes_of_quantized"], done["bytes_of_model"]) == (packed, packed + 4 * rest)
    assert compress.footprint(quantized).iloc[0]["stored_bytes"] == packed + 4 * rest
    with pytest.warns(
        probes.LayerscopeWarning, match="what its convolutions and LSTM layers are fed .* is not rounded"
    ):
        compress.quantize(model, bits=8)
    coded = compress.product_quantize(model, codes=4, block=2, only="weight_hh|square|wide")
    for name in coded.config.compression["quantized"]:
        assert len(matrices_of(coded)[name].detach().reshape(-1, 2).unique(dim=0)) <= 4


def test_layers_of_an_lstm_are_fused_and_what_is_saved_comes_back(recurrent, tmp_path):
    table = compress.layer_similarity(recurrent)
    assert set(table["part"]) == {"lstm.*"}
    named = dict(recurrent.named_parameters())
    for row in table.itertuples():
        by_hand = [
            float((named[f"lstm.{n}_l{row.layer}"] - named[f"lstm.{n}_l{row.other_layer}"]).detach().double().norm())
            for n in LAYER[:2]
        ]
        assert row.value == pytest.approx(np.mean(by_hand), rel=1e-5)
    with pytest.warns(probes.LayerscopeWarning, match=r"fuse touches 88% .* output.weight and 0 more stay as they are"):
        fused = compress.fuse(recurrent, share=0.4)
    first, second = table.loc[0, ["layer", "other_layer"]]
    assert groups_of(fused) == {"lstm.*": [[first, second]]}
    for name in LAYER:
        one, other = (getattr(fused.lstm, f"{name}_l{i}") for i in (first, second))
        assert one is other
        torch.testing.assert_close(one, (named[f"lstm.{name}_l{first}"] + named[f"lstm.{name}_l{second}"]) / 2)
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        plain = LSTMLanguageModel(recurrent.config).eval()
        plain.load_state_dict(fused.state_dict())
        expected = plain(ids).logits
        assert torch.equal(fused(ids).logits, expected)
    layer = sum(named[f"lstm.{name}_l0"].numel() for name in LAYER)
    done = fused.config.compression
    assert done["parameters_of_parent"] - done["parameters"] == layer
    whole, small = (compress.footprint(m).iloc[0]["bytes"] for m in (recurrent, fused))
    assert small < whole - 3 * layer  # 4 bytes a number, less what the header says of them
    for packed in (False, True):
        folder = compress.save(fused, tmp_path / str(packed), packed=packed)
        back = LSTMLanguageModel.from_pretrained(folder).eval()
        assert type(back) is LSTMLanguageModel
        assert groups_of(back) == groups_of(fused)
        with torch.no_grad():
            assert torch.equal(back(ids).logits, expected)
    unshare(back)
    assert back.lstm.weight_hh_l0 is not back.lstm.weight_hh_l1


def test_convolutions_of_one_shape_are_fused_part_by_part(convolved, tmp_path):
    fused = compress.fuse(convolved, share=0.4, similarity="cosine", merge="drop")
    groups = groups_of(fused)
    assert set(groups) == {"blocks.*.wide", "blocks.*.square"}
    for part, [(one, other)] in groups.items():
        kept, shared = (fused.get_submodule(part.replace("*", str(i))) for i in (one, other))
        assert kept.weight is shared.weight
        assert torch.equal(kept.weight, convolved.get_submodule(part.replace("*", str(one))).weight)
    folder = compress.save(fused, tmp_path / "saved")
    back = Convolved.from_pretrained(folder)
    apply_sharing(back)
    assert same(weights(back), weights(fused))
    whole = compress.fuse(convolved, share=0.4, unit="layer")
    assert set(groups_of(whole)) == {"blocks.*"}


def test_a_pruned_and_quantised_recurrent_model_trains_resumes_and_comes_back(make_tokenizer, tmp_path):
    tokenizer, corpus = masking(make_tokenizer), spoken()
    torch.manual_seed(0)
    model = LSTMLanguageModel(LSTMConfig(len(tokenizer), hidden_size=12)).eval()
    given = {"train": corpus, "tokenizer": tokenizer, **QUIET}
    how = {"sparsity": 0.5, "schedule": "uniform", "prunings": 2, "steps": 4, "criterion": "movement"}
    pruned = compress.prune(model, **how, **given)
    again = compress.prune(model, **how, **given, folder=tmp_path / "kept", save_every=2)
    assert same(weights(again), weights(pruned))
    assert compress.footprint(pruned).iloc[0]["encoder_nonzero"] == sum(
        int((w != 0).sum()) for w in matrices_of(pruned).values()
    )
    noisy = compress.quantize(pruned, bits=4, activation_bits=8, only="output", steps=2, noise=0.5, **given)
    assert noisy.config.quantized_inputs == {"output": {"bits": 8}}
    folder = compress.save(noisy, tmp_path / "saved", tokenizer, packed=True)
    back = LSTMLanguageModel.from_pretrained(folder)
    loss = compress.language_model_loss(noisy, tokenizer, corpus)
    assert compress.language_model_loss(back, tokenizer, corpus) == loss  # inputs rounded, too
    with pytest.warns(probes.LayerscopeWarning, match="fuse touches"):
        fused = compress.fuse(model, schedule="uniform", fusions=1, steps=3, **given)
    assert groups_of(fused) == {"lstm.*": [[0, 1]]}


def test_an_objective_of_weights_reads_convolutions_by_unit(convolved):
    aligned = compress.AlignedWeights(convolved, form="frobenius")
    pruned = compress.prune(convolved, sparsity=0.5)
    by_hand = [
        float((pruned.get_parameter(n) - convolved.get_parameter(n)).norm() / convolved.get_parameter(n).norm())
        for n in kernel_matrices(convolved)
    ]
    loss = aligned(Pass(pruned, None), None, {})
    assert loss.item() == pytest.approx(np.mean(by_hand), rel=1e-5)
    with torch.no_grad():
        pruned.blocks[0]["square"].weight.mul_(2)
    aligned(Pass(pruned, None), None, {}).backward()
    assert pruned.blocks[0]["square"].weight.grad.any()


def test_what_is_told_of_linear_maps_alone_is_refused_by_name(convolved, recurrent, make_tokenizer):
    text = {"train": spoken(), "tokenizer": masking(make_tokenizer)}
    with pytest.raises(InputError, match=r"criterion='wanda' weighs .* fed, which is told of linear maps alone, and "):
        compress.prune(recurrent, sparsity=0.5, criterion="wanda", **text)
    with pytest.raises(InputError, match=r"and blocks.0.wide.weight is of a torch.nn.Conv1d. Choose another, or the"):
        scores(convolved, matrices_of(convolved), "wanda", corpus=text["train"], tokenizer=text["tokenizer"])
    check_linear(recurrent, ["output.weight"], "this")
    given = {"similarity": "cka", "corpus": text["train"], "tokenizer": text["tokenizer"]}
    with pytest.raises(InputError, match=r"cka' compares .* each token, and lstm.0 is a layer of an LSTM, of which"):
        compress.fuse(recurrent, **given)
    with pytest.raises(InputError, match=r"and blocks.0.wide is a torch.nn.Conv1d.*Choose a similarity of the weights"):
        compress.layer_similarity(convolved, **given)
    convolved.to(memory_format=torch.channels_last)
    with pytest.raises(
        InputError, match=r"the weights of blocks.0.square do not lie one after another, as in channels_"
    ):
        compress.prune(convolved, sparsity=0.5)
    recurrent.config.shared_layers = {"lstm.3": "lstm.0"}
    with pytest.raises(InputError, match=r"names the module 'lstm.3', which LSTMLanguageModel does not have"):
        apply_sharing(recurrent)
