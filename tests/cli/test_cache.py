"""`probe cache`: what is listed is there, what is damaged is found, what is pruned is old."""

import json
import os
import time

import pytest

from probe.files import cache_root


@pytest.fixture
def filled(cli, bank, reals, fakes):
    """A cache with the features of three backbones and the results of their probes."""

    def rank():
        result = cli("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--offline",
                     "--format", "json")  # fmt: skip
        assert result.code == 0, result.err
        return result

    return rank(), rank


def scores(result) -> dict:
    return {row["name"]: row["score"] for row in json.loads(result.out)["rows"]}


def age(folder, days: float) -> None:
    for path in folder.iterdir():
        os.utime(path, (time.time() - days * 86_400,) * 2)


def test_ls_lists_every_space_with_its_images(cli, filled):
    listed = json.loads(cli("cache", "ls", "--json").out)
    features = [p for p in listed["parts"] if p["kind"] == "features"]
    assert sorted(p["what"].split()[1] for p in features) == ["colour", "edges", "test_resnet"]
    assert all(p["images"] == 120 for p in features)
    on_disk = sum(p.stat().st_size for p in cache_root().rglob("*") if p.is_file())
    assert sum(p["bytes"] for p in listed["parts"]) == on_disk
    table = cli("cache", "ls")
    assert "torchscript colour at 32 px" in table.out and "6 probe results" in table.out


def test_an_empty_cache_is_no_error(cli):
    assert "0 B in" in cli("cache", "ls").out
    assert cli("cache", "verify").code == 0
    assert cli("cache", "prune", "--older-than", "1d").code == 0


def test_verify_finds_a_flipped_byte_and_ranking_mends_it(cli, filled):
    first, rank = filled
    assert cli("cache", "verify").code == 0
    path = next(iter((cache_root() / "features").glob("*/*.safetensors")))
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    found = cli("cache", "verify")
    assert found.code == 1 and found.out.strip() == f"damaged: {path}"
    removed = cli("cache", "verify", "--remove")
    assert removed.code == 0 and not path.exists()
    assert scores(rank()) == scores(first)
    assert cli("cache", "verify").code == 0


def test_prune_removes_what_is_old_and_nothing_else(cli, filled):
    first, rank = filled
    features = sorted((cache_root() / "features").iterdir())
    age(features[0], days=40)
    age(features[1], days=20)
    tried = cli("cache", "prune", "--older-than", "30d", "--dry-run")
    assert features[0].name in tried.out and features[0].exists()
    done = cli("cache", "prune", "--older-than", "30d")
    assert done.code == 0 and features[0].name in done.out
    assert [f.exists() for f in features] == [False, True, True]
    assert scores(rank()) == scores(first)


def test_prune_makes_room_from_the_oldest_on_and_spares_the_last_hour(cli, filled):
    features = sorted((cache_root() / "features").iterdir())
    assert cli("cache", "prune", "--larger-than", "1").code == 0
    assert all(f.exists() for f in features)  # written just now: a process may be at it
    age(features[2], days=3)
    age(features[1], days=2)
    total = sum(p.stat().st_size for p in cache_root().rglob("*") if p.is_file())
    done = cli("cache", "prune", "--larger-than", f"{total - 1}")
    assert done.code == 0 and [f.exists() for f in features] == [True, True, False]


def test_prune_takes_what_a_killed_process_left(cli, filled):
    folder = next((cache_root() / "features").iterdir())
    old, young = folder / ".x.safetensors.abc", folder / ".y.safetensors.abc"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 86_400,) * 2)
    assert cli("cache", "prune", "--older-than", "365d").code == 0
    assert not old.exists() and young.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Say what to remove"),
        (("--older-than", "soon"), "--older-than: 'soon' is not a duration"),
        (("--larger-than", "-1GB"), "--larger-than: '-1GB' is not a size"),
    ],
)
def test_prune_asks_what_is_meant(cli, arguments, words):
    result = cli("cache", "prune", *arguments)
    assert result.code == 2 and words in result.err
