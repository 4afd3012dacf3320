"""How far a snapshot's samples are from the bundled images, in features no run was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probe.api.context import open_context
from probe.bank.file import load_bank
from probe.bank.load import load_backbone
from probe.bank.spec import BackboneSpec
from probe.bundled import DEMO_REALS
from probe.devices import choose_device, choose_precision
from probe.features.extract import Extractor, pooled_features
from probe.features.space import open_space
from probe.generators.files.formats import load_generator
from probe.generators.sampler import GeneratorSource
from probe.images.open import open_images
from probe.metrics.frechet import FrechetReference
from probe.metrics.kernel import kernel_distance
from probe.metrics.prdc import neighbourhoods
from probe.training.reals import Reals, open_reals

PART = 64
SPLIT_SEEDS = range(5)  # of the halves of reals whose distance is the floor


def split_reals(*, resolution: int | None, holdout: int, seed: int) -> Reals:
    """Return the bundled images as a run with this hold-out and seed splits them."""
    return open_reals(
        open_images(DEMO_REALS), resolution=resolution, holdout=holdout, cond=False, seed=seed
    )


@dataclass(frozen=True)
class Judge:
    """One evaluator and the features of all bundled images, (1 000, d).

    Attributes:
        name: the bank entry's.
        reals: features of the bundled images, in the archive's order.
        backbone: the network.
        device, precision: what it runs on, and in.
    """

    name: str
    reals: np.ndarray
    backbone: Any
    device: torch.device
    precision: str

    def features(self, snapshot: Path, *, count: int, seed: int, resolution: int) -> np.ndarray:
        """Return features of a snapshot's samples, (count, d)."""
        source = GeneratorSource(
            load_generator(snapshot), name=snapshot.name, count=count, seed=seed, device=self.device
        )
        rows = []
        for start in range(0, count, PART):
            part = range(start, min(start + PART, count))
            images = source.load(part, resolution).images
            rows.append(
                pooled_features(self.backbone, images, device=self.device, precision=self.precision)
            )
        return np.concatenate(rows)

    def measure(self, fakes: np.ndarray, split: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """Return distances to each part of the reals, and nearest-neighbour measures to all.

        Args:
            fakes: features (N, d).
            split: name of a part → its images' indices.
        """
        found: dict[str, Any] = {}
        for part, indices in {"all": range(len(self.reals)), **split}.items():
            if len(indices) == 0:
                continue
            reals = self.reals[list(indices)]
            kernel = kernel_distance(reals, fakes, seed=0)
            found[part] = {
                "frechet": FrechetReference(reals).distance(fakes),
                "kernel": kernel.value,
                "kernel_low": _number(kernel.low),
                "kernel_high": _number(kernel.high),
            }
        # Equal numbers: the four depend on them.
        count = min(len(self.reals), len(fakes))
        found["neighbours"] = asdict(neighbourhoods(self.reals[:count], fakes[:count]))
        return found

    def floor(self) -> dict[str, float]:
        """Return the distance of one half of the reals to the other, and its neighbour measures.

        Means over several random halves: what a perfect generator would have at these numbers.
        """
        rows = []
        for seed in SPLIT_SEEDS:
            order = np.random.default_rng(seed).permutation(len(self.reals))
            half = len(order) // 2
            one, other = self.reals[order[:half]], self.reals[order[half:]]
            rows.append(
                {
                    "frechet": FrechetReference(one).distance(other),
                    "kernel": kernel_distance(one, other, seed=0).value,
                    **asdict(neighbourhoods(one, other)),
                }
            )
        return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def open_judge(bank: Path, name: str, *, resolution: int) -> Judge:
    """Load an evaluator and extract the bundled images' features; they are cached by content."""
    device = choose_device("cpu")
    precision = choose_precision("auto", device)
    (spec,) = load_bank(bank).select([name])
    return Judge(
        name,
        _real_features(spec, device=device, precision=precision, resolution=resolution),
        load_backbone(spec, offline=True).to(device).to(memory_format=torch.channels_last),
        device,
        precision,
    )


def _real_features(
    spec: BackboneSpec, *, device: torch.device, precision: str, resolution: int
) -> np.ndarray:
    source = open_images(DEMO_REALS)
    with open_context(str(device), precision=precision, offline=True) as ctx:
        space = open_space(spec, ctx, resolution=resolution)
    extractor = Extractor(
        {spec.name: space},
        lambda name: load_backbone(spec, offline=True),
        ctx,
        resolution=resolution,
    )
    order = list(range(len(source)))
    found = extractor.extract(source, order, len(order), strict=True)
    for failure in found.failures.values():
        raise RuntimeError(f"{spec.name}: {failure.reason}")
    return space.read(found.keys)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
