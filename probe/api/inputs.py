"""Turn every kind of input a caller may pass into an image source."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch

from probe.errors import ImagesError, UsageError
from probe.events import Note, OnEvent
from probe.features.lent import ReferenceSource
from probe.features.pair import draw_orders
from probe.features.reference import SUFFIX, is_reference, load_reference
from probe.files import near_path
from probe.generators.callables import CallableSource, SampleFunction
from probe.generators.config import Drawing, SampleOptions
from probe.generators.open import open_fakes, what_runs
from probe.images.base import ImageSource
from probe.images.open import READERS, is_elsewhere, kind_of_set, open_files, open_images
from probe.images.tensors import TensorSource
from probe.registry import either

Images = Path | str | ImageSource | torch.Tensor | np.ndarray


def say_what_runs(gen: str, sample: SampleOptions, on_event: OnEvent) -> None:
    """Report that a generator is about to run code from outside this package, if it is."""
    if text := what_runs(gen, sample):
        on_event(Note(text))


def _is_source(given: object) -> TypeGuard[ImageSource]:
    return hasattr(given, "load")


def open_reals_given(images: Images) -> ImageSource:
    """Return an image source for any kind of real images, or for a reference in their place."""
    if not isinstance(images, str | Path) or is_elsewhere(str(images)):
        return open_given(images, "real")
    if Path(images).suffix != SUFFIX:
        return open_given(images, "real")
    reference = load_reference(Path(images))
    about = reference.about
    return ReferenceSource(reference, draw_orders(reference.keys, (), about.seed)["real"])


def open_given(images: Images, name: str) -> ImageSource:
    """Return an image source for any kind of image input.

    Raises:
        UsageError: a reference was given.
    """
    if isinstance(images, str | Path):
        if not is_elsewhere(str(images)) and is_reference(Path(images)):
            raise UsageError(
                f"{images}: a reference holds features for probe rank and probe metrics, and this "
                "needs the images themselves. Pass the folder or zip that it was made of."
            )
        return open_images(images)
    if isinstance(images, torch.Tensor | np.ndarray):
        return TensorSource(images, name=name)
    return images


def open_fakes_given(
    gen: Images | SampleFunction,
    reals: ImageSource,
    drawing: Drawing,
    on_event: OnEvent,
) -> ImageSource:
    """Return an image source for any kind of generator or generated images."""
    if isinstance(gen, str | Path):
        say_what_runs(str(gen), drawing.sample, on_event)
        return open_fakes(str(gen), reals, drawing)
    if _is_source(gen) or not callable(gen):
        return open_given(gen, "gen")
    name = getattr(gen, "__name__", type(gen).__name__)
    return CallableSource(gen, name=name, count=drawing.count, seed=drawing.seed)


def open_files_given(images: Images | Sequence[Path | str]) -> ImageSource:
    """Open a set of images or image files; pass an open source through."""
    if isinstance(images, str | Path):
        images = [images]
    if not isinstance(images, Sequence):
        return open_given(images, "images")
    places = [str(path) for path in images]
    if len(places) == 1 and is_elsewhere(places[0]):
        return open_images(places[0])
    paths = [Path(place) for place in places]
    if missing := [path for path in paths if not path.exists()]:
        near = near_path(missing[0])
        raise ImagesError(f"{missing[0]}: no such file or folder.{near} Check the path.")
    whole = [path for path in paths if kind_of_set(str(path)) is not None]
    if len(paths) == 1 and whole:
        return open_images(paths[0])
    if whole or not paths:
        what = f"{whole[0]} is not an image file" if whole else "no images are given"
        raise UsageError(f"{what}: give one {either(READERS)}, or image files.")
    return open_files(paths)
