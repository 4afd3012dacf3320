"""The inputs of a run's steps: the stream of reals and the session."""

import torch

from probe.devices import fast_layout
from probe.training.clock import Clock
from probe.training.run import RunInputs
from probe.training.step import Session
from probe.training.stream import RealStream


def open_stream(run: RunInputs) -> RealStream:
    """Return a run's training images as a stream."""
    config = run.plan.config
    return RealStream(
        run.reals, batch=config.batch, mirror=config.mirror, seed=config.seed,
        processes=run.ctx.processes, device=run.ctx.device,
        layout=fast_layout(run.ctx.device, run.ctx.precision),
    )  # fmt: skip


def open_session(run: RunInputs, clock: Clock) -> Session:
    """Return the session of a run: everything constant across its steps."""
    labels = run.reals.training.labels if run.reals.c_dim else None
    return Session(
        config=run.plan.config,
        ctx=run.ctx,
        clock=clock,
        labels=None if labels is None else torch.tensor(labels),
    )
