"""Which models the backends take, known before they are made."""

import pytest
from architectures import make

from compress.quantization.backends import BACKENDS, check_backend
from probes.errors import InputError


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["bert", "qwen2", "t5"])
def test_models_of_plain_linear_maps_pass(kind, backend):
    check_backend(make(kind), backend)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("gpt2", r"h\.0\.attn\.c_attn: backend='torchao' quantises torch.nn.Linear, found Conv1D. Take backend='onnx"),
        (
            "falcon",
            r"query_key_value: backend='torchao' quantises torch.nn.Linear, found FalconLinear",
        ),  # of its own forward
        (
            "nomic_bert",
            r"\(nomic_bert\): its file keeps .* as one tensor, which backend='torchao'.* does not take apart",
        ),
        ("gte", r"\(gte\): its file keeps .* as one tensor"),
        ("jina_embeddings_v3", r"\(jina_embeddings_v3\): its file keeps .* as one tensor"),
    ],
)
def test_what_torchao_does_not_take_is_refused_by_name(kind, message):
    model = make(kind)
    with pytest.raises(InputError, match=message):
        check_backend(model, "torchao")
    check_backend(model, "onnxruntime")


def test_a_backend_that_is_not_known_is_refused():
    with pytest.raises(InputError, match="backend='tensorrt' is not known; choose one of 'onnxruntime', 'torchao'"):
        check_backend(make("bert"), "tensorrt")
