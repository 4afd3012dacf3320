"""The stream of training images, the weight average, the samples of a step."""

import json
import os
import shutil
import time
import zipfile

import numpy as np
import pytest
import torch
from contexts import new_state, session
from inputs import write_images

from probe.errors import ImagesError, ProbeError, UsageError
from probe.generators.networks.stylegan2 import Generator
from probe.images.files import FileSource
from probe.images.open import open_images
from probe.processes import Processes
from probe.streams import numpy_stream, stream_keys
from probe.training.config import TrainConfig
from probe.training.order import BLOCK, WINDOW, Blocks, Shuffled
from probe.training.presets import make_plan
from probe.training.reals import Reals, open_reals
from probe.training.step import Samples
from probe.training.stream import AHEAD, RealStream

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "images", 24, seed=0, size=16)


def opened(folder, **options):
    wanted = {"resolution": None, "holdout": 0, "cond": False, "seed": 0, **options}
    return open_reals(open_images(folder), **wanted)


def test_no_copy_of_a_held_out_image_is_trained_on(folder):
    for path in sorted(folder.iterdir()):
        for i in range(2):
            shutil.copy(path, folder / f"{i}-{path.name}")
    reals = opened(folder, holdout=5)
    keys = [set(part.keys(range(len(part)))) for part in (reals.training, reals.holdout)]
    assert not keys[0] & keys[1] and len(keys[0] | keys[1]) == 24
    assert len(reals.holdout) >= 5 and len(reals.holdout) + len(reals.training) == 72
    assert len(reals.pixels) == len(reals.training)
    (remark,) = reals.copies.remarks()
    assert "48 of 72 real images are copies of others" in remark and "which leaves 24." in remark


def test_few_images_copied_often_are_too_few(folder):
    for path in sorted(folder.iterdir())[10:]:
        path.unlink()
    for path in sorted(folder.iterdir()):
        for i in range(5):
            shutil.copy(path, folder / f"{i}-{path.name}")
    with pytest.raises(ImagesError, match="10 usable images are too few .* 50 of 60 real images"):
        opened(folder)


def stream(reals, *, batch=4, mirror=False, processes=Processes(), seed=0):
    return RealStream(reals, batch=batch, mirror=mirror, seed=seed, processes=processes, device=CPU)


def rows(images):
    return {tuple(image.flatten()[:50].tolist()) for image in images}


def test_every_pass_shows_every_image_once_in_an_order_of_its_own(folder):
    reals = opened(folder)
    found = stream(reals)
    passes = [[found.order.at(range(24 * turn, 24 * turn + 24))] for turn in range(2)]
    assert sorted(passes[0][0]) == sorted(passes[1][0]) == list(range(24))
    assert passes[0] != passes[1]
    images = torch.cat([found.at(start)[0] for start in range(0, 24, 4)])
    assert len(rows(images)) == 24 and images.min() >= -1 and images.max() <= 1


def test_the_stream_can_be_entered_anywhere(folder):
    reals = opened(folder)
    whole, late = stream(reals, mirror=True), stream(reals, mirror=True)
    expected = [whole.at(start)[0] for start in range(0, 60, 4)]
    assert torch.equal(late.at(40)[0], expected[10])
    assert torch.equal(late.at(44)[0], expected[11])


def test_a_few_batches_are_decoded_ahead_and_each_once(folder, monkeypatch):
    asked, load = [], Reals.load

    def noting(reals, source, indices):
        asked.append(indices)
        return load(reals, source, indices)

    monkeypatch.setattr(Reals, "load", noting)
    found = stream(opened(folder))
    for start in range(0, 40, 4):
        found.at(start)
    found.at(1000)  # what was ahead is forgotten
    found._workers.shutdown()
    expected = [*range(0, 40 + 4 * AHEAD, 4), *range(1000, 1004 + 4 * AHEAD, 4)]
    assert sorted(asked) == sorted(found.order.at(range(s, s + 4)) for s in expected)
    assert len(found._ahead) == AHEAD


