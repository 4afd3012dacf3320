"""Recordings of CUDA graphs, with a stand-in for the GPU that repeats PyTorch's operations."""

import pytest
import torch
from contexts import new_state, session
from inputs import tiny_generator
from torch.utils._python_dispatch import TorchDispatchMode

from probe.accel import replay
from probe.accel.replay import Replays
from probe.discriminators.step import Minibatch
from probe.generators.config import SampleOptions
from probe.generators.sampler import draw_images
from probe.training.config import TrainConfig
from probe.training.presets import make_plan
from probe.training.step import train_step

CPU = torch.device("cpu")


class Tape(TorchDispatchMode):
    """Records operations with their tensors; a replay runs them again on the same memory."""

    def __init__(self):
        super().__init__()
        self.calls, self.replayed = [], 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator in WAITS:
            raise RuntimeError("operation not permitted when stream is capturing")
        result = operator(*args, **(kwargs or {}))
        self.calls.append((operator, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    @torch.autocast("cpu", enabled=False)  # what was recorded is already cast
    def replay(self):
        self.replayed += 1
        for operator, args, kwargs, first in self.calls:
            again = operator(*args, **kwargs)
            firsts, agains = ((x,) if isinstance(x, torch.Tensor) else x for x in (first, again))
            for mine, new in zip(firsts or (), agains or (), strict=True):
                if isinstance(mine, torch.Tensor) and place(mine) != place(new):  # else a view
                    mine.copy_(new)


def place(tensor):
    return tensor.untyped_storage().data_ptr()


WAITS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}


@pytest.fixture
def tapes(monkeypatch):
    """Record on the CPU; returns all recordings."""
    made = []

    def new():
        made.append(Tape())
        return made[-1]

    monkeypatch.setattr(replay, "_on_gpu", lambda tensor: True)
    monkeypatch.setattr(replay, "_has_room", lambda gpu: True)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", new)
    monkeypatch.setattr(torch.cuda, "graph", lambda tape, **_: tape)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return made


def scaled(network, x, c=None, *, by=1.0):
    return network(x) * by if c is None else network(x) * c


def test_values_and_gradients_are_those_of_the_pass(tapes):
    torch.manual_seed(0)
    network, replays = torch.nn.Linear(4, 3), Replays()
    for _ in range(5):
        x = torch.randn(2, 4, requires_grad=True)
        found, expected = replays(scaled, network, x, by=2.0), scaled(network, x, by=2.0)
        assert torch.equal(found, expected)
        wanted = x, network.weight, network.bias
        ours, theirs = (torch.autograd.grad(y.square().sum(), wanted) for y in (found, expected))
        assert all(map(torch.equal, ours, theirs))
    forward, backward = tapes
    assert forward.replayed == backward.replayed == 4  # of five calls, and one comparison


def test_changed_weights_are_seen(tapes):
    network, replays, x = torch.nn.Linear(4, 3), Replays(), torch.randn(2, 4)
    with torch.no_grad():
        for _ in range(5):
            network.weight.mul_(1.5)
            assert torch.equal(replays(scaled, network, x), network(x))
    assert len(tapes) == 1  # nothing to derive


def test_other_shapes_settings_and_modes_have_recordings_of_their_own(tapes):
    network, replays = torch.nn.Linear(4, 4), Replays()
    for _ in range(4):
        for n in (2, 3):
            for by in (1.0, 3.0):
                x = torch.randn(n, 4)
                found = replays(scaled, network, x, by=by)
                assert found.shape == (n, 4) and found.requires_grad
                assert torch.equal(found, scaled(network, x, by=by))
        with torch.no_grad():
            assert not replays(scaled, network, x).requires_grad
        assert torch.equal(replays(scaled, network, x, x), network(x) * x)
    assert len(tapes) == 4 * 2 + 1 + 2


def test_what_waits_for_the_gpu_is_not_recorded(tapes):
    def waits(network, x):
        return network(x) * x.sum().item()

    network, replays = torch.nn.Linear(4, 3), Replays()
    for _ in range(5):
        x = torch.randn(2, 4)
        assert torch.equal(replays(waits, network, x), waits(network, x))
    assert len(tapes) == 1 and not tapes[0].replayed


def test_a_recording_that_is_wrong_is_not_used(tapes):
    values = iter(range(100))

    def counts(network, x):
        return network(x) + next(values)

    network, replays = torch.nn.Linear(4, 3), Replays()
    x = torch.zeros(2, 4)
    found = [replays(counts, network, x)[0, 0].item() for _ in range(6)]
    assert len(set(found)) == 6


def test_nothing_is_recorded_if_memory_is_short(tapes, monkeypatch):
    monkeypatch.setattr(replay, "_has_room", lambda gpu: False)
    network, replays = torch.nn.Linear(4, 3), Replays()
    for _ in range(5):
        x = torch.randn(2, 4)
        assert torch.equal(replays(scaled, network, x), network(x))
    assert not tapes


def test_nothing_is_recorded_without_acceleration(tapes, monkeypatch):
    monkeypatch.setenv("PROBE_ACCEL", "0")
    network, replays = torch.nn.Linear(4, 3), Replays()
    for _ in range(5):
        replays(scaled, network, torch.randn(2, 4))
    assert not tapes


@torch.inference_mode()
def test_images_are_the_same(tapes):
    options = {"sample": SampleOptions(trunc=0.7), "device": CPU, "name": "g"}
    generator = tiny_generator()
    exact = draw_images(generator, range(200), **options)
    assert not tapes
    found = draw_images(generator, range(200), **options, replays=Replays())
    assert torch.equal(found, exact)
    assert [tape.replayed for tape in tapes] == [5]  # of six batches of 32, and one comparison


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_is_the_same(tapes, monkeypatch, precision):
    made = TrainConfig(batch=4, channel_base=256, aug_p=0.3, pl_weight=2.0, pl_interval=2,
                       r1_interval=3, z_dim=16, w_dim=16)  # fmt: skip
    config = make_plan(made, resolution=16, images=100).config
    losses = []
    for recorded in (False, True):
        monkeypatch.setattr(replay, "_on_gpu", lambda tensor, recorded=recorded: recorded)
        state, chosen = new_state(config), session(config, precision=precision)
        torch.manual_seed(0)
        batches = [Minibatch(torch.rand(4, 3, 16, 16) * 2 - 1) for _ in range(7)]
        losses.append([train_step(state, reals, chosen) for reals in batches])
    for theirs, ours in zip(*losses, strict=True):
        assert theirs.keys() == ours.keys()
        for name in theirs:
            assert torch.equal(theirs[name], ours[name]), name
    assert len(tapes) >= 5 and all(tape.replayed >= 3 for tape in tapes)
