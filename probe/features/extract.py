"""One pass of images through many backbones.

Images are processed in units that fit a memory budget. A unit is decoded (or generated) once and
run through every backbone that lacks its rows. Each backbone's rows are stored before the next
unit, so a killed run keeps what it finished.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from probe.accel.memory import give_back_freed_memory, in_batches
from probe.accel.private import multiply_adds
from probe.bank.base import Backbone
from probe.bank.fingerprint import fingerprint
from probe.bank.layers import AT, Network
from probe.bank.load import load_backbone
from probe.context import Context
from probe.devices import autocast, fast_layout, free_bytes, pin, send
from probe.errors import BackboneBroken, BackboneUnavailable, BrokenImageError, CacheError
from probe.events import BackboneFailed, BatchComputed, Event, FeaturesStored
from probe.features.steady import require_steady
from probe.features.store import FeatureSpace
from probe.images.base import Broken, ImageSource

FINGERPRINT = "fingerprint"  # among a backbone's measurements
UNIT_BYTES = 128 * 2**20  # of decoded pixels; two units are in memory at once
UNIT_MOST = 512
# On a CPU, small batches fit the caches and reuse memory across layers: 16 images at a time were up
# to 1.7 times as fast as 64. A GPU is fastest with as many as fit its memory.
CPU_BATCH, GPU_BATCH = 16, 256
GPU_BYTES = 2048  # per pixel of a backbone's input; VGG-16 in float32 needs 1 811 on an H100
POOL_BYTES = 1 * 2**30  # of loaded backbones kept between units, on a CPU
GPU_SHARE = 0.5  # of a GPU's free memory: for kept backbones, and for a batch next to a generator's


@dataclass(frozen=True)
class Failure:
    """Why a backbone has no features.

    Attributes:
        status: "absent" (its weights are not on this machine), "unavailable" (weights or code
            cannot be used) or "failed" (it broke while running).
        reason: a clause for the leaderboard.
        remedy: the command that helps, or "".
    """

    status: str
    reason: str
    remedy: str = ""


@dataclass
class Extraction:
    """The result of a pass.

    Attributes:
        indices: the first `count` usable images of the order.
        keys: their content keys.
        broken: the unusable images, each with its reason.
        failures: backbone name → why it has no features.
    """

    indices: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    failures: dict[str, Failure] = field(default_factory=dict)


@dataclass
class _Unit:
    indices: list[int]
    keys: list[str]
    images: torch.Tensor | None  # decoded, uint8 (M, 3, R, R)
    decoded: dict[int, int]  # position in the unit → row of `images`
    broken: dict[int, Broken]


class BackbonePool:
    """Loads backbones on demand and keeps them as long as their weights fit a budget."""

    def __init__(self, load: Callable[[str], Backbone], device: torch.device) -> None:
        self._load, self._device = load, device
        self._kept: dict[str, Backbone] = {}
        self._coming: tuple[str, Future[Backbone]] | None = None

    def get(self, name: str, precision: str = "bf16") -> Backbone:
        """Return the backbone on the device, in the layout for a precision."""
        if name not in self._kept:
            backbone = self._expected(name) or self._bring(name, precision)
            size = 4 * backbone.parameter_count
            most = POOL_BYTES
            if self._device.type == "cuda":
                most = int(GPU_SHARE * (free_bytes(self._device) + self._bytes()))
            while self._kept and size + self._bytes() > most:
                del self._kept[next(iter(self._kept))]
            self._kept[name] = backbone
        return self._kept[name]

    def expect(self, name: str, precision: str) -> None:
        """Begin to load a backbone that is wanted next, while a GPU runs the present one.

        On a CPU the present one needs all cores.
        """
        if self._device.type != "cuda" or name in self._kept or self._coming is not None:
            return
        with suppress(RuntimeError):  # no thread to be had: it is loaded when it is wanted
            background = ThreadPoolExecutor(1)
            self._coming = name, background.submit(self._bring, name, precision)
            background.shutdown(wait=False)

    def _expected(self, name: str) -> Backbone | None:
        """Return the backbone if it is the one that was expected."""
        if self._coming is None:
            return None
        (coming, loading), self._coming = self._coming, None
        if coming == name:
            return loading.result()
        wait([loading])  # one at a time: random weights take the process's random numbers
        return None

    def _bring(self, name: str, precision: str) -> Backbone:
        backbone = self._load(name).to(self._device)
        return backbone.to(memory_format=fast_layout(self._device, precision))

    def drop(self, name: str) -> None:
        """Forget a backbone."""
        self._kept.pop(name, None)

    def _bytes(self) -> int:
        return sum(4 * b.parameter_count for b in self._kept.values())


@torch.inference_mode()
def pooled_features(
    backbone: Backbone,
    images: torch.Tensor,
    *,
    device: torch.device,
    precision: str,
    batch: int | None = None,
    fill: bool = False,
    on_batch: Callable[[int], None] = lambda images: None,
) -> np.ndarray:
    """Run uint8 images (N, 3, R, R) through a backbone; returns float32 (N, d).

    Args:
        backbone: on the device.
        images: on the CPU or the device.
        device: where to compute.
        precision: "fp32", "tf32" or "bf16".
        batch: how many images at a time; by default the device's `usual_batch`. If memory runs out
            it is halved.
        fill: whether a last, smaller batch gets black images up to the size of the others: a GPU
            chooses and loads kernels anew for every size.
        on_batch: called with the number of images after each batch.

    Raises:
        MemoryError: if not even one image fits.
    """
    rows = []
    batch = batch or usual_batch(device, backbone.input.size)

    def run(part: slice) -> None:
        pixels = send(images[part], device)
        count, size = len(pixels), part.stop - part.start
        if fill and count < size:
            pixels = torch.cat([pixels, pixels.new_zeros(size - count, *pixels.shape[1:])])
        x = backbone.prepare(pixels.float() / 255)
        x = x.contiguous(memory_format=fast_layout(device, precision))
        with autocast(device, precision):
            rows.append(backbone.pool(x)[:count])
        on_batch(count)

    in_batches(len(images), batch, run)
    return torch.cat(rows).float().cpu().numpy()


def usual_batch(device: torch.device, side: int) -> int:
    """Return how many images of a side a device processes at once; on a GPU a power of two."""
    if device.type != "cuda":
        return CPU_BATCH
    fitting = min(GPU_BATCH, int(GPU_SHARE * free_bytes(device)) // (GPU_BYTES * side**2))
    return 2 ** max(0, fitting.bit_length() - 1)


def backbone_costs(backbone: Backbone, device: torch.device) -> dict[str, Any]:
    """Return a backbone's dim, parameters and multiply-adds per image."""
    size = backbone.input.size
    with torch.enable_grad():  # without gradients, fused calls would not be counted
        flops = multiply_adds(lambda: backbone.pool(torch.zeros(1, 3, size, size, device=device)))
    return {
        "dim": backbone.dim,
        "params": backbone.parameter_count,
        "flops": flops,
    }


