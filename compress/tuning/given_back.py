"""What of a model can be given back to a compressed one of it, and how many bytes that costs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from compress.matrices import Matrix, block_of, every_matrix, transposed
from compress.quantization.quantizers import packed_bytes
from compress.quantization.weights import QuantizedMatrices
from compress.tuning.ranks import more_ranks, ranks_then
from compress.tuning.same_places import check_places, factors_of, inside, layers_of
from compress.views import MatrixView
from probes.costs import as_stored
from probes.errors import InputError
from probes.models.coded_bytes import codeword_bytes
from probes.models.facts import name_of
from probes.models.formats.factorized import FACTORIZED, FACTORS, LowRankLinear
from probes.models.formats.packed import saved_by_packing
from probes.models.formats.quantized_inputs import QUANTIZED_INPUTS, apply_quantized_inputs

UNITS = ("blocks", "matrices", "rows", "bits", "ranks")
PLAIN = 32  # the bits of a matrix that is not rounded
_PIECES = 16  # of the rows of a matrix at most
_MOST = 8  # bits of a rounded matrix


@dataclass
class Step:
    """A tensor of the model that becomes another.

    Attributes:
        key: the name of the parameter.
        now, then, wanted: what it is, what it becomes, and what it is in the original.
        size: bytes of the parameter then.
        bits: of a rounded matrix then, by its name.
    """

    key: str
    now: torch.Tensor
    then: torch.Tensor
    wanted: torch.Tensor
    size: int
    bits: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Part:
    """What is given back together.

    Attributes:
        name: of the block, the module, the rows or the matrix.
        layer: the layer whose states it helps to make, 0 for embeddings.
        steps: what becomes of which tensors; none where all of it is given back.
        keys: the parameters that these are of.
        modules: names of modules in factors that become whole.
        plain: the modules whose inputs are then as the original has them.
        ranks: whether modules get more of their rank, as long as that takes less than the whole.
    """

    name: str
    layer: int
    steps: Callable[[], list[Step]]
    keys: tuple[str, ...]
    modules: tuple[str, ...] = ()
    plain: Callable[[], list[str]] = list
    ranks: bool = False


class GivenBack:
    """A copy of a compressed model to which parts of the original are given back, one at a time.

    Args:
        other: the compressed model; it is not changed.
        base: the original.
        units: "blocks", "matrices" (modules with all of their own parameters), "rows" (output
            units, in at most 16 groups a matrix, those that changed most first), "bits" (of a
            rounded matrix one more, after 8 all) or "ranks" (of a matrix in two factors a sixteenth
            of its rank more).

    Attributes:
        model: the copy.
        parts: what can be given back, in the order of the model.
        size: bytes of the model as the smallest format stores it that `compress.footprint` knows.
        stored_as: which that is.

    Raises:
        InputError: the two do not fit together, or units do not fit the model; nothing runs.

    Example:
        >>> import compress, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> back = GivenBack(compress.prune(model, sparsity=0.6), model, "blocks")
        >>> back.stored_as, [part.layer for part in back.parts]
        ('packed', [1, 2, 3, 4, 5, 6])
    """

    def __init__(self, other: PreTrainedModel, base: PreTrainedModel, units: str) -> None:
        """Find what differs, and what it takes."""
        check_places(other, base)
        self.base, self.model = base, copy.deepcopy(other)
        found = as_stored(other)
        self.size, self.stored_as = int(found["stored_bytes"]), str(found["stored_as"])
        self.about: dict[str, Any] = dict(getattr(other.config, "compression", None) or {})
        self.params = dict(self.model.named_parameters())
        self.source = dict(base.named_parameters(remove_duplicate=False))
        self.factors = factors_of(self.model, base)
        self.bits = self._first_bits()
        names = list(self.bits)
        self.held, self.coded = _matrices(self.model, names), _coded(self.model, names)
        self.across = transposed(self.model, names)
        self.sizes = {key: self._first_size(key) for key in self.params}
        self.layers = layers_of(self.model)
        if units == "bits" and (self.stored_as != "integers" or self.factors):
            raise InputError(
                f"units='bits': {name_of(other)!r} is stored {self._how()}, and not by so many bits a weight of the "
                f"matrices of {name_of(base)!r}. Give back blocks or matrices"
            )
        if units == "rows" and (self.bits or self.factors):
            raise InputError(
                f"units='rows': {name_of(other)!r} is stored {self._how()}, which has no rows of its own. Give back "
                "blocks or matrices" + (", or bits" if self.stored_as == "integers" else "")
            )
        if units == "ranks" and (self.bits or not any(ranks_then(self.model.get_submodule(n)) for n in self.factors)):
            raise InputError(
                f"units='ranks': {name_of(other)!r} is stored {self._how()}, and not in factors that get more of their "
                "rank: added to a matrix in another format, a correction in factors makes all of it anew. Give back "
                "blocks or matrices"
            )
        self.rounded = self._grids() if units == "bits" else None
        made = {"rows": self._rows, "bits": self._bits, "ranks": self._ranks}
        self.parts = list(made.get(units, partial(self._whole, units))())
        self._costs: dict[str, int | None] = {}
        if not self.parts:
            raise InputError(f"{name_of(other)!r} has the weights of {name_of(base)!r}: there is nothing to give back")

    def cost(self, part: Part) -> int | None:
        """Return the bytes that it takes to give a part back now, None where all of it is there."""
        if part.name not in self._costs:
            steps, modules = part.steps(), [m for m in part.modules if m in self.factors]
            more = sum(step.size - self.sizes[step.key] for step in steps)
            more += sum(self._size_then(part, m) - self._size_of_module(m, self.model) for m in modules)
            self._costs[part.name] = more if steps or modules else None
        return self._costs[part.name]

    def change(self, part: Part) -> float:
        """Return by how much the squared distance of the weights from the original's falls."""
        out = 0.0
        for step in part.steps():
            wanted = step.wanted.double()
            out += float((step.now.double() - wanted).square().sum() - (step.then.double() - wanted).square().sum())
        for name in part.modules:
            if name in self.factors:
                one, other = (_weight(m, name).double() for m in (self.base, self.model))
                then = more_ranks(self.model.get_submodule(name), self.base.get_submodule(name)) if part.ranks else None
                out += float((one - other).square().sum())
                out -= 0.0 if then is None else float((one - then.weight.detach().double()).square().sum())
        return out

    def give(self, part: Part) -> Callable[[], None]:
        """Give a part back, and return what takes it away again."""
        before = self.cost(part)
        assert before is not None
        steps, modules = part.steps(), [m for m in part.modules if m in self.factors]
        old = [(step.now, step.now.clone()) for step in steps]
        state = dict(self.sizes), dict(self.bits), list(self.factors), dict(self.params), self.size, dict(self._costs)
        inputs = copy.deepcopy(QUANTIZED_INPUTS.said(self.model.config))
        mine = {m: self.model.get_submodule(m) for m in modules}
        for name in modules:
            self._exchange(part, name)
        modules = [m for m in modules if m not in self.factors]
        with torch.no_grad():
            for step in steps:
                step.now.copy_(step.then)
                self.sizes[step.key] = step.size
                self.bits |= step.bits
        self.size += before
        for one in self.parts:  # what shares a tensor with it costs something else now
            if one is part or set(part.keys) & set(one.keys):
                self._costs.pop(one.name, None)
        self._free_inputs(part.plain() + modules)

        def take_away() -> None:
            with torch.no_grad():
                for now, values in old:
                    now.copy_(values)
            for name, module in mine.items():
                self.model.set_submodule(name, module)
            self.sizes, self.bits, self.factors, self.params, self.size, self._costs = state
            self._set_inputs(inputs)

        return take_away

    def recorded(self) -> dict[str, Any]:
        """Return what the configuration says of how the model is stored."""
        if self.stored_as not in ("integers", "codebooks"):
            return {}
        left = sorted(name for name, bits in self.bits.items() if bits != PLAIN)
        if not left:
            return {}
        known = ("group", "symmetric", "ranges", "activation_bits", "activation_ranges", "codes", "block")
        packed = sum(self._coded_size(name) for name in left)
        weights = sum(self.held[name].numel() for name in left)
        out = {key: self.about[key] for key in known if key in self.about}
        if self.stored_as == "integers":
            out["bits"] = {name: self.bits[name] for name in left}
        out |= {"quantized": left, "average_bits": 8 * packed / weights, "bytes_of_quantized": packed}
        return out | {"bytes_of_model": self.size}

    # -- what there is --

    def _how(self) -> str:
        return "in factors" if self.factors else f"as {self.stored_as}" if self.bits else self.stored_as

    def _first_bits(self) -> dict[str, int]:
        """The bits of the matrices that are stored by codes; 0 by those of a codebook."""
        if self.stored_as not in ("integers", "codebooks"):
            return {}
        said = self.about.get("bits", 0)
        return {n: int(said[n] if isinstance(said, Mapping) else said) for n in self.about["quantized"]}

    def _grids(self) -> QuantizedMatrices:
        """The same matrices of the original, rounded in the same way."""
        ranges, _, percentile = str(self.about["ranges"]).partition(" ")
        how = {"group": self.about["group"], "symmetric": self.about["symmetric"], "ranges": ranges}
        how |= {"percentile": float(percentile)} if percentile else {}
        return QuantizedMatrices(self.base, dict(self.bits), how)

    def _first_size(self, key: str) -> int:
        parameter = self.params[key].detach()
        coded = self.coded.get(key, [])
        if not coded:
            return self._plain_size(key, parameter)
        apart = sum(self.held[name].numel() for name in coded)
        return sum(self._coded_size(name) for name in coded) + (parameter.numel() - apart) * parameter.element_size()

    def _plain_size(self, key: str, values: torch.Tensor) -> int:
        return values.nbytes - (saved_by_packing({key: values}) if self.stored_as == "packed" else 0)

    def _coded_size(self, name: str, bits: int | None = None) -> int:
        """Bytes of a matrix that is stored by codes, of as many bits as now or of others."""
        values = self.held[name].detach()
        units = values.T if self.across[name] else values
        if self.stored_as == "integers":
            how = {"group": self.about["group"], "symmetric": self.about["symmetric"]}
            return packed_bytes((units.shape[0], units.shape[1]), bits or self.bits[name], **how)
        return codeword_bytes(units, self.about["codes"], self.about["block"])

    def _size_of_module(self, name: str, model: PreTrainedModel) -> int:
        own = model.get_submodule(name).named_parameters()
        if model is self.model:
            return sum(self.sizes[f"{name}.{key}"] for key, _ in own)
        return sum(self._plain_size(f"{name}.{key}", p.detach()) for key, p in own)

    def _differing(self) -> list[str]:
        return [k for k, p in self.params.items() if not inside(self.factors, k) and not torch.equal(p, self.source[k])]

    # -- parts --

    def _whole(self, units: str, keys: list[str] | None = None) -> Iterator[Part]:
        """Blocks, or modules, with all that differs in them."""
        groups: dict[str, tuple[list[str], list[str], list[str]]] = {}

        def of(key: str) -> tuple[list[str], list[str], list[str]]:
            module = key.rpartition(".")[0]
            name = (block_of(key) or module) if units == "blocks" else module
            return groups.setdefault(name or key, ([], [], []))

        differing = self._differing() if keys is None else keys
        inputs = QUANTIZED_INPUTS.said(self.model.config) or {}
        theirs = QUANTIZED_INPUTS.said(self.base.config) or {}
        fed = [self._full(n) for n, how in inputs.items() if theirs.get(n) != how] if keys is None else []
        for key in self.params:  # in the order of the model
            found = next((n for n in self.factors if key.startswith(f"{n}.")), None)
            if found is not None and keys is None:
                if found not in of(f"{found}.weight")[1]:
                    of(f"{found}.weight")[1].append(found)
            elif key in differing:
                of(key)[0].append(key)
            if key.rpartition(".")[0] in fed and key.endswith("weight") and found is None:
                of(key)[2].append(key)
        for name, (own, modules, rounded) in groups.items():
            every = list(dict.fromkeys([*own, *rounded]))
            layer = self._layer([*every, *(f"{m}.weight" for m in modules)][0])
            plain = [k.rpartition(".")[0] for k in every]
            yield Part(
                name, layer, partial(self._give_whole, every), tuple(every), tuple(modules), partial(list, plain)
            )

    def _give_whole(self, keys: list[str]) -> list[Step]:
        out = []
        for key in keys:
            now, wanted = self.params[key].detach(), self.source[key].detach()
            codes = dict.fromkeys(self.coded.get(key, []), PLAIN)
            coded = any(self.bits[n] != PLAIN for n in codes)
            if coded or self._rounds_inputs(key) or not torch.equal(now, wanted):
                out.append(Step(key, now, wanted, wanted, self._plain_size(key, wanted), codes))
        return out

    def _rows(self) -> Iterator[Part]:
        differing = self._differing()
        tables = [k for k in differing if self.params[k].ndim == 2]
        known = set(every_matrix(self.model))
        across = transposed(self.model, [k for k in tables if k in known])
        for key in tables:
            one, other = self.params[key].detach(), self.source[key].detach()
            change = (one.double() - other.double()).square().sum(0 if across.get(key, False) else 1)
            order = change.argsort(descending=True, stable=True)
            order = order[change[order] > 0]
            pieces = torch.tensor_split(order, min(_PIECES, len(order)))
            for number, rows in enumerate(pieces):
                steps = partial(self._give_rows, key, rows, across.get(key, False))
                yield Part(f"{key} rows {number + 1} of {len(pieces)}", self._layer(key), steps, (key,))
        yield from self._rest([k for k in differing if k not in tables])

    def _give_rows(self, key: str, rows: torch.Tensor, across: bool) -> list[Step]:
        now, wanted = self.params[key].detach(), self.source[key].detach()
        then, dim = now.clone(), 1 if across else 0
        then.index_copy_(dim, rows, wanted.index_select(dim, rows))
        return [] if torch.equal(now, then) else [Step(key, now, then, wanted, self._plain_size(key, then))]

    def _bits(self) -> Iterator[Part]:
        for key, names in self.coded.items():
            for name in names:
                plain = partial(self._plain, name)
                yield Part(name, self._layer(key), partial(self._give_bits, name, key), (key,), (), plain)
        yield from self._rest([k for k in self._differing() if k not in self.coded])

    def _give_bits(self, name: str, key: str) -> list[Step]:
        bits = self.bits[name]
        if bits == PLAIN:
            return []
        assert self.rounded is not None
        now, wanted = self.held[name].detach(), self.rounded.parameters[name].detach()
        more = bits + 1 if bits < _MOST else PLAIN
        if more == PLAIN:
            then, size = wanted, now.numel() * now.element_size()
        else:
            self.rounded.bits[name] = more
            then, size = self.rounded.rounded([name])[name], self._coded_size(name, more)
        return [Step(key, now, then, wanted, self.sizes[key] - self._coded_size(name) + size, {name: more})]

    def _plain(self, name: str) -> list[str]:
        return [name.rpartition(".")[0]] if self.bits[name] == PLAIN else []

    def _rest(self, keys: list[str]) -> Iterator[Part]:
        return self._whole("matrices", keys) if keys else iter(())

    def _layer(self, key: str) -> int:
        place = f"{key.rpartition('.')[0]}."  # of a module in factors by its first factor
        return next(n for k, n in self.layers.items() if k == key or k.startswith(place))

    def _ranks(self) -> Iterator[Part]:
        for part in self._whole("matrices"):
            yield replace(part, ranks=bool(part.modules))

    # -- modules --

    def _full(self, name: str) -> str:
        """The name in the whole model of a module that is named in its body."""
        return name if self.model.base_model is self.model else f"{self.model.base_model_prefix}.{name}"

    def _rounds_inputs(self, key: str) -> bool:
        mine, theirs = (QUANTIZED_INPUTS.said(m.config) or {} for m in (self.model, self.base))
        module = key.rpartition(".")[0]
        return any(self._full(n) == module and theirs.get(n) != how for n, how in mine.items())

    def _size_then(self, part: Part, name: str) -> int:
        then = more_ranks(self.model.get_submodule(name), self.base.get_submodule(name)) if part.ranks else None
        if then is None:
            return self._size_of_module(name, self.base)
        return sum(self._plain_size(f"{name}.{key}", p.detach()) for key, p in then.named_parameters())

    def _exchange(self, part: Part, name: str) -> None:
        """Put what comes next in the place of a module in factors: more of its rank, or all of it."""
        module, whole = self.model.get_submodule(name), self.base.get_submodule(name)
        then = more_ranks(module, whole) if part.ranks else None
        self.model.set_submodule(name, copy.deepcopy(whole) if then is None else then)
        if then is None:
            self.factors.remove(name)
        for key in [k for k in self.sizes if k.startswith(f"{name}.")]:
            del self.sizes[key]
        for key, parameter in self.model.get_submodule(name).named_parameters():
            self.sizes[f"{name}.{key}"] = self._plain_size(f"{name}.{key}", parameter.detach())
        self.bits = {n: b for n, b in self.bits.items() if not n.startswith(f"{name}.")}
        self.params = dict(self.model.named_parameters())

    def _free_inputs(self, modules: list[str]) -> None:
        """Let the inputs of modules be rounded as the original rounds them: mostly not at all."""
        said = dict(QUANTIZED_INPUTS.said(self.model.config) or {})
        if not said or not modules:
            return
        theirs = QUANTIZED_INPUTS.said(self.base.config) or {}
        freed = {n for n in said if any(f"{self._full(n)}.".startswith(f"{m}.") for m in modules)}
        self._set_inputs(
            {n: how for n, how in said.items() if n not in freed} | {n: theirs[n] for n in freed if n in theirs}
        )

    def _set_inputs(self, said: dict[str, Any] | None) -> None:
        if said:
            self.model.config.quantized_inputs = said
        elif hasattr(self.model.config, "quantized_inputs"):
            del self.model.config.quantized_inputs
        apply_quantized_inputs(self.model)

    def settle(self) -> PreTrainedModel:
        """Let the configuration of the copy say what is in factors still, and return it."""
        said = FACTORIZED.said(self.model.config)
        if said:
            known = dict(self.model.named_modules())
            left = {n: how for n, how in said.items() if isinstance(known[self._full(n)], FACTORS)}
            for n in left:
                if isinstance(module := known[self._full(n)], LowRankLinear):
                    left[n] = {"rank": module.first.out_features}
            self.model.config.factorized = left
            if not left:
                del self.model.config.factorized
        return self.model


def _matrices(model: PreTrainedModel, names: list[str]) -> dict[str, Matrix]:
    known: dict[str, Matrix] = dict(model.named_parameters(remove_duplicate=False))
    known |= {name: w for name, w in every_matrix(model).items() if isinstance(w, MatrixView)} if names else {}
    return {name: known[name] for name in names}


def _coded(model: PreTrainedModel, names: list[str]) -> dict[str, list[str]]:
    """Parameter -> the matrices in it that are stored by codes."""
    keys = {id(p): key for key, p in model.named_parameters()}
    out: dict[str, list[str]] = {}
    for name, weight in _matrices(model, names).items():
        out.setdefault(keys[id(weight.stack if isinstance(weight, MatrixView) else weight)], []).append(name)
    return out


def _weight(model: PreTrainedModel, module: str) -> torch.Tensor:
    weight: Any = model.get_submodule(module).weight  # which factors compute
    values: torch.Tensor = weight.detach()
    return values
