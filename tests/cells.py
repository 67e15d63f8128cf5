"""What can be done with a model: every operation with an independent check of what came out of it."""

from __future__ import annotations

import copy
import inspect
import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from alike import cka
from tiny import make, tokenizer_of
from torch.nn.functional import cross_entropy
from transformers.pytorch_utils import Conv1D

import compress
import probes
from compress.training.loop import train
from probes.errors import LayerscopeWarning
from probes.models.facts import check_reads_text

TEXTS = [
    "a dog sat on the mat",
    "the cat",
    "then he sang under a small tree and she ran over the red house but it sat",
    "bird",
    "the unknown cat ran",
    "she sang and the dog ran",
    "small red bird under the mat and the big house",
    "it sat over a cat the",
]
LABELS = [0, 1, 2, 0, 1, 2, 0, 1]
# Of the largest value: of float32, and where values next to a half may be rounded up or down.
_NEAR, _ROUNDED = 1e-4, 3e-2
_ROUTED = 0.75  # of the tokens at least go to the same experts after rounding


# Which experts each token of a text is sent to, and with what weights, by module.
Routed = dict[str, list[tuple[torch.Tensor, torch.Tensor]]]


class Wrong(Exception):
    """What came out is not what it should be."""


@dataclass
class Case:
    """A model, its tokenizer, and texts."""

    name: str
    kind: str
    model: Any
    said: list[str] = field(default_factory=list)

    @cached_property
    def tokenizer(self) -> Any:
        return tokenizer_of(self.name)

    @cached_property
    def corpus(self) -> Any:
        ids = [f"text {i}" for i in range(len(TEXTS))]
        return probes.load_corpus(pd.DataFrame({"id": ids, "language": "en", "text": TEXTS, "label": LABELS}))

    @cached_property
    def expected(self) -> Alone:
        return alone(self, self.model)


@dataclass
class Alone:
    """One text at a time in float64: the mean state of each layer, its tokens, logits, what each map was fed.

    `routed` has the experts of each token, and their weights, by module and text.
    """

    hidden: np.ndarray
    tokens: list[list[np.ndarray]]
    logits: np.ndarray | None
    fed: dict[str, torch.Tensor]
    routed: Routed = field(default_factory=dict)


def verdict(name: str, kind: str, operation: str) -> dict[str, str]:
    """Do one operation on a new model and say how it went: right, refused, traceback, silently wrong, or skipped."""
    try:
        model = make(name, kind)
    except Exception as error:  # of transformers
        return {"verdict": "traceback", "why": f"transformers cannot make it: {type(error).__name__}: {error}"}
    if model is None or (operation == "predictions" and kind != "head"):
        return {"verdict": "skipped", "why": "transformers has no such class, or it predicts no classes"}
    case = Case(name, kind, model)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        try:
            OPERATIONS[operation](case)
            out = {"verdict": "right", "why": ""}
        except Wrong as error:
            out = {"verdict": "silently wrong", "why": str(error)}
        except (probes.InputError, probes.DependencyError) as error:
            out = {"verdict": "refused", "why": str(error)}
        except Exception as error:
            out = {"verdict": "traceback", "why": f"{type(error).__name__}: {_place(error)}: {str(error)[:300]}"}
        said = [str(w.message) for w in found if issubclass(w.category, LayerscopeWarning)]
    if (
        out["verdict"] == "silently wrong"
        and "without a word" in out["why"]
        and any("of the weights of its blocks" in s for s in said)
    ):
        out = {"verdict": "right", "why": ""}
    return out | {"said": " | ".join(dict.fromkeys(said))}


def _place(error: Exception) -> str:
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    ours = [f for f in frames if "/probes/" in f[0] or "/compress/" in f[0]] or frames
    return ":".join(map(str, (ours[-1][0].split("/")[-1], ours[-1][1])))


def body_of(model: Any) -> Any:
    return model.base_model.get_encoder() if model.config.is_encoder_decoder else model.base_model


