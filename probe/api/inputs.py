"""Turn every kind of input a caller may pass into an image source."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch

from probe.context import Context
from probe.errors import ImagesError, UsageError
from probe.events import Note, OnEvent, ignore
from probe.features.fetched import fetch_reference
from probe.features.lent import ReferenceSource
from probe.features.pair import draw_orders
from probe.features.reference import SUFFIX, Reference, is_reference, load_reference
from probe.files import near_path
from probe.generators.callables import CallableSource, SampleFunction
from probe.generators.config import Drawing, SampleOptions
from probe.generators.open import open_fakes, what_runs
from probe.images.base import ImageSource
from probe.images.open import READERS, is_elsewhere, kind_of_set, open_files, open_images
from probe.images.places import is_pattern
from probe.images.remote import is_remote
from probe.images.tensors import TensorSource
from probe.registry import either

Images = Path | str | ImageSource | torch.Tensor | np.ndarray


def say_what_runs(gen: str, sample: SampleOptions, on_event: OnEvent) -> None:
    """Report that a generator is about to run code from outside this package, if it is."""
    if text := what_runs(gen, sample):
        on_event(Note(text))


def _is_source(given: object) -> TypeGuard[ImageSource]:
    return hasattr(given, "load")


def open_reals_given(images: Images, ctx: Context) -> ImageSource:
    """Return an image source for any kind of real images, or for a reference in their place."""
    if not isinstance(images, str | Path) or not _is_named_as_reference(str(images)):
        return open_given(images, "real", ctx.on_event)
    reference = open_reference(str(images), offline=ctx.offline, on_event=ctx.on_event)
    about = reference.about
    return ReferenceSource(reference, draw_orders(reference.keys, (), about.seed)["real"])


def open_reference(place: str, *, offline: bool, on_event: OnEvent) -> Reference:
    """Open a reference at a path or URL.

    Raises:
        ImagesError: there is none, or it is damaged.
    """
    if not is_remote(place):
        return load_reference(Path(place))
    return load_reference(fetch_reference(place, offline=offline, on_event=on_event), place)


def _is_named_as_reference(place: str) -> bool:
    """Return whether a path or URL has a reference's suffix; a web address may have a query."""
    path = place.partition("?")[0] if is_remote(place) else place
    return Path(path).suffix == SUFFIX and not is_pattern(place)


def holds_reference(place: str) -> bool:
    """Return whether a path is a reference, or a URL is named as one."""
    return _is_named_as_reference(place) and (is_remote(place) or is_reference(Path(place)))


def open_given(images: Images, name: str, on_event: OnEvent = ignore) -> ImageSource:
    """Return an image source for any kind of image input.

    Raises:
        UsageError: a reference was given.
    """
    if isinstance(images, str | Path):
        if holds_reference(str(images)):
            raise UsageError(
                f"{images}: a reference holds features for probe rank and probe metrics, and this "
                "needs the images themselves. Pass the folder or zip that it was made of."
            )
        return open_images(images, on_event=on_event)
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
        return open_fakes(str(gen), reals, drawing, on_event)
    if _is_source(gen) or not callable(gen):
        return open_given(gen, "gen", on_event)
    name = getattr(gen, "__name__", type(gen).__name__)
    return CallableSource(gen, name=name, count=drawing.count, seed=drawing.seed)


def open_files_given(
    images: Images | Sequence[Path | str], on_event: OnEvent = ignore
) -> ImageSource:
    """Open a set of images or image files; pass an open source through."""
    if isinstance(images, str | Path):
        images = [images]
    if not isinstance(images, Sequence):
        return open_given(images, "images", on_event)
    places = [str(path) for path in images]
    if len(places) == 1 and is_elsewhere(places[0]):
        return open_images(places[0], on_event=on_event)
    paths = [Path(place) for place in places]
    if missing := [path for path in paths if not path.exists()]:
        near = near_path(missing[0])
        raise ImagesError(f"{missing[0]}: no such file or folder.{near} Check the path.")
    whole = [path for path in paths if kind_of_set(str(path)) is not None]
    if len(paths) == 1 and whole:
        return open_images(paths[0], on_event=on_event)
    if whole or not paths:
        what = f"{whole[0]} is not an image file" if whole else "no images are given"
        raise UsageError(f"{what}: give one {either(READERS)}, or image files.")
    return open_files(paths)
