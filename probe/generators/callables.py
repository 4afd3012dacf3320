"""A user's own function as an `ImageSource`: `(n, seed) → uint8 (n, 3, H, W)`.

This allows a diffusion pipeline, an API, or anything else. On the command line it is given as
`module:function`, which runs the user's code.
"""

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probe.devices import full_float32
from probe.errors import UsageError
from probe.files import digest_bytes
from probe.generators.sampler import image_seed
from probe.images.base import Batch, Header
from probe.images.resize import squares

SampleFunction = Callable[[int, int], Any]
BATCH = 32
KEPT_BYTES = 2**28  # of drawn images: the current unit and the one being prepared
NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_function_name(name: str) -> bool:
    """Return whether a name has the form `module:function` and is not a file's name."""
    return NAMED.fullmatch(name) is not None and not Path(name).exists()


@contextmanager
def _working_directory_first() -> Iterator[None]:
    """Find modules in the user's working directory, like `python -m`."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path.remove("")


def import_function(name: str) -> SampleFunction:
    """Import `module:function`, which runs the module.

    Raises:
        UsageError: if there is no such module or function, or the module exits. Any other error
            passes through: it is the user's own code, and the traceback points to it.
    """
    module_name, _, path = name.partition(":")
    if module_name.endswith(".py"):
        raise UsageError(f"--gen: write {module_name.removesuffix('.py')}:{path}, without '.py'.")
    try:
        with _working_directory_first():
            found: Any = importlib.import_module(module_name)
    except SystemExit as error:
        raise UsageError(
            f"--gen: module '{module_name}' ends the program when it is imported. Put what it runs "
            "as a script under if __name__ == '__main__'."
        ) from error
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a module that the user's module imports
        raise UsageError(
            f"--gen: there is no module '{module_name}' here. Name a file, or module:function with "
            "the module in this folder or installed."
        ) from error
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise UsageError(f"--gen: {module_name} has no function '{path}'.")
    return found


def call_function(function: SampleFunction, name: str, n: int, seed: int) -> torch.Tensor:
    """Return the function's images.

    Returns:
        uint8 (n, 3, R, R), cropped to their central squares.

    Raises:
        UsageError: if it returns anything but uint8 (n, 3, H, W). Errors that the function raises
            pass through.
    """
    with full_float32():
        images = function(n, seed)
    is_array = isinstance(images, np.ndarray | torch.Tensor)
    if (
        not is_array
        or images.dtype not in (np.uint8, torch.uint8)
        or images.shape[:2] != (n, 3)
        or images.ndim != 4
        or 0 in images.shape
    ):
        given = f"{images.dtype} {tuple(images.shape)}" if is_array else type(images).__name__
        raise UsageError(f"{name}({n}, {seed}) returned {given}; uint8 ({n}, 3, H, W) is expected.")
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.ascontiguousarray(images))
    images = images.detach().cpu()
    return squares(images, min(images.shape[2:]))


class CallableSource:
    """Images from a function, drawn in batches: batch b uses the seed of the run's image b.

    Images are identified by their content, since nothing else is known about the function: if it
    draws the same images again, their features are reused.

    Args:
        function: `(n, seed) → uint8 (n, 3, H, W)`, an array or a tensor; deterministic in its
            arguments.
        name: for messages.
        count: number of images in the source.
        seed: of the run.
    """

    labels: Sequence[int] | None = None
    classes: int | None = None
    notes: Sequence[str] = ()

    def __init__(self, function: SampleFunction, *, name: str, count: int, seed: int = 0) -> None:
        self.function, self.name, self.count, self.seed = function, name, count, seed
        self._kept: dict[int, torch.Tensor] = {}
        self._digests: dict[int, list[str]] = {}

    def __len__(self) -> int:
        """Return how many images there are."""
        return self.count

    @property
    def resolution(self) -> int:
        """The first image's resolution."""
        return self._batch(0).shape[2]

    def identity(self) -> dict[str, Any]:
        """Return the kind, the name and how images are drawn."""
        return {"kind": "function", "path": self.name, "seed": self.seed, "batch": BATCH}

    def keys(self, indices: Sequence[int]) -> list[str]:
        """Return the digest of each image's pixels; this draws the images."""
        return [self._drawn(i // BATCH)[i % BATCH] for i in indices]

    def marks(self, indices: Sequence[int]) -> list[str]:
        """Return the keys, because nothing but its images is known of the function."""
        return self.keys(indices)

    def captions(self, indices: Sequence[int]) -> list[str]:
        """Return "seed 17, image 3": the batch's seed and the image's position in it."""
        return [f"seed {image_seed(self.seed, i // BATCH)}, image {i % BATCH}" for i in indices]

    def headers(self, indices: Sequence[int]) -> list[Header | None]:
        """Return a header without a format, because these images were never encoded."""
        return [Header(None, (self.resolution, self.resolution), "RGB") for _ in indices]

    def load(self, indices: Sequence[int], resolution: int) -> Batch:
        """Return uint8 (N, 3, resolution, resolution).

        Raises:
            UsageError: if the function returns no images, or different ones than before.
        """
        images = torch.empty(len(indices), 3, resolution, resolution, dtype=torch.uint8)
        for row, index in enumerate(indices):
            image = self._batch(index // BATCH)[index % BATCH]
            images[row] = squares(image[None], resolution)[0]
        return Batch(images, list(indices), {})

    def _drawn(self, batch: int) -> list[str]:
        if batch not in self._digests:
            self._batch(batch)
        return self._digests[batch]

    def _batch(self, batch: int) -> torch.Tensor:
        """Return a batch of images, drawing it again if it was dropped."""
        if batch in self._kept:
            return self._kept[batch]
        n = min(BATCH, self.count - batch * BATCH)
        seed = image_seed(self.seed, batch)
        images = call_function(self.function, self.name, n, seed)
        side = images.shape[2]
        digests = [f"pixels:{side}:{digest_bytes(i.numpy().tobytes())}" for i in images]
        if self._digests.setdefault(batch, digests) != digests:
            raise UsageError(
                f"{self.name}({n}, {seed}) returned other images than before. Let the seed decide "
                "everything that is drawn."
            )
        while self._kept and sum(kept.nbytes for kept in self._kept.values()) > KEPT_BYTES:
            del self._kept[next(iter(self._kept))]
        self._kept[batch] = images
        return images