def test_processes_share_a_batch(folder):
    reals = opened(folder)
    whole = stream(reals, mirror=True).at(8)[0]
    for rank in range(2):
        part = stream(reals, mirror=True, processes=Processes(rank, 2)).at(8)[0]
        assert torch.equal(part, whole[rank::2])


def test_mirror_flips_about_half(folder):
    reals = opened(folder)
    straight = stream(reals, batch=240).at(0)[0]
    mirrored = stream(reals, batch=240, mirror=True).at(0)[0]
    flipped = [torch.equal(m, s.flip(2)) for m, s in zip(mirrored, straight)]
    same = [torch.equal(m, s) for m, s in zip(mirrored, straight)]
    assert all(f or s for f, s in zip(flipped, same))
    assert 90 < sum(flipped) < 150


def load(reals, indices):
    return reals.load(reals.training, indices)[0]


@pytest.fixture
def large(monkeypatch):
    """Let every set count as too large for memory, and look at ten of its images."""
    monkeypatch.setattr("probe.training.reals.MEMORY", 0)
    monkeypatch.setattr("probe.training.reals.LOOKED_AT", 20)


def test_images_too_many_for_memory_come_from_disk(folder, monkeypatch):
    kept = opened(folder)
    monkeypatch.setattr("probe.training.reals.MEMORY", 0)
    read = opened(folder)
    assert read.pixels is None and kept.pixels is not None and read.digest == kept.digest
    assert torch.equal(load(read, [5, 0, 5]), load(kept, [5, 0, 5]))


def test_held_out_images_are_never_shown(folder):
    reals = opened(folder, holdout=6)
    assert (len(reals.training), len(reals.holdout)) == (18, 6)
    hidden = rows(reals.holdout.load(range(6), 16).images.float() / 127.5 - 1)
    shown = rows(torch.cat([stream(reals).at(start)[0] for start in range(0, 72, 4)]))
    assert len(shown) == 18 and not shown & hidden
    other = opened(folder, holdout=6, seed=1)
    assert other.holdout.captions(range(6)) != reals.holdout.captions(range(6))


def test_broken_images_are_left_out_and_named(folder):
    (folder / "a-broken.png").write_bytes(b"x")
    reals = opened(folder)
    assert len(reals.training) == 24 and reals.broken[0].name == "a-broken.png"


def test_what_cannot_be_trained_on_is_refused(tmp_path, folder):
    with pytest.raises(ImagesError, match="beside 10 held out"):
        opened(folder, holdout=10)
    write_images(folder / "more", 1, seed=2, size=32)
    with pytest.raises(UsageError, match="16x16, 32x32"):
        opened(folder)
    assert opened(folder, resolution=16).resolution == 16


def plan(**options):
    return make_plan(TrainConfig(z_dim=8, w_dim=8, **options), resolution=16, images=100).config


def state(**options):
    return new_state(plan(channel_base=128, channel_max=8, **options))


def test_average_forgets_half_after_its_half_life():
    found = state()
    start = found.average.mapping.fc0.weight.clone()
    with torch.no_grad():
        found.generator.mapping.fc0.weight.add_(1)
    for _ in range(10):
        found.update_average(100, 1000)
    torch.testing.assert_close(found.average.mapping.fc0.weight, start + 0.5, atol=1e-4, rtol=1e-4)


def samples(config, count=8, processes=Processes(), purpose="generator", seen=0):
    return Samples(session(config, processes=processes), purpose, seen, count)


def test_samples_are_shared_out_and_differ_by_purpose():
    config = plan(style_mixing=0.5)
    whole = samples(config)
    for rank in range(2):
        part = samples(config, processes=Processes(rank, 2))
        assert torch.equal(part.z, whole.z[rank::2])
        assert torch.equal(part.mixes, whole.mixes[rank::2])
        assert torch.equal(part.noise, whole.noise[rank::2])
    for other in (samples(config, purpose="path"), samples(config, seen=8)):
        assert not torch.equal(whole.z, other.z)
        assert not set(whole.noise.tolist()) & set(other.noise.tolist())


