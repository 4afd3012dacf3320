"""Names of ICC profiles. Profiles are not applied, but the ones that matter are reported."""

import struct
from functools import lru_cache

from probe.errors import printable

LONGEST_NAME = 40
# sRGB's colorants in the profile's connection space (D50), by tag, and the tolerance for rounding.
# A profile with these colorants is sRGB under any name.
SRGB = {
    b"rXYZ": (0.4361, 0.2225, 0.0139),
    b"gXYZ": (0.3851, 0.7169, 0.0971),
    b"bXYZ": (0.1431, 0.0606, 0.7141),
}
NEAR = 0.005
UNNAMED = "an unnamed profile"


@lru_cache(maxsize=64)  # the images of a set share a few profiles
def profile_name(profile: bytes | None) -> str | None:
    """Return a colour profile's name; None if there is none, or if it is sRGB.

    Args:
        profile: the bytes of an ICC profile, as a file embeds them.
    """
    if not profile:
        return None
    try:
        tags = _tags(profile)
        if _is_srgb(tags):
            return None
        name = _text(tags[b"desc"])
    except (struct.error, KeyError, ValueError):
        return UNNAMED
    return printable(name, LONGEST_NAME) or UNNAMED


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """Return the profile's tagged elements. ICC.1:2010, section 7."""
    (count,) = struct.unpack_from(">I", profile, 128)
    table = struct.iter_unpack(">4sII", profile[132 : 132 + 12 * min(count, 100)])
    return {name: profile[start : start + size] for name, start, size in table}


def _is_srgb(tags: dict[bytes, bytes]) -> bool:
    if not SRGB.keys() <= tags.keys():
        return False
    found = {tag: struct.unpack_from(">3i", tags[tag], 8) for tag in SRGB}  # s15Fixed16
    return all(
        abs(value / 65536 - wanted) < NEAR
        for tag, colorant in SRGB.items()
        for value, wanted in zip(found[tag], colorant, strict=True)
    )


def _text(element: bytes) -> str:
    """Return the text of an element of type desc (version 2) or mluc (version 4)."""
    if element[:4] == b"mluc":
        size, start = struct.unpack_from(">II", element, 20)  # the first translation
        return element[start : start + size].decode("utf-16-be", "replace").strip("\0 ")
    (size,) = struct.unpack_from(">I", element, 8)
    return element[12 : 12 + size].decode("ascii", "replace").strip("\0 ")
