"""What is known of images without reading them."""

import os
import zipfile

import numpy as np
import pytest
from inputs import write_images

from probe.images.files import MARKED
from probe.images.jpeg import JpegMatched
from probe.images.open import open_files, open_images
from probe.images.subset import Subset
from probe.images.tensors import TensorSource


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "images", 4, seed=0, size=16)


def marks(place):
    source = open_images(place)
    return source.marks(range(len(source)))


def test_a_files_mark_changes_with_its_name_size_or_date(folder, monkeypatch):
    monkeypatch.setattr("probe.images.folder.read_file", lambda path: pytest.fail("was read"))
    before = marks(folder)
    assert len(set(before)) == 4 and marks(folder) == before
    (folder / "000.png").write_bytes((folder / "000.png").read_bytes() + b"x")
    status = (folder / "001.png").stat()
    os.utime(folder / "001.png", ns=(status.st_atime_ns, status.st_mtime_ns - 10**9))
    (folder / "002.png").rename(folder / "002-b.png")
    assert [a == b for a, b in zip(before, marks(folder), strict=True)] == [0, 0, 0, 1]


def test_a_file_that_is_gone_has_a_mark_of_its_own(folder):
    source = open_images(folder)
    before = source.marks([0, 1])
    (folder / "001.png").unlink()
    assert source.marks([0, 1]) == [before[0], "001.png:unreadable"]
    files = open_files(sorted(folder.iterdir()))
    assert files.marks([0])[0].endswith(before[0].removeprefix("000.png"))


def test_a_members_mark_is_its_checksum(folder, tmp_path):
    found = []
    for date in (2001, 2002):
        path = tmp_path / f"{date}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.iterdir()):
                archive.writestr(zipfile.ZipInfo(file.name, (date, 1, 1, 0, 0, 0)),
                                 file.read_bytes())  # fmt: skip
        found.append(marks(path))
    assert found[0] == found[1] and len(set(found[0])) == 4


def test_many_marks_keep_their_order(folder):
    source = open_images(folder)
    few = source.marks(range(4))
    assert source.marks([i % 4 for i in range(3 * MARKED + 1)]) == [
        few[i % 4] for i in range(3 * MARKED + 1)
    ]


def test_other_sources_pass_marks_on(folder):
    source = open_images(folder)
    whole = source.marks(range(4))
    assert Subset(source, [3, 1]).marks([1, 0]) == [whole[1], whole[3]]
    assert JpegMatched(source, 90).marks([0]) == [f"jpeg90:{whole[0]}"]
    pixels = TensorSource(np.zeros((2, 3, 8, 8), np.uint8))
    assert pixels.marks([0, 1]) == pixels.keys([0, 1])
