"""Ordinary 8-bit images: keys and pixels are what they have always been."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from probe.bundled import BN_IMAGES, DEMO_REALS
from probe.files import digest_bytes, digest_json
from probe.images.open import open_images
from probe.images.resize import to_square


@pytest.mark.parametrize(
    ("path", "keys", "pixels"),
    [
        (
            DEMO_REALS,
            "5454a09064a937a6",
            {64: "07de2fac662be499", 48: "254f826e34fd57b9", 20: "13e6eadad398343d"},
        ),
        (
            BN_IMAGES,
            "3b4cb00ddfbf83ff",
            {64: "34811fd36fde7e3b", 48: "4e3cb408040c2843", 20: "85711b67c86fa79e"},
        ),
    ],
)
def test_bundled_images_have_the_recorded_keys_and_pixels(path, keys, pixels):
    source = open_images(path)
    everything = range(len(source))
    assert digest_json(source.keys(everything))[:16] == keys
    for side, digest in pixels.items():
        images = source.load(everything, side).images
        assert digest_bytes(images.numpy().tobytes())[:16] == digest


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK"])
def test_pixels_are_those_of_pillow_and_keys_those_of_the_bytes(tmp_path, form, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (31, 44, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    try:
        Image.fromarray(pixels).convert(mode).save(buffer, form)
    except (OSError, ValueError):
        pytest.skip(f"no {form} of mode {mode}")
    data = buffer.getvalue()
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", data)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_bytes(data)
    expected = to_square(Image.open(io.BytesIO(data)).convert("RGB"), 16).transpose(2, 0, 1)
    for name in ("set", "set.zip"):
        source = open_images(tmp_path / name)
        assert source.keys([0]) == [digest_bytes(data)]
        np.testing.assert_array_equal(source.load([0], 16).images[0], expected)
        assert source.notes == [] and json.dumps(source.identity())
