"""What the encoding alone reveals, before any backbone runs.

A detector can win by telling JPEG from PNG. Each property below is tried as a classifier on its
own; if one separates the classes, the leaderboard reports it.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from probe.images.base import Header, ImageSource

TELLING = 0.6  # balanced accuracy that earns a warning; less hardly affects a probe's score
DEVIATIONS = 2.5  # above chance, required as well: a few images may differ by accident
LEAST = 4  # images per class; fewer prove nothing
COMMON = 0.05  # share of a class above which a value counts by itself, not by its band
DEFAULT_QUALITY = 90
NO_PROFILE = "sRGB or none"


@dataclass(frozen=True)
class Shortcut:
    """One property that separates reals from fakes without regard to their content.

    Attributes:
        property: "compression", "JPEG tables", "size", "shape", "colour mode", "colour profile" or
            "EXIF".
        real: a summary of the reals ("JPEG 98 %, lossless 2 %").
        fake: a summary of the fakes.
        accuracy: balanced accuracy of the best rule on this property alone, 0.5–1.
        message: a sentence for the leaderboard.
    """

    property: str
    real: str
    fake: str
    accuracy: float
    message: str


@dataclass(frozen=True)
class Property:
    """A property that can be read from a header.

    Attributes:
        name: for the report.
        value: header → its value, None if the property does not apply to the file.
        band: header → a coarser value that replaces rare ones, so that photographs of a thousand
            sizes can still be compared.
        advice: what to do about a finding.
    """

    name: str
    value: Callable[[Header], str | None]
    band: Callable[[Header], str]
    advice: str


def _compression(h: Header) -> str:
    # PNG, BMP or no encoding (a generator's images): these leave no trace in the pixels.
    return str(h.format) if h.lossy else "lossless"


def _tables(h: Header) -> str | None:
    # Skip files without tables: "compression" already reports that they are not JPEG.
    if h.jpeg_tables is None:
        return None
    return f"quality {h.jpeg_quality} (tables {h.jpeg_tables[:4]})"


def _quality_band(h: Header) -> str:
    ten = (h.jpeg_quality or 0) // 10 * 10
    return f"quality {ten} to {ten + 9}"


def _side_band(h: Header) -> str:
    low = 2 ** (min(h.size).bit_length() - 1)
    return f"{low} to {2 * low - 1} px"


def _shape(h: Header) -> str:
    width, height = h.size
    return "square" if width == height else "wide" if width > height else "tall"


def _mode(h: Header) -> str:
    return "RGB" if h.mode in ("RGB", "YCbCr") else h.mode


def _profile(h: Header) -> str:
    return h.profile or NO_PROFILE


def _exif(h: Header) -> str:
    return "EXIF" if h.has_exif else "no EXIF"


PROFILES = Property(
    "colour profile",
    _profile,
    _profile,
    "Its colours are treated as sRGB; convert both sets to sRGB beforehand.",
)
SAME_JPEG = "--match-jpeg gives both the same treatment."
PROPERTIES: tuple[Property, ...] = (
    Property("compression", _compression, _compression, SAME_JPEG),
    Property("JPEG tables", _tables, _quality_band, SAME_JPEG),
    Property(
        "size",
        lambda h: f"{min(h.size)} px",
        _side_band,
        "Short sides that differ are resampled differently, and a probe sees that; a --resolution "
        "below both resamples both.",
    ),
    Property(
        "shape",
        _shape,
        _shape,
        "Only the middle square of an image is used, so one class is cropped more than the other; "
        "crop both alike beforehand.",
    ),
    Property(
        "colour mode",
        _mode,
        _mode,
        "Grey (L), palette (P) and transparent (RGBA) images are easy to tell; convert both alike.",
    ),
    PROFILES,
    Property(
        "EXIF",
        _exif,
        _exif,
        "No backbone sees it, but it hints at different origins.",
    ),
)


def audit(
    real: ImageSource,
    fake: ImageSource,
    real_indices: Sequence[int],
    fake_indices: Sequence[int],
) -> list[Shortcut]:
    """Return the encoding properties that separate reals from fakes, most telling first.

    Colour profiles are reported even if they tell nothing, because the colours are then wrong.

    Args:
        real: the real images.
        fake: the generated ones; a generator's were never encoded, which counts as lossless.
        real_indices: the reals to examine; broken ones are skipped.
        fake_indices: the fakes to examine.
    """
    reals = [h for h in real.headers(real_indices) if h is not None]
    fakes = [h for h in fake.headers(fake_indices) if h is not None]
    findings = []
    for known in PROPERTIES:
        r, f = _values(known, reals, fakes)
        if min(len(r), len(f)) < LEAST:
            continue
        accuracy = _accuracy(Counter(r), Counter(f))
        chance = 0.25 * math.sqrt(1 / len(r) + 1 / len(f))  # standard deviation of a random guess
        if accuracy > max(TELLING, 0.5 + DEVIATIONS * chance):
            message = (
                f"{known.name} alone tells {100 * accuracy:.0f} % of the images apart (reals: "
                f"{_summary(r)}; fakes: {_summary(f)}). {known.advice}"
            )
            findings.append(Shortcut(known.name, _summary(r), _summary(f), accuracy, message))
        elif known is PROFILES and (named := _carriers({"reals": r, "fakes": f})):
            message = f"{named} carry a colour profile, which is not applied. {known.advice}"
            findings.append(Shortcut(known.name, _summary(r), _summary(f), accuracy, message))
    return sorted(findings, key=lambda finding: -finding.accuracy)


def _values(
    known: Property, reals: Sequence[Header], fakes: Sequence[Header]
) -> tuple[list[str], list[str]]:
    """Return the property's values in both classes, with rare ones replaced by their band."""
    classes = [[h for h in c if known.value(h) is not None] for c in (reals, fakes)]
    common = {
        value
        for headers in classes
        for value, n in Counter(map(known.value, headers)).items()
        if n >= COMMON * len(headers)
    }
    r, f = (
        [v if (v := known.value(h)) is not None and v in common else known.band(h) for h in headers]
        for headers in classes
    )
    return r, f


