"""The audit finds what encoding gives away, and JPEG matching removes it."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from probe.errors import UsageError
from probe.images.audit import audit, jpeg_quality_for
from probe.images.base import Header
from probe.images.jpeg import JpegMatched
from probe.images.open import open_images


def make_set(folder, count=20, form="PNG", size=32, mode="RGB", seed=0, **options):
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)
        image.convert(mode).save(folder / f"{i}.{form.lower()}", format=form, **options)
    return open_images(folder)


def findings(real, fake):
    return {f.property: f for f in audit(real, fake, range(len(real)), range(len(fake)))}


def test_equal_sets_raise_no_finding(tmp_path):
    real, fake = make_set(tmp_path / "a"), make_set(tmp_path / "b", seed=1)
    assert findings(real, fake) == {}


def test_jpeg_against_png_is_found_and_named(tmp_path):
    real = make_set(tmp_path / "a", form="JPEG", quality=80)
    fake = make_set(tmp_path / "b")
    found = findings(real, fake)
    assert found["compression"].accuracy == 1.0
    assert "JPEG 100 %" in found["compression"].message
    assert "--match-jpeg" in found["compression"].message


def test_qualities_sizes_modes_and_exif_are_found(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "maker"
    real = make_set(tmp_path / "a", form="JPEG", quality=95, size=64, exif=exif)
    fake = make_set(tmp_path / "b", form="JPEG", quality=70, mode="L")
    found = findings(real, fake)
    assert found.keys() == {"JPEG tables", "size", "colour mode", "EXIF"}
    assert {f.accuracy for f in found.values()} == {1.0}
    assert found["size"].real == "64 px 100 %" and found["size"].fake == "32 px 100 %"
    assert found["JPEG tables"].real.startswith("quality 95 (")
    assert found["colour mode"].fake == "L 100 %"
    assert found["EXIF"].real == "EXIF 100 %" and found["EXIF"].message.endswith(".")


class Headers:
    """Stands in for a source of which nothing but its headers is asked."""

    def __init__(self, headers):
        self._headers = headers

    def headers(self, indices):
        return [self._headers[i] for i in indices]

    def __len__(self):
        return len(self._headers)


def sized(*sizes, form=None, mode="RGB"):
    return Headers([Header(form, size, mode) for size in sizes])


def test_a_generator_is_no_leak_against_lossless_files(tmp_path):
    native = sized(*[(32, 32)] * 20)
    for i, form in enumerate(("PNG", "BMP", "TIFF")):
        assert findings(make_set(tmp_path / f"{i}", form=form), native) == {}
    lossless = make_set(tmp_path / "webp", form="WEBP", lossless=True)
    assert findings(lossless, native) == {}
    for form in ("JPEG", "WEBP"):
        assert findings(make_set(tmp_path / form, form=form), native).keys() == {"compression"}


def test_a_palette_is_a_leak_though_gif_is_lossless(tmp_path):
    gif = make_set(tmp_path / "gif", form="GIF", mode="P")
    assert findings(gif, sized(*[(32, 32)] * 20)).keys() == {"colour mode"}


def test_native_size_against_resized_down_is_a_leak():
    found = findings(sized(*[(512, 512)] * 30), sized(*[(64, 64)] * 30))
    assert found.keys() == {"size"} and "--resolution" in found["size"].message


def test_cropping_is_a_leak():
    found = findings(sized(*[(96, 64)] * 30), sized(*[(64, 64)] * 30))
    assert found.keys() == {"shape"} and found["shape"].real == "wide 100 %"


def test_photographs_of_many_sizes_are_banded():
    sides = np.random.default_rng(0).permutation(np.arange(520, 1000)).tolist()
    one, two = sized(*[(s, s) for s in sides[::2]]), sized(*[(s, s) for s in sides[1::2]])
    assert findings(one, two) == {}
    few, others = sized(*[(s, s) for s in sides[:12]]), sized(*[(s, s) for s in sides[12:24]])
    assert findings(few, others) == {}  # no size occurs twice: judged by itself each would tell
    assert findings(one, sized(*[(64, 64)] * 30))["size"].accuracy == 1.0
    assert findings(one, sized(*[(s // 4, s // 4) for s in sides]))["size"].accuracy == 1.0


def test_random_halves_of_one_set_are_rarely_told_apart():
    rng = np.random.default_rng(0)
    pool = np.array([(64, 64), (64, 96), (128, 128), (200, 128), (512, 400)])
    alarms = 0
    for _ in range(200):
        n = int(rng.integers(4, 60))
        one, two = (sized(*map(tuple, pool[rng.integers(0, 5, n)].tolist())) for _ in range(2))
        alarms += bool(findings(one, two))
    assert alarms <= 6


def test_accuracy_weighs_both_classes_the_same():
    real = sized(*[(32, 32)] * 90, *[(64, 64)] * 10)
    fake = sized(*[(32, 32)] * 6, *[(64, 64)] * 14)
    assert findings(real, fake)["size"].accuracy == pytest.approx(0.8)


def test_too_few_or_broken_images_say_nothing(tmp_path):
    real = make_set(tmp_path / "a", form="JPEG", count=3)
    assert findings(real, sized(*[(64, 64)] * 3)) == {}
    (tmp_path / "broken").mkdir()
    for i in range(9):
        (tmp_path / "broken" / f"{i}.png").write_bytes(b"text")
    broken = open_images(tmp_path / "broken")
    assert findings(broken, sized(*[(64, 64)] * 9)) == {}


def test_most_telling_comes_first(tmp_path):
    mixed = [Header("JPEG", (32, 32), "RGB", has_exif=i < 10, lossy=True) for i in range(20)]
    found = audit(Headers(mixed), sized(*[(32, 32)] * 20), range(20), range(20))
    assert [f.property for f in found] == ["compression", "EXIF"]


def test_lossless_formats_are_one_class(tmp_path):
    real, fake = make_set(tmp_path / "a", form="BMP"), make_set(tmp_path / "b")
    assert "compression" not in findings(real, fake)


def test_matching_compresses_both_alike(tmp_path):
    real = make_set(tmp_path / "a", form="JPEG", quality=80)
    fake = make_set(tmp_path / "b")
    quality = jpeg_quality_for(real, fake, range(20), range(20))
    assert quality == 80
    matched = JpegMatched(fake, quality)
    before, after = fake.load([0, 1], 32), matched.load([0, 1], 32)
    expected = io.BytesIO()
    pixels = before.images[1].permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(expected, format="JPEG", quality=80, subsampling="4:2:0")
    np.testing.assert_array_equal(
        after.images[1].permute(1, 2, 0).numpy(), np.asarray(Image.open(expected))
    )
    assert not torch.equal(before.images, after.images)
    assert set(matched.keys([0, 1])).isdisjoint(fake.keys([0, 1]))
    assert set(matched.keys([0])).isdisjoint(JpegMatched(fake, 70).keys([0]))


def test_matching_keeps_everything_else(tmp_path):
    folder = tmp_path / "a"
    make_set(folder, count=5)
    (folder / "2.png").write_bytes(b"text")
    source = open_images(folder)
    matched = JpegMatched(source, 75)
    batch = matched.load([4, 2, 0], 16)
    assert batch.indices == [4, 0] and batch.images.shape == (2, 3, 16, 16)
    assert batch.images.is_contiguous() and batch.images.dtype == torch.uint8
    assert batch.broken[2].reason == "not an image"
    assert matched.load([2], 16).images.shape == (0, 3, 16, 16)
    assert (len(matched), matched.resolution, matched.name) == (5, 32, source.name)
    assert matched.captions([1]) == source.captions([1])
    assert matched.headers([0, 2]) == source.headers([0, 2])
    assert matched.identity() == {**source.identity(), "match_jpeg": 75}


@pytest.mark.parametrize("quality", [0, 101])
def test_a_quality_that_does_not_exist_is_refused(tmp_path, quality):
    with pytest.raises(UsageError, match="1 to 100"):
        JpegMatched(make_set(tmp_path / "a", count=1), quality)


def test_quality_is_the_lower_quartile_of_both_classes():
    def jpegs(*qualities):
        return Headers(
            [Header("JPEG", (8, 8), "RGB", "t", quality, lossy=True) for quality in qualities]
        )

    real, fake = jpegs(90, 95, 80), jpegs(70, 85)
    assert jpeg_quality_for(real, fake, range(3), range(2)) == 80
    assert jpeg_quality_for(real, sized((8, 8)), range(3), [0]) == 80


def test_default_quality_without_any_jpeg(tmp_path):
    real, fake = make_set(tmp_path / "a"), make_set(tmp_path / "b")
    assert jpeg_quality_for(real, fake, range(5), range(5)) == 90
