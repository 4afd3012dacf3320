"""Check a set of images for problems."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from probe.checks.findings import Finding, counted, some
from probe.errors import ImagesError
from probe.features.copies import ADVICE
from probe.features.looks import NEAR, SIDE, nearest_images, thumbnails
from probe.images.audit import audit
from probe.images.base import Header, ImageSource
from probe.images.decode import name_broken
from probe.probing.config import LEAST_IMAGES
from probe.streams import numpy_stream

HEADERS = 20_000  # headers read at most; larger sets are sampled
DECODED = 2_000  # images decoded at most
FEW = 100  # nobody has tried to train on fewer
FLAT = 2.0  # an image is blank if every channel's standard deviation, of 255, is below this
ODD_MODES = {"L": "grey", "LA": "grey with alpha", "RGBA": "with alpha", "P": "with a palette",
             "CMYK": "CMYK", "I;16": "16-bit grey", "I": "32-bit grey", "F": "float grey",
             "1": "black and white"}  # fmt: skip


def examine_images(
    source: ImageSource, *, resolution: int | None, seed: int = 0
) -> Iterator[Finding]:
    """Yield the findings about real images.

    Args:
        source: the images.
        resolution: side at which they will be used, or None if unknown.
        seed: of the sample, if there are too many images to check them all.
    """
    n = len(source)
    order = numpy_stream(seed, "doctor").permutation(n)[:HEADERS].tolist()
    read, decoded = sorted(order), sorted(order[:DECODED])
    partly = f" (of {len(read)} of {n} files)" if len(read) < n else ""
    headers = source.headers(read)
    names = dict(zip(read, source.captions(read), strict=True))
    yield _count(n)
    yield from _sizes(dict(zip(read, headers, strict=True)), names, resolution, partly)
    yield from _modes(headers, partly)
    yield from _profiles(headers, partly)
    for text in source.notes:
        yield Finding(topic="data", level="note", text=text)
    yield from _labels(source)
    pixels, kept, broken = thumbnails(source, decoded)
    odd = [i for i, h in zip(read, headers, strict=True) if h is None or names[i] in broken]
    damaged = list(source.load(odd, SIDE).broken.values())
    if damaged:
        share = f"{len(damaged)} of {len(read)} files cannot be read: {name_broken(damaged)}."
        level = "warning" if len(damaged) < 0.1 * len(read) else "problem"
        advice = "They are skipped; put sound 8-bit copies in their place."
        listed = tuple(sorted(b.name for b in damaged))
        yield Finding(topic="data", level=level, text=share, advice=advice, names=listed)
    else:
        looked = f"{len(kept)} images were decoded, all of them whole"
        yield Finding(topic="data", level="ok", text=f"{looked}{_of(kept, n)}.")
    yield from _duplicates(source.keys(read), list(names.values()), partly)
    if len(kept) >= 2:
        keys = source.keys(kept)
        yield from _alike(pixels, [names[i] for i in kept], keys, _of(kept, n))
        yield from _flat(pixels, [names[i] for i in kept])


def compare_images(real: ImageSource, fake: ImageSource, *, seed: int = 0) -> Iterator[Finding]:
    """Yield the findings about reals and generated images together: leaks and shortcuts."""
    orders = [
        sorted(numpy_stream(seed, "doctor").permutation(len(s))[:DECODED].tolist())
        for s in (real, fake)
    ]
    keys = [s.keys(o) for s, o in zip((real, fake), orders, strict=True)]
    called = [s.captions(o) for s, o in zip((real, fake), orders, strict=True)]
    known, made = (dict(zip(k, c, strict=True)) for k, c in zip(keys, called, strict=True))
    same = [f"{known[key]} = {made[key]}" for key in known if key in made]
    decoded = [thumbnails(s, o) for s, o in zip((real, fake), orders, strict=True)]
    pixels, kept = [d[0] for d in decoded], [d[1] for d in decoded]
    if same:
        yield Finding(
            topic="data", level="problem",
            text=f"{counted(same, 'file')} in both sets: {some(same)}.",
            advice="Remove them from one set: such images cannot be told apart by anything.",
            names=tuple(same),
        )  # fmt: skip
    partly = _of(orders[1], len(fake))
    yield from _duplicates(keys[1], called[1], partly, generated=True)
    names = [s.captions(k) for s, k in zip((real, fake), kept, strict=True)]
    if all(len(k) for k in kept):
        closest, distance = nearest_images(pixels[1], pixels[0])
        copies = [
            f"{names[1][i]} is {names[0][closest[i]]}"
            for i in np.flatnonzero(distance < NEAR).tolist()
        ]
        if len(copies) > len(same):
            yield Finding(
                topic="data", level="warning",
                text=f"{len(copies)} of {len(kept[1])} generated images are copies of real ones to "
                f"the eye: {some(copies)}.",
                advice="The generator repeats its training images, or the sets were mixed up.",
                names=tuple(copies),
            )  # fmt: skip
        elif not same:
            yield Finding(topic="data", level="ok", text="No image is in both sets.")
        yield from _alike(pixels[1], names[1], fake.keys(kept[1]), partly, generated=True)
    for found in audit(real, fake, *orders):
        yield Finding(topic="data", level="warning", text=found.message)


def _of(kept: Sequence[int], n: int) -> str:
    return f" (of {n})" if len(kept) < n else ""


def _count(n: int) -> Finding:
    if n < LEAST_IMAGES:
        text = f"{n} images are too few: a probe needs {LEAST_IMAGES}."
        return Finding(topic="data", level="problem", text=text, advice="Collect more.")
    if n < FEW:
        text = f"{n} images: scores will have wide intervals, and training will overfit."
        advice = f"{FEW} and more are what the method was tried with."
        return Finding(topic="data", level="warning", text=text, advice=advice)
    return Finding(topic="data", level="ok", text=f"{n} images.")


def _sizes(
    headers: dict[int, Header | None], names: dict[int, str], resolution: int | None, partly: str
) -> Iterator[Finding]:
    sizes = {i: h.size for i, h in headers.items() if h is not None}
    if not sizes:
        return
    counts = Counter(sizes.values())
    (w, h), most = counts.most_common(1)[0]
    if len(counts) == 1:
        yield Finding(topic="data", level="ok", text=f"All are {w}x{h} px{partly}.")
    else:
        sides = [min(size) for size in sizes.values()]
        yield Finding(
            topic="data", level="note",
            text=f"{len(counts)} sizes, short side from {min(sides)} to {max(sides)} px, most "
            f"often {w}x{h} ({most / len(sizes):.0%}){partly}.",
            advice="Each is cropped to its central square and resized once; for training name the "
            "side with --resolution.",
        )  # fmt: skip
    if resolution is not None:
        small = [names[i] for i, size in sizes.items() if min(size) < resolution]
        if small:
            yield Finding(
                topic="data", level="warning",
                text=f"{counted(small)} smaller than {resolution} px, to be enlarged: "
                f"{some(small)}.",
                advice="A probe sees enlarging; a generator learns it. Remove them, or use a "
                "smaller --resolution.",
                names=tuple(small),
            )  # fmt: skip
    long = [names[i] for i, (a, b) in sizes.items() if max(a, b) > 2 * min(a, b)]
    if long:
        yield Finding(
            topic="data", level="note",
            text=f"{counted(long)} more than twice as long as wide, so that most is cropped away: "
            f"{some(long)}.",
            advice="Crop them to what matters.", names=tuple(long),
        )  # fmt: skip


def _modes(headers: Sequence[Header | None], partly: str) -> Iterator[Finding]:
    modes = Counter(h.mode for h in headers if h is not None)
    odd = {mode: count for mode, count in modes.items() if mode != "RGB"}
    if odd:
        words = ", ".join(f"{c} {ODD_MODES.get(m, m)}" for m, c in sorted(odd.items()))
        mixed = len(modes) > 1
        yield Finding(
            topic="data", level="warning" if mixed else "note",
            text=f"Colour modes: {words}{', the others RGB' if 'RGB' in modes else ''}{partly}.",
            advice="All become RGB, alpha over white; a mixture is something a probe can see."
            if mixed else "All become RGB, alpha over white.",
        )  # fmt: skip


def _profiles(headers: Sequence[Header | None], partly: str) -> Iterator[Finding]:
    profiles = Counter(h.profile for h in headers if h is not None and h.profile is not None)
    if profiles:
        words = ", ".join(f"{count} {name}" for name, count in profiles.most_common(4))
        yield Finding(
            topic="data", level="note", text=f"Colour profiles other than sRGB: {words}{partly}.",
            advice="They are not applied; convert the images to sRGB for the colours that were "
            "meant.",
        )  # fmt: skip


def _labels(source: ImageSource) -> Iterator[Finding]:
    try:
        labels = source.labels
    except ImagesError as error:
        yield Finding(
            topic="data", level="note", text=str(error),
            advice="Only --cond and conditional generators need labels.",
        )  # fmt: skip
        return
    if labels is None:
        return
    counts = Counter(labels)
    least = min(counts.values())
    yield Finding(
        topic="data", level="warning" if least < LEAST_IMAGES else "note",
        text=f"{len(counts)} classes with {least} to {max(counts.values())} images each.",
        advice="--cond trains on them." if least >= LEAST_IMAGES
        else "With --cond the smallest classes will hardly be learnt.",
    )  # fmt: skip


def _duplicates(
    keys: Sequence[str], names: Sequence[str], partly: str, *, generated: bool = False
) -> Iterator[Finding]:
    groups = defaultdict(list)
    for key, name in zip(keys, names, strict=True):
        groups[key].append(name)
    twice = [group for group in groups.values() if len(group) > 1]
    if not twice:
        if generated:
            return
        yield Finding(topic="data", level="ok", text=f"No duplicate files{partly}.")
        return
    extra = sum(len(group) - 1 for group in twice)
    yield Finding(
        topic="data", level="warning",
        text=f"Copies of other {'generated images' if generated else 'files'}, byte by byte"
        f"{partly}: {extra}. {some([' = '.join(group[:3]) for group in twice])}.",
        advice=ADVICE[generated],
        names=tuple(name for group in twice for name in group[1:]),
    )  # fmt: skip


def _alike(
    pixels: np.ndarray,
    names: Sequence[str],
    keys: Sequence[str],
    partly: str,
    *,
    generated: bool = False,
) -> Iterator[Finding]:
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    once = sorted(first.values())  # byte-identical copies are reported separately
    pixels, names = pixels[once], [names[i] for i in once]
    if len(once) < 2:
        return
    closest, distance = nearest_images(pixels, None)
    pairs = {tuple(sorted((i, int(closest[i])))) for i in np.flatnonzero(distance < NEAR).tolist()}
    if not pairs:
        return
    found = [f"{names[i]} ~ {names[j]}" for i, j in sorted(pairs)]
    share = len({i for pair in pairs for i in pair}) / len(names)
    yield Finding(
        topic="data", level="warning" if share > 0.02 else "note",
        text=f"{share:.1%} of the {'generated ' if generated else ''}images look like another one, "
        f"mirrored ones included{partly}: {some(found)}.",
        advice="The generator repeats itself." if generated
        else "Frames of one film, other sizes or crops of one picture: keep one of each, or rank "
        "with --near-duplicates.",
        names=tuple(found),
    )  # fmt: skip


def _flat(pixels: np.ndarray, names: Sequence[str]) -> Iterator[Finding]:
    empty = [names[i] for i in np.flatnonzero(pixels.std(axis=(2, 3)).max(axis=1) < FLAT).tolist()]
    if empty:
        yield Finding(
            topic="data", level="warning",
            text=f"{counted(empty)} of a single colour: {some(empty)}.",
            advice="Remove them.", names=tuple(empty),
        )  # fmt: skip