def _carriers(profiles: Mapping[str, Sequence[str]]) -> str:
    """Return text naming the sets that have images with profiles other than sRGB; "" for none.

    Args:
        profiles: "reals" and "fakes" → the profile names of their images.
    """
    named = []
    for name, values in profiles.items():
        others = Counter(value for value in values if value != NO_PROFILE)
        if others:
            called = ", ".join(profile for profile, _ in others.most_common(2))
            named.append(f"{others.total()} of {len(values)} {name} ({called})")
    return " and ".join(named)


def _accuracy(real: Counter[str], fake: Counter[str]) -> float:
    """Return the balanced accuracy of the rule "the class in which this value is more common".

    Each image is judged by the others (leave one out); otherwise a property with many values would
    separate any two small sets. Ties count half. Never below 0.5.
    """

    def right(own: Counter[str], other: Counter[str]) -> float:
        n, m = own.total(), other.total()
        wins = 0.0
        for value, count in own.items():
            # Compare (count - 1) / (n - 1) with other / m, in integers so that ties are exact.
            margin = (count - 1) * m - other[value] * (n - 1)
            wins += count * (0.5 if margin == 0 else float(margin > 0))
        return wins / n

    return max(0.5, (right(real, fake) + right(fake, real)) / 2)


def _summary(values: Sequence[str]) -> str:
    common = Counter(values).most_common(2)
    shown = ", ".join(f"{value} {100 * n / len(values):.0f} %" for value, n in common)
    return shown + (", …" if len(set(values)) > 2 else "")


def jpeg_quality_for(
    real: ImageSource,
    fake: ImageSource,
    real_indices: Sequence[int],
    fake_indices: Sequence[int],
) -> int:
    """Return the IJG quality, 1–100, at which to compress both classes alike.

    This is the lower quartile of the qualities of all JPEG files, low enough to cover most earlier
    compression; 90 if there are none.
    """
    headers = [*real.headers(real_indices), *fake.headers(fake_indices)]
    found = [h.jpeg_quality for h in headers if h is not None and h.jpeg_quality is not None]
    return int(np.quantile(found, 0.25, method="lower")) if found else DEFAULT_QUALITY
