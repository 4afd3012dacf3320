"""How many images and backbones a GPU takes, and how it is fed; the GPU is made up."""

import threading

import numpy as np
import pytest
import torch

from probe.bank.base import Backbone, FeatureNetwork, InputSpec
from probe.errors import BackboneUnavailable
from probe.features import extract
from probe.features.extract import BackbonePool, pooled_features, usual_batch

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


@pytest.fixture
def roomy(monkeypatch):
    """Give the made-up GPU room for every backbone."""
    monkeypatch.setattr(extract, "free_bytes", lambda gpu: 2**40)


class Loader:
    """Loads backbones, and knows by which thread and in which order."""

    def __init__(self) -> None:
        self.loaded, self.go, self.busy = [], threading.Event(), threading.Lock()

    def __call__(self, name: str) -> Weights:
        assert not self.busy.locked(), "two at a time"
        with self.busy:
            if threading.current_thread() is not threading.main_thread():
                assert self.go.wait(10)
            self.loaded.append((name, threading.current_thread() is threading.main_thread()))
            if name == "broken":
                raise BackboneUnavailable("it is broken")
            return Weights(1)


def test_the_next_backbone_is_loaded_while_a_gpu_runs_the_present_one(roomy):
    loader = Loader()
    pool = BackbonePool(loader, GPU)
    pool.get("a")
    pool.expect("b", "bf16")
    assert pool.get("a") is not None and loader.loaded == [("a", True)]
    loader.go.set()
    assert pool.get("b") is pool.get("b")
    assert loader.loaded == [("a", True), ("b", False)]


def test_backbones_are_loaded_one_at_a_time_whichever_comes_first(roomy):
    loader = Loader()
    pool = BackbonePool(loader, GPU)
    pool.expect("b", "bf16")
    threading.Timer(0.2, loader.go.set).start()
    pool.get("c")
    assert loader.loaded == [("b", False), ("c", True)]


def test_a_backbone_that_cannot_be_loaded_ahead_fails_when_it_is_wanted(roomy):
    loader = Loader()
    loader.go.set()
    pool = BackbonePool(loader, GPU)
    pool.expect("broken", "bf16")
    with pytest.raises(BackboneUnavailable):
        pool.get("broken")
    assert pool.get("a") is not None


def test_a_cpu_loads_nothing_ahead():
    loader = Loader()
    BackbonePool(loader, torch.device("cpu")).expect("b", "bf16")
    assert loader.loaded == []


class Sums(FeatureNetwork):
    """Sums each channel, and knows the batches it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        return x.sum((2, 3))

    def levels(self, x: torch.Tensor):
        return [], self.pool(x)


def test_a_filled_batch_has_the_size_of_the_others_and_the_same_features():
    network = Sums()
    fed = InputSpec(8, (0.0,) * 3, (1.0,) * 3)
    backbone = Backbone("sums", network, fed, dim=3, map_shapes=[])
    images = torch.randint(0, 256, (10, 3, 8, 8), dtype=torch.uint8)
    plain, filled = (
        pooled_features(
            backbone, images, device=torch.device("cpu"), precision="fp32", batch=4, fill=fill
        )
        for fill in (False, True)
    )
    assert network.batches == [4, 4, 2, 4, 4, 4]
    np.testing.assert_array_equal(plain, filled)
