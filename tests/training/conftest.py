"""A bank with an evaluator, and runs small enough to repeat."""

from pathlib import Path

import pytest
from inputs import write_images, write_judged_bank

import probe


@pytest.fixture
def judged_bank(tmp_path: Path) -> Path:
    """`colour`, `edges`, `grid` (a map) and the evaluator `mixed`."""
    return write_judged_bank(tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_images(tmp_path / "small", 40, seed=3, size=16)


TINY = {
    "batch": 4, "channel_base": 128, "channel_max": 8, "z_dim": 8, "w_dim": 8, "map_layers": 2,
    "eval_num": 16, "rank_num": 40, "tick": 0.008, "snap": 1, "k": 2,
}  # fmt: skip


@pytest.fixture
def fit(small, judged_bank, tmp_path):
    """Train on forty 16 px images; returns the run directory and the records."""

    def run(outdir="runs", *, resume=None, init=None, backbones=None, device="auto", **options):
        records = []
        config = probe.TrainConfig(**{**TINY, **options})
        path = probe.train(
            small,
            outdir=tmp_path / outdir,
            config=config,
            bank=judged_bank,
            backbones=backbones,
            resume=resume,
            init=init,
            precision="fp32",
            device=device,
            on_event=records.append,
        )
        return path.parent, records

    return run
