"""A run: what stays the same from its first step to its last."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from probe.bank.load import load_backbone
from probe.bank.spec import BackboneSpec
from probe.runtime import World
from probe.snapshots import snapshot_number
from probe.training.ensemble import Member, vision_member
from probe.training.evaluation import Candidates
from probe.training.presets import Plan
from probe.training.reals import Reals

OPTIONS_FILE, PROGRESS_FILE = "training_options.json", "progress.json"
Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What stays the same from the first step to the last.

    Attributes:
        reals: the images.
        plan: the resolved options and the schedule.
        candidates: the bank.
        folder: the run directory.
        options: what its training_options.json says.
        device: where to compute.
        precision: "fp32" or "bf16".
        world: the processes.
        metadata: plain values to keep in the snapshots.
        report: is given one record per step, tick, evaluation and selection.
    """

    reals: Reals
    plan: Plan
    candidates: Candidates
    folder: Path
    options: dict[str, Any]
    device: torch.device
    precision: str
    world: World
    metadata: dict[str, Any]
    report: Report

    def spec(self, name: str) -> BackboneSpec:
        """Return a backbone's bank entry."""
        return next(spec for spec in self.candidates.specs if spec.name == name)

    def member(self, name: str, *, smooth: bool = False) -> Member:
        """Return a new discriminator on a backbone of the bank."""
        backbone = load_backbone(
            self.spec(name),
            offline=self.candidates.offline,
            calibration=self.candidates.calibration,
        ).to(self.device, memory_format=torch.channels_last)
        config = self.plan.config
        c_dim = self.reals.c_dim if config.head_cond else 0
        return vision_member(config, backbone, c_dim=c_dim, smooth=smooth, device=self.device)

    def number(self, images: int) -> str:
        """Return the number in the names of the snapshot's files at so many images."""
        assert self.plan.config.batch is not None
        return snapshot_number(images, self.plan.config.batch)

    def snapshot_path(self, images: int) -> Path:
        """Return where the generator at so many images is kept."""
        return self.folder / f"network-snapshot-{self.number(images)}.safetensors"

    def snapshot_at(self, images: int) -> Path:
        """Return where the generator at so many images lies, also if an earlier release wrote it.

        Those called all snapshots of one thousand images alike, and kept the last.
        """
        path = self.snapshot_path(images)
        earlier = self.folder / f"network-snapshot-{images // 1000:06d}.safetensors"
        return path if path.exists() or not earlier.exists() else earlier
