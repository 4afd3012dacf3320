"""One of each kind of thing, added from outside: the files are those of docs/extending.md."""

import importlib
import json
import sys

import numpy as np
import pytest
import torch
import yaml
from inputs import photo, tiny_generator, write_judged_bank
from test_docs import ROOT, blocks

import probe
from probe import cli as command_line
from probe import discriminators, metrics
from probe.bank import sources
from probe.discriminators import heads
from probe.events import StageStarted
from probe.generators import files
from probe.generators.files import families
from probe.generators.files.snapshot import save_snapshot
from probe.images import encoded
from probe.images import open as readers
from probe.probing import strategies

PAGE = ROOT / "docs" / "extending.md"
FILES = {text.split("\n")[0].removeprefix("# "): text for text in blocks(PAGE, "python")}
MAPPINGS = (
    sources.SOURCES, metrics.METRICS, strategies.STRATEGIES, heads.HEADS, discriminators.LOSSES,
    discriminators.AUGMENTATIONS, encoded.FORMATS, readers.READERS, families.FAMILIES,
    files.FORMATS, command_line.COMMANDS,
)  # fmt: skip
TINY = {
    "batch": 4, "channel_base": 128, "channel_max": 8, "z_dim": 8, "w_dim": 8, "map_layers": 2,
    "eval_num": 0, "rank_num": 40, "tick": 0.008, "snap": 1, "k": 1,
}  # fmt: skip


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Write the page's files, import them as its script does, and forget them in the end."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = [dict(mapping) for mapping in MAPPINGS]
    importlib.import_module("mine")
    yield tmp_path
    for mapping, held in zip(MAPPINGS, before, strict=True):
        assert len(mapping) == len(held) + 1
        mapping.clear()
        mapping.update(held)
    for name in FILES:
        del sys.modules[name.removesuffix(".py")]


@pytest.fixture
def bank(mine):
    """The tests' bank, and the page's entry."""
    torch.manual_seed(0)
    torch.save(sys.modules["grid"].Grid().state_dict(), mine / "grid.pth")
    path = write_judged_bank(mine)
    (entry,) = blocks(PAGE, "yaml")
    path.write_text(f"{path.read_text()}\n{entry}")
    return path


def test_a_source_ranks_and_its_rules_hold(cli, bank, reals, fakes):
    given = ("--real", reals, "--gen", fakes, "--bank", bank, "--offline", "--quiet")
    result = cli("rank", *given, "--backbones", "my-grid", "--format", "json")
    assert result.code == 0, result.err
    rows = {row["name"]: row for row in json.loads(result.out)["rows"]}
    assert rows["my-grid"]["status"] == "ok" and rows["my-grid"]["dim"] == 8
    entry = yaml.safe_load(blocks(PAGE, "yaml")[0])[0]
    bank.write_text(yaml.safe_dump([{**entry, "pool": "token"}]))
    refused = cli("rank", *given)
    assert refused.code == 1 and "grid has no class token" in refused.err
    bank.write_text(yaml.safe_dump([{**entry, "source": "gird"}]))
    assert "Did you mean 'grid'?" in cli("rank", *given).err


def test_a_metric_is_in_the_table_and_in_every_format(cli, bank, reals, fakes):
    given = ("--real", reals, "--gen", fakes, "--bank", bank, "--offline", "--quiet")
    tables = {
        form: cli("metrics", *given, "--backbones", "colour", "--format", form).out
        for form in ("markdown", "csv", "json")
    }
    (row,) = json.loads(tables["json"])["rows"]
    assert row["means"] > 0 and list(row).index("means") == list(row).index("coverage") + 1
    assert "| between means |" in tables["markdown"] and ",means," in tables["csv"]
    found = probe.measure(reals, fakes, bank=bank, backbones=["colour"])
    assert found["colour"].means == row["means"]


def test_training_takes_a_strategy_a_head_a_loss_and_an_augmentation(bank, reals):
    told = []
    config = probe.TrainConfig(
        **TINY, strategy="runner-up", stage_kimg="0.008,0.008", aug="noise", aug_heads="noise",
        head_loss="wasserstein", resolution=16,
    )  # fmt: skip
    snapshot = probe.train(
        reals, outdir="runs", config=config, bank=bank, backbones=["grid", "my-grid"],
        precision="fp32", device="cpu", on_event=told.append,
    )  # fmt: skip
    chosen = json.loads((snapshot.parent / "selection-stage1.json").read_text())
    rows = [r for r in chosen["leaderboard"]["rows"] if r["role"] == "candidate"]
    best_first = sorted(rows, key=lambda row: -row["score"])
    assert chosen["added"] == [best_first[1]["name"]]
    assert [s.added for s in told if isinstance(s, StageStarted)] == [tuple(chosen["added"])]
    state = torch.load(snapshot.parent / "training-state-latest.pt", weights_only=True)
    member = state["members"][chosen["added"][0]]["network"]
    assert set(member) == {"head.network.out.weight", "head.network.out.bias"}


def test_an_image_format_is_read(mine):
    (mine / "scans").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        photo(rng).save(mine / "scans" / f"{i}.sgi")
    source = probe.open_images(mine / "scans")
    batch = source.load([0, 1, 2], 32)
    assert not batch.broken and batch.images.float().std() > 1
    assert source.headers([0])[0].format == "SGI"


def test_a_kind_of_set_is_read(cli, bank, mine, reals, fakes):
    for name, folder in (("some", reals), ("fakes", fakes)):
        chosen = sorted(map(str, folder.iterdir()))[::2]
        (mine / f"{name}.list").write_text("\n".join(chosen), "utf-8")
    sets = ("--real", "some.list", "--gen", "fakes.list")
    result = cli("rank", *sets, "--bank", bank, "--offline", "--backbones", "colour")
    assert result.code == 0 and "30 real and 30 generated" in result.out, result.err
    assert "30 images" in cli("doctor", "--real", "some.list", "--bank", bank, "--no-measure").out


def test_a_family_draws_and_a_format_is_written(cli, mine):
    torch.manual_seed(0)
    network = sys.modules["linear"].Generator(4, 0, 16, 3)
    save_snapshot(mine / "L.safetensors", network, metadata={}, architecture="linear")
    assert "Linear" in cli("inspect", mine / "L.safetensors").out
    drawn = cli("generate", "--gen", "L.safetensors", "--seeds", "0-1", "--outdir", mine / "out")
    assert drawn.code == 0, drawn.err
    assert len(list((mine / "out").iterdir())) == 2
    refused = cli("export", "L.safetensors", "--format", "arrays")
    assert refused.code == 1 and "is a Linear generator" in refused.err
    save_snapshot(mine / "G.safetensors", tiny_generator(), metadata={})
    written = cli("export", "G.safetensors", "--format", "arrays")
    assert written.code == 0 and "named as in StyleGAN2-ADA" in written.err
    assert "mapping.fc0.weight" in np.load(written.out.strip())


def test_a_command_runs_and_is_in_the_help(cli, mine, reals):
    assert cli("count", reals).out.strip() == "60"
    assert "Count the images" in cli("--help").out
