"""A run: what stays the same from its first step to its last."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from probe.bank.load import load_backbone
from probe.context import Context
from probe.discriminators.member import Member, vision_member
from probe.run_files import snapshot_file, snapshot_number
from probe.training.candidates import Candidates
from probe.training.own import head_options
from probe.training.presets import Plan
from probe.training.reals import Reals


@dataclass(frozen=True, kw_only=True)
class Run:
    """What stays the same from the first step to the last.

    Attributes:
        reals: the images.
        plan: the resolved options and the schedule.
        candidates: the bank.
        folder: the run directory.
        options: what its training_options.json says.
        metadata: plain values to keep in the snapshots.
        ctx: its precision is "fp32" or "bf16".
    """

    reals: Reals
    plan: Plan
    candidates: Candidates
    folder: Path
    options: dict[str, Any]
    metadata: dict[str, Any]
    ctx: Context

    def member(self, name: str, *, smooth: bool = False) -> Member:
        """Return a new discriminator on a backbone of the bank."""
        spec, ctx, config = self.candidates.spec(name), self.ctx, self.plan.config
        backbone = load_backbone(spec, offline=ctx.offline, bn_images=ctx.bn_images)
        return vision_member(
            head_options(config),
            backbone.to(ctx.device).to(memory_format=torch.channels_last),
            c_dim=self.reals.c_dim if config.head_cond else 0,
            smooth=smooth,
            device=ctx.device,
        )

    def number(self, images: int) -> str:
        """Return the number in the names of the snapshot's files at so many images."""
        return snapshot_number(images, self.plan.config.batch)

    def snapshot_path(self, images: int) -> Path:
        """Return where the generator at so many images is kept."""
        return self.folder / snapshot_file(self.number(images))

    def snapshot_at(self, images: int) -> Path:
        """Return where the generator at so many images lies, also if an earlier release wrote it.

        Those called all snapshots of one thousand images alike, and kept the last.
        """
        path = self.snapshot_path(images)
        earlier = self.folder / snapshot_file(f"{images // 1000:06d}")
        return path if path.exists() or not earlier.exists() else earlier
