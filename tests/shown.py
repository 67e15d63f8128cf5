"""What the tests of the explorer share."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import xarray as xr

import probes

HOSTILE = "</script><script>alert('x')</script><!--"
LANGUAGES = ["en", "ar", "fr"]
N = 40  # sentences, each in three languages


class Comm:
    """Takes what a widget sends, and hands in what a front end would."""

    def __init__(self, widget):
        self.widget, self.sent = widget, []
        widget.comm.send = lambda data=None, metadata=None, buffers=None: self.sent.append((data, buffers))

    def hand(self, data, buffers=()):
        self.widget._handle_msg({"content": {"data": data}, "buffers": list(buffers)})

    def ask(self, **ask):
        self.hand({"method": "custom", "content": ask})
        self.widget.wait()
        return self.given()[-1]

    def given(self):
        found = [(d["content"], b) for d, b in self.sent if d["method"] == "custom"]
        for content, _ in found:
            json.dumps(content, allow_nan=False)
        return found

    def updated(self):
        return [set(d["state"]) for d, _ in self.sent if d["method"] == "update"]


def make(seed, *, layers=3, features=6, logits=True, noise=0.3, n=N, split=True, text=HOSTILE):
    rng = np.random.default_rng(7)  # the same sentences for every model
    y = np.arange(n) % 2
    meaning = rng.normal(size=(n, 6)) + 2 * np.eye(6)[y]
    rng = np.random.default_rng(seed)
    hidden = np.stack(
        [
            np.concatenate([meaning + noise * (1 + level) * rng.normal(size=meaning.shape) for _ in LANGUAGES])
            for level in range(layers)
        ]
    )
    hidden = np.concatenate([hidden, rng.normal(size=(*hidden.shape[:2], features - 6))], axis=2)
    reps = probes.from_arrays(
        hidden.astype(np.float32),
        id=np.tile(np.arange(n), 3),
        language=np.repeat(LANGUAGES, n),
        label=np.tile(np.array(["a", "b"])[y], 3),
        text=[f"{language} {i} {text}" for language in LANGUAGES for i in range(n)],
    )
    if split:
        reps = reps.assign_coords(split=("example", np.tile(np.where(np.arange(n) < n * 3 // 4, "train", "test"), 3)))
    if logits:
        z = hidden[-1][:, :2] + 0.1
        reps["logits"] = xr.DataArray(z, dims=("example", "class"), coords={"class": ["a", "b"]})
    return reps


def cosines(x):
    x = x.astype(np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return x @ x.T


def every_answer(widget):
    """Ask for everything there is to ask; return the kinds of answers."""
    comm = Comm(widget)
    about = widget.about
    models = range(len(about["models"]))
    asks = [{"ask": "map", "model": i, "kind": "pca"} for i in models]
    asks += [{"ask": "drift", "model": i} for i in models]
    asks += [{"ask": "alignment", "model": i, "layer": 0} for i in models]
    asks += [{"ask": "similarity", "one": 0, "other": models[-1], "measure": m} for m in about["measures"]]
    asks += [{"ask": "sentence", "row": r, "layer": 0} for r in {0, about["n"] - 1} if r >= 0]
    found = {}
    for ask in asks:
        content, buffers = comm.ask(**ask)
        assert content["give"] in (ask["ask"], "missing")
        assert "could not be computed" not in content.get("why", "")
        found.setdefault(ask["ask"], []).append((content, buffers))
    return found


def bare(n, layers=2, features=5, seed=0, **kwargs):
    return probes.from_arrays(np.random.default_rng(seed).normal(size=(layers, n, features)), **kwargs)


class Page(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def embedded(path):
    html = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="layerscope-data">(.*?)</script>', html, re.S)[1])
