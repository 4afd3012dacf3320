"""Parquet files and LMDBs: columns, labels, damage."""

import numpy as np
import pytest
from packing import write_lmdb, write_parquet
from pictures import png

from probe.errors import ImagesError
from probe.images.open import open_images

FILES = {f"{i:03}.png": png((i, i, i)) for i in range(20)}


def test_parquet_files_are_one_set_with_labels(tmp_path):
    pytest.importorskip("pyarrow")
    names = list(FILES)
    for part in range(2):
        some = {n: FILES[n] for n in names[part * 10 : part * 10 + 10]}
        write_parquet(tmp_path / f"train-{part:05}-of-00002.parquet", some, [part] * 10, group=3)
    source = open_images(tmp_path)
    assert source.labels == [0] * 10 + [1] * 10
    assert source.captions([10]) == ["train-00001-of-00002.parquet/0"]
    assert source.load([19, 2, 11], 8).images[:, 0, 0, 0].tolist() == [19, 2, 11]
    braces = open_images(tmp_path / "train-{00000..00001}-of-00002.parquet")
    assert braces.keys(range(20)) == source.keys(range(20))


def test_columns_that_may_be_the_images(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def table(**columns):
        parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
        return open_images(tmp_path / "a.parquet")

    data = list(FILES.values())
    plain = table(id=list(range(20)), picture=data)
    assert plain.load([4], 8).images[0, 0, 0, 0] == 4 and plain.labels is None
    assert table(image=data, mask=data).load([4], 8).indices == [4]
    with pytest.raises(ImagesError, match="may be in left or right"):
        table(left=data, right=data)
    with pytest.raises(ImagesError, match="no column of encoded images among id, text"):
        table(id=[1], text=["a"])
    with pytest.raises(ImagesError, match="'label' for a.parquet/1 is not a class"):
        _ = table(image=data[:2], label=[0, -1]).labels
    holes = table(image=[data[0], None, b"nothing"])
    assert {b.reason for b in holes.load([0, 1, 2], 8).broken.values()} == {
        "row without an image's bytes", "not an image",
    }  # fmt: skip


def test_damaged_parquet_files_are_named(tmp_path):
    pytest.importorskip("pyarrow")
    path = write_parquet(tmp_path / "a.parquet", FILES)
    data = path.read_bytes()
    for damaged in (data[:-20], b"", b"PAR1" * 40):
        path.write_bytes(damaged)
        with pytest.raises(ImagesError, match="damaged Parquet file|no images found"):
            open_images(path)
    path.write_bytes(data[:30] + bytes(60) + data[90:])
    source = open_images(path)
    assert {b.reason.partition(" (")[0] for b in source.load(range(20), 8).broken.values()} <= {
        "damaged Parquet file", "not an image", "truncated or damaged header",
    }  # fmt: skip


def test_an_lmdb_is_read_by_key_and_needs_no_lock(tmp_path):
    pytest.importorskip("lmdb")
    place = write_lmdb(tmp_path / "set_lmdb", FILES)
    (tmp_path / "set_lmdb" / "lock.mdb").unlink()
    (tmp_path / "set_lmdb").chmod(0o555)
    source = open_images(place)
    assert source.captions([0, 19]) == ["000", "019"]
    assert source.load([7], 8).images[0, 0, 0, 0] == 7
    assert not (tmp_path / "set_lmdb" / "lock.mdb").exists()
    assert open_images(place).keys(range(20)) == source.keys(range(20))


def test_a_file_that_is_no_lmdb_is_named(tmp_path):
    pytest.importorskip("lmdb")
    for data in (b"", b"nothing" * 1000, np.random.default_rng(0).bytes(20_000)):
        (tmp_path / "data.mdb").write_bytes(data)
        with pytest.raises(ImagesError, match="not an LMDB, or a damaged one"):
            open_images(tmp_path)
