"""Backbones whose features are random or depend on the batch are found and named."""

import json

import numpy as np
import pytest
import torch
from inputs import ENTRY, write_bank
from torch import nn
from torch.nn import functional as F

from probe.errors import BackboneBroken
from probe.features.steady import require_steady
from probe.files import cache_root


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 16, 3, stride=2)
        self.norm = nn.BatchNorm2d(16)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).relu().mean(dim=(2, 3))


class Good(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x)


class Dropout(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(self.features(x), 0.1, training=True)


class Noise(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.features(x)
        return y + 0.05 * torch.randn_like(y)


class AveragedNoise(Base):
    """Adds noise to a map, most of which its mean takes away: less than a batch's rounding."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x).relu()
        return (y + 0.03 * torch.randn_like(y)).mean(dim=(2, 3))


class TrainedNorm(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.batch_norm(self.conv(x), None, None, training=True)
        return y.relu().mean(dim=(2, 3))


class Whitened(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.features(x)
        return y - y.mean(dim=0, keepdim=True)


class Positional(Base):
    """Adds to each row what depends on its place in the batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.features(x)
        return y + 0.1 * torch.arange(y.shape[0], device=y.device).view(-1, 1)


UNSTEADY = {
    Dropout: "are random",
    Noise: "are random",
    AveragedNoise: "are random",
    TrainedNorm: "depend on the other images",
    Whitened: "depend on the other images",
    Positional: "depend on the other images",
}


@pytest.mark.parametrize("kind", UNSTEADY)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_is_a_row_that_says_so_and_the_others_stand(
    cli, tmp_path, reals, fakes, kind, precision
):
    bank = write_bank(tmp_path)
    torch.jit.script(kind()).save(str(tmp_path / "odd.pt"))
    bank.write_text(bank.read_text() + ENTRY.format(name="odd"))
    result = cli("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--offline", "--format",
                 "json", "--precision", precision)  # fmt: skip
    assert result.code == 3, result.err
    rows = {row["name"]: row for row in json.loads(result.out)["rows"]}
    assert rows["odd"]["status"] == "failed" and UNSTEADY[kind] in rows["odd"]["reason"]
    assert "evaluation mode" in rows["odd"]["remedy"]
    assert rows["colour"]["status"] == rows["edges"]["status"] == "ok"
    kept = [path.parent for path in (cache_root() / "features").glob("*/space.json")]
    assert len(kept) == 3  # none of the odd one's features


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_batchnorm_left_in_training_mode_by_tracing(cli, tmp_path, reals, fakes):
    bank = write_bank(tmp_path)
    traced = torch.jit.trace(Good().train(), torch.rand(2, 3, 32, 32), check_trace=False)
    traced.save(str(tmp_path / "odd.pt"))
    bank.write_text(bank.read_text() + ENTRY.format(name="odd"))
    result = cli("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--offline")
    assert result.code == 3
    assert "odd: its features depend on the other images of the batch" in result.out


@pytest.mark.parametrize("count", [1, 2, 3, 40])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_steady_one_passes_whatever_the_batch(count, precision):
    network = Good().eval()
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)

    @torch.inference_mode()
    def run(x):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return network(x.float() / 255).float().numpy()

    require_steady(run, images, run(images), precision)


@pytest.mark.parametrize("count", [1, 2, 40])
def test_one_image_is_enough_to_see_it(count):
    network = TrainedNorm().eval()
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)

    @torch.inference_mode()
    def run(x):
        return network(x.float() / 255).numpy()

    with pytest.raises(BackboneBroken, match="depend on the other images"):
        require_steady(run, images, run(images), "fp32")


def test_rounding_is_no_fault():
    rng = np.random.default_rng(0)
    images = torch.zeros(8, 3, 4, 4, dtype=torch.uint8)
    features = 100 + rng.normal(size=(8, 64))  # a large offset, and little that tells images apart
    features = features.astype(np.float32)

    def run(x):
        order = [0, 1, 2, 2, 1, 0]
        rows = features[order]
        return (rows * (1 + 1e-5 * rng.normal(size=rows.shape))).astype(np.float32)

    require_steady(run, images, features, "fp32")


def test_a_cached_ranking_checks_nothing_again(cli, bank, reals, fakes, monkeypatch):
    arguments = ("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--offline")
    assert cli(*arguments).code == 0
    calls = []
    monkeypatch.setattr("probe.features.extract.require_steady", lambda *a: calls.append(a))
    assert cli(*arguments).code == 0 and not calls
