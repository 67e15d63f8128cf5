"""Files that a stranger could send: each is one change of something that was whole, by name.

`folders(place, ...)` makes what is whole, one of each kind; `CASES` spoils a copy of it; `opens` reads it. Nothing here
knows what is to be said: see `test_hostile`.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import compress
import probes
from compress.training.checkpoints import MARKER, mark

RAN = "code-was-run"  # the file that code of a stranger writes


class Runs:
    """Runs code where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder / RAN),)


Spoil = Callable[[Path], object]
NESTED: Any = None
for _ in range(400):
    NESTED = [NESTED]
ODD = [None, True, -1, 0, 10**9, 10**30, 2.5, math.nan, "", "x", "../x", [], [None], [10**9], {}, {"x": 1}, NESTED]
ODD += ["encoder.layer.0", "encoder.layer.0.output.dense", {"encoder.layer.0.output.dense": 10**9}, [[-1]]]
ODD += [{"encoder.layer.0.output.dense": {"rank": 10**9}}, {"0": 10**9}, {"encoder.layer.0": NESTED}, "x" * 10**6]


def folders(place: Path, model: Any, tokenizer: Any, corpus: Any, training: dict[str, Any]) -> None:
    """Make what is whole: `model` and its kin, a store, a comparison, a training, tables."""

    def saved(name: str, of: Any, **how: Any) -> Path:
        return compress.save(of, place / name, tokenizer, **how)

    saved("plain", model)
    saved("packed", compress.prune(model, sparsity=0.8), packed=True)
    saved("heads", compress.prune_heads(model, 0.5))
    saved("channels", compress.prune_channels(model, 0.5))
    saved("layers", compress.drop_layers(model, [1]))
    saved("factors", compress.factorize(model, rank=2))
    saved("hashed", compress.hash_weights(model, share=0.5))
    saved("shared", compress.fuse(model, share=0.5, similarity="cosine"))
    saved("inputs", compress.quantize(model, bits=4, activation_bits=8, calibrate=corpus, tokenizer=tokenizer))
    _split(saved("index", model))
    probes.capture(model, tokenizer, corpus, store=place / "store", progress=False)
    models = {"a": place / "plain", "b": place / "heads"}
    probes.compare(models, corpus, probes=["snr", "drift"], draws=5, progress=False).save(place / "comparison")
    compress.prune(model, sparsity=0.5, schedule="cubic", prunings=2, folder=place / "training", **training)
    shutil.rmtree(place / "training" / "checkpoint-6")
    (place / "table").mkdir()
    corpus.to_csv(place / "table" / "t.csv")


def _split(folder: Path) -> None:
    whole = load_file(folder / "model.safetensors")
    names, first = sorted(whole), len(whole) // 2
    parts = {"model-1.safetensors": names[:first], "model-2.safetensors": names[first:]}
    for file, inside in parts.items():
        save_file({name: whole[name] for name in inside}, folder / file, {"format": "pt"})
    (folder / "model.safetensors").unlink()
    said = {"metadata": {}, "weight_map": {name: file for file, inside in parts.items() for name in inside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(said))


# What can be done to any file.


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0" * 64)


def _bytes(file: Path) -> None:
    file.write_bytes(np.random.default_rng(0).bytes(3000))


def _gone(file: Path) -> None:
    file.unlink()


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _endless(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def _itself(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def _pickled(file: Path) -> None:
    torch.save(Runs(file.parent), file)


def _bare_pickle(file: Path) -> None:
    file.write_bytes(pickle.dumps(Runs(file.parent)))


FILE = [_empty, _half, _longer, _bytes, _gone, _folder, _endless, _itself, _pickled, _bare_pickle]


def _text(content: str) -> Spoil:
    def spoil(file: Path) -> None:
        file.write_text(content, encoding="utf-8", errors="surrogatepass")

    return spoil


JSON = {
    "a list": _text("[]"),
    "null": _text("null"),
    "a number": _text("7"),
    "deep": _text("[" * 10**5),
    "deep objects": _text('{"a":' * 10**5),
    "a long number": _text('{"hidden_size": ' + "9" * 10**5 + "}"),
    "not UTF-8": lambda file: file.write_bytes(b'{"\xff": 1}'),
    "half of a letter": _text('{"model_type": "\\ud83d"}'),
    "NUL": _text('{"model_type": "be\\u0000rt"}'),
}


def _key(*path: str | int, to: Any) -> Spoil:
    def spoil(file: Path) -> None:
        said = json.loads(file.read_text())
        inner = said
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = to
        file.write_text(json.dumps(said))

    return spoil


def _header(change: Callable[[dict[str, Any]], object], data: Callable[[bytes], bytes] = lambda x: x) -> Spoil:
    """Change the header of a file of safetensors."""

    def spoil(file: Path) -> None:
        content = file.read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + size])
        change(header)
        text = json.dumps(header).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + data(content[8 + size :]))

    return spoil


