"""Colour profiles are named unless they are sRGB, and never applied."""

import io

import numpy as np
import pytest
from pictures import encode, icc_profile
from PIL import Image, ImageCms

from probe.images.audit import audit
from probe.images.decode import decode
from probe.images.header import read_header
from probe.images.open import open_images
from probe.images.profile import profile_name

SRGB = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
WIDE = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
ADOBE = icc_profile("Adobe RGB (1998)", WIDE)


def test_srgb_is_none_whatever_its_name():
    assert profile_name(None) is None
    assert profile_name(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()) is None
    assert profile_name(icc_profile("c2", SRGB)) is None


@pytest.mark.parametrize("version", [2, 4])
def test_others_have_a_name(version):
    assert profile_name(icc_profile("Adobe RGB (1998)", WIDE, version)) == "Adobe RGB (1998)"
    assert profile_name(icc_profile("Dot Gain 20%", (), version)) == "Dot Gain 20%"
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert profile_name(lab) == ImageCms.getProfileDescription(io.BytesIO(lab)).strip()


def test_damaged_profiles_have_some_name():
    rng = np.random.default_rng(0)
    assert profile_name(b"odd") == "an unnamed profile"
    for length in range(0, len(ADOBE), 7):
        assert profile_name(ADOBE[:length]) is None or length
    for _ in range(500):
        data = bytearray(ADOBE)
        for position in rng.integers(0, len(data), 3):
            data[position] = rng.integers(0, 256)
        name = profile_name(bytes(data))
        assert name is None or (len(name) <= 400 and name.isprintable())


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_a_profile_is_seen_and_not_applied(form):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    plain, tagged = encode(image, form), encode(image, form, icc_profile=ADOBE)
    assert read_header(plain).profile is None
    assert read_header(tagged).profile == "Adobe RGB (1998)"
    np.testing.assert_array_equal(np.asarray(decode(tagged)), np.asarray(decode(plain)))


def make_set(folder, count, profile):
    folder.mkdir()
    for i in range(count):
        image = Image.new("RGB", (16, 16), (i, i, i))
        options = {"icc_profile": profile} if profile else {}
        (folder / f"{i}.png").write_bytes(encode(image, **options))
    return open_images(folder)


def profiles(real, fake):
    found = audit(real, fake, range(len(real)), range(len(fake)))
    return [f.message for f in found if f.property == "colour profile"]


def test_the_audit_names_a_set_that_carries_profiles(tmp_path):
    tagged, more, plain = (
        make_set(tmp_path / name, 20, profile)
        for name, profile in (("a", ADOBE), ("b", ADOBE), ("c", None))
    )
    assert profiles(plain, plain) == []
    (telling,) = profiles(tagged, plain)
    assert telling.startswith("colour profile alone tells 100 % of the images apart (reals: Adobe")
    (both,) = profiles(tagged, more)
    assert both == (
        "20 of 20 reals (Adobe RGB (1998)) and 20 of 20 fakes (Adobe RGB (1998)) carry a colour "
        "profile, which is not applied. Its colours are treated as sRGB; convert both sets "
        "to sRGB beforehand."
    )
