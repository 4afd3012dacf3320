"""How far a snapshot's samples are from the images, in features no run was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from probe.api.context import open_context
from probe.bank.file import load_bank
from probe.bank.layers import networks
from probe.bank.load import load_backbone
from probe.bank.spec import BackboneSpec
from probe.devices import choose_device, choose_precision
from probe.features.extract import Extractor, pooled_features
from probe.features.space import open_space
from probe.generators.files.formats import load_generator
from probe.generators.sampler import GeneratorSource
from probe.images.base import ImageSource
from probe.metrics.frechet import FrechetReference
from probe.metrics.kernel import kernel_distance
from probe.metrics.prdc import neighbourhoods

PART = 64
SPLIT_SEEDS = range(5)  # of the halves of reals whose distance is the floor
NEAR = 0.01  # quantile below which unseen images are rarely as near to a training image


@dataclass(frozen=True)
class Judge:
    """One evaluator and its features of all images of the study, (n, d).

    Attributes:
        name: the bank entry's.
        reals: features of the images, in the archive's order.
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

    def measure(self, fakes: np.ndarray, parts: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """Return distances to each part of the reals, and nearest-neighbour measures to "all".

        If "all" leaves the training images out, also how near samples are to those.

        Args:
            fakes: features (N, d).
            parts: name of a part → its images' indices; see `data.judged_parts`.
        """
        found: dict[str, Any] = {}
        for part, indices in parts.items():
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
        reals = self.reals[list(parts["all"])]
        count = min(len(reals), len(fakes))
        found["neighbours"] = asdict(neighbourhoods(reals[:count], fakes[:count]))
        training = parts.get("training", ())
        if len(training) and not set(training) & set(parts["all"]):
            found["memory"] = nearness(self.reals[list(training)], fakes=fakes, unseen=reals)
        return found

    def floor(self, indices: Sequence[int]) -> dict[str, float]:
        """Return the distance of one half of the reals to the other, and its neighbour measures.

        Means over several random halves: what a perfect generator would have at these numbers.
        """
        rows, reals = [], self.reals[list(indices)]
        for seed in SPLIT_SEEDS:
            order = np.random.default_rng(seed).permutation(len(reals))
            half = len(order) // 2
            one, other = reals[order[:half]], reals[order[half:]]
            rows.append(
                {
                    "frechet": FrechetReference(one).distance(other),
                    "kernel": kernel_distance(one, other, seed=0).value,
                    **asdict(neighbourhoods(one, other)),
                }
            )
        return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def nearness(training: np.ndarray, *, fakes: np.ndarray, unseen: np.ndarray) -> dict[str, float]:
    """Return how near samples are to the nearest training image, against unseen images.

    Args:
        training: features (N, d) of the training images.
        fakes: features of samples.
        unseen: features of images that were not trained on.

    Returns:
        fakes, unseen: the median distance to the nearest training image; near: the share of samples
        that are nearer than all but one in a hundred unseen images, 0.01 without memorisation.
    """
    of_fakes, of_unseen = (_nearest(rows, training) for rows in (fakes, unseen))
    return {
        "fakes": float(np.median(of_fakes)),
        "unseen": float(np.median(of_unseen)),
        "near": float((of_fakes < np.quantile(of_unseen, NEAR)).mean()),
    }


def _nearest(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return each row's distance to the nearest of the others, (len(rows),)."""
    return NearestNeighbors(n_neighbors=1).fit(others).kneighbors(rows)[0][:, 0]


def open_judge(bank: Path, name: str, source: ImageSource, *, resolution: int) -> Judge:
    """Load an evaluator and extract the images' features; they are cached by content."""
    device = choose_device("cpu")
    precision = choose_precision("auto", device)
    (spec,) = load_bank(bank).select([name])
    return Judge(
        name,
        _real_features(spec, source, device=device, precision=precision, resolution=resolution),
        load_backbone(spec, offline=True).to(device).to(memory_format=torch.channels_last),
        device,
        precision,
    )


def _real_features(
    spec: BackboneSpec,
    source: ImageSource,
    *,
    device: torch.device,
    precision: str,
    resolution: int,
) -> np.ndarray:
    with open_context(str(device), precision=precision, offline=True) as ctx:
        space = open_space(spec, ctx, resolution=resolution)
    extractor = Extractor(
        {spec.name: space},
        networks([spec]),
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