def _first(header: dict[str, Any]) -> dict[str, Any]:
    return header[sorted(name for name in header if name != "__metadata__")[0]]


TENSORS: dict[str, Spoil] = {
    "a header of 2**60": lambda f: f.write_bytes(struct.pack("<Q", 2**60) + f.read_bytes()[8:]),
    "a header of 90 MB": lambda f: f.write_bytes(struct.pack("<Q", 9 * 10**7) + f.read_bytes()[8:]),
    "a shape of 10**18": _header(lambda h: _first(h).update(shape=[10**9, 10**9])),
    "a shape beyond int64": _header(lambda h: _first(h).update(shape=[2**63, 2])),
    "a negative shape": _header(lambda h: _first(h).update(shape=[-1])),
    "another type": _header(lambda h: _first(h).update(dtype="I64")),
    "no type": _header(lambda h: _first(h).update(dtype="OBJECT")),
    "offsets beyond the end": _header(lambda h: _first(h).update(data_offsets=[0, 2**40])),
    "offsets that overlap": _header(lambda h: [v.update(data_offsets=[0, 4]) for k, v in h.items() if k[0] != "_"]),
    "offsets backwards": _header(lambda h: _first(h).update(data_offsets=[8, 0])),
    "a tensor less": _header(lambda h: h.pop(sorted(k for k in h if k[0] != "_")[0])),
    "metadata that is a list": _header(lambda h: h.update(__metadata__=[1])),
    "a million tensors": _header(
        lambda h: h.update({f"x{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(10**6)})
    ),
}

# What an index can name.
NAMES = ["pytorch_model.bin", "../plain/model.safetensors", "/etc/passwd", "gone.safetensors", "", ".", "config.json"]
NAMES += ["model-1.safetensors/", "a\0b.safetensors", "x" * 300 + ".safetensors", "model-1.safetensors\n"]

# What is said in a configuration: keys of transformers, and of ours.
SIZES = ["hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads", "intermediate_size"]
SIZES += ["max_position_embeddings", "type_vocab_size", "num_labels", "pad_token_id", "layer_norm_eps"]
WORDS = ["model_type", "architectures", "hidden_act", "id2label", "label2id", "dtype", "torch_dtype", "problem_type"]
WORDS += ["attn_implementation", "_attn_implementation", "experts_implementation", "auto_map", "transformers_weights"]
WORDS += ["quantization_config", "tie_word_embeddings", "is_encoder_decoder", "compression", "tokenizer_class"]
OURS = {
    "heads": "heads_kept",
    "channels": "channels_kept",
    "layers": "layers_kept",
    "factors": "factorized",
    "hashed": "hashed_weights",
    "shared": "shared_layers",
    "inputs": "quantized_inputs",
    "plain": "sparse_embeddings",
    "index": "text_embedding",
}


def _array(change: dict[str, Any], name: str = "hidden") -> Spoil:
    def spoil(file: Path) -> None:
        about = file.parent / name / "zarr.json"
        about.write_text(json.dumps(json.loads(about.read_text()) | change))

    return spoil


def _chunk(change: Spoil) -> Spoil:
    return lambda file: change(sorted(p for p in (file.parent / "hidden" / "c").rglob("*") if p.is_file())[0])


def _codec(name: str, **settings: Any) -> list[dict[str, Any]]:
    return [{"name": name, "configuration": settings}]


STORE: dict[str, Spoil] = {
    **{
        f"a shape of {shape}": _array({"shape": shape})
        for shape in ([2**39] * 3, [10**5] * 3, [-1, 1, 1], [1], [], "x", [2.5, 1, 1], [0, 0, 0], None)
    },
    **{
        f"chunks of {chunks}": _array({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}}})
        for chunks in ([2**40] * 3, [0, 1, 1], [-1, 1, 1], [1], [], "x", [2**31, 2**31, 1], [1, 2**30, 2**10])
    },
    **{
        f"codecs {name}": _array({"codecs": codecs})
        for name, codecs in {
            "none": [],
            "pickle": _codec("numcodecs.pickle", protocol=4),
            "pickle of v2": _codec("pickle"),
            "json2": _codec("numcodecs.json2"),
            "unknown": _codec("owner/package"),
            "nested": NESTED,
            "gzip": [*_codec("bytes", endian="little"), *_codec("gzip", level=5)],
            "sharded": _codec("sharding_indexed", chunk_shape=[1, 1, 1], codecs=_codec("bytes"), index_codecs=[]),
        }.items()
    },
    **{
        f"a type {kind}": _array({"data_type": kind})
        for kind in ("object", "float64", "complex128", "S1000000000", {"name": "structured", "configuration": {}}, 5)
    },
    "a type of 10**12 bytes": _array(
        {"data_type": {"name": "null_terminated_bytes", "configuration": {"length_bytes": 10**12}}}
    ),
    "a fill of text": _array({"fill_value": "x"}),
    "texts of 10**12": _array({"shape": [2**39]}, "text"),
    "texts in one chunk": _array(
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**30]}}, "shape": [2**30]}, "text"
    ),
    "a type of texts that are numbers": _array({"data_type": "int64"}, "text"),
    "no attributes": lambda file: file.write_text('{"zarr_format": 3, "node_type": "group"}'),
    "an array in its place": lambda file: shutil.copy(file.parent / "hidden" / "zarr.json", file),
    "another format": _key("zarr_format", to=2),
    "other dimensions": _array({"dimension_names": ["feature", "layer", "example"]}),
    "no dimensions": _array({"dimension_names": None}),
    **{f"a chunk: {change.__name__[1:]}": _chunk(change) for change in FILE},
    "links to all": lambda file: (
        shutil.move(file.parent / "hidden", file.parent.parent / "elsewhere"),
        (file.parent / "hidden").symlink_to(file.parent.parent / "elsewhere"),
    ),
    **{f"fingerprint {value!r:.20}": _key("attributes", "fingerprint", to=value) for value in (None, 5, [], "x")},
    **{f"attributes {value!r:.20}": _key("attributes", to=value) for value in ([], None, 5, "x")},
}

