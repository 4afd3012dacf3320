"""Contexts and training states for tests that call a room directly."""

from pathlib import Path

import torch

from probe.context import Context
from probe.features.store import FeatureStore
from probe.processes import Processes
from probe.training.clock import Clock
from probe.training.config import TrainConfig
from probe.training.state import TrainState, make_networks
from probe.training.step import Session

CPU = torch.device("cpu")


def context(
    cache: Path = Path("unused"),
    *,
    bn_images=None,
    device: torch.device = CPU,
    precision: str = "fp32",
    processes: Processes = Processes(),
) -> Context:
    """Return a context that never downloads."""
    return Context(
        store=FeatureStore(cache),
        device=device,
        precision=precision,
        offline=True,
        bn_images=bn_images,
        processes=processes,
    )


def new_state(
    config: TrainConfig, resolution: int = 16, *, device: torch.device = CPU
) -> TrainState:
    """Return a training state at its beginning."""
    return TrainState(config, make_networks(config, resolution), device, "digest")


def session(config: TrainConfig, **options) -> Session:
    """Return a session of steps; see `context` for the options."""
    ctx = context(**options)
    return Session(config=config, ctx=ctx, clock=Clock(ctx.device))
