"""Resolve the path or name given as `--gen`."""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from probe.accel.replay import Replays
from probe.devices import fast_layout
from probe.errors import CheckpointError, UsageError
from probe.events import Note, OnEvent, ignore
from probe.generators.callables import (
    CallableSource,
    SampleFunction,
    call_function,
    import_function,
    is_function_name,
)
from probe.generators.config import Drawing, SampleOptions
from probe.generators.files.formats import format_of, load_generator
from probe.generators.files.programs import TITLES
from probe.generators.files.run_folder import (
    in_short,
    is_checkpoint,
    is_run_folder,
    refuse_checkpoints,
)
from probe.generators.files.torch_file import zip_kind
from probe.generators.half import choose_half, half_notes
from probe.generators.sampler import GeneratorSource, check_class, draw_images
from probe.images.archive import DAMAGED
from probe.images.base import ImageSource
from probe.images.open import is_elsewhere, kind_of_set, open_images
from probe.streams import numpy_stream

MAY_HOLD_CHECKPOINTS = ("folder", "zip")  # among the kinds of sets of images
Draw = Callable[[Sequence[int]], tuple[torch.Tensor, list[int] | None]]


def what_runs(gen: str, sample: SampleOptions) -> str | None:
    """Return a sentence saying whose code runs to draw images, None if it is ours."""
    if is_function_name(gen):
        return f"{gen.partition(':')[0]} is your own code; it is imported and run."
    if sample.run_code and zip_kind(Path(gen)) in TITLES:
        return f"{gen} is a program; it is run."
    return None


def open_fakes(
    gen: str, real: ImageSource, drawing: Drawing, on_event: OnEvent = ignore
) -> ImageSource:
    """Open `--gen`: finished images, a checkpoint, a program or a function.

    Args:
        gen: a path, braces that stand for paths, a URL, or `module:function`.
        real: the real images, whose labels are used to sample a conditional generator.
        drawing: what to draw from a generator.
        on_event: see `open_images`.

    Raises:
        ImagesError: if a set of images has none.
        CheckpointError: if it is not a readable generator, or a folder holding several things.
        UsageError: if sampling flags are combined with finished images or a function, or labels
            do not match a conditional generator's classes.
    """
    path, sample = Path(gen), drawing.sample
    if is_function_name(gen):
        _no_sampling(gen, "is a function of your own", sample)
        return CallableSource(
            import_function(gen), name=gen, count=drawing.count, seed=drawing.seed
        )
    if _is_set(gen) or _holds_images(path):
        _no_sampling(gen, "holds finished images", sample)
        return open_images(gen, on_event=on_event)
    checkpoint = load_generator(path, run_code=sample.run_code, z_dim=sample.z_dim)
    choose_half(checkpoint.generator.to(drawing.device), sample, drawing.device, drawing.precision)
    is_drawn = checkpoint.generator.c_dim > 0 and sample.class_index is None
    source = GeneratorSource(
        checkpoint,
        name=gen,
        count=drawing.count,
        seed=drawing.seed,
        sample=sample,
        labels=_labels(real, checkpoint.generator.c_dim, gen) if is_drawn else None,
        device=drawing.device,
    )
    source.notes = half_notes(checkpoint.generator, gen)
    return source


def open_by_seed(
    gen: str, *, sample: SampleOptions, device: torch.device, on_event: OnEvent = ignore
) -> Draw:
    """Open a generator to draw from by seed, so that each image depends only on its own seed.

    Args:
        gen: a path, or `module:function`.
        sample: truncation, noise and class; without a class each seed draws its own.
        device: the device that runs a checkpoint.
        on_event: called with a note if it runs in half precision.

    Returns:
        A function from seeds to uint8 (N, 3, R, R), and their classes if the generator has any.

    Raises:
        CheckpointError: if it is not a readable generator.
        UsageError: if a class does not exist, or sampling flags are combined with a function.
    """
    if is_function_name(gen):
        _no_sampling(gen, "is a function of your own", sample)
        return _call_each(import_function(gen), gen)
    checkpoint = load_generator(gen, run_code=sample.run_code, z_dim=sample.z_dim)
    generator = checkpoint.generator.to(device)
    check_class(generator, sample.class_index, gen)
    choose_half(generator, sample, device)
    notes = half_notes(generator, gen)
    for note in notes:
        on_event(Note(note))
    generator.to(memory_format=fast_layout(device, "fp16" if notes else "fp32"))
    replays = Replays()

    def classes_of(seeds: Sequence[int]) -> list[int] | None:
        if not generator.c_dim:
            return None
        if sample.class_index is not None:
            return [sample.class_index] * len(seeds)
        return [int(numpy_stream(s, "class").integers(generator.c_dim)) for s in seeds]

    @torch.inference_mode()
    def draw(seeds: Sequence[int]) -> tuple[torch.Tensor, list[int] | None]:
        classes = classes_of(seeds)
        images = draw_images(
            generator,
            seeds,
            classes,
            sample=sample,
            device=device,
            name=gen,
            replays=replays,
        )
        return images, classes

    return draw


