"""An exported model that onnxruntime runs, in the place of a model of transformers."""

from __future__ import annotations

import copy
import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig
from transformers.utils import ModelOutput

from probes.errors import InputError, needed
from probes.forms import parse_json

FILE = "model.onnx"
# Under this key the file says what its graph does not: how many embeddings and positions the model has.
METADATA = "layerscope"
_PRODUCTS = ("MatMul", "Gemm", "MatMulIntegerToFloat")  # of matrices
_ABOUT = {"embeddings": range(1, 2**31), "positions": (range(1, 2**31), None)}


@dataclass
class OnnxOutput(ModelOutput):
    """What an exported model gives: its hidden states, and of a head that classifies the logits and
    what it gets.
    """

    hidden_states: tuple[torch.Tensor, ...] | None = None
    logits: torch.Tensor | None = None
    head_input: torch.Tensor | None = None


class OnnxModel(torch.nn.Module):
    """A model that onnxruntime runs on the CPU: called, captured and saved like any other.

    `compress.quantization.deploy` exports it. It has no modules and no weights to look at: what it
    gives is all hidden states, and of a head that classifies texts the logits.

    Args:
        serialized: the bytes of its ONNX file.
        config: the configuration of the model that was exported.

    Raises:
        DependencyError: onnxruntime is not installed.
        InputError: the bytes are no ONNX file, or one that `compress.quantization.deploy` did not
            write.

    Example:
        >>> import compress, probes
        >>> from compress.quantization.deploy import deploy
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> deployed = deploy(model, "onnxruntime")
        >>> len(deployed(**tokenizer("a text", return_tensors="pt")).hidden_states)
        7
    """

    onnx: torch.Tensor
    _session: Any

    def __init__(self, serialized: bytes, config: transformers.PreTrainedConfig) -> None:
        """Start onnxruntime on an exported model."""
        super().__init__()
        self.config = config
        # A buffer, so that it is hashed as weights are.
        self.register_buffer("onnx", torch.frombuffer(bytearray(serialized), dtype=torch.uint8))
        self._start()
        about = self._session.get_modelmeta().custom_metadata_map.get(METADATA)
        if about is None:
            raise InputError(
                f"{config.name_or_path or FILE}: expected an ONNX file that compress.deploy wrote, with all hidden "
                "states as outputs, found another one. Export the model again with compress.quantize(model, "
                "backend='onnxruntime')"
            )
        known = parse_json(about, _ABOUT, f"{config.name_or_path}/{FILE}: {METADATA}")
        self.embeddings: int = known["embeddings"]
        self.positions: int | None = known["positions"]
        self.inputs = [i.name for i in self._session.get_inputs()]
        self.outputs = [o.name for o in self._session.get_outputs()]
        self.eval()

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> OnnxModel:
        """Load what `save_pretrained` wrote."""
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        config.name_or_path = str(folder)
        return cls((Path(folder) / FILE).read_bytes(), config)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `model.onnx` and `config.json`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_bytes(self.onnx.numpy().tobytes())
        self.config.save_pretrained(folder)

    def __deepcopy__(self, memo: dict[int, object]) -> OnnxModel:
        """Return a copy with a session of its own."""
        return OnnxModel(self.onnx.numpy().tobytes(), copy.deepcopy(self.config, memo))

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Of what it gives; inside it computes in fewer bits."""
        return torch.float32

    def to(self, device: str | torch.device) -> OnnxModel:  # type: ignore[override]
        """Return the model itself; raise `InputError` for any device but the CPU."""
        self.check(device)
        return self

    def check(self, device: str | torch.device | None = None, dtype: str = "float32") -> None:
        """Raise `InputError` where it is asked for on another device than the CPU, or in another
        precision.
        """
        if device is not None and torch.device(device).type != "cpu":
            raise InputError(
                f"device={str(device)!r}: the int8 kernels of onnxruntime run on the CPU. Leave device= out, or take "
                "backend='torchao', which runs where torch does"
            )
        if dtype != "float32":
            raise InputError(
                f"dtype={dtype!r}: an exported model computes in the precision it was exported with. Leave dtype= out"
            )

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        output_hidden_states: bool = True,
        return_dict: bool = True,
    ) -> OnnxOutput:
        """Return all hidden states, layer 0 the embeddings, and the logits where there are some.

        Args:
            input_ids: (batch, token).
            attention_mask: 1 for tokens, 0 for padding; by default there is no padding.
            token_type_ids: by default all 0.
            output_hidden_states, return_dict: as models of transformers have them; both are always
                true here.
        """
        found = self.run(input_ids, attention_mask, token_type_ids)
        states = tuple(v for k, v in found.items() if k.startswith("hidden_"))
        return OnnxOutput(states, found.get("logits"), found.get("head_input"))

    def run(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return the outputs of the graph by name."""
        given = {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids) if attention_mask is None else attention_mask,
        }
        if token_type_ids is not None:
            given["token_type_ids"] = token_type_ids
        elif "token_type_ids" in self.inputs:
            given["token_type_ids"] = torch.zeros_like(input_ids)
        if set(given) != set(self.inputs):
            raise InputError(
                f"{self.config.name_or_path or FILE}: the exported model takes {', '.join(self.inputs)}, found "
                f"{', '.join(given)}. Use the tokenizer that belongs to it"
            )
        if self._threads != torch.get_num_threads():
            self._start()
        arrays = self._session.run(None, {k: v.cpu().long().numpy() for k, v in given.items()})
        return {k: torch.from_numpy(a).to(input_ids.device) for k, a in zip(self.outputs, arrays, strict=True)}

    def weights(self) -> tuple[dict[str, np.ndarray], list[str]]:
        """Return its weights by name, codes where it has them, and which of them are tables that
        rows are taken from.

        Raises:
            DependencyError: the package onnx is not installed.
        """
        onnx = needed("onnx", "The weights of a model in ONNX")
        graph = onnx.load_from_string(self.onnx.numpy().tobytes()).graph
        found = {w.name: onnx.numpy_helper.to_array(w) for w in graph.initializer}
        kinds = (np.dtype("int8"), np.dtype("float32"), np.dtype("float16"))
        kept = {k: w for k, w in found.items() if w.ndim and w.dtype in kinds and not k.endswith(".steps")}
        tables = {node.input[0] for node in graph.node if node.op_type == "Gather"}
        return kept, [name for name, weight in kept.items() if name in tables and weight.ndim == 2]

    def operations(self, **inputs: torch.Tensor) -> int:
        """Return the multiplications and additions in matrix products that some inputs take, as
        onnxruntime saw their shapes.
        """
        with tempfile.TemporaryDirectory() as folder:
            session, self._session = self._session, None
            try:
                self._start(profile=f"{folder}/run")
                self.run(**inputs)
                seen = json.loads(Path(self._session.end_profiling()).read_bytes())
            finally:
                self._session = session
        count = 0
        for event in (e.get("args", {}) for e in seen):
            if event.get("op_name") in _PRODUCTS and event.get("output_type_shape"):
                (taken,), (given,) = (event[k][0].values() for k in ("input_type_shape", "output_type_shape"))
                count += 2 * math.prod(given) * taken[-1]
        return count

    def _start(self, profile: str = "") -> None:
        """Make the session, with as many threads as torch has now."""
        onnxruntime = needed("onnxruntime", "A model in ONNX")
        self._threads = torch.get_num_threads()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        # Threads that spin while they wait take the time of torch's, which run in turns with them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # On a CPU whose sums of products of bytes overflow, it takes others in place of them.
        options.add_session_config_entry("session.x64quantprecision", "1")
        options.log_severity_level = 4
        if profile:  # a file of what ran, operator by operator as they were exported
            options.enable_profiling, options.profile_file_prefix = True, profile
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(
                self.onnx.numpy().tobytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # of kinds of its own, one for each way in which a file can be broken
            raise InputError(
                f"{self.config.name_or_path or FILE}: onnxruntime cannot read it ({' '.join(str(error).split())}). "
                "Copy or export it again"
            ) from error