def reads_text(model: Any) -> bool:
    """Whether a model can be run on text, so that its states can be compared."""
    try:
        check_reads_text(model)
    except probes.InputError:
        return False
    return True


def blocks_of(model: Any) -> Any:
    """The list of blocks of the part that reads; None where it is no list of so many."""
    body = body_of(model)
    count = getattr(body.config.get_text_config(), "num_hidden_layers", 0)
    lists = [m for m in body.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count]
    return lists[0] if lists and body.config.model_type != "xlm" else None  # whose blocks are in pieces


def depth_of(model: Any) -> int:
    """How many layers a model runs."""
    blocks = blocks_of(model)
    return int(model.config.num_hidden_layers) if blocks is None else len(blocks)


@torch.no_grad()
def alone(case: Case, model: Any, rows: Any = None, routed: Routed | None = None) -> Alone:
    """Run one text at a time in float64; states by hooks on the blocks, not by what the model says they are.

    `routed`: to which experts tokens are sent, whatever the router says.
    """
    if not reads_text(model):
        return Alone(np.empty(0), [], None, {})
    model = copy.deepcopy(model).eval()
    # XGLM masks with numbers that are too large then, and experts are multiplied in float32 only.
    if case.name != "xglm" and not any(n.endswith("experts") for n, _ in model.named_modules()):
        model = model.double()
    body, blocks = body_of(model), blocks_of(model)
    seen: list[torch.Tensor] = []
    fed: dict[str, list[torch.Tensor]] = {}
    count = [1]  # of tokens

    def before(_module: Any, args: Any, kwargs: Any) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])

    def after(_module: Any, _args: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    def of(name: str) -> Callable[..., None]:
        def hook(_module: Any, inputs: Any) -> None:
            x = inputs[0].flatten(0, -2)
            window = getattr(model.config, "attention_window", [1])[0]  # to which Longformer fills a text up
            if len(x) in (count[0], count[0] + -count[0] % window):  # of tokens, not of positions
                fed.setdefault(name, []).append(x[: count[0]])

        return hook

    sent: Routed = {}

    def route(name: str) -> Callable[..., Any]:
        def hook(_module: Any, args: Any) -> Any:
            given = args[1:3] if routed is None else routed[name][len(sent.get(name, []))]
            sent.setdefault(name, []).append(given)
            return (args[0], *given)

        return hook

    handles = [m.register_forward_pre_hook(of(n)) for n, m in model.named_modules() if _is_map(m)]
    handles += [m.register_forward_pre_hook(route(n)) for n, m in model.named_modules() if n.endswith(".experts")]
    if blocks is not None:
        handles.append(blocks[0].register_forward_pre_hook(before, with_kwargs=True))
        handles += [b.register_forward_hook(after) for b in blocks]
    hidden, tokens, logits = [], [], []
    for text in rows or TEXTS:
        inputs = dict(case.tokenizer(text, return_tensors="pt", return_special_tokens_mask=True))
        own = inputs.pop("special_tokens_mask")[0] == 0
        parameters = inspect.signature(body.forward).parameters
        typed = getattr(model.config, "type_vocab_size", 2) > 1 and "gpt" not in model.config.model_type
        inputs = {k: v for k, v in inputs.items() if k != "token_type_ids" or (k in parameters and typed)}
        seen.clear()
        count[0] = len(own)
        whole = case.kind == "head"  # which may change what its body does
        named = "encoder_hidden_states" if whole and model.config.is_encoder_decoder else "hidden_states"
        given = (model if whole else body)(**inputs, output_hidden_states=True)
        states = list(seen) if blocks is not None else list(getattr(given, named))
        if len({s.shape[-2] for s in states}) > 1:  # of several lengths, as Funnel's: they are no states of tokens
            continue
        if any(s.numel() % len(own) for s in states):
            states = [s.reshape(-1, s.shape[-1])[: len(own)] for s in states]
        states = [s.reshape(len(own), -1) for s in states]
        # Of CLIP the norm in the end is no part of the last state.
        last = getattr(given, named)[-1] if whole or case.name == "clip_text" else given[0]
        states[-1] = last.reshape(-1, last.shape[-1])[: len(own)]
        tokens.append([s.numpy() for s in states])
        hidden.append([s[own].mean(0).numpy() for s in states])
        if case.kind == "head":
            score = getattr(model, "score", None)
            out = given.logits if score is None else score.__class__.forward(score, states[-1][-1:])  # no hook sees it
            logits.append(out[0].numpy())
        elif model.config.is_encoder_decoder:
            start = torch.full((1, 1), model.config.decoder_start_token_id)
            ids = torch.cat([start, inputs["input_ids"][:, :-1]], 1)
            model(encoder_outputs=given, attention_mask=inputs["attention_mask"], decoder_input_ids=ids)
    for handle in handles:
        handle.remove()
    widths = {np.shape(h) for h in hidden}
    if len(widths) > 1:
        raise Wrong(f"states of several shapes: {widths}")
    fed_once = {k: torch.cat(v) for k, v in fed.items()}
    states = np.stack(hidden, 1) if hidden else np.empty(0)
    return Alone(states, tokens, np.stack(logits) if logits else None, fed_once, sent)


def _is_map(module: Any) -> bool:
    return isinstance(module, torch.nn.Linear | Conv1D)


def captured(case: Case, model: Any, **options: Any) -> Any:
    return probes.capture(model, case.tokenizer, case.corpus, progress=False, batch_size=3, **options)


def same(found: np.ndarray, expected: np.ndarray, what: str, near: float = _NEAR) -> None:
    if found.shape != expected.shape:
        raise Wrong(f"{what}: shape {found.shape}, expected {expected.shape}")
    far = np.abs(found - expected).max() / max(1.0, np.abs(expected).max())
    if not far < near:
        raise Wrong(f"{what}: {far:.1e} off")


def same_states(case: Case, model: Any, expected: Alone, near: float = _NEAR, what: str = "states") -> None:
    """What `capture` gives of a model, against texts one at a time; layers by the numbers they are given."""
    if not reads_text(model):
        return  # its weights are compared
    _same(case, captured(case, model), expected, near, what)


def _same(case: Case, reps: Any, expected: Alone, near: float = _NEAR, what: str = "states") -> None:
    numbers = reps["layer"].values
    same(reps["hidden"].values, expected.hidden[numbers], f"{what} of layers {numbers.tolist()}", near)
    if case.kind == "head":
        if "logits" not in reps:
            raise Wrong("a classifier, and no logits are kept")
        assert expected.logits is not None
        same(reps["logits"].values, expected.logits, f"logits with {what}", near)


def survives(case: Case, model: Any) -> None:
    """Whether a model that is saved and loaded gives the same."""
    before = captured(case, model)
    with tempfile.TemporaryDirectory() as folder:
        compress.save(model, f"{folder}/saved", case.tokenizer)
        back, _ = probes.load_checkpoint(f"{folder}/saved")  # some types of model have tokenizers of their own kind
        after = captured(case, back)
    for key in [k for k in ("hidden", "logits") if k in before]:
        if key not in after:
            raise Wrong(f"saved and loaded: {key} are gone")
        same(after[key].values, before[key].values, f"saved and loaded: {key}", 1e-5)


def block_weights(model: Any) -> dict[str, torch.Tensor]:
    """Every matrix within repeated blocks, those of experts too, but for embeddings and convolutions."""
    odd = (torch.nn.Embedding, torch.nn.modules.conv._ConvNd)
    out = {}
    for name, p in model.base_model.named_parameters():
        module = model.base_model.get_submodule(name.rpartition(".")[0])
        if (
            p.ndim in (2, 3)
            and min(p.shape[-2:]) > 1
            and re.search(r"(^|\.)\d+\.", name)
            and not isinstance(module, odd)
        ):
            out[name] = p.detach()
    return out


def changed(case: Case, model: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Block weights that differ from those of the model, before and after; where too few do, that is wrong."""
    every, now = block_weights(case.model), dict(model.base_model.named_parameters())
    others = {n for n in every if n not in now or now[n].shape != every[n].shape or not torch.equal(now[n], every[n])}
    share = sum(every[n].numel() for n in others) / sum(p.numel() for p in every.values())
    if share < 0.95:
        passed = sorted({re.sub(r"\.\d+\.", ".*.", n) for n in every if n not in others})
        raise Wrong(f"passes over {1 - share:.0%} of the block weights without a word: {', '.join(passed[:4])}")
    # What differs beside them: a gate of one row is a matrix too, if none that must be reached.
    rest = {n: p.detach() for n, p in case.model.base_model.named_parameters() if n not in every}
    others |= {n for n, p in rest.items() if n in now and p.ndim > 1 and not torch.equal(p, now[n])}
    return {
        n: (p, now[n].detach()) for n, p in (every | rest).items() if n in others & set(now) and now[n].shape == p.shape
    }


def with_weights(model: Any, weights: dict[str, torch.Tensor]) -> Any:
    """A copy of a model with other values of some parameters of its body."""
    out = copy.deepcopy(model)
    named = dict(out.base_model.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            named[name].copy_(value)
    return out


def op_capture(case: Case) -> None:
    reps = captured(case, case.model)  # first, since where it refuses there is nothing to expect
    _same(case, reps, case.expected)


def op_predictions(case: Case) -> None:
    reps = captured(case, case.model)
    if "logits" not in reps:
        raise Wrong("a classifier, and no logits are kept")
    same(reps["logits"].values, case.expected.logits, "logits")  # type: ignore[arg-type]
    if [str(c) for c in reps["class"].values] != [case.model.config.id2label[i] for i in range(3)]:
        raise Wrong("classes have other names")


def op_save(case: Case) -> None:
    survives(case, case.model)


def op_magnitude(case: Case) -> None:
    pruned = compress.prune(case.model, sparsity=0.5)
    for name, (old, new) in changed(case, pruned).items():
        for before, after in zip(old.reshape(-1, *old.shape[-2:]), new.reshape(-1, *new.shape[-2:]), strict=True):
            gone = after == 0
            if int(gone.sum()) != round(0.5 * gone.numel()) or before.abs()[gone].max() > before.abs()[~gone].min():
                raise Wrong(f"{name}: not the smaller half is zero")
            if not torch.equal(after[~gone], before[~gone]):
                raise Wrong(f"{name}: what is left has changed")
    same_states(case, pruned, alone(case, pruned))


def op_global(case: Case) -> None:
    pruned = compress.prune(case.model, sparsity=0.5, scope="global")
    pairs = changed(case, pruned)
    old, new = (torch.cat([pair[i].flatten() for pair in pairs.values()]) for i in (0, 1))
    gone = new == 0
    if abs(int(gone.sum()) - 0.5 * len(gone)) > 1 or old.abs()[gone].max() > old.abs()[~gone].min():
        raise Wrong("not the smaller half of all is zero")
    survives(case, pruned)


def op_wanda(case: Case) -> None:
    pruned = compress.prune(case.model, sparsity=0.5, criterion="wanda", train=case.corpus, tokenizer=case.tokenizer)
    fed, prefix = case.expected.fed, _prefix(case.model)
    for name, (old, new) in changed(case, pruned).items():
        module = prefix + name.removesuffix(".weight")
        if old.ndim != 2 or module not in fed:
            continue
        if isinstance(case.model.get_submodule(module), Conv1D):
            old, new = old.T, new.T
        score, gone = old.abs() * fed[module].norm(dim=0).float(), new == 0
        most = score.masked_fill(~gone, 0).amax(1)
        least = score.masked_fill(gone, torch.inf).amin(1)
        if (gone.sum(1) - 0.5 * gone.shape[1]).abs().max() > 1 or (most > least * (1 + 1e-4)).any():
            raise Wrong(f"{name}: not those of the smaller products are zero")


def _prefix(model: Any) -> str:
    return "" if model.base_model is model else f"{model.base_model_prefix}."


def _structure(case: Case, what: str) -> None:
    """Really removed is as good as read by zeros; a half is gone from each layer."""
    pruned = getattr(compress, f"prune_{what}")(case.model, 0.5)
    zeroed, number = copy.deepcopy(case.model), 0
    now = dict(pruned.base_model.named_parameters())
    for name, p in zeroed.base_model.named_parameters():
        q = now.get(name)
        # Of each channel that is gone, what reads it is silenced; the biases of experts, in which each lets others go,
        # are seen in the states.
        if q is None or q.ndim < 2 or q.shape == p.shape or name.endswith("_bias"):
            continue
        transposed = isinstance(zeroed.base_model.get_submodule(name.rpartition(".")[0]), Conv1D)
        for d in range(p.ndim):
            if p.shape[d] == q.shape[d] or (p.ndim == 2 and d != (0 if transposed else 1)):
                continue
            number += 1
            if abs(q.shape[d] - 0.5 * p.shape[d]) > 1:
                raise Wrong(f"{name}: {q.shape[d]} of {p.shape[d]} are left, not a half")
            for one, other in zip(p.reshape(-1, *p.shape[-2:]), q.reshape(-1, *q.shape[-2:]), strict=True):
                columns, left = one.detach().movedim(d - p.ndim, 0), other.detach().movedim(d - p.ndim, 0)
                kept = [(columns == row).flatten(1).all(1).nonzero().flatten().tolist() for row in left]
                if any(len(k) != 1 for k in kept):
                    raise Wrong(f"{name}: what is left is not what was there")
                gone = torch.ones(len(columns), dtype=torch.bool)
                gone[[k[0] for k in kept]] = False
                with torch.no_grad():
                    one.movedim(d - p.ndim, 0)[gone] = 0
    if not number:
        raise Wrong("nothing is gone")
    same_states(case, pruned, alone(case, zeroed))
    survives(case, pruned)


def op_heads(case: Case) -> None:
    _structure(case, "heads")


def op_channels(case: Case) -> None:
    _structure(case, "channels")


def without(case: Case, gone: list[int]) -> Alone:
    """The model with blocks that hand on what they get."""
    through = copy.deepcopy(case.model)

    def hand_on(_module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        x = args[0] if args else kwargs["hidden_states"]
        return (x, *output[1:]) if isinstance(output, tuple) else x

    blocks = blocks_of(through)
    if blocks is None and case.name == "albert":  # one block runs for all, so that any of them are as good
        through.config.num_hidden_layers -= len(gone)
        return alone(case, through)
    if blocks is None:
        raise Wrong("layers are taken from a model that has no list of them")
    for number in gone:
        blocks[number].register_forward_hook(hand_on, with_kwargs=True)
    found = alone(case, through)
    left = [0, *(i + 1 for i in range(len(blocks)) if i not in gone)]
    last = found.hidden[-1:]
    found.hidden = np.concatenate([found.hidden[left[:-1]], last])
    return found


def op_drop_layers(case: Case) -> None:
    smaller = compress.drop_layers(case.model, [1])
    if depth_of(smaller) != depth_of(case.model) - 1:
        raise Wrong("not one layer is gone")
    same_states(case, smaller, without(case, [1]))
    survives(case, smaller)


def op_distill(case: Case) -> None:
    given = {"train": case.corpus, "tokenizer": case.tokenizer, "progress": False}
    student = compress.distill(case.model, layers=2, steps=1, learning_rate=1e-9, **given)
    kept = student.config.compression["kept"]
    if len(kept) != 2 or not np.isfinite(student.history["loss"]).all():
        raise Wrong(f"layers {kept} are kept, losses are {student.history['loss'].tolist()}")
    gone = [i for i in range(depth_of(case.model)) if i not in kept]
    same_states(case, student, without(case, gone))
    survives(case, student)


def _coded(case: Case, quantized: Any) -> Any:
    """Check that weights are rounded to steps of the largest over 127, and return the model with them."""
    now = {}
    for name, (old, new) in changed(case, quantized).items():
        module = case.model.base_model.get_submodule(name.rpartition(".")[0])
        d = -2 if isinstance(module, Conv1D) or getattr(module, "is_transposed", False) else -1
        step = old.abs().amax(d, keepdim=True) / 127
        if ((new - old).abs() > 0.51 * step).any():
            raise Wrong(f"{name}: a weight has moved by more than half a step")
        now[name] = new
    return with_weights(case.model, now)


def as_routed(case: Case, rounded: Any, coded: Any) -> Alone:
    """Run the reference of a rounded model, its tokens sent to the experts that they go to there.

    A value next to a half is rounded up here and down there, which moves states by a step; where two experts are nearly
    alike to a router, another one is taken, and all states after it are others. Both are right.
    """
    free = alone(case, coded)
    if not free.routed:
        return free
    sent = alone(case, rounded).routed
    pairs = [(a[0], b[0]) for name in sent for a, b in zip(sent[name], free.routed[name], strict=True)]
    kept = torch.cat([(a.sort(-1)[0] == b.sort(-1)[0]).all(-1).flatten() for a, b in pairs]).float().mean()
    if kept < _ROUTED:
        raise Wrong(f"{1 - kept:.0%} of the tokens go to other experts")
    return alone(case, coded, routed=sent)


def op_quantize(case: Case) -> None:
    quantized = compress.quantize(case.model)
    coded = _coded(case, quantized)
    for name in quantized.config.quantized_inputs:
        coded.base_model.get_submodule(name).register_forward_pre_hook(_rounds(None))
    same_states(case, quantized, as_routed(case, quantized, coded), _ROUNDED)
    survives(case, quantized)


def op_calibrated(case: Case) -> None:
    quantized = compress.quantize(case.model, calibrate=case.corpus, tokenizer=case.tokenizer)
    coded = _coded(case, quantized)
    fed, prefix = alone(case, coded).fed, _prefix(case.model)
    for name, settings in quantized.config.quantized_inputs.items():
        x = fed.get(prefix + name)
        if x is None:  # it is fed positions, whose number is that of a batch
            ends = np.array([settings["low"], settings["high"]])
            coded.base_model.get_submodule(name).register_forward_pre_hook(_rounds(ends))
            continue
        ends = np.array([float(x.min()), float(x.max())])
        found = np.array([settings["low"], settings["high"]])
        if case.name in ("fnet", "convbert", "funnel"):  # of several batches the range is a moving average
            if not ends[0] <= found[0] < found[1] <= ends[1]:
                raise Wrong(f"{name}: the range {found} of its inputs goes beyond {ends}")
            ends = found
        same(found, ends, f"{name}: the range of its inputs", 1e-3)
        coded.base_model.get_submodule(name).register_forward_pre_hook(_rounds(found))
    same_states(case, quantized, as_routed(case, quantized, coded), _ROUNDED)


def _rounds(ends: np.ndarray | None) -> Callable[..., Any]:
    """A hook that rounds inputs to 256 steps over their range, or a token's own."""

    def hook(_module: Any, inputs: Any) -> Any:
        x = inputs[0]
        low, high = x.aminmax(dim=-1, keepdim=True) if ends is None else (x.new_tensor(ends[0]), x.new_tensor(ends[1]))
        low, high = low.clamp_max(0).double(), high.clamp_min(0).double()
        fraction, exponent = torch.frexp(((high - low) / 255).clamp_min(1e-30))
        step = torch.ldexp((fraction * 2**16).round() / 2**16, exponent)  # of 16 bits, as is documented
        first = (low / step + 0.5).floor()  # the first of 256 whole numbers of steps, among them zero
        return ((x / step + 0.5).floor().clamp(first, first + 255).mul(step).to(x.dtype), *inputs[1:])

    return hook


def op_factorize(case: Case) -> None:
    low = compress.factorize(case.model, rank=4)
    changed(case, low)
    truncated = copy.deepcopy(case.model)
    for name, module in case.model.base_model.named_modules():
        if not _is_map(module) or type(low.base_model.get_submodule(name)) is type(module):
            continue
        w = module.weight.detach().double()
        u, s, v = torch.linalg.svd(w, full_matrices=False)
        best = (u[:, :4] * s[:4]) @ v[:4]
        other = copy.deepcopy(low.base_model.get_submodule(name)).double()
        size = w.shape[0] if isinstance(module, Conv1D) else w.shape[1]
        with torch.no_grad():
            found = other(torch.eye(size, dtype=torch.float64)) - other(torch.zeros(1, size, dtype=torch.float64))
        same(found.numpy(), (best if isinstance(module, Conv1D) else best.T).numpy(), f"{name}: product of its factors")
        with torch.no_grad():
            truncated.base_model.get_submodule(name).weight.copy_(best)
    same_states(case, low, alone(case, truncated), 1e-3)
    survives(case, low)


def op_fuse(case: Case) -> None:
    fused = compress.fuse(case.model, share=0.5)
    if sum(p.numel() for p in fused.parameters()) >= sum(p.numel() for p in case.model.parameters()):
        raise Wrong("as many parameters as before")
    for part, groups in fused.config.compression["groups"].items():
        for group in groups:
            old, new = (
                [m.base_model.get_submodule(part.replace("*", str(i))).weight for i in group]
                for m in (case.model, fused)
            )
            mean = torch.stack(list(old)).mean(0).detach().numpy()
            for one in new:
                same(one.detach().numpy(), mean, f"{part}: one tensor for layers {group}", 1e-5)
    survives(case, fused)


def op_training(case: Case) -> None:
    given = {"steps": 1, "learning_rate": 1e-9, "batch_size": len(TEXTS), "progress": False}
    if case.kind == "head":
        student = compress.prune(case.model, sparsity=0)
        history = train(student, case.tokenizer, case.corpus, objective=[compress.CrossEntropy()], **given)
        expected = float(cross_entropy(torch.tensor(case.expected.logits), torch.tensor(LABELS)))
        same(np.array(history["cross_entropy"]), np.array([expected]), "cross-entropy in training")
        return
    student = with_weights(case.model, {n: p + 0.05 * p.roll(1) for n, p in block_weights(case.model).items()})
    objective = [compress.HiddenStates()]
    history = train(student, case.tokenizer, case.corpus, objective=objective, teacher=case.model, **given)
    one, other = case.expected.tokens, alone(case, student).tokens
    layers = [np.concatenate([t[i] - s[i] for s, t in zip(one, other, strict=True)]) for i in range(len(one[0]))]
    same(
        np.array(history["hidden_states"]), np.array([np.mean([(d**2).mean() for d in layers])]), "hidden states' loss"
    )


def op_footprint(case: Case) -> None:
    found = compress.footprint(case.model).loc["model"]
    if found["parameters"] != sum(p.numel() for p in case.model.parameters()):
        raise Wrong("another number of parameters")
    names = {n.rpartition(".")[0] for n in block_weights(case.model)}
    fed, prefix = case.expected.fed, _prefix(case.model)
    tokens = sum(len(case.tokenizer(text)["input_ids"]) for text in TEXTS)
    passes = {n.removeprefix(prefix): len(x) // tokens for n, x in fed.items()}  # several of a layer that is shared
    maps = [(m, passes[n]) for n, m in case.model.base_model.named_modules() if n in names & set(passes)]
    if case.kind != "head":  # of an encoder-decoder that puts no texts into classes the encoder runs
        run = {id(m) for m in body_of(case.model).modules()}
        maps = [(m, times) for m, times in maps if id(m) in run]
    least = 2 * 32 * 32 * sum(times * m.weight.numel() for m, times in maps)
    if not (found["operations"] >= least > 0 and found["seconds_32"] > 0 and found["bytes"] > 0):
        raise Wrong(f"{found['operations']:.0f} operations, and its linear maps alone make {least}")
    weights = sum(p.numel() for p in block_weights(case.model).values())
    if found["encoder"] < 0.95 * weights:
        raise Wrong(f"counts {found['encoder'] / weights:.0%} of the block weights without a word")


def _backend(case: Case, backend: str) -> None:
    deployed = compress.quantize(case.model, backend=backend)
    reps, expected = captured(case, deployed), case.expected
    if backend == "torchao" and (expected.routed or case.kind == "head"):
        expected = _as_torchao(case, deployed)
    found = reps["hidden"].values.astype(np.float64)
    wanted = expected.hidden[reps["layer"].values]
    if found.shape != wanted.shape:
        raise Wrong(f"states of shape {found.shape}, expected {wanted.shape}")
    cosine = (found * wanted).sum(-1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(wanted, axis=-1)
    if not cosine.min() > 0.98:
        raise Wrong(f"cosine {cosine.min():.2f} to the model's states")
    if case.kind == "head":
        same(reps["logits"].values, expected.logits, "logits", 0.1)  # type: ignore[arg-type]
    survives(case, deployed)


def _as_torchao(case: Case, deployed: Any) -> Alone:
    """What a model gives with the weights that torchao has, and inputs rounded to 8 bits by token."""

    def rounds(_module: Any, inputs: Any) -> Any:
        step = (inputs[0].abs().amax(-1, keepdim=True) / 127.5).clamp_min(1e-30)
        return ((inputs[0] / step).round().clamp(-128, 127) * step, *inputs[1:])

    coded = copy.deepcopy(case.model)
    for name, codes in deployed.named_parameters():
        if hasattr(codes, "__tensor_flatten__"):
            module = coded.get_submodule(name.removesuffix(".weight"))
            new, old = codes.dequantize(), module.weight.detach()
            if ((new - old).abs() > 0.51 * old.abs().amax(1, keepdim=True) / 127).any():
                raise Wrong(f"{name}: a weight has moved by more than half a step")
            module.weight.data.copy_(new)
            module.register_forward_pre_hook(rounds)
    return as_routed(case, deployed, coded)


def op_torchao(case: Case) -> None:
    _backend(case, "torchao")


def op_onnxruntime(case: Case) -> None:
    _backend(case, "onnxruntime")


def op_vocabulary(case: Case) -> None:
    some = case.corpus.select(range(2))
    smaller, tokenizer = compress.prune_vocabulary(case.model, case.tokenizer, some)
    if len(tokenizer) >= len(case.tokenizer):
        raise Wrong("as many tokens as before")
    reps = probes.capture(smaller, tokenizer, some, progress=False, batch_size=3)
    expected = alone(case, case.model, TEXTS[:2])
    same(reps["hidden"].values, expected.hidden[reps["layer"].values], "states with fewer tokens")


def op_compare(case: Case) -> None:
    other = with_weights(case.model, {n: p + 0.1 * p.roll(1) for n, p in block_weights(case.model).items()})
    models = {"one": case.model, "other": other}
    given = {"tokenizer": case.tokenizer, "probes": ["cka"], "draws": 20, "progress": False}
    table = probes.compare(models, case.corpus, **given).to_dataframe()
    rows = table[(table["model"] == "other") & (table["language"] == "en") & (table["layer"] == table["other_layer"])]
    rows = rows.set_index("layer")
    one, two = case.expected.hidden, alone(case, other).hidden
    for layer, value in rows["value"].items():
        same(np.array(value), np.array(cka(one[layer], two[layer])), f"CKA of layer {layer}", 1e-3)
    if len(rows) < 2:
        raise Wrong("fewer than two layers are compared")


OPERATIONS: dict[str, Callable[[Case], None]] = {
    name.removeprefix("op_"): function for name, function in list(globals().items()) if name.startswith("op_")
}
