"""Memory is bounded over all threads: who must wait waits, what is too large is skipped by name."""

import threading
import time

import numpy as np
import pytest
from pictures import encode, flat_png
from PIL import Image

from probe.errors import BrokenImageError
from probe.images import decode as decode_module
from probe.images import limits
from probe.images.decode import decode, decode_square
from probe.images.folder import read_file
from probe.images.limits import Budget, map_threads
from probe.images.open import open_images

SMOOTH = Image.fromarray(
    np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
).resize((480, 320), Image.Resampling.BICUBIC)


class Watched(Budget):
    """Knows how much was in use at a time."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.peak, self.taken = 0, []

    def take(self, count):
        self.taken.append(count)
        return super().take(count)

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name == "_free":
            self.peak = max(getattr(self, "peak", 0), self.most - value)


def test_threads_share_a_budget_and_all_get_their_turn():
    budget, done = Watched(100), []

    def work(count):
        with budget.take(count):
            time.sleep(0.001)
        done.append(count)

    counts = [100, 1, 60, 50, 40, 30, 0, 99, *[7] * 40]
    threads = [threading.Thread(target=work, args=[count]) for count in counts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(done) == sorted(counts)
    assert 50 < budget.peak <= 100


def test_what_was_taken_is_free_again_after_an_error():
    budget = Budget(10)
    with pytest.raises(KeyError), budget.take(10):
        raise KeyError
    with budget.take(10):
        pass
    with pytest.raises(ValueError, match="11 bytes of 10"), budget.take(11):
        pass


def test_decoding_is_bounded_over_all_threads(tmp_path, monkeypatch):
    for i in range(24):
        (tmp_path / f"{i:02}.png").write_bytes(encode(SMOOTH))
    each = 8 * 480 * 320
    budget = Watched(3 * each)
    monkeypatch.setattr(decode_module, "DECODED", budget)
    monkeypatch.setattr(limits, "THREADS", 8)
    batch = open_images(tmp_path).load(range(24), 16)
    assert len(batch.indices) == 24
    assert set(budget.taken) == {each} and each < budget.peak <= 3 * each


def test_files_in_memory_are_bounded_over_all_threads(tmp_path, monkeypatch):
    data = encode(SMOOTH)
    for i in range(24):
        (tmp_path / f"{i:02}.png").write_bytes(data)
    (tmp_path / "99.png").write_bytes(data + bytes(4 * len(data)))
    budget = Watched(4 * len(data))
    monkeypatch.setattr("probe.images.folder.ENCODED", budget)
    monkeypatch.setattr(limits, "THREADS", 8)
    batch = open_images(tmp_path).load(range(25), 16)
    assert len(batch.indices) == 24
    assert batch.broken[24].reason == "larger than 0 MiB"
    assert len(data) < budget.peak <= 4 * len(data)


def test_a_file_that_grows_is_read_as_far_as_it_was(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"x" * 100)
    with path.open("ab") as file, read_file(path) as data:
        assert data == b"x" * 100
        file.write(b"y" * 100)


def test_an_image_above_the_bound_is_named_with_what_to_do(monkeypatch):
    monkeypatch.setattr(decode_module, "DECODED", Budget(2**20))
    with pytest.raises(BrokenImageError) as caught:
        decode_square(flat_png(600, 400), 16)
    assert str(caught.value) == (
        "600 x 400 pixels would take 0.0 GiB to decode, 0.000976562 GiB is allowed; save it smaller"
    )


@pytest.mark.parametrize(("share", "size"), [(1, (480, 320)), (3, (240, 160)), (30, (60, 40))])
def test_a_jpeg_above_the_bound_is_decoded_smaller(monkeypatch, share, size):
    data = encode(SMOOTH, "JPEG", quality=95)
    whole = np.asarray(decode(data).resize((48, 32), Image.Resampling.BOX), int)
    monkeypatch.setattr(decode_module, "DECODED", Budget(8 * 480 * 320 // share))
    found = decode(data)
    assert found.size == size
    small = np.asarray(found.resize((48, 32), Image.Resampling.BOX), int)
    assert np.abs(small - whole).mean() < 4
    assert decode_square(data, 16).shape == (16, 16, 3)
    with pytest.raises(BrokenImageError, match="480 x 320 pixels would take"):
        monkeypatch.setattr(decode_module, "DECODED", Budget(1000))
        decode(data)


def test_a_progressive_jpeg_costs_what_is_kept_of_it(monkeypatch):
    data = encode(SMOOTH, "JPEG", quality=95, progressive=True)
    monkeypatch.setattr(decode_module, "DECODED", Budget(6 * 480 * 320 + 8 * 240 * 160))
    assert decode(data).size == (240, 160)
    monkeypatch.setattr(decode_module, "DECODED", Budget(6 * 480 * 320))
    with pytest.raises(BrokenImageError, match="480 x 320 pixels would take"):
        decode(data)


def test_map_threads_keeps_the_order_and_ends_early_on_an_error():
    assert map_threads(lambda n: 2 * n, range(1000), 4) == [2 * n for n in range(1000)]
    assert map_threads(str, iter([]), 4) == []
    called = []

    def fail_at_7(n):
        called.append(n)
        if n == 7:
            raise ZeroDivisionError
        time.sleep(0.001)

    with pytest.raises(ZeroDivisionError):
        map_threads(fail_at_7, range(100_000), 2)
    assert len(called) < 50