def test_style_mixing_takes_the_second_latent_from_some_layer_on():
    found = state(style_mixing=1.0)
    generator = found.generator.train()
    before = generator.mapping.w_avg.clone()
    drawn = samples(plan(style_mixing=1.0), count=64)
    ws = drawn.styles(generator).detach()
    generator.eval()
    one, two = (generator.mapping(z, None).detach() for z in (drawn.z, drawn.other_z))
    cuts = set()
    for row, a, b in zip(ws, one, two):
        first = [torch.allclose(w, a) for w in row]
        cut = first.index(False)
        cuts.add(cut)
        assert 1 <= cut < len(row) and not any(first[cut:])
        assert all(torch.allclose(w, b) for w in row[cut:])
    assert cuts == set(range(1, generator.num_ws))
    expected = before.lerp(one.mean(dim=0), 1 - generator.mapping.w_avg_beta)
    torch.testing.assert_close(generator.mapping.w_avg, expected, rtol=1e-4, atol=1e-5)


def test_noise_of_an_image_does_not_depend_on_its_neighbours():
    torch.manual_seed(0)
    network = Generator(8, 0, 8, 16, 3, {"num_layers": 2}, {"channel_base": 128})
    for name, parameter in network.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.5)
    z = torch.randn(4, 8)
    keys = stream_keys(range(4), "noise")
    together = network(z, noise_keys=keys)
    alone = torch.cat([network(z[i : i + 1], noise_keys=keys[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_an_image_that_was_examined_and_changes_stops_the_run(folder, monkeypatch):
    monkeypatch.setattr("probe.training.reals.MEMORY", 0)  # images are read again and again
    reals = opened(folder)
    before = load(reals, range(24))
    original = (folder / "003.png").read_bytes()
    (folder / "003.png").write_bytes((folder / "004.png").read_bytes())
    with pytest.raises(ProbeError, match=r"003\.png \(changed since it was first read\)\. Restore"):
        load(reals, range(24))
    (folder / "003.png").write_bytes(original)
    assert torch.equal(load(opened(folder), range(24)), before)


class Unread(FileSource):
    """Notes which files are read."""

    def __init__(self, source):
        vars(self).update(vars(source))
        read, self.read = self._read, set()
        self._read = lambda name: self.read.add(name) or read(name)


def test_of_a_large_set_a_sample_is_examined(folder, large):
    write_images(folder / "more", 600, seed=5, size=16)
    source = Unread(open_images(folder))
    reals = open_reals(source, resolution=16, holdout=100, cond=False, seed=0)
    assert len(source.read) < 300, "256 for the size, and the sample"
    assert reals.looked_at == 20 and reals.pixels is None
    assert (len(reals.training), len(reals.holdout)) == (524, 100)
    assert not set(reals.training.indices) & set(reals.holdout.indices)
    (remark,) = reals.remarks()
    assert "624 images are too many to examine each" in remark and "20 drawn by the seed" in remark


def test_a_large_set_is_known_by_names_sizes_and_dates(folder, large, tmp_path):
    digest = opened(folder).digest
    assert opened(folder).digest == digest
    status = (folder / "003.png").stat()
    os.utime(folder / "003.png", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert opened(folder).digest != digest
    packed, digests = tmp_path / "images.zip", set()
    for date in (2000, 2020):
        with zipfile.ZipFile(packed, "w") as archive:
            for path in sorted(folder.iterdir()):
                member = zipfile.ZipInfo(path.name, (date, 1, 1, 0, 0, 0))
                archive.writestr(member, path.read_bytes())
        digests.add(opened(packed).digest)
    assert len(digests) == 1, "a zip has checksums, so its dates do not matter"


def test_a_large_set_replaces_what_is_broken_or_has_changed_and_names_it(folder, large):
    for i in (3, 4, 23):
        (folder / f"{i:03}.png").write_bytes(b"x")
    reals = opened(folder, resolution=16)
    (folder / "010.png").write_bytes((folder / "012.png").read_bytes() + b" ")
    (folder / "015.png").unlink()
    images, taken = reals.load(reals.training, range(24))
    expected = [0, 1, 2, 5, 5, 5, 6, 7, 8, 9, 11, 11, 12, 13, 14, 16, *range(16, 23), 0]
    assert taken == expected
    assert torch.equal(images, reals.training.load(expected, 16).images)
    assert {i: b.name for i, b in reals.skipped.items()} == {
        i: f"{i:03}.png" for i in (3, 4, 10, 15, 23)
    }
    assert reals.skipped[10].reason.startswith("changed since")
    alone = [reals.load(reals.training, [i])[1] for i in range(24)]
    assert [index for taken in alone for index in taken] == expected


def test_storage_that_goes_away_ends_a_run_in_a_sentence(folder, large):
    reals = opened(folder, resolution=16)
    folder.rename(folder.with_name("gone"))
    with pytest.raises(ProbeError, match=r"100 images in a row .* See whether the storage is"):
        load(reals, [0, 1])


def test_labels_follow_the_image_that_takes_anothers_place(folder, large):
    labels = [[f"{i:03}.png", i % 2] for i in range(24)]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    reals = opened(folder, cond=True)
    (folder / "006.png").write_bytes(b"")
    found = stream(reals, batch=24)
    classes = found.at(0)[1].argmax(dim=1).tolist()
    order = [7 if i == 6 else i for i in found.order.at(range(24))]
    assert classes == [i % 2 for i in order]


def test_the_stream_of_a_large_set_is_shared_and_entered_anywhere(folder, large):
    reals = opened(folder)
    assert isinstance(stream(reals).order, Blocks)
    whole = stream(reals, mirror=True)
    expected = [whole.at(start)[0] for start in range(0, 60, 4)]
    assert torch.equal(stream(reals, mirror=True).at(40)[0], expected[10])
    for rank in range(2):
        part = stream(reals, mirror=True, processes=Processes(rank, 2)).at(8)[0]
        assert torch.equal(part, expected[2][rank::2])


@pytest.mark.parametrize("count", [1, 50, BLOCK, BLOCK * WINDOW, 3 * BLOCK * WINDOW + 77])
def test_blocks_show_every_image_once_in_each_pass(count):
    order = Blocks(count, seed=3)
    passes = [order.at(range(turn * count, (turn + 1) * count)) for turn in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(count))
    assert count == 1 or passes[0] != passes[1]
    assert Blocks(count, seed=3).at([count // 2, count]) == [passes[0][count // 2], passes[1][0]]


def test_a_batch_of_a_sorted_set_comes_from_everywhere():
    """Neighbours in the set are almost never neighbours in a batch."""
    count = 40 * BLOCK * WINDOW
    order = Blocks(count, seed=0)
    for start in (0, 12_345, 500_000):
        batch = order.at(range(start, start + 64))
        assert len({i // BLOCK for i in batch}) > 40
        assert np.std([i / count for i in batch]) == pytest.approx(12**-0.5, abs=0.08)


def test_a_position_of_ten_million_is_found_at_once():
    order, started = Blocks(10**7, seed=0), time.process_time()
    for start in range(0, 64 * 300, 64):
        order.at(range(10**9 + start, 10**9 + start + 64))
    assert time.process_time() - started < 5


def test_small_sets_keep_the_order_of_earlier_releases():
    order = Shuffled(5, seed=0)
    expected = [numpy_stream(0, "order", turn).permutation(5).tolist() for turn in range(3)]
    assert [order.at(range(5 * t, 5 * t + 5)) for t in range(3)] == expected


def test_one_hot_lists_say_how_many_classes_there_are(folder):
    lists = [[f"{i:03}.png", [int(i % 2 == place) for place in range(5)]] for i in range(24)]
    (folder / "dataset.json").write_text(json.dumps({"labels": lists}))
    reals = opened(folder, cond=True)
    assert reals.c_dim == 5
    assert stream(reals).at(0)[1].shape == (4, 5)


def test_labels_that_cannot_be_used_matter_only_to_conditional_training(folder):
    (folder / "dataset.json").write_text('{"labels": [["000.png", [0.5, 0.5]]]}')
    assert len(opened(folder).training) == 24
    with pytest.raises(ImagesError, match=r"the label of 000\.png, \[0.5, 0.5\], is not one-hot"):
        opened(folder, cond=True)