PROVENANCE = ["baseline", "draws", "drawn", "seed", "models", "probes", "corpus", "versions"]


def _hashed(name: str, change: Callable[[bytes], bytes]) -> Spoil:
    """Change table or draws of a comparison and the hash of it in the provenance, as who attacks would."""
    import hashlib

    file_of = {"table": "comparison.csv", "draws": "draws.npy"}

    def spoil(file: Path) -> None:
        path = file.parent / file_of[name]
        path.write_bytes(change(path.read_bytes()))
        _key(f"{name}_sha256", to=hashlib.sha256(path.read_bytes()).hexdigest())(file.parent / "provenance.json")

    return spoil


def _npy(shape: Any, form: Any, data: bytes = b"") -> Callable[[bytes], bytes]:
    """A file of numpy that declares something."""
    text = repr({"descr": form, "fortran_order": False, "shape": shape}).encode()
    return lambda _: b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text) + 1) + text + b"\n" + data


def _fields(draws: Any = (5,), row: str = "<i8") -> list[Any]:
    return [("row", row), ("unseen", "<f8"), ("units", "<f8"), ("draws", "<f8", draws)]


def _rows(change: Callable[[np.ndarray], object]) -> Callable[[bytes], bytes]:
    def spoil(content: bytes) -> bytes:
        import io

        records = np.load(io.BytesIO(content))
        change(records)
        out = io.BytesIO()
        np.save(out, records)
        return out.getvalue()

    return spoil


