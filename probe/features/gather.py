"""Make a reference: every image through the backbones, then a sample and moments of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from probe.bank.spec import BackboneSpec
from probe.context import Context
from probe.errors import ImagesError
from probe.events import Note
from probe.features.config import LEAST_SAMPLE, ExtractOptions, ReferenceOptions
from probe.features.moments import stored_moments
from probe.features.pair import no_backbone, refuse_few
from probe.features.reference import About, Kept, pack, save_reference
from probe.features.share import Coverage, Share, join_coverage
from probe.features.store import FeatureSpace, digest_keys
from probe.images.base import ImageSource
from probe.options import MOST_IMAGES

Pass = tuple[Sequence[BackboneSpec], Context]


def gather_reference(
    source: ImageSource, passes: Sequence[Pass], options: ReferenceOptions, path: Path, probe: str
) -> Coverage | None:
    """Compute what is missing of all images' features, and write a reference of them.

    Args:
        source: the images.
        passes: backbones, each with the context that sets their precision.
        options: see `ReferenceOptions`.
        path: the file to write.
        probe: version of the program.

    Returns:
        What went into it. None on every process but the first.

    Raises:
        ImagesError: there are too few usable images, or they change in the meantime.
        BackboneUnavailable: no backbone can run here.
        ProbeError: the file cannot be written.
    """
    whole = ExtractOptions(
        num=min(len(source), MOST_IMAGES),
        seed=options.seed,
        resolution=options.resolution,
        strict=options.strict,
    )
    shares = [Share(source, specs, whole, ctx) for specs, ctx in passes]
    runs = [share.run() for share in shares]  # all of them in every process, since they wait
    done = [(share, run) for share, run in zip(shares, runs, strict=True) if run is not None]
    if not done:
        return None
    spaces = {name: space for share in shares for name, space in share.able().items()}
    if not spaces:
        no_backbone({name: why for share in shares for name, why in share.failures.items()})
    lists = [found.keys for share, found in done if share.able()]
    keys, indices = lists[0], next(found.indices for share, found in done if share.able())
    if any(other != keys for other in lists):
        raise ImagesError(
            f"{source.name} changed while it was read. Repeat the command when nothing writes "
            "there."
        )
    broken = next(found.broken for share, found in done if share.able())
    if len(keys) < LEAST_SAMPLE:
        refuse_few(source.name, len(keys), LEAST_SAMPLE, broken)
    sample = _Sample(source, keys, indices, min(options.num, len(keys)))
    about = About(
        probe=probe,
        source=source.name,
        images=len(keys),
        sample=sample.count,
        sample_digest=digest_keys(sample.keys[: sample.count]),
        seed=options.seed,
        resolution=shares[0].resolution,
        classes=source.classes,
        notes=list(source.notes),
        backbones={
            name: Kept(space=space.record, facts=space.facts(), images=len(keys))
            for name, space in spaces.items()
        },
    )
    tensors = sample.described()
    for name, space in spaces.items():
        shares[0].ctx.on_event(Note(f"{name}: mean and covariance of {len(keys)} images."))
        tensors |= sample.tensors(name, space)
    save_reference(path, about, tensors)
    return join_coverage([share.coverage(found.keys, broken) for share, found in done])


@dataclass(frozen=True)
class _Sample:
    """The images whose features are kept: the first `count` of all."""

    source: ImageSource
    keys: Sequence[str]
    indices: Sequence[int]
    count: int

    def described(self) -> dict[str, np.ndarray]:
        """Return the tensors that say which images they are."""
        kept = self.indices[: self.count]
        tensors = {
            "keys": pack(list(self.keys[: self.count])),
            "names": pack(self.source.captions(kept)),
        }
        if (labels := self.source.labels) is not None:
            tensors["labels"] = np.array([labels[i] for i in kept], dtype=np.int64)
        return tensors

    def tensors(self, name: str, space: FeatureSpace) -> dict[str, np.ndarray]:
        """Return the tensors of one backbone."""
        moments = stored_moments(space, self.keys)
        return {
            f"features.{name}": space.read(self.keys[: self.count]),
            f"mean.{name}": moments.mean,
            f"scatter.{name}": moments.scatter,
        }
