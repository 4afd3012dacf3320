"""What a step copies between layouts and types, which on a GPU costs as much as arithmetic."""

from collections import Counter

import pytest
import torch
from contexts import new_state, session
from torch.utils._python_dispatch import TorchDispatchMode

from probe.discriminators.step import Minibatch
from probe.training.config import TrainConfig
from probe.training.presets import make_plan
from probe.training.step import train_step

BATCH, SIDE = 4, 32
COPIES = ("aten::_to_copy", "aten::clone", "aten::copy_")


def layouts(tensor):
    formats = (torch.contiguous_format, torch.channels_last)
    return {f for f in formats if tensor.is_contiguous(memory_format=f)}


class Copies(TorchDispatchMode):
    """Counts copies: all, those of maps (batch, C, H, W), and those that only change the layout."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        if operator._schema.name in COPIES:
            source = args[1] if operator._schema.name == "aten::copy_" else args[0]
            self.found["all"] += 1
            if source.ndim == 4 and source.shape[0] in (BATCH, 2 * BATCH):
                self.found["maps"] += 1
                self.found["layouts"] += not layouts(source) & layouts(result)
        return result


@pytest.fixture
def copies():
    """Return the copies of a step's kind, "plain", "path" or "r1"."""
    made = TrainConfig(batch=BATCH, channel_base=512, aug_p=0.3, pl_weight=2.0, pl_interval=2,
                       r1_interval=3, z_dim=16, w_dim=16)  # fmt: skip
    config = make_plan(made, resolution=SIDE, images=100).config
    state, chosen = new_state(config, SIDE), session(config, precision="bf16")
    images = (torch.rand(BATCH, 3, SIDE, SIDE) * 2 - 1).contiguous(
        memory_format=torch.channels_last
    )
    train_step(state, Minibatch(images), chosen)  # Adam begins

    def count(kind):
        state.images = BATCH * {"plain": 1, "path": 2, "r1": 3}[kind]
        with Copies() as seen:
            train_step(state, Minibatch(images), chosen)
        return seen.found

    return count


# What there is now, and a few more. Most are casts of weights to bf16, and of gradients back.
@pytest.mark.parametrize(
    ("kind", "most"),
    [
        ("plain", {"all": 420, "maps": 76, "layouts": 20}),
        ("path", {"all": 610, "maps": 76, "layouts": 20}),
        ("r1", {"all": 540, "maps": 95, "layouts": 32}),
    ],
)
def test_a_step_copies_no_more_than_it_must(copies, kind, most):
    found = copies(kind)
    assert all(found[name] <= bound for name, bound in most.items()), dict(found)
