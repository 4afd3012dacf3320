"""What folders and zips really hold, by the command line: each gets its number or a sentence."""

import json
import os
import shutil
import zipfile

import numpy as np
import pytest
from inputs import photo, tiny_generator, write_images
from pictures import encode, flat_png, icc_profile, png16, tiff
from PIL import Image

from probe.generators.files.snapshot import save_snapshot
from probe.images.files import FileSource
from probe.probing.leaderboard import Leaderboard


@pytest.fixture
def rank(cli, bank):
    def run(real, gen, *arguments):
        return cli(
            "rank", "--real", real, "--gen", gen, "--bank", bank, "--offline", "--backbones",
            "colour,edges", "--format", "json", *arguments,
        )  # fmt: skip

    return run


def board(result) -> Leaderboard:
    assert result.code == 0, result.err
    return Leaderboard.from_dict(json.loads(result.out))


def scores(result) -> dict[str, float | None]:
    return {row.name: row.score for row in board(result).rows}


def pictures(count: int, seed: int) -> list[np.ndarray]:
    """Return grey pictures, uint8 (32, 32), of all levels from black to white."""
    rng = np.random.default_rng(seed)
    found = [np.asarray(photo(rng).convert("L"), dtype=float) for _ in range(count)]
    return [np.round((p - p.min()) * 255 / (p.max() - p.min())).astype(np.uint8) for p in found]


def write(folder, images, store, suffix="png"):
    folder.mkdir()
    for i, image in enumerate(images):
        (folder / f"{i:03}.{suffix}").write_bytes(store(image))
    return folder


STORED = {
    "12 bits in 16": (lambda v: png16(np.round(v * (4095 / 255))), "png"),
    "8 bits in 16": (lambda v: tiff(v.astype(np.uint16)), "tif"),
    "int32": (lambda v: tiff(v.astype(np.int32)), "tif"),
    "signed": (lambda v: tiff((v * 257.0 - 32768).astype(np.int16)), "tif"),
    "float from -1": (lambda v: tiff((v / 127.5 - 1).astype(np.float32)), "tif"),
    "12 bits in 16, colour": (
        lambda v: png16(np.round(np.stack([v] * 3, axis=2) * (4095 / 255))),
        "png",
    ),
}


@pytest.mark.parametrize("name", STORED)
def test_more_than_8_bits_score_as_their_8_bit_copies(rank, tmp_path, name):
    mode = "RGB" if "colour" in name else "L"
    store, suffix = STORED[name]
    real = write(tmp_path / "real", pictures(40, 1), lambda v: encode(Image.fromarray(v)))
    plain = write(
        tmp_path / "plain", pictures(40, 2), lambda v: encode(Image.fromarray(v).convert(mode))
    )
    deep = write(tmp_path / "deep", pictures(40, 2), store, suffix)
    found = rank(real, deep)
    assert scores(found) == scores(rank(real, plain))
    assert all(score < -0.6 for score in scores(found).values())  # chance: told by nothing
    (note,) = [note for note in board(found).notes if "is taken for black" in note]
    assert note.startswith(f"{deep}: 40 of 40 files looked at are ")


def in_place(folder, member: str, data: bytes) -> None:
    (folder / member).write_bytes(data)


def other_files(folder) -> dict[str, bytes]:
    """Return a white picture for each of the first 20 files of a folder."""
    names = sorted(path.name for path in folder.iterdir())[:20]
    return dict.fromkeys(names, encode(Image.new("RGB", (32, 32), "white")))


def rewriting(monkeypatch, before: str, rewrite) -> None:
    """Let files be written anew right before a source's method reads them, once."""
    method, done = getattr(FileSource, before), []

    def meanwhile(self, *arguments):
        if "fakes" in self.name and not done:
            done.append(True)
            rewrite()
        return method(self, *arguments)

    monkeypatch.setattr(FileSource, before, meanwhile)


@pytest.mark.parametrize("before", ["keys", "load"])
def test_files_rewritten_during_a_ranking_leave_nothing_wrong(
    rank, reals, fakes, tmp_path, monkeypatch, before
):
    clean = scores(rank(reals, fakes))
    monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / "other"))
    originals = {path.name: path.read_bytes() for path in fakes.iterdir()}

    def rewrite():
        for name, data in other_files(fakes).items():
            (fakes / name).write_bytes(data)

    with monkeypatch.context() as patch:
        rewriting(patch, before, rewrite)
        during = board(rank(reals, fakes))
    assert during.n_real == during.n_fake == 40
    (note,) = [note for note in during.notes if "skipped" in note]
    assert note.startswith("20 images were skipped: 0")
    assert note.endswith(" and 17 more (changed since it was first read).")
    rewritten = board(rank(reals, fakes))  # a run of its own: all 60, 20 of them white
    assert rewritten.n_fake == 60 and {r.name: r.score for r in rewritten.rows} != clean
    for name, data in originals.items():
        (fakes / name).write_bytes(data)
    assert scores(rank(reals, fakes)) == clean


def pack(folder, path, instead: dict[str, bytes] | None = None):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.writestr(file.name, (instead or {}).get(file.name, file.read_bytes()))
    return path


@pytest.mark.parametrize("before", ["keys", "load"])
def test_a_zip_rewritten_during_a_ranking_leaves_nothing_wrong(
    rank, reals, fakes, tmp_path, monkeypatch, before
):
    path = pack(fakes, tmp_path / "fakes.zip")
    clean = scores(rank(reals, path))
    monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / "other"))
    with monkeypatch.context() as patch:
        rewriting(patch, before, lambda: pack(fakes, path, other_files(fakes)))
        result = rank(reals, path)  # too few of its members are where they were
    assert result.code == 1 and "fakes.zip changed while it was in use" in result.err
    assert "Traceback" not in result.err
    pack(fakes, path)
    assert scores(rank(reals, path)) == clean


