"""Packed weights: every bit comes back, the size follows the zeros, and parts that do not fit are named."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

import probes
from probes.models.formats.packed import PACKED, check_packed, pack, unpack

FLOATING = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
OTHERS = [torch.int64, torch.int16, torch.uint8, torch.bool, torch.complex64]


def random_bits(dtype, zeros, shape=(64, 33), seed=0):
    """Any bits whatever, so also NaN of many kinds, but for a share that is zero, and no negative zero."""
    generator = torch.Generator().manual_seed(seed)
    count = math.prod(shape)
    if dtype == torch.bool:
        raw = torch.ones(count, 1, dtype=torch.uint8)
    else:
        raw = torch.randint(1, 256, (count, dtype.itemsize), generator=generator, dtype=torch.uint8)
        raw[raw == 128] = 127
    raw[torch.randperm(count, generator=generator)[: round(zeros * count)]] = 0
    return raw.reshape(-1).view(dtype).reshape(shape)


def write(folder, state):
    tensors, metadata = pack(state)
    save_file(tensors, folder / PACKED, metadata)
    return folder / PACKED


def same_bits(one, two):
    assert one.dtype == two.dtype
    assert one.shape == two.shape
    return one.reshape(-1).view(torch.uint8).tolist() == two.reshape(-1).view(torch.uint8).tolist()


def by_hand(tensors, name, shape):
    """The numbers of a tensor that is in parts, one after the other."""
    mask, values = tensors[f"{name}.mask"].tolist(), iter(tensors[f"{name}.values"].tolist())
    signs, zeros = tensors.get(f"{name}.signs"), 0
    numbers = []
    for i in range(math.prod(shape)):
        if mask[i // 8] >> (7 - i % 8) & 1:
            numbers.append(next(values))
        else:
            negative = signs is not None and signs.tolist()[zeros // 8] >> (7 - zeros % 8) & 1
            numbers.append(-0.0 if negative else 0.0)
            zeros += 1
    assert next(values, None) is None
    return numbers


@pytest.mark.parametrize("dtype", FLOATING + OTHERS, ids=str)
def test_every_bit_of_every_dtype_comes_back(tmp_path, dtype):
    state = {"sparse": random_bits(dtype, 0.9), "dense": random_bits(dtype, 0.0)}
    assert not dtype.is_floating_point or bool(state["dense"].double().isnan().any())
    file = write(tmp_path, state)
    assert set(load_file(file)) == {"sparse.mask", "sparse.values", "dense"}
    back = unpack(file)
    assert set(back) == set(state)
    assert all(same_bits(back[name], tensor) for name, tensor in state.items())
    # A bit that differs is seen.
    assert not same_bits(back["sparse"], random_bits(dtype, 0.9, seed=1))


@pytest.mark.parametrize("dtype", FLOATING[:4], ids=str)
def test_negative_zeros_and_what_is_no_number_come_back(tmp_path, dtype):
    weight = torch.randn(40, 50, generator=torch.Generator().manual_seed(0)).to(dtype)
    weight *= (torch.arange(50) % 5 == 0).to(dtype)  # a product with a mask: minus times zero is minus zero
    weight[0, :3] = torch.tensor([math.nan, math.inf, -math.inf], dtype=dtype)
    assert 700 < int((torch.signbit(weight) & (weight == 0)).sum()) < 900
    file = write(tmp_path, {"weight": weight})
    tensors = load_file(file)
    kept = int((weight != 0).sum())
    assert {name: tensor.nbytes for name, tensor in tensors.items()} == {
        "weight.mask": 2000 / 8,
        "weight.values": kept * dtype.itemsize,
        "weight.signs": math.ceil((2000 - kept) / 8),
    }
    found = torch.tensor(by_hand(tensors, "weight", (40, 50)), dtype=torch.float64).reshape(40, 50)
    assert torch.equal(found.nan_to_num(7.0), weight.double().nan_to_num(7.0))
    assert torch.equal(torch.signbit(found), torch.signbit(weight))
    assert same_bits(unpack(file)["weight"], weight)


def test_the_form_by_hand(tmp_path):
    numbers = torch.zeros(3, 200)
    numbers[0, 1], numbers[0, 9], numbers[2, 199], numbers[0, 2] = 1.5, -2.0, 3.0, -0.0
    tensors, metadata = pack({"a": numbers})
    assert json.loads(metadata.pop("packed")) == {"version": 1, "shapes": {"a": [3, 200]}}
    assert metadata == {}
    assert tensors["a.values"].tolist() == [1.5, -2.0, 3.0]
    assert tensors["a.mask"].tolist() == [0b01000000, 0b01000000, *[0] * 72, 0b00000001]
    # The third number is the second zero.
    assert tensors["a.signs"].tolist() == [0b01000000, *[0] * 74]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(0.0),
        torch.tensor(2.5),
        torch.zeros(0),
        torch.zeros(3, 0, 2, dtype=torch.bfloat16),
        torch.zeros(12),
        torch.ones(1000),
    ],
    ids=["zero", "scalar", "empty", "empty in three dimensions", "small", "dense"],
)
def test_what_packing_does_not_make_smaller_stays_whole(tmp_path, tensor):
    file = write(tmp_path, {"it": tensor})
    assert set(load_file(file)) == {"it"}
    assert same_bits(unpack(file)["it"], tensor)


def test_nothing_but_zeros_and_numbers_apart_in_memory(tmp_path):
    grid = random_bits(torch.float32, 0.9, (90, 70))
    state = {"zeros": torch.zeros(7, 11, 13), "turned": grid.T, "part": grid[:, ::2], "grad": grid.requires_grad_()}
    file = write(tmp_path, state)
    assert load_file(file)["zeros.values"].shape == (0,)
    back = unpack(file)
    assert all(same_bits(back[name], tensor.detach().contiguous()) for name, tensor in state.items())


def test_names_like_those_of_parts_are_kept_apart(tmp_path):
    sparse = {f"a{end}": random_bits(torch.float32, 0.9, seed=i) for i, end in enumerate(["", ".mask", ".mask.values"])}
    file = write(tmp_path, sparse)
    back = unpack(file)
    assert set(back) == set(sparse)
    assert all(same_bits(back[name], tensor) for name, tensor in sparse.items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_the_size_falls_with_the_zeros_as_it_should(tmp_path, dtype):
    shape, sizes = (300, 200), []
    for zeros in (0.0, 0.05, 0.25, 0.5, 0.8, 0.95, 1.0):
        file = write(tmp_path, {"weight": random_bits(dtype, zeros, shape)})
        sizes.append(file.stat().st_size)
        nonzero = round((1 - zeros) * 60_000)
        smallest = min(nonzero * dtype.itemsize + 60_000 / 8, 60_000 * dtype.itemsize)
        assert smallest < sizes[-1] < smallest + 400
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) >= len(sizes) - 1  # bfloat16 with 5 % of zeros is smaller whole


def test_packing_is_never_larger_than_the_weights_but_for_its_header(tmp_path):
    state = {f"layer.{i}.bias": random_bits(torch.float32, 0.6, (40 + i,)) for i in range(200)}
    save_file(state, tmp_path / "plain.safetensors")
    assert write(tmp_path, state).stat().st_size < (tmp_path / "plain.safetensors").stat().st_size + 100


def test_what_is_given_is_left_as_it_was_and_files_are_the_same_each_time(tmp_path):
    state = {name: random_bits(torch.float32, 0.9, seed=i) for i, name in enumerate("abcdef")}
    before = {name: tensor.clone() for name, tensor in state.items()}
    first = write(tmp_path, state).read_bytes()
    assert write(tmp_path, state).read_bytes() == first
    assert all(same_bits(tensor, before[name]) for name, tensor in state.items())


def test_what_was_unpacked_does_not_hang_on_the_file(tmp_path):
    state = {"sparse": random_bits(torch.float32, 0.9), "dense": random_bits(torch.float32, 0.0)}
    file = write(tmp_path, state)
    back = unpack(file)
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.write(b"\xff" * size)
    assert all(same_bits(back[name], tensor) for name, tensor in state.items())


def said(shapes, version=1):
    return lambda tensors, metadata: metadata.update(packed=json.dumps({"version": version, "shapes": shapes}))


def change(name, to):
    return lambda tensors, metadata: tensors.update({name: to(tensors[name])})


def both(tensors, metadata):
    tensors["a"] = torch.zeros(3)


# Refused before any weight is read.
BY_HEADER = {
    "mask too short": (change("a.mask", lambda m: m[:-1]), "a: .*expected a mask of 264 bytes .* found 263"),
    "mask too long": (change("a.mask", lambda m: m.repeat(2)), "a: .*expected a mask of 264 bytes .* found 528"),
    "another shape": (said({"a": [64, 34]}), r"a: .*a mask of 272 bytes for the shape \[64, 34\], found 264"),
    "mask of floats": (change("a.mask", lambda m: m.float()), "a: .*expected mask of dtype U8, found F32"),
    "values of two dimensions": (
        change("a.values", lambda v: v[None]),
        "a: .*expected values in one dimension, found 2",
    ),
    "no mask": (lambda t, m: t.pop("a.mask"), "a: .*expected its mask in the file, found none"),
    "no values": (lambda t, m: t.pop("a.values"), "a: .*expected its values in the file, found none"),
    "a tensor that is not there": (said({"a": [64, 33], "b": [8]}), "b: .*expected its mask in the file, found none"),
    "whole and in parts": (both, "a: .*expected a tensor whole or in parts, found both"),
    "no metadata": (lambda t, m: m.clear(), r"its metadata: expected the key 'version'"),
    "no json": (lambda t, m: m.update(packed="{"), r"its metadata: not readable as JSON"),
    "json of something": (lambda t, m: m.update(packed="[3]"), r"its metadata: expected an object, found \[3\]"),
    "deep json": (lambda t, m: m.update(packed="[" * 200_000), r"its metadata: not readable as JSON"),
    "no shapes": (said(None), r"its metadata\['shapes'\]: expected an object"),
    "a shape of words": (said({"a": ["x"]}), r"its metadata\['a'\]\[0\]: expected a whole number of 1 to"),
    "a shape below zero": (said({"a": [-64, -33]}), r"its metadata\['a'\]\[0\]: expected a whole number of 1 to"),
    "a shape that is none": (said({"a": {}}), r"its metadata\['a'\]: expected a list"),
    "a shape beyond memory": (said({"a": [2**62, 4]}), r"a: .*expected fewer than 2\*\*63 numbers"),
    "another version": (said({}, version=2), "expected packed weights of version 1, found 2"),
}
BY_WEIGHTS = {
    "a value too few": (change("a.values", lambda v: v[:-1]), "a: .*as its mask has bits set, 211, found 210"),
    "a value too many": (change("a.values", lambda v: v.repeat(2)), "a: .*as its mask has bits set, 211, found 422"),
    "a bit too few": (change("a.mask", lambda m: m * (torch.arange(264) != m.argmax())), "a: .*as its mask has bits"),
    "signs too short": (change("a.signs", lambda s: s[:-1]), "a: .*expected 238 bytes of signs, found 237"),
}


@pytest.mark.parametrize(
    ("spoil", "message"), [*BY_HEADER.values(), *BY_WEIGHTS.values()], ids=[*BY_HEADER, *BY_WEIGHTS]
)
def test_parts_that_do_not_fit_are_refused_by_name(tmp_path, request, spoil, message):
    weight = random_bits(torch.float32, 0.9)
    weight[weight == 0] *= torch.where(torch.rand(1901, generator=torch.Generator().manual_seed(0)) < 0.5, -1.0, 1.0)
    tensors, metadata = pack({"a": weight})
    assert set(tensors) == {"a.mask", "a.values", "a.signs"}
    file = tmp_path / PACKED
    save_file(tensors, file, metadata)
    assert same_bits(unpack(file)["a"], weight)
    spoil(tensors, metadata)
    save_file(tensors, file, metadata)
    by_header = request.node.callspec.id in BY_HEADER
    with pytest.raises(probes.InputError, match=f"(?s)^{file}: {message}") as caught:
        (check_packed if by_header else unpack)(file)
    assert "\n" not in str(caught.value)
    if by_header:
        with pytest.raises(probes.InputError, match=message):
            unpack(file)
    else:
        check_packed(file)


@pytest.mark.parametrize("left", [0.0, 0.001, 0.05, 0.5, 0.999])
def test_a_file_that_is_cut_short_is_refused(tmp_path, left):
    file = write(tmp_path, {"a": random_bits(torch.float32, 0.9), "b": random_bits(torch.float32, 0.0)})
    content = file.read_bytes()
    file.write_bytes(content[: int(left * len(content))])
    for read in (check_packed, unpack):
        with pytest.raises(probes.InputError, match=f"{file}: not readable as safetensors .*Copy or save it again"):
            read(file)
