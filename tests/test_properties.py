"""Properties that hold for any input; hypothesis makes the examples, the same ones each time."""

import pickle
import re
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from probe.bank.base import resize, resize_unclamped
from probe.bank.weights.keys import map_keys
from probe.bank.weights.rename import _apply
from probe.errors import CheckpointError, UsageError
from probe.generators.files.unpickle import read_pickle
from probe.generators.seeds import parse_seeds
from probe.images.resize import to_square
from probe.probing.uncertainty import Spread, ranks
from probe.streams import numpy_stream, stream_seed, torch_stream

tried = settings(max_examples=60, derandomize=True, deadline=None, database=None)

# What a pickle of plain data may hold. NaN equals nothing, and integers of the reader are bounded.
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
    | st.text(max_size=20) | st.binary(max_size=20)
)  # fmt: skip
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner)
    | st.dictionaries(st.text(max_size=8) | st.integers(-9, 9), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@tried
@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_is_read_as_pickle_reads_it(value, protocol):
    content, _ = read_pickle(pickle.dumps(value, protocol))
    assert content == value and repr(content) == repr(value)


@tried
@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL), st.data())
def test_a_damaged_pickle_is_read_or_refused_in_a_sentence(value, protocol, data):
    damaged = bytearray(pickle.dumps(value, protocol))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_pickle(bytes(damaged[: data.draw(st.integers(1, len(damaged)))]))
    except CheckpointError as error:
        assert str(error)


@tried
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    with suppress(CheckpointError):
        read_pickle(data)
        assert data.endswith(b".")  # a pickle's last opcode


@tried
@given(st.integers(2, 6), st.data())
def test_ranks_follow_the_order_and_whoever_may_be_best_is_first(count, data):
    flags = st.lists(st.booleans(), min_size=count, max_size=count)
    told = np.array([data.draw(flags) for _ in range(count)])
    better = np.triu(told, 1)  # best first: nobody is better than one above
    found = ranks(better)
    assert found[0] == 1 and found == sorted(found)
    for i in range(count):
        assert found[i] <= 1 + better[:, i].sum()
        if not better[:, i].any():
            assert found[i] == 1


@tried
@given(st.integers(0, 2**31 - 1), st.integers(2, 5), st.integers(5, 40))
def test_comparisons_do_not_ask_for_the_order_of_backbones(seed, count, units):
    rng = np.random.default_rng(seed)
    effects, values = rng.normal(0, 0.02, (units, count)), -rng.random(count)
    whole = Spread(values, effects, np.zeros((0, count)), seed)
    turned = Spread(values[::-1], effects[:, ::-1], np.zeros((0, count)), seed)
    for i in range(count):
        low, high = whole.interval(i)
        assert low <= values[i] <= high <= 0
        np.testing.assert_allclose(turned.interval(count - 1 - i), (low, high), rtol=1e-9)
        low, high = whole.gap(i, 0)
        np.testing.assert_allclose([-bound for bound in whole.gap(0, i)], (high, low), atol=1e-12)
    better = whole.better(range(count))
    assert not (better & better.T).any()
    assert whole.best(np.ones(count, bool)).sum() == pytest.approx(1)


NAMES = st.lists(st.text(max_size=8) | st.integers(), max_size=3)


@tried
@given(st.integers(0, 2**63 - 1), NAMES, NAMES)
def test_a_stream_is_a_function_of_seed_and_name_alone(seed, name, other):
    assert 0 <= stream_seed(seed, *name) < 2**63
    assert (stream_seed(seed, *name) == stream_seed(seed, *other)) == (name == other)
    first, again = (numpy_stream(seed, *name).integers(2**62, size=3) for _ in range(2))
    assert (first == again).all()
    drawn = [torch.rand(3, generator=torch_stream(seed, *name)) for _ in range(2)]
    assert torch.equal(*drawn)


RANGES = st.lists(st.tuples(st.integers(0, 2**32 - 60), st.integers(0, 50)), min_size=1, max_size=5)


@tried
@given(RANGES, st.sampled_from(["", " "]))
def test_seeds_are_what_their_ranges_say(ranges, space):
    parts = [str(first) if not more else f"{first}-{first + more}" for first, more in ranges]
    wanted = [seed for first, more in ranges for seed in range(first, first + more + 1)]
    assert parse_seeds(f",{space}".join(parts)) == wanted


@tried
@given(st.text(max_size=30))
def test_any_text_is_a_list_of_seeds_or_refused(text):
    try:
        seeds = parse_seeds(text)
    except UsageError as error:
        assert "--seeds" in str(error)
    else:
        assert seeds and all(0 <= seed < 2**32 for seed in seeds)


LAYERS = st.lists(st.from_regex(r"[a-z]{1,5}(\.[a-z0-9]{1,4}){0,3}", fullmatch=True), unique=True)


@tried
@given(LAYERS, st.integers(0, 3))
def test_the_prefix_of_wrapped_modules_is_dropped_however_often(names, times):
    tensors = [torch.tensor(i) for i in range(len(names))]
    wrapped = {"module." * times + name: t for name, t in zip(names, tensors, strict=True)}
    found = map_keys(wrapped, (), torch.nn.Identity())
    assert list(found) == names
    assert all(a is b for a, b in zip(found.values(), tensors, strict=True))


@tried
@given(LAYERS, st.from_regex(r"[a-z]{1,4}", fullmatch=True))
def test_a_step_of_a_key_map_is_a_substitution_or_leaves_a_name_out(names, part):
    pattern = re.compile(re.escape(part))
    for name in names:
        assert _apply(name, pattern, "X") == name.replace(part, "X")
        assert _apply(name, pattern, None) == (None if part in name else name)


SIDES = st.integers(8, 40)
MODES = st.sampled_from(["bicubic", "bilinear", "area", "tf1-bilinear"])


@tried
@given(SIDES, SIDES, MODES, st.floats(0, 1))
def test_a_flat_image_stays_flat_by_every_resize(old, new, mode, value):
    images = torch.full((1, 3, old, old), value)
    for found in (resize(images, new, mode), resize_unclamped(images, new, mode)):
        assert found.shape == (1, 3, new, new)
        torch.testing.assert_close(found, torch.full_like(found, value), atol=1e-5, rtol=0)


@tried
@given(SIDES, SIDES, MODES, st.integers(0, 2**31))
def test_a_resize_keeps_to_the_range_and_treats_images_alike(old, new, mode, seed):
    images = torch.rand(2, 3, old, old, generator=torch.Generator().manual_seed(seed))
    found = resize(images, new, mode)
    assert 0 <= found.min() and found.max() <= 1
    torch.testing.assert_close(resize(images.flip(0), new, mode), found.flip(0))


@tried
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 50), st.integers(0, 255))
def test_a_file_of_any_shape_becomes_a_square_and_flat_stays_flat(width, height, side, value):
    image = Image.new("RGB", (width, height), (value, 255 - value, 7))
    square = to_square(image, side)
    assert square.shape == (side, side, 3) and square.dtype == np.uint8
    assert (square == (value, 255 - value, 7)).all()