def test_files_rewritten_before_they_are_trusted_are_an_error_under_strict(
    rank, reals, fakes, monkeypatch
):
    def rewrite():
        for name, data in other_files(fakes).items():
            (fakes / name).write_bytes(data)

    rewriting(monkeypatch, "load", rewrite)
    result = rank(reals, fakes, "--strict")
    assert result.code == 1
    assert "changed since it was first read. Move it away, or leave out --strict." in result.err


def test_what_is_beside_images_is_counted_and_labels_of_others_are_no_matter(rank, reals, fakes):
    before = scores(rank(reals, fakes))
    (reals / "dataset.json").write_text('{"images": [], "annotations": []}')
    (fakes / "dataset.json").write_text(json.dumps({"labels": [["000.png", 1], ["000.png", 2]]}))
    (reals / "@eaDir").mkdir()
    shutil.copy(reals / "000.png", reals / "@eaDir" / "000.png")
    (reals / "a.heic").write_bytes(b"")
    (reals / "notes.txt").write_text("")
    found = rank(reals, fakes)
    assert scores(found) == before
    (note,) = [note for note in board(found).notes if "left out" in note]
    assert note == f"{reals}: 2 files left out because of the suffix: 1 .heic, 1 .txt."


def test_rare_and_damaged_files_are_told_apart(rank, reals, fakes, cli, bank):
    rare = tiff(np.zeros((32, 32, 3), np.float32))
    for i in range(20):
        (reals / f"rare{i}.tif").write_bytes(rare)
    (reals / "cut.png").write_bytes((reals / "000.png").read_bytes()[:100])
    notes = board(rank(reals, fakes)).notes
    (note,) = [note for note in notes if "skipped" in note]
    assert "rare" in note and "TIFF of 3 x 32-bit float values, which Pillow does not read" in note
    looked_at = cli("doctor", "--real", reals, "--bank", bank, "--no-measure")
    assert "save it as an 8-bit PNG" in " ".join(looked_at.out.split())


@pytest.mark.parametrize("option", ["--real", "--gen"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_are_refused(cli, bank, reals, tmp_path, option, kind):
    path = tmp_path / "x.zip"
    if kind == "pipe":
        os.mkfifo(path)  # opened, it would wait for ever
    else:
        path.symlink_to("/dev/zero")
    given = {"--real": reals, "--gen": reals, option: path}
    result = cli("rank", *[word for pair in given.items() for word in pair], "--bank", bank)
    assert result.code == 1 and "Traceback" not in result.err
    said = " ".join(result.err.split())
    assert "is a pipe or a device" in said or "is not a regular file" in said


def test_an_image_that_needs_too_much_memory_is_skipped_and_named(rank, reals, fakes):
    (fakes / "999.png").write_bytes(flat_png(13377, 13377))
    notes = board(rank(reals, fakes, "--num", 61)).notes
    (note,) = [note for note in notes if "skipped" in note]
    assert note == (
        "1 image was skipped: 999.png (13377 x 13377 pixels would take 1.3 GiB to decode, 1 GiB is "
        "allowed; save it smaller)."
    )


def test_a_set_with_colour_profiles_is_named(rank, reals, tmp_path):
    wide = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
    profile = icc_profile("Adobe RGB (1998)", wide)
    tagged = tmp_path / "tagged"
    write_images(tagged, 40, seed=2)
    for path in tagged.iterdir():
        Image.open(path).save(path, icc_profile=profile)
    found = board(rank(reals, tagged)).audit
    assert [f["property"] for f in found] == ["colour profile"]
    assert "Adobe RGB (1998) 100 %" in found[0]["message"]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 1, 5], "is labelled class 5; "),
        ([[1, 0], [0, 1], [1, 0]], "is labelled class 0 of 2; "),
        ([[0.2, 0.8, 0], 1, 2], "000.png, [0.2, 0.8, 0], is not one-hot"),
        ([0, 1, None], "have no label, among them 002.png"),
    ],
)
def test_labels_are_checked_where_a_generator_needs_them(rank, reals, tmp_path, labels, said):
    checkpoint = tmp_path / "three.safetensors"
    save_snapshot(checkpoint, tiny_generator(c_dim=3), metadata={})
    names = sorted(path.name for path in reals.iterdir())
    entries = [[name, labels[i % 3]] for i, name in enumerate(names)]
    (reals / "dataset.json").write_text(json.dumps({"labels": entries}))
    result = rank(reals, checkpoint)
    assert result.code != 0 and said in " ".join(result.err.split())
    assert board(rank(reals, checkpoint, "--class", 2)).n_fake == 60


def test_distances_and_single_scores_say_how_images_were_read(cli, bank, tmp_path, reals):
    deep = write(tmp_path / "deep", pictures(40, 2), lambda v: png16(np.round(v * (4095 / 255))))
    (deep / "a.heic").write_bytes(b"")
    given = ("--bank", bank, "--offline", "--backbones", "colour", "--format", "json")
    distances = cli("metrics", "--real", reals, "--gen", deep, *given)
    ranked = cli("rank", "--real", reals, "--gen", deep, "--out", tmp_path / "run", *given)
    assert distances.code == ranked.code == 0
    single = cli("score", deep, "--run", tmp_path / "run", *given)
    for result in (distances, ranked, single):
        notes = " ".join(json.loads(result.out)["notes"])
        assert f"{deep}: 1 file left out because of the suffix: 1 .heic." in notes
        assert "40 of 40 files looked at are 16-bit, with values from 0 to 4095" in notes
