"""A generator as an `ImageSource`, with one seed per image."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from probe.accel.memory import in_batches
from probe.accel.replay import Replays
from probe.devices import fast_layout, full_float32, send
from probe.errors import CheckpointError, UsageError
from probe.files import digest_json
from probe.generators.base import Generator, to_uint8
from probe.generators.checkpoint import Checkpoint
from probe.generators.config import SampleOptions
from probe.generators.noise import VERSION
from probe.images.base import Batch, Header
from probe.images.resize import squares
from probe.streams import numpy_stream, stream_keys

SEEDS_PER_RUN = 1_000_000
BATCH = 32
BATCH_PIXELS = 2**22  # a layer's memory grows with the pixels and with its channels


def image_seed(seed: int, index: int) -> int:
    """Return the seed of image `index` in the run `seed`; different runs share no images."""
    return (seed * SEEDS_PER_RUN + index) % 2**32


def draw_images(
    generator: Generator,
    seeds: Sequence[int],
    classes: Sequence[int] | None = None,
    *,
    sample: SampleOptions,
    device: torch.device,
    name: str,
    replays: Replays | None = None,
) -> torch.Tensor:
    """Return the images of some seeds, each depending on its own seed alone.

    The latent of seed s is numpy's RandomState(s).randn(1, z_dim), as in the StyleGAN family's
    tools. If memory runs out, the batch is halved and drawing continues.

    Args:
        generator: on `device`.
        seeds: N of them.
        classes: one per seed for a conditional generator, else None.
        sample: truncation and noise.
        device: the device to compute on.
        name: of the generator, for messages.
        replays: recordings of earlier calls.

    Returns:
        uint8 (N, 3, R, R) on the CPU.

    Raises:
        CheckpointError: if pixels are NaN or infinite, or not even one image fits into memory.
    """
    side = generator.img_resolution
    batch = max(1, min(BATCH, BATCH_PIXELS // side**2))
    on_gpu = device.type == "cuda"
    drawn = torch.empty(len(seeds), 3, side, side, dtype=torch.uint8, pin_memory=on_gpu)
    finite = torch.empty(len(seeds), dtype=torch.bool, device=device)
    run: Any = _directly
    if replays is not None and getattr(generator, "replayable", False):
        run = replays

    def draw(part: slice) -> None:
        z = [np.random.RandomState(s).randn(1, generator.z_dim) for s in seeds[part]]
        c = None
        if classes is not None:
            c = send(F.one_hot(torch.tensor(classes[part]), generator.c_dim).float(), device)
        images, finite[part] = run(
            _pixels,
            generator,
            send(torch.from_numpy(np.concatenate(z)).float(), device),
            c,
            send(stream_keys(seeds[part], "noise"), device),
            psi=sample.trunc,
            noise=sample.noise,
        )
        drawn[part].copy_(images, non_blocking=on_gpu)

    try:
        in_batches(len(seeds), batch, draw)
    except MemoryError as error:
        raise CheckpointError(
            f"{name}: a single image of {side} px needs more memory than there is."
        ) from error
    if not finite.all():  # the only point that waits for the GPU, and so for the pixels
        bad = seeds[int((~finite).nonzero()[0])]
        raise CheckpointError(f"{name}: seed {bad} gives NaN or infinite pixels.")
    return drawn


def _directly(work: Callable[..., Any], *given: Any, **settings: Any) -> Any:
    return work(*given, **settings)


def _pixels(
    generator: Generator,
    z: torch.Tensor,
    c: torch.Tensor | None,
    keys: torch.Tensor,
    *,
    psi: float,
    noise: str,
) -> list[torch.Tensor]:
    """Return images, uint8 (N, 3, R, R), and which of them are finite, bool (N,)."""
    images = generator(z, c, truncation_psi=psi, noise_mode=noise, noise_keys=keys)
    return [to_uint8(images), images.isfinite().flatten(1).all(dim=1)]


def check_class(generator: Generator, class_index: int | None, name: str) -> None:
    """Check that a generator has a class.

    Raises:
        UsageError: if it does not, or is unconditional.
    """
    if class_index is None:
        return
    if not generator.c_dim:
        raise UsageError(f"--class: {name} is unconditional. Leave it out.")
    if not 0 <= class_index < generator.c_dim:
        raise UsageError(
            f"--class: {name} has classes 0 to {generator.c_dim - 1}, not {class_index}."
        )


class GeneratorSource:
    """Samples of a generator, each a pure function of (checkpoint, image seed, options).

    The seed in a caption reproduces the image with `probe generate --seeds` and the StyleGAN tools.

    Args:
        checkpoint: the generator.
        name: what the user typed.
        count: number of images in the source.
        seed: of the run.
        sample: truncation, noise, and one class for all images.
        labels: classes of the reals, from which a conditional generator's classes are drawn
            otherwise.
        device: the device to compute on.

    Raises:
        UsageError: if a conditional generator gets neither labels nor a class, a class does not
            exist, or an unconditional generator gets one.
    """

    notes: Sequence[str] = ()

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        name: str,
        count: int,
        seed: int = 0,
        sample: SampleOptions | None = None,
        labels: Sequence[int] | None = None,
        device: torch.device | None = None,
    ) -> None:
        sample = sample or SampleOptions()
        self.checkpoint, self.name, self.count = checkpoint, name, count
        self.seed, self.sample, self._replays = seed, sample, Replays()
        self.device = device or torch.device("cpu")
        self._half = getattr(checkpoint.generator, "half_precision", False)
        self._generator = checkpoint.generator.to(self.device).to(
            memory_format=fast_layout(self.device, "fp16" if self._half else "fp32")
        )
        self.labels = self._draw_labels(labels, sample.class_index)

    def _precision(self) -> dict[str, str]:
        """Return the precision that images are drawn in, unless it is float32 alone."""
        return {"precision": "fp16"} if self._half else {}

    def _draw_labels(
        self, labels: Sequence[int] | None, class_index: int | None
    ) -> Sequence[int] | None:
        classes = self._generator.c_dim
        check_class(self._generator, class_index, self.name)
        if not classes:
            return None
        if class_index is not None:
            return [class_index] * self.count
        if labels is None or len(labels) == 0:
            raise UsageError(
                f"{self.name} is conditional with {classes} classes: name one with --class, or "
                "add a dataset.json with labels to the real images."
            )
        for label in labels:
            if not isinstance(label, int | np.integer) or not 0 <= label < classes:
                raise UsageError(
                    f"dataset.json has class {label}; {self.name} has 0 to {classes - 1}."
                )
        drawn = numpy_stream(self.seed, "labels").choice(np.asarray(labels), size=self.count)
        return drawn.tolist()

    def __len__(self) -> int:
        """Return how many images there are."""
        return self.count

    @property
    def classes(self) -> int | None:
        """The generator's number of classes, None if it is unconditional."""
        return self._generator.c_dim or None

    @property
    def resolution(self) -> int:
        """The generator's resolution."""
        return self._generator.img_resolution

    def identity(self) -> dict[str, Any]:
        """Return the kind, path, file digest and how images are drawn."""
        return {
            "kind": "generator",
            "path": self.name,
            "sha256": self.checkpoint.digest,
            "architecture": self.checkpoint.architecture,
            "seed": self.seed,
            "truncation": self.sample.trunc,
            "noise": self.sample.noise,
            **self._precision(),
        }

    def keys(self, indices: Sequence[int]) -> list[str]:
        """Return the digest of everything that determines each image."""
        noise = self.sample.noise
        return [
            digest_json(
                {
                    "generator": self.checkpoint.digest,
                    "seed": image_seed(self.seed, i),
                    "truncation": self.sample.trunc,
                    "noise": [noise, VERSION] if noise == "random" else noise,
                    "class": None if self.labels is None else self.labels[i],
                    "device": self.device.type,
                    **self._precision(),
                }
            )
            for i in indices
        ]

    def marks(self, indices: Sequence[int]) -> list[str]:
        """Return the keys, for which nothing is drawn."""
        return self.keys(indices)

    def captions(self, indices: Sequence[int]) -> list[str]:
        """Return "seed 17", plus the class if there are classes."""
        suffix = ["" if self.labels is None else f" class {self.labels[i]}" for i in indices]
        return [f"seed {image_seed(self.seed, i)}{s}" for i, s in zip(indices, suffix, strict=True)]

    def headers(self, indices: Sequence[int]) -> list[Header | None]:
        """Return a header without a format, because these images were never encoded."""
        side = self.resolution
        mode = "L" if self._generator.img_channels == 1 else "RGB"
        return [Header(None, (side, side), mode) for _ in indices]

    @full_float32()
    @torch.inference_mode()
    def load(self, indices: Sequence[int], resolution: int) -> Batch:
        """Generate uint8 (N, 3, resolution, resolution).

        Raises:
            CheckpointError: if pixels are NaN or infinite, or memory runs out.
        """
        images = draw_images(
            self._generator,
            [image_seed(self.seed, i) for i in indices],
            None if self.labels is None else [self.labels[i] for i in indices],
            sample=self.sample,
            device=self.device,
            name=self.name,
            replays=self._replays,
        )
        return Batch(squares(images, resolution), list(indices), {})
