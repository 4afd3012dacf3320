"""What a feature is kept under: each source says what its features depend on."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from contexts import context

from probe.bank.fid import fid_spec
from probe.bank.spec import BackboneSpec, Weights
from probe.features.space import open_space
from probe.images.open import open_images

ROOT = Path(__file__).parents[2]
ALL = ("torch", "timm", "open_clip_torch", "pillow")


def entry(source, weights, **changes) -> BackboneSpec:
    base = {
        "name": "x", "source": source, "model": "m", "weights": weights, "input": 32,
        "mean": (0.5,) * 3, "std": (0.25,) * 3, "task": "t", "data": "d", "license": "l",
        "taps": ("a", "b"),
    }  # fmt: skip
    return BackboneSpec(**{**base, **changes})


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"any")
    return Weights(file=str(tmp_path / "w.pth"))


@pytest.fixture
def record(tmp_path, reals):
    """Return what an entry's features are kept under."""

    def of(spec):
        ctx = context(tmp_path, bn_images=open_images(reals))
        return open_space(spec, ctx, resolution=64).record

    return of


@pytest.fixture
def upgrade(monkeypatch):
    """Let a library have another version."""
    known = metadata.version

    def to_99(library):
        monkeypatch.setattr(metadata, "version", lambda n: "99" if n == library else known(n))

    return to_99


@pytest.mark.parametrize("source", ["timm", "open_clip", "torchscript"])
def test_what_features_are_kept_under(record, weights, source):
    found = record(entry(source, weights, pool="average"))
    assert found == {
        "pipeline": 3,
        "source": source,
        "model": "m",
        "pool": "average",
        "taps": (),
        "input": {"size": 32, "mean": (0.5,) * 3, "std": (0.25,) * 3, "resize": "bicubic"},
        "weights": found["weights"],
        "resolution": 64,
        "precision": "fp32",
        "device": "cpu",
        "versions": {name: metadata.version(name) for name in ALL},
    }


@pytest.mark.parametrize(
    ("source", "library", "depends"),
    [
        ("torchvision", "torchvision", True),
        ("inception", "torchvision", True),
        ("timm", "torchvision", False),
        ("open_clip", "torchvision", False),
        ("torchscript", "torchvision", False),
        ("timm", "timm", True),
        ("open_clip", "open_clip_torch", True),
        *((source, "torch", True) for source in ("timm", "torchvision", "torchscript")),
    ],
)
def test_another_version_of_a_source_s_library_is_another_key(
    record, weights, upgrade, source, library, depends
):
    spec = entry(source, weights)
    before = record(spec)
    upgrade(library)
    assert (record(spec) != before) == depends


def test_taps_are_in_the_key_of_the_source_that_pools_them(record, weights):
    for source, depends in (("torchvision", True), ("timm", False), ("open_clip", False)):
        one, other = (record(entry(source, weights, taps=taps)) for taps in (("a",), ("b",)))
        assert (one != other) == depends


def test_no_source_imports_its_library_to_say_so():
    code = (
        "import sys\n"
        "from probe.bank.fid import fid_spec\n"
        "from probe.bank.sources import SOURCES\n"
        "from dataclasses import replace\n"
        "for source in SOURCES:\n"
        "    spec = replace(fid_spec(), source=source, taps=('a',))\n"
        "    assert SOURCES[source].key(spec)['versions']\n"
        "print([m for m in ('torch', 'timm', 'torchvision', 'open_clip') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    assert fid_spec().source == "inception"


def test_after_an_upgrade_of_torchvision_its_features_alone_are_made_anew(
    cli, bank, reals, fakes, tmp_path, upgrade
):
    from torchvision.models import shufflenet_v2_x0_5

    torch.manual_seed(0)
    torch.save(shufflenet_v2_x0_5().state_dict(), tmp_path / "shuffle.pth")
    with bank.open("a") as f:
        f.write(
            bank.read_text().split("- name: edges")[0].replace("name: colour", "name: shuffle")
            .replace("model: colour", "model: shufflenet_v2_x0_5")
            .replace("torchscript", "torchvision")
            .replace("{file: colour.pt}", "{file: shuffle.pth}\n  taps: [conv5]")
        )  # fmt: skip

    def rank():
        arguments = ["--real", reals, "--gen", fakes, "--bank", bank, "--offline", "--quiet"]
        result = cli("rank", *arguments, "--format", "json")
        assert result.code == 0, result.err
        return json.loads(result.out)["config"]["versions"]

    def spaces():
        records = [json.loads(p.read_text()) for p in (tmp_path / "cache").rglob("space.json")]
        return sorted(r["source"] for r in records)

    assert rank()["torchvision"] == metadata.version("torchvision")
    assert spaces() == ["timm", "torchscript", "torchscript", "torchvision"]
    upgrade("torchvision")
    assert rank()["torchvision"] == "99"
    assert spaces() == ["timm", "torchscript", "torchscript", "torchvision", "torchvision"]
