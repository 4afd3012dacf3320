"""State dicts and containers made to cost much, or to be what they are not."""

import io
import random
import resource
import time
from functools import reduce
from pathlib import Path

import pytest
import torch
from generators.pickles import Persistent, dumps
from generators.reference_rosinality import discriminator, state_dict
from inputs import tiny_generator

from probe.errors import CheckpointError
from probe.generators.files.companions import read_companions
from probe.generators.files.formats import load_generator
from probe.generators.files.inspect import inspect_file

SECONDS = 20  # under load; the heaviest takes about four alone
MEGABYTES = 1500


def module(tensors=None, modules=None):
    return Persistent("Generator", {"_parameters": {}, "_buffers": tensors or {},
                                    "_modules": modules or {}})  # fmt: skip


def wide():
    """A module of twenty thousand tensors that are one."""
    return module(dict.fromkeys((f"t{i}" for i in range(19_000)), torch.ones(1)))


def rosinality(change):
    return {"g_ema": {**state_dict(), **change}}


def mapping_of(first, layers=3):
    """A mapping of which one layer is wide and the others say nothing of it."""
    state = {f"style.{i + 2}.{n}": torch.ones(1) for i in range(layers) for n in ("weight", "bias")}
    return rosinality({"style.1.weight": first, "style.1.bias": torch.ones(first.shape[0])} | state)


ONE = torch.ones(1)
BOMBS = {
    "one network many times": lambda: [wide()] * 300_000,
    "networks that share their tensors": lambda: [
        module(modules={"inside": shared}) for shared in [wide()] for _ in range(20_000)
    ],
    "a tower of lists": lambda: reduce(
        lambda inner, _: [inner] * 10, range(30), {"a": ONE}
    ),
    "a name of dots": lambda: {"." * 10**6 + "synthesis.b4.const": ONE},
    "many heads": lambda: {f"{i}.synthesis.b4.const": ONE for i in range(15_000)},
    "many signs": lambda: {"to_rgb1.conv.weight." * 50_000: ONE},
    "many underscores": lambda: {"_" * 10**6: {"a": ONE}, "ema" + "_" * 10**6: {"b": ONE}},
    "many tensors of no network": lambda: {f"w{i}": ONE for i in range(100_000)},
    "sixty resolutions": lambda: rosinality(
        {f"to_rgbs.{k}.conv.weight": ONE for k in range(60)}
    ),
    "a mapping a terabyte wide": lambda: mapping_of(ONE.expand(10**6, 1).clone()),
    "a latent of ten million": lambda: mapping_of(torch.ones(1, 10**7).half()),
    "ten thousand mapping layers": lambda: rosinality(
        {f"style.{i}.{n}": ONE for i in range(1, 10_000) for n in ("weight", "bias")}
    ),
    "a filter of a million taps": lambda: {
        **tiny_generator().state_dict(), "synthesis.b4.resample_filter": torch.ones(1, 10**6)
    },
    "an average of nothing": lambda: rosinality({"latent_avg": torch.ones(0, 10)}),
    "a block beyond all sizes": lambda: {
        **tiny_generator().state_dict(), "synthesis.b99999.x": ONE
    },
}  # fmt: skip


def allowed(path):
    """Look at a file in every way; return whether it was read. Only one error may come of it."""
    read = False
    try:
        load_generator(path)
        read = True
        read_companions(path)
    except CheckpointError as error:
        assert len(str(error)) < 2000
    inspect_file(path)
    return read


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_cost_little(tmp_path, tally, name):
    (tmp_path / "G.pkl").write_bytes(dumps(BOMBS[name]()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    read = allowed(tmp_path / "G.pkl")
    assert time.process_time() - start < SECONDS
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MEGABYTES, f"{grown:.0f} MB"
    tally("bombs in containers " + ("read" if read else "refused"))


def mutate(state: dict, rng: random.Random) -> dict:
    """Take away, rename, reshape, swap or replace some tensors."""
    state = dict(state)
    for _ in range(rng.randint(1, 4)):
        name = rng.choice(list(state))
        other = rng.choice(list(state))
        kind = rng.randrange(8)
        if kind == 0:
            del state[name]
        elif kind == 1:
            state[name.replace(rng.choice("0123.csw"), rng.choice("0189.x"), 1)] = state.pop(name)
        elif kind == 2:
            state[name] = state[other]
        elif kind == 3:
            state[name] = state[name].flatten()
        elif kind == 4:
            shape = [rng.choice((0, 1, 2, 3, 17)) for _ in range(rng.randint(0, 5))]
            state[name] = torch.ones(shape)
        elif kind == 5:
            state[name] = state[name] * float("nan")
        elif kind == 6:
            state[name] = state[name][None]
        else:
            dtype = rng.choice((torch.float16, torch.int64, torch.float64, torch.bool))
            state[name] = state[name].to(dtype)
        if not state:
            state["x"] = ONE
    return state


def test_odd_state_dicts_are_read_or_refused_in_a_sentence(tmp_path, rounds, tally):
    path: Path = tmp_path / "G.pt"
    kinds = (state_dict(16), tiny_generator().state_dict(), tiny_generator(3).state_dict())
    count = {True: 0, False: 0}
    for seed in range(rounds(60, 3000)):
        rng = random.Random(seed)
        content = {
            "g_ema": mutate(rng.choice(kinds), rng),
            "d": mutate(discriminator(), rng),
            "g": rng.choice(kinds),
            "latent_avg": torch.ones([rng.choice((0, 1, 10)) for _ in range(rng.randint(0, 3))]),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        path.write_bytes(buffer.getvalue())
        try:
            count[allowed(path)] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
    tally("odd state dicts read", count[True])
    tally("odd state dicts refused", count[False])
