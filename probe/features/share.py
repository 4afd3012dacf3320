"""Features of one set of images, or of one task's share of it, without a word to other tasks.

The images and their order are those of a ranking of the set as reals. Task i of N takes every N-th
of them from the i-th on, so shares are disjoint for any N, and each goes on to the images after the
wanted ones if some of its own are broken.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from probe.bank.layers import networks
from probe.bank.spec import BackboneSpec
from probe.context import Context
from probe.errors import BackboneAbsent
from probe.events import ExtractionStarted
from probe.features.config import ExtractOptions
from probe.features.extract import Extraction, Extractor
from probe.features.pair import draw_orders, remarks_on
from probe.features.space import open_spaces
from probe.features.store import FeatureSpace
from probe.images.base import Broken, ImageSource
from probe.images.decode import describe_broken


@dataclass(frozen=True, kw_only=True)
class Stored:
    """How many images of a share have features in one backbone.

    Attributes:
        name: the bank entry's name.
        status: "ok", "absent" (its weights are not on this machine), "unavailable" (weights or
            code cannot be used) or "failed" (it broke while running).
        reason: why it is not "ok".
        remedy: how to fix it.
        images: how many have features in the store.
        missing: how many have none.
    """

    name: str
    status: str = "ok"
    reason: str = ""
    remedy: str = ""
    images: int
    missing: int


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Which features of a share of the images are in the store.

    Attributes:
        images: number of images in the share.
        resolution: side in pixels to which they are brought.
        rows: one per backbone, in bank order.
        broken: the images that cannot be used; others take their place.
        notes: sentences the reader must see.
        asked: names of the backbones that were asked for by name.
    """

    images: int
    resolution: int
    rows: Sequence[Stored]
    broken: Sequence[Broken]
    notes: Sequence[str]
    asked: Sequence[str] = ()

    @property
    def exit_code(self) -> int:
        """0; 3 if features are missing in a backbone that was named or whose weights are here."""
        some = any(
            row.missing and (row.status != BackboneAbsent.status or row.name in self.asked)
            for row in self.rows
        )
        return 3 if some else 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)


class Share:
    """A task's share of a set of images.

    Args:
        source: the images.
        specs: the backbones whose features are wanted.
        options: see `ExtractOptions`.
        ctx: its precision is that of `options`.
    """

    def __init__(
        self,
        source: ImageSource,
        specs: Sequence[BackboneSpec],
        options: ExtractOptions,
        ctx: Context,
    ) -> None:
        number, tasks = options.share
        order = draw_orders(source, (), options.seed)["real"]
        self.source, self.specs, self.strict, self.ctx = source, specs, options.strict, ctx
        self.remarks: list[str] = []
        self.order = order[number::tasks]
        self.count = len(range(number, min(options.num, len(order)), tasks))
        self.resolution = options.resolution or source.resolution
        self.spaces, self.failures = open_spaces(specs, ctx, resolution=self.resolution)

    def extract(self) -> Coverage | None:
        """Compute and store the features that are missing; see `run`."""
        found = self.run()
        return None if found is None else self.coverage(found.keys, found.broken)

    def finish(self, found: Extraction) -> Coverage:
        """Return what is stored after an extraction of the whole share by others."""
        self.take(found)
        return self.coverage(found.keys, found.broken)

    def run(self) -> Extraction | None:
        """Compute and store the features that are missing.

        Returns:
            Which images were used and which are broken. None on every process but the first.

        Raises:
            BrokenImageError: an image is broken, under `strict`.
            CacheError: the store cannot be written.
        """
        if not self.spaces:
            return Extraction() if self.ctx.processes.is_first else None
        extractor = self.extractor()
        told = "given", self.count, self.count, tuple(self.spaces), extractor.speeds()
        self.ctx.on_event(ExtractionStarted(*told))
        extractor.share_out(self.source, self.order[: self.count])
        if not self.ctx.processes.is_first:
            return None
        found = extractor.extract(self.source, self.order, self.count, strict=self.strict)
        self.take(found)
        return found

    def extractor(self) -> Extractor:
        """Return what runs images through all backbones whose weights are here."""
        together = networks(spec for spec in self.specs if spec.name in self.spaces)
        return Extractor(self.spaces, together, self.ctx, resolution=self.resolution)

    def take(self, found: Extraction) -> None:
        """Note what an extraction of the whole share has found."""
        self.failures |= found.failures
        able = self.able()
        if able:
            self.count = len(found.keys)  # fewer than wanted if there are no more
        self.remarks = remarks_on({s.name: s for s in self.specs if s.name in able}, able)

    def able(self) -> dict[str, FeatureSpace]:
        """Return name → feature space of the backbones that have not failed."""
        return {name: s for name, s in self.spaces.items() if name not in self.failures}

    def count_missing(self) -> Coverage:
        """Count what is missing, without decoding an image; a broken one counts as missing."""
        return self.coverage(self.source.keys(self.order[: self.count]))

    def coverage(self, keys: Sequence[str], broken: Sequence[Broken] = ()) -> Coverage:
        """Return what is stored of images with content keys."""
        rows, notes = [], [*self.source.notes, *self.remarks]
        for spec in self.specs:
            space, failure = self.spaces.get(spec.name), self.failures.get(spec.name)
            stored = 0 if space is None else len(keys) - len(space.missing(keys))
            why = {} if failure is None else asdict(failure)
            rows.append(Stored(name=spec.name, **why, images=stored, missing=self.count - stored))
        return Coverage(
            images=self.count,
            resolution=self.resolution,
            rows=rows,
            broken=broken,
            notes=[*notes, *([describe_broken(broken)] if broken else [])],
        )


def join_coverage(found: Sequence[Coverage]) -> Coverage:
    """Return what is stored of one share in the backbones of several passes."""
    notes = dict.fromkeys(note for coverage in found for note in coverage.notes)
    rows = [row for coverage in found for row in coverage.rows]
    return replace(found[0], rows=rows, notes=list(notes))
