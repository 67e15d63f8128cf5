"""Band gates: which speeds of change along a sentence does it take to tell the classes?"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr

from probes.errors import InputError
from probes.measures.probe import LARGE
from probes.measures.space.spectrum import amplitudes_of, folds_of, named_right, need_units
from probes.results.draws import POOLED, need_classes, sample
from probes.results.intervals import linearised, of_shares
from probes.results.result import result
from probes.states.frequencies import check_bands
from probes.states.ragged import check_tokens

READ = ("mean", "every band", "gated", "chosen")  # what is read
_STEPS, _RATE, _DECAY, _OPEN = 200, 0.02, 0.01, 1.0


def band_gates(
    reps: xr.Dataset,
    *,
    layer: int,
    bands: int = 6,
    cost: float = 0.5,
    draws: int = 200,
    seed: int = 0,
) -> xr.Dataset:
    """Learn which bands of the states along a sentence its class is read from, and choose them.

    A gate a band, which opens or closes for each sentence by how strong its bands are, is learned
    together with a linear classifier of what passes; bands that are open for most sentences are
    then chosen for all, and a classifier is trained on them alone (none: the largest class).

    Args:
        reps: Representations with labels, captured with `tokens=True`, or `words=True`.
        layer: which one, from 0, the embeddings.
        bands: how many; 0 is the mean over the tokens.
        cost: of open gates, beside the cross-entropy in nats; the higher, the fewer open.
        draws, seed: of the bootstrap by sentence id; the seed is also that of folds and gates.

    Returns:
        `value, low, high (read, language)`: accuracy, 0 to 1, by what is read: the "mean" (band 0)
        alone, "every band", the "gated" ones, those "chosen"; `open (band)`, the share of unseen
        sentences whose gate is open, and `chosen (band)`, in which share of the folds it was.

    Raises:
        InputError: there are no labels, or no states of tokens; there is no such layer, or there
            are more bands than the longest text has tokens; cost is below 0; a class has fewer than
            5 ids (or groups).

    Notes:
        Xu et al. 2020, arXiv 2002.12416: gates by Gumbel softmax, straight through, on the mean
        strength of each band, then a static choice. Here bands of text in place of an image's, and
        one linear classifier in place of a network. 5 folds of ids (of groups, where there are
        any): nothing is tested on a sentence that it, or a translation of it, was learned from.

    See also:
        `spectrum`, `Band`, `linear_probe`.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
        >>> few = corpus.filter(lambda row: row["id"] < "s0500")
        >>> reps = probes.capture(model, tokenizer, few, tokens=True, progress=False)
        >>> found = band_gates(reps, layer=6, bands=3)
        >>> found.open.values.round().tolist()
        [1.0, 0.0, 0.0]
    """
    check_tokens(reps, "band_gates")
    check_bands(bands, "band_gates", int(reps["token_count"].max()))
    drawn = need_classes(sample(reps, draws=draws, seed=seed))
    if not cost >= 0 or not np.isfinite(cost):
        raise InputError(f"band_gates: cost={cost!r}: expected a number, at least 0")
    layers = reps["layer"].values.tolist()
    if layer not in layers:
        raise InputError(f"band_gates: layer={layer!r}: expected one of {', '.join(map(str, layers))}")
    need_units(drawn, drawn.label, drawn.classes, "band_gates: class")
    x = amplitudes_of(reps, layers.index(layer), bands)
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x).all(axis=(1, 2))).sum())
        raise InputError(f"band_gates: layer {layer}: the states of {bad} texts are not finite. Leave the texts out")
    folds = folds_of(drawn, seed, drawn.label)
    right = np.empty((len(x), len(READ)))
    opened, chosen = np.empty((len(x), bands)), np.zeros(bands)
    right[:, 0] = named_right(x[:, 0], drawn.label, folds)
    right[:, 1] = named_right(x.reshape(len(x), -1), drawn.label, folds)
    for number, (train, test) in enumerate(folds):
        named, gates = _gated(x, drawn.label, train, cost, seed + number)
        right[test, 2], opened[test] = named[test] == drawn.label[test], gates[test]
        taken = gates[train].mean(axis=0) > 0.5
        chosen += taken / len(folds)
        if taken.any():
            right[test, 3] = named_right(x[:, taken].reshape(len(x), -1), drawn.label, [(train, test)])[test]
        else:  # no band is worth its cost: the largest class
            right[test, 3] = drawn.label[test] == np.bincount(drawn.label[train]).argmax()
    found = {}
    for group in [*drawn.languages, POOLED]:
        rows = drawn.group(group)
        hits = right[rows]
        found[group] = linearised(hits.mean(axis=0), hits, drawn.ids[rows], drawn.weights, drawn.units, (0, 1))
    about = {
        "probe": "band_gates",
        "estimator": "accuracy of a linear classifier of classes, by which bands along the tokens it reads",
        "range": "0 to 1",
        "better": "higher",
        "higher_is": "better separated",
        "unchanged_by": "common scale",
        "paper": "after Xu et al. 2020, arXiv 2002.12416",
        "interval": f"{LARGE} of test rows, by the classifiers as they are trained",
        "layer": layer,
        "cost": cost,
    }
    read = np.array(READ, dtype=object)
    out = of_shares(result(reps, drawn, found, about, bounds=(0, 1), over={"read": read}))
    return out.assign(open=("band", opened.mean(axis=0)), chosen=("band", chosen)).assign_coords(band=np.arange(bands))


def _gated(
    x: np.ndarray, label: np.ndarray, train: np.ndarray, cost: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Train gates and classifier on some rows: the class that is named of every row, and which of
    its gates are open, (example, band).
    """
    mean, spread = x[train].mean(axis=0), x[train].std(axis=0)
    # A band that is the same for all says nothing, and noise in its last digit must not.
    scaled = torch.from_numpy((x - mean) / np.where(spread > 1e-9 * np.abs(x).max(), spread, np.inf)).float()
    strength = torch.from_numpy(np.abs(x).mean(axis=2))
    strength = ((strength - strength[train].mean(0)) / strength[train].std(0).clamp_min(1e-9)).float()
    bands, features = scaled.shape[1:]
    wanted, classes = torch.from_numpy(label[train]).long(), int(label.max()) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mixing = torch.nn.Linear(bands, bands)
        each = torch.zeros(2, bands, 2)  # of each band by itself: slope and offset of closed and open
        each[1, :, 1] = _OPEN
        each.requires_grad_()
        classifier = torch.nn.Linear(bands * features, classes)
        torch.nn.init.zeros_(classifier.weight)

        def gate(rows: torch.Tensor) -> torch.Tensor:
            return torch.relu(mixing(rows))[..., None] * each[0] + each[1]

        parameters = [*mixing.parameters(), each]
        steps = torch.optim.AdamW(
            [{"params": parameters, "weight_decay": 0.0}, {"params": classifier.parameters(), "lr": _RATE / 10}],
            lr=_RATE,
            weight_decay=_DECAY,
        )
        own, known = scaled[train], strength[train]
        with torch.enable_grad():
            for _ in range(_STEPS):
                gates = F.gumbel_softmax(gate(known), hard=True)[..., 1]
                loss = F.cross_entropy(classifier((gates[..., None] * own).flatten(1)), wanted) + cost * gates.mean()
                steps.zero_grad()
                loss.backward()
                steps.step()
    with torch.no_grad():
        gates = gate(strength).argmax(-1).float()
        named = classifier((gates[..., None] * scaled).flatten(1)).argmax(1)
    return named.numpy(), gates.numpy()
