"""A training run: everything that stays constant from the first step to the last."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from probe.bank.load import load_backbone, network_digest
from probe.bank.spec import BackboneSpec
from probe.context import Context
from probe.discriminators.member import Member, vision_member
from probe.run_files import snapshot_file, snapshot_number
from probe.training.candidates import Candidates
from probe.training.own import head_options
from probe.training.presets import Plan
from probe.training.reals import Reals


@dataclass(frozen=True, kw_only=True)
class RunInputs:
    """Everything constant over a run.

    Attributes:
        reals: the images.
        plan: the resolved options and the schedule.
        candidates: the bank.
        folder: the run directory.
        options: the content of its training_options.json.
        metadata: plain values to store in the snapshots.
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
        """Return a new discriminator on a backbone in the bank."""
        spec, ctx, config = self.candidates.spec(name), self.ctx, self.plan.config
        backbone = load_backbone(spec, offline=ctx.offline, bn_images=ctx.bn_images)
        return vision_member(
            head_options(config),
            backbone.to(ctx.device).to(memory_format=torch.channels_last),
            c_dim=self.reals.c_dim if config.head_cond else 0,
            smooth=smooth,
            device=ctx.device,
        )

    def digest(self, spec: BackboneSpec) -> str:
        """Return the digest of what decides an entry's features; see `network_digest`."""
        return network_digest(spec, offline=self.ctx.offline, bn_images=self.ctx.bn_images)

    def number(self, images: int) -> str:
        """Return the number used in the names of a snapshot's files after `images` images."""
        return snapshot_number(images, self.plan.config.batch)

    def snapshot_path(self, images: int) -> Path:
        """Return the path of the snapshot after `images` images."""
        return self.folder / snapshot_file(self.number(images))

    def snapshot_at(self, images: int) -> Path:
        """Return the path of an existing snapshot, also one from an earlier release.

        Earlier releases gave all snapshots within a thousand images one name and kept the last.
        """
        path = self.snapshot_path(images)
        earlier = self.folder / snapshot_file(f"{images // 1000:06d}")
        return path if path.exists() or not earlier.exists() else earlier