class Extractor:
    """Ensures that images have features in several backbones.

    Args:
        spaces: backbone name → the feature space that stores its rows and sets its precision.
        networks: network → the backbones whose features it gives, see `probe.bank.layers`; those of
            one network have one precision.
        ctx: where to compute.
        resolution: common side of all images in pixels, before a backbone's own resize.

    Attributes:
        spaces: the same, without backbones that have failed.
    """

    def __init__(
        self,
        spaces: Mapping[str, FeatureSpace],
        networks: Mapping[str, Network],
        ctx: Context,
        *,
        resolution: int,
    ) -> None:
        self.spaces, self.networks = dict(spaces), dict(networks)
        self._costs = dict[str, dict[str, Any]]()
        self.pool = BackbonePool(self._load, ctx.device)
        self.ctx, self.resolution = ctx, resolution
        self._shared = False  # whether all processes extract at the same time

    def speeds(self) -> dict[str, float]:
        """Return backbone → images per second in earlier runs, of those that ran before."""
        facts = {name: space.facts() for name, space in self.spaces.items()}
        return {n: f["images_per_second"] for n, f in facts.items() if f.get("images_per_second")}

    def extract(
        self, source: ImageSource, order: Sequence[int], count: int, *, strict: bool = False
    ) -> Extraction:
        """Ensure that the first `count` usable images of an order have features everywhere.

        A backbone that fails is skipped from then on. `FeaturesStored` is sent once per backbone
        and unit.

        Args:
            source: the images.
            order: indices in order of use, without repeats.
            count: number of usable images wanted; fewer are used if there are no more.
            strict: raise for the first broken image instead of skipping it.

        Returns:
            Which images were used, which are broken, and which backbones failed.

        Raises:
            BrokenImageError: if an image is broken, under `strict`.
            CacheError: if the rows cannot be stored.
        """
        extraction = Extraction()
        for unit in self._units(source, order, extraction, count):
            # Decoding threads and running networks fragment the heap; without this, the waste would
            # grow with the number of images.
            if unit.images is not None:
                give_back_freed_memory()
            if strict and unit.broken:
                first = next(iter(unit.broken.values()))
                raise BrokenImageError(
                    f"{source.name}: {first.name}: {first.reason}. Move it away, or leave out "
                    "--strict."
                )
            names = [name for name in self.networks if self._able(name)]
            for i, name in enumerate(names):
                later = (other for other in names[i + 1 :] if self._todo(other, unit))
                self._store(name, unit, extraction, following=next(later, None))
            for index, key in zip(unit.indices, unit.keys, strict=True):
                if index not in unit.broken:
                    extraction.indices.append(index)
                    extraction.keys.append(key)
            extraction.broken.extend(unit.broken.values())
            if not self.spaces:
                break
        for name in self.networks:
            # Missing or damaged, although no row was missing.
            if any(not self.spaces[member].facts() for member in self._able(name)):
                with suppress(BackboneUnavailable):
                    backbone = self.pool.get(name, self._precision(name))
                    costs = self._costs.get(name) or backbone_costs(backbone, self.ctx.device)
                    self._write_facts(name, backbone, costs)
        return extraction

    def share_out(self, source: ImageSource, order: Sequence[int]) -> None:
        """Let every process extract its share of the images, and wait for all of them.

        Afterwards each process finds all rows in the shared store. Whatever a process could not do
        is skipped here; `extract` runs into the same problem and reports it.
        """
        processes = self.ctx.processes
        if processes.size == 1:
            return
        every, listening = dict(self.spaces), self.ctx

        def tell(event: Event) -> None:
            if isinstance(event, BatchComputed):  # all else is told when all rows are there
                listening.on_event(event)

        self.ctx, self._shared = replace(listening, on_event=tell), True
        mine = processes.share(order)
        self.extract(source, mine, len(mine))
        self.spaces, self.ctx, self._shared = every, listening, False
        processes.wait()
        for space in self.spaces.values():
            space.refresh()

    def _units(
        self, source: ImageSource, order: Sequence[int], extraction: Extraction, count: int
    ) -> Iterator[_Unit]:
        """Yield units until enough images were accepted, preparing the next one meanwhile."""
        size = max(1, min(UNIT_MOST, UNIT_BYTES // (3 * self.resolution**2)))

        def prepare(indices: list[int]) -> _Unit:
            keys = source.keys(indices)
            spaces = list(self.spaces.values())
            wanted = sorted({i for space in spaces for i in space.missing(keys)})
            if not wanted:
                return _Unit(indices, keys, None, {}, {})
            batch = source.load([indices[i] for i in wanted], self.resolution)
            row = {index: r for r, index in enumerate(batch.indices)}
            decoded = {i: row[indices[i]] for i in wanted if indices[i] in row}
            return _Unit(indices, keys, pin(batch.images, self.ctx.device), decoded, batch.broken)

        with ThreadPoolExecutor(1) as background:
            position = 0
            while len(extraction.indices) < count and position < len(order):
                # Stay one unit ahead of the accepted images; replace broken ones at the end.
                want = min(count - len(extraction.indices), len(order) - position)
                parts = [
                    list(order[position + s : position + min(s + size, want)])
                    for s in range(0, want, size)
                ]
                position += want
                ahead = background.submit(prepare, parts[0])
                for following in [*parts[1:], None]:
                    unit = ahead.result()
                    if following is not None:
                        ahead = background.submit(prepare, following)
                    yield unit

    def _able(self, network: str) -> list[str]:
        """Return the backbones of a network that have not failed: all or none."""
        return [name for name in self.networks[network].members if name in self.spaces]

    def _precision(self, network: str) -> str:
        return self.spaces[self._able(network)[0]].record["precision"]

    def _todo(self, network: str, unit: _Unit) -> list[int]:
        """Return the positions in a unit of the images that a backbone of a network lacks."""
        lacking = {i for name in self._able(network) for i in self.spaces[name].missing(unit.keys)}
        return sorted(lacking & unit.decoded.keys())

    def _load(self, network: str) -> Backbone:
        """Build a network on the CPU, and measure there what it costs.

        A GPU would choose and load kernels for a single image, which nothing else uses.
        """
        ctx, spec = self.ctx, self.networks[network].spec
        backbone = load_backbone(spec, offline=ctx.offline, bn_images=ctx.bn_images)
        if any(not self.spaces[name].facts() for name in self._able(network)):
            self._costs[network] = backbone_costs(backbone, torch.device("cpu"))
            if AT not in network and spec.weights.random is None:
                self._costs[network][FINGERPRINT] = fingerprint(backbone)
        return backbone

    def _parts(self, network: str, backbone: Backbone) -> dict[str, slice]:
        """Return backbone → its columns in the feature of its network."""
        names = self._able(network)
        if len(names) == 1:
            return {names[0]: slice(None)}
        ends = list(accumulate(channels for channels, _, _ in backbone.map_shapes))
        return {
            name: slice(start, end)
            for name, start, end in zip(names, [0, *ends], ends, strict=False)
        }

    def _write_facts(self, network: str, backbone: Backbone, facts: Mapping[str, Any]) -> None:
        """Store what a pass costs with each backbone that it gives."""
        for name, part in self._parts(network, backbone).items():
            dim = len(range(backbone.dim)[part])
            self.spaces[name].write_facts({**facts, "dim": dim})

    def _store(
        self, name: str, unit: _Unit, extraction: Extraction, *, following: str | None
    ) -> None:
        """Compute and store the rows of a unit that the backbones of a network lack.

        Args:
            name: of the network.
            unit: the images.
            extraction: is told of a failure.
            following: the network that is wanted next.
        """
        started, todo = time.monotonic(), self._todo(name, unit)
        if todo:
            assert unit.images is not None
            rows = [unit.decoded[i] for i in todo]
            images = unit.images if rows == list(range(len(unit.images))) else unit.images[rows]
            try:
                self._run(name, [unit.keys[i] for i in todo], images, following)
            except CacheError:  # affects every backbone
                raise
            except BackboneUnavailable as error:
                if len(self._able(name)) > 1:  # one layer may be wrong, and the others right
                    alone = self.networks.pop(name).apart()
                    self.networks |= alone
                    for layer in alone:
                        self._store(layer, unit, extraction, following=None)
                    return
                self._fail(name, Failure(error.status, error.reason, error.remedy), extraction)
                return
            except Exception as error:  # one broken backbone costs a row, not the run
                reason = f"{type(error).__name__}: {error}".split("\n")[0]
                self._fail(name, Failure("failed", reason), extraction)
                return
        for backbone in self._able(name):
            self.ctx.on_event(
                FeaturesStored(
                    backbone=backbone,
                    done=len(unit.indices) - len(unit.broken),
                    computed=len(todo),
                    seconds=time.monotonic() - started,
                )
            )

    def _fail(self, network: str, failure: Failure, extraction: Extraction) -> None:
        self.pool.drop(network)
        for name in self._able(network):
            extraction.failures[name] = failure
            del self.spaces[name]
            self.ctx.on_event(BackboneFailed(name, failure.reason))

    def _teller(self, name: str) -> Callable[[int], None]:
        """Return what sends `BatchComputed`; the processes are taken to be equally fast."""
        last, size = time.monotonic(), self.ctx.processes.size if self._shared else 1

        def tell(images: int) -> None:
            nonlocal last
            now = time.monotonic()
            self.ctx.on_event(BatchComputed(name, images * size, now - last))
            last = now

        return tell

    def _run(self, name: str, keys: list[str], images: torch.Tensor, following: str | None) -> None:
        """Compute and store the rows of a network's backbones for one unit."""
        names, device, precision = self._able(name), self.ctx.device, self._precision(name)
        backbone = self.pool.get(name, precision)
        if following is not None:
            self.pool.expect(following, self._precision(following))
        known = [facts for member in names if (facts := self.spaces[member].facts())]
        facts = (
            dict(known[0]) if known else self._costs.get(name) or backbone_costs(backbone, device)
        )

        def run(some: torch.Tensor, **told: Any) -> np.ndarray:
            fill = device.type == "cuda"
            return pooled_features(
                backbone, some, device=device, precision=precision, fill=fill, **told
            )

        started = time.monotonic()
        features = run(images, on_batch=self._teller(name))
        speed = len(images) / (time.monotonic() - started)
        if not np.isfinite(features).all():
            remedy = "run it with --precision fp32" if precision != "fp32" else ""
            raise BackboneBroken(f"its features are NaN or infinite in {precision}", remedy)
        if len(known) < len(names):  # these are the first rows to be stored
            require_steady(run, images, features, precision)
        for member, part in self._parts(name, backbone).items():
            if rows := self.spaces[member].missing(keys):
                self.spaces[member].write([keys[i] for i in rows], features[rows, part])
        # The first unit includes warm-up, so the fastest unit gives the machine's speed.
        facts["images_per_second"] = max(speed, facts.get("images_per_second", 0.0))
        self._write_facts(name, backbone, facts)
