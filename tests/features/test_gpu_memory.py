"""How many images, and how many backbones, a GPU takes; its memory is made up."""

import pytest
import torch

from probe.features import extract
from probe.features.extract import BackbonePool, usual_batch

GPU = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("gib", "side", "batch"), [(80, 224, 256), (8, 224, 32), (8, 448, 8), (1, 224, 4), (0, 224, 1)]
)
def test_the_batch_follows_the_free_memory(monkeypatch, gib, side, batch):
    monkeypatch.setattr(extract, "free_bytes", lambda gpu: gib * 2**30)
    assert usual_batch(GPU, side) == batch


def test_a_cpu_takes_as_many_as_its_caches_hold():
    assert usual_batch(torch.device("cpu"), 224) == extract.CPU_BATCH


class Weights:
    """Stands for a backbone of so many parameters."""

    def __init__(self, count: int) -> None:
        self.parameter_count = count

    def to(self, *place, **layout):
        return self


def test_backbones_are_kept_while_half_of_the_memory_holds_them(monkeypatch):
    kept = []
    monkeypatch.setattr(extract, "free_bytes", lambda gpu: 1000 - 400 * len(kept))
    pool = BackbonePool(lambda name: kept.append(name) or Weights(100), GPU)
    assert pool.get("a") is pool.get("a") and kept == ["a"]
    pool.get("b")
    pool.get("b")
    assert kept == ["a", "b"]
    pool.get("a")  # of 1000 bytes 400 + 400 are more than half: the other one had to go
    assert kept == ["a", "b", "a"]