def _cells(old: str, new: str) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(old.encode(), new.encode(), 1)


COMPARISON: dict[str, Spoil] = {
    "draws: pickled": _hashed("draws", lambda _: np.lib.format.magic(1, 0) + pickle.dumps(Runs(Path(".")))),
    "draws: objects": _hashed("draws", _npy((1,), "|O", pickle.dumps(Runs(Path("."))))),
    "draws: a record of objects": _hashed("draws", _npy((1,), [("row", "|O")], pickle.dumps(Runs(Path("."))))),
    "draws: 10**12 rows": _hashed("draws", _npy((10**12,), _fields())),
    "draws: 10**8 rows": _hashed("draws", _npy((10**8,), _fields())),
    "draws: 2**62 rows": _hashed("draws", _npy((2**62,), _fields())),
    "draws: -1 rows": _hashed("draws", _npy((-1,), _fields())),
    "draws: a row of 10**9": _hashed("draws", _npy((1,), _fields((10**9,)))),
    "draws: no rows": _hashed("draws", _npy((0,), _fields())),
    "draws: two axes": _hashed("draws", _npy((1, 1), _fields(), b"\0" * 64)),
    "draws: texts as rows": _hashed("draws", _npy((1,), _fields(row="<U2"), b"\0" * 64)),
    "draws: a matrix of draws": _hashed("draws", _npy((1,), _fields((5, 2)), b"\0" * 120)),
    "draws: a shape that is a text": _hashed("draws", _npy("x", _fields())),
    "draws: code as its header": _hashed("draws", _npy((1,), "__import__('os').mkdir('code-was-run')")),
    "draws: a long header": _hashed("draws", lambda _: b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"x" * 100),
    "draws: an archive": _hashed("draws", lambda _: b"PK\x03\x04" + b"\0" * 100),
    "draws: cut": _hashed("draws", lambda content: content[: len(content) // 2]),
    "draws: longer": _hashed("draws", lambda content: content + b"\0" * 64),
    "draws: nothing": _hashed("draws", lambda _: b""),
    "draws: a row that is not there": _hashed("draws", _rows(lambda r: r["row"].__setitem__(0, 10**6))),
    "draws: a row twice": _hashed("draws", _rows(lambda r: r["row"].__setitem__(0, r["row"][1]))),
    "draws: units below zero": _hashed("draws", _rows(lambda r: r["units"].__setitem__(0, -5))),
    "draws: unseen below zero": _hashed("draws", _rows(lambda r: r["unseen"].__setitem__(0, -5))),
    "draws: rows that are swapped": lambda file: None,  # filled below
    "table: cut": _hashed("table", lambda content: content[: len(content) // 2]),
    "table: nothing": _hashed("table", lambda _: b""),
    "table: a row less": _hashed("table", lambda content: content.rpartition(b"\na,")[0] + b"\n"),
    "table: a column less": _hashed("table", _cells("p_adjusted", "x")),
    "table: a column twice": _hashed("table", _cells("difference_low", "difference")),
    "table: a model that is not there": _hashed("table", _cells("\na,", "\nzz,")),
    "table: a probe that is not there": _hashed("table", _cells(",snr,", ",zz,")),
    "table: a layer of 10**30": _hashed("table", _cells("a,0,", f"a,{10**30},")),
    "table: a layer that is a text": _hashed("table", _cells("a,0,", "a,x,")),
    "table: NUL": _hashed("table", _cells("a,0,", "\0,0,")),
    "table: not UTF-8": _hashed("table", lambda content: content.replace(b"\na,", b"\n\xff,", 1)),
    "table: a cell of 20 MB": _hashed("table", _cells("\na,", "\n" + "x" * 2 * 10**7 + ",")),
    "table: swapped": lambda file: (file.parent / "comparison.csv").write_bytes(
        (file.parent / "comparison.csv").read_bytes().replace(b"0.1", b"0.2", 1)
    ),
    "draws: changed": lambda file: _longer(file.parent / "draws.npy"),
    **{
        f"{name}: {change.__name__[1:]}": (lambda file, n=name, c=change: c(file.parent / n))
        for name in ("comparison.csv", "draws.npy")
        for change in FILE
    },
}
COMPARISON.pop("draws: rows that are swapped")


def _marked(name: str, change: Spoil) -> Spoil:
    """Change a file of a checkpoint of a training, and its hash in the marker."""

    def spoil(file: Path) -> None:
        change(file.parent / "checkpoint-4" / name)
        (file.parent / "checkpoint-4" / MARKER).unlink()
        mark(file.parent / "checkpoint-4")

    return spoil


def _in_checkpoint(name: str, change: Spoil) -> Spoil:
    return lambda file: change(file.parent / "checkpoint-4" / name)


CHECKPOINT = [
    "history.json",
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
]
TRAINING: dict[str, Spoil] = {
    **{
        f"{name}: {change.__name__[1:]}": _in_checkpoint(name, change)
        for name in (*CHECKPOINT, "training_args.bin", MARKER)
        for change in FILE
    },
    **{
        f"{name}, marked: {change.__name__[1:]}": _marked(name, change)
        for name in (*CHECKPOINT, "training_args.bin")
        for change in (_empty, _half, _bytes, _gone, _pickled, _bare_pickle)
    },
    **{
        f"marker: a file {name!r}": _in_checkpoint(MARKER, _key("files", name, to={"bytes": 1, "sha256": "x"}))
        for name in ("../x", "/etc/passwd", "", "a/../../x", "a\0b", "x" * 300, ".")
    },
    **{
        f"marker: {key} {value!r:.20}": _in_checkpoint(MARKER, _key(key, to=value))
        for key in ("checkpoint", "files")
        for value in (None, 5, [], "x", {"x": 5}, {"x": {"bytes": -1, "sha256": ""}})
    },
    **{
        f"history: {value!r:.20}": _marked("history.json", _text(json.dumps(value)))
        for value in (
            None,
            {},
            [],
            [5],
            [{"step": "1"}],
            [{"step": 1}] * 3,
            [{"step": i + 1, "loss": "x"} for i in range(4)],
        )
    },
    **{
        f"state: {key} {value!r:.20}": _marked("trainer_state.json", _key(key, to=value))
        for key in ("global_step", "epoch", "stateful_callbacks", "log_history", "max_steps")
        for value in (None, -1, 10**12, "x", NESTED)
    },
    **{
        f"settings: {key} {value!r:.20}": lambda file, k=key, v=value: _key(k, to=v)(file)
        for key in ("student", "steps", "learning_rate", "objective", "corpus", "seed")
        for value in (None, -1, "x", [], NESTED)
    },
}


def _tokenizer() -> Iterator[tuple[str, str, Spoil]]:
    for key in ("model", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "truncation"):
        for value in (None, 5, [], {"type": "x"}, NESTED):
            yield "tokenizer.json", f"{key} {value!r:.20}", _key(key, to=value)
    for key in (
        "tokenizer_class",
        "auto_map",
        "model_max_length",
        "pad_token",
        "added_tokens_decoder",
        "chat_template",
    ):
        for value in (None, -1, 10**30, "x", "../x", [], {"AutoTokenizer": ["x--y.Z", None]}, NESTED):
            yield "tokenizer_config.json", f"{key} {value!r:.20}", _key(key, to=value)
    yield "tokenizer.json", "an id of 10**9", _key("model", "vocab", "x", to=10**9)
    yield "tokenizer.json", "an id below 0", _key("model", "vocab", "x", to=-1)
    expensive = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}
    yield "tokenizer.json", "a dear pattern", _key("normalizer", to=expensive)


def cases() -> Iterator[tuple[str, str, str, Spoil]]:
    """Give the folder, the file in it, what is done to it in words, and what does it."""
    for folder, name in (
        ("plain", "model.safetensors"),
        ("packed", "packed.safetensors"),
        ("index", "model-1.safetensors"),
    ):
        for change in FILE:
            yield folder, name, change.__name__[1:], change
        for said, spoil in TENSORS.items():
            yield folder, name, said, spoil
    for shapes in ({}, {"x": [1]}, {"x": []}, {"x": [10**9, 10**9]}, {"x": [-1]}, {"x": "y"}, [], None, NESTED):
        text = json.dumps({"version": 1, "shapes": shapes})
        yield (
            "packed",
            "packed.safetensors",
            f"shapes {shapes!r:.30}",
            _header(lambda h, t=text: h.update(__metadata__={"packed": t})),
        )
    for text in ("", "[]", "{}", "[" * 10**5, '{"version": 9, "shapes": {}}'):
        yield (
            "packed",
            "packed.safetensors",
            f"packed {text:.20}",
            _header(lambda h, t=text: h.update(__metadata__={"packed": t})),
        )
    for folder, name in (
        ("plain", "config.json"),
        ("index", "model.safetensors.index.json"),
        ("plain", "tokenizer.json"),
    ):
        for change in FILE:
            yield folder, name, change.__name__[1:], change
        for said, spoil in JSON.items():
            yield folder, name, said, spoil
    for name in NAMES:
        yield "index", "model.safetensors.index.json", f"names {name!r:.40}", _names(name)
    for value in ODD:
        yield "index", "model.safetensors.index.json", f"weight_map {value!r:.30}", _key("weight_map", to=value)
    for key in (*SIZES, *WORDS):
        for value in ODD:
            yield "plain", "config.json", f"{key} {value!r:.40}", _key(key, to=value)
    for folder, key in OURS.items():
        for value in ODD:
            yield folder, "config.json", f"{key} {value!r:.40}", _key(key, to=value)
    for name, said, spoil in _tokenizer():
        yield "plain", name, said, spoil
    for change in FILE:
        yield "heads", "compression.json", change.__name__[1:], change
    for value in ODD:
        for folder in ("layers", "heads"):
            yield folder, "config.json", f"compression.made_of {value!r:.30}", _key("compression", "made_of", to=value)
    for change in FILE:
        yield "store", "zarr.json", change.__name__[1:], change
    for said, spoil in {**JSON, **STORE}.items():
        yield "store", "zarr.json", said, spoil
    for change in FILE:
        yield "comparison", "provenance.json", change.__name__[1:], change
    for said, spoil in {**JSON, **COMPARISON}.items():
        yield "comparison", "provenance.json", said, spoil
    for key in (*PROVENANCE, "table_sha256", "draws_sha256"):
        for value in ODD:
            yield "comparison", "provenance.json", f"{key} {value!r:.30}", _key(key, to=value)
    for change in FILE:
        yield "training", "training.json", change.__name__[1:], change
    for said, spoil in {**JSON, **TRAINING}.items():
        yield "training", "training.json", said, spoil


def _names(name: str) -> Spoil:
    def spoil(file: Path) -> None:
        torch.save(Runs(file.parent), file.parent / "pytorch_model.bin")
        said = json.loads(file.read_text())
        said["weight_map"] = {**said["weight_map"], sorted(said["weight_map"])[0]: name}
        file.write_text(json.dumps(said))

    return spoil
