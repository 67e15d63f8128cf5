"""The outputs of named modules of anything that torch runs, as Representations: no text, no tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from probes.errors import InputError
from probes.models.facts import name_of, weights_dtype
from probes.models.fingerprint import weights_fingerprint
from probes.states.layers import modules_named
from probes.states.representations import as_strings, from_arrays
from probes.states.running import device_of, evaluating, place_of, removed


def capture_modules(
    model: torch.nn.Module,
    inputs: Mapping[str, npt.ArrayLike],
    modules: Sequence[str],
    *,
    id: npt.ArrayLike | None = None,
    language: npt.ArrayLike | None = None,
    label: npt.ArrayLike | None = None,
    text: npt.ArrayLike | None = None,
    group: npt.ArrayLike | None = None,
    features: int = 1,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    name: str | None = None,
) -> xr.Dataset:
    """Run any module on arrays and keep one vector an example of what modules of it give.

    What reads texts is captured by `capture`, which has tokens and their padding; this is for what
    reads anything else: pictures, sounds, tables, and the noise of a diffusion model.

    Args:
        model: any module; it is called by `model(**inputs)`.
        inputs: by the names of its arguments, (example, ...) each.
        modules: names from `model.named_modules()` whose outputs are taken; they become layers 0, 1,
            ... and their names the coordinate `module`. Of an output of several the first counts,
            and of a module that runs several times the last time.
        id, language, label, text, group: (example,), as of `from_arrays`. What an example was made
            under (a level of noise, a camera, a speaker) can take the place of the language, with
            the same id for one thing under each; captions of figures then say what it is where
            `reps.assign_attrs(languages_are="camera")` does.
        features: which dimension of an output holds its features: 1 of (example, channel, ...), -1
            of (example, place, feature). The others are averaged over.
        batch_size: examples that are run at once.
        device: by default CUDA, MPS or the CPU, the first there is.
        name: what the model is called in tables and messages; by default its class.

    Returns:
        Representations: `hidden (layer, example, feature)` in float32, in the order of the inputs.

    Raises:
        InputError: there is no module of a name; the inputs differ in length; what a module gives
            has no row an example, or no such dimension; the modules differ in width; what
            `from_arrays` raises.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU())
        >>> reps = capture_modules(model, {"input": np.zeros((5, 1, 8, 8), "f4")}, ["0", "1"])
        >>> dict(reps.sizes), reps["module"].values.tolist()
        ({'layer': 2, 'example': 5, 'feature': 4}, ['0', '1'])

    See also:
        `capture`, `from_arrays`
    """
    name = name or name_of(model)
    watched = modules_named(model, modules, name)
    given = {key: torch.as_tensor(np.asarray(value)) for key, value in inputs.items()}
    sizes = {key: len(value) if value.ndim else None for key, value in given.items()}
    count = next(iter(sizes.values()), None)
    if not count or len(set(sizes.values())) > 1:
        raise InputError(f"{name}: expected inputs of one length, (example, ...), above 0; found {sizes}")
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size!r}: expected at least 1")
    where, found, rows = place_of(model, device, device_of(device), name), dict[int, object](), list[np.ndarray]()

    def keep(i: int, output: object) -> None:
        found[i] = output[0] if isinstance(output, tuple | list) else output

    hooks = (m.register_forward_hook(lambda _m, _i, out, i=i: keep(i, out)) for i, m in enumerate(watched))
    with evaluating(model, where), torch.inference_mode(), removed(hooks):
        for begin in range(0, count, batch_size):
            batch = {key: value[begin : begin + batch_size].to(where) for key, value in given.items()}
            size = min(batch_size, count - begin)
            found.clear()
            model(**batch)
            states = [_vectors(found.get(i), size, features, f"{name}: module {m!r}") for i, m in enumerate(modules)]
            widths = {m: state.shape[1] for m, state in zip(modules, states, strict=True)}
            if len(set(widths.values())) > 1:
                raise InputError(f"{name}: the modules differ in width ({widths}). Capture them one width at a time")
            rows.append(np.stack(states))
    whole = np.concatenate(rows, axis=1)
    reps = from_arrays(whole, id=id, language=language, label=label, text=text, group=group, name=name)
    about = {"weights": weights_fingerprint(model), "modules": list(modules), "dtype": weights_dtype(model)}
    means = f"the mean over all but dimension {features}"
    about |= {"pooling": "mean", "pooling_means": means, "torch": torch.__version__}
    return reps.assign_coords(module=("layer", as_strings(list(modules)))).assign_attrs(about)


def _vectors(output: object, count: int, features: int, begin: str) -> np.ndarray:
    """One vector an example of what a module gave."""
    if isinstance(output, torch.Tensor) and output.ndim > 1 and len(output) == count:
        dimension = features % output.ndim if -output.ndim <= features < output.ndim else 0
        if dimension:
            state = output.float().movedim(dimension, 1).flatten(2) if output.ndim > 2 else output.float()
            return (state.mean(2) if state.ndim > 2 else state).cpu().numpy()
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    raise InputError(
        f"{begin}: expected an output of {count} examples whose dimension {features} are features, found {shape}. "
        "Choose another module, or another dimension with features="
    )