def _call_each(function: SampleFunction, name: str) -> Draw:
    """Return a draw function that calls the user's function one seed at a time."""
    sides: set[int] = set()

    def draw(seeds: Sequence[int]) -> tuple[torch.Tensor, None]:
        images = [call_function(function, name, 1, seed) for seed in seeds]
        sides.update(image.shape[2] for image in images)
        if len(sides) > 1:
            raise UsageError(
                f"{name} returned images of {min(sides)} and of {max(sides)} px. Let all have one "
                "size."
            )
        return torch.cat(images), None

    return draw


def _no_sampling(gen: str, what: str, sample: SampleOptions) -> None:
    if sample != SampleOptions():
        raise UsageError(
            f"--gen: {gen} {what}; --trunc, --noise, --class, --run-code and --z-dim belong to a "
            "checkpoint. Leave them out."
        )


def _labels(real: ImageSource, classes: int, gen: str) -> Sequence[int] | None:
    """Return the real images' labels, checked against the generator's classes.

    Raises:
        ImagesError: if their dataset.json cannot be used.
        UsageError: if an image has a class that the generator lacks.
    """
    labels = real.labels
    if labels is None:
        return None
    for index, label in enumerate(labels):
        if label >= classes or real.classes not in (None, classes):
            theirs = f"class {label}" + (f" of {real.classes}" if real.classes else "")
            raise UsageError(
                f"{real.name}: {real.captions([index])[0]} is labelled {theirs}; {gen} has classes "
                f"0 to {classes - 1}. Correct dataset.json, or name a class with --class."
            )
    return labels


def _is_set(gen: str) -> bool:
    """Return whether a place holds images and cannot hold a checkpoint instead.

    Raises:
        CheckpointError: if it is a checkpoint at a URL.
    """
    if is_elsewhere(gen):
        if is_checkpoint(gen):
            raise CheckpointError(f"{gen}: checkpoints are read from this machine. Download it.")
        return True
    try:
        kind = kind_of_set(gen)
        if kind != "tar" or not Path(gen).is_file():
            return kind not in (None, *MAY_HOLD_CHECKPOINTS)
        format_of(Path(gen))  # as of model.pth.tar
        return False
    except CheckpointError:
        return True
    except OSError:  # the checkpoint reader reports it
        return False


def _holds_images(path: Path) -> bool:
    """Return whether a path is a folder or zip of images; torch files are zips too.

    Raises:
        CheckpointError: if it holds checkpoints; names them.
    """
    try:
        if not path.is_file():
            if not path.is_dir() or is_run_folder(path):
                return False
            refuse_checkpoints(
                path, "Name one of them, or give a folder with nothing but images in it"
            )
            return True
        if zip_kind(path):
            return False
        with path.open("rb") as file:
            if file.read(2) != b"PK":  # a pickle may have a zip appended
                raise zipfile.BadZipFile
        with zipfile.ZipFile(path) as archive:
            held = in_short("checkpoints", filter(is_checkpoint, archive.namelist()))
    except (*DAMAGED, OSError, ValueError):
        # Open a file named .zip as one, so that the user learns what is wrong with it. The
        # checkpoint reader reports problems with everything else.
        return path.suffix.lower() == ".zip"
    if held:
        raise CheckpointError(f"{path}: is a zip that holds {held}. Unpack it and name one.")
    return True
