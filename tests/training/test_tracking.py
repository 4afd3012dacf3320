"""What trackers get of a run: the curves, sample grids and leaderboards that its files have."""

import json
import sqlite3
import struct
from contextlib import closing
from importlib.util import find_spec

import pytest
from inputs import write_judged_bank

import probe
from probe.errors import UsageError
from probe.training import tracking

TINY = {"batch": 4, "tick": 0.02, "snap": 1, "channel_base": 128, "channel_max": 8, "z_dim": 8,
        "w_dim": 8, "eval_num": 20, "rank_num": 32}  # fmt: skip


@pytest.fixture
def train(reals, tmp_path):
    bank = write_judged_bank(tmp_path)

    def run(log: str, **options):
        options = {"strategy": "fixed", "k": 1, "stage_kimg": "0.02,0.02", **options}
        config = probe.TrainConfig(log=log, **options, **TINY)
        probe.train(reals, outdir=tmp_path / "runs", config=config, bank=bank, offline=True)
        return tmp_path / "runs" / "00000-reals"

    return run


def added(run) -> str:
    return json.loads((run / "selection-stage1.json").read_text())["added"][0]


def test_tensorboard_has_samples_and_the_leaderboard(train):
    pytest.importorskip("tensorboard", reason="needs the extra 'tensorboard'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train("auto")
    events = EventAccumulator(str(run)).Reload()
    assert [e.step for e in events.Images("Samples")] == [20, 40]
    assert [e.step for e in events.Scalars("Metrics/recall-mixed")] == [20, 40]
    (table,) = events.Tensors("Leaderboard/stage1/text_summary")
    text = table.tensor_proto.string_val[0].decode()
    assert table.step == 20 and text.startswith("| rank | name |") and f"| {added(run)} |" in text


def test_none_writes_no_events(train):
    assert not list(train("none", strategy="none", k=3, stage_kimg="0.02").glob("events*"))


def records(path) -> list[bytes]:
    """Return the records in a log of LevelDB's format, which W&B writes."""
    data, place, found, part = path.read_bytes(), 7, [], b""
    while place < len(data):
        if 32768 - place % 32768 < 7:  # no header fits the rest of a block
            place += 32768 - place % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        part += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            found.append(part)
            part = b""
    return found


def test_wandb_keeps_a_run_on_this_machine(train, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra 'wandb'")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = train("wandb")
    (path,) = run.glob("wandb/offline-run-*/*.wandb")
    logged: dict = {}
    for data in records(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        for item in record.history.item:
            key = item.key or "/".join(item.nested_key)
            logged.setdefault(key, []).append(json.loads(item.value_json))
    name = (run / "tracked-as.txt").read_text().strip()
    assert name.startswith("00000-reals-") and name in path.name
    assert len(logged["Loss/G/loss"]) == 2 and {0.02, 0.04} == set(logged["kimg"])
    assert logged["Samples/_type"] == ["image-file", "image-file"]
    (board,) = logged["Leaderboard/stage1/path"]
    assert added(run) in (path.parent / "files" / board).read_text()
    assert not list(run.glob("events*"))


def test_trackio_keeps_a_run_on_this_machine(train, tmp_path, monkeypatch, capsys):
    if find_spec("trackio") is None:
        pytest.skip("needs the extra 'trackio'")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    run = train("trackio")
    assert not capsys.readouterr().out  # which is for the snapshot's path
    with closing(sqlite3.connect(tmp_path / "trackio" / "probe.db")) as base:
        lines = base.execute("SELECT run_name, metrics FROM metrics").fetchall()
    name = (run / "tracked-as.txt").read_text().strip()
    assert {owner for owner, _ in lines} == {name}
    logged = {key: value for _, text in lines for key, value in json.loads(text).items()}
    assert logged["kimg"] == 0.04 and logged["Samples"]["_type"] == "trackio.image"
    assert logged["Metrics/recall-mixed"] >= 0
    assert added(run) in json.dumps(logged["Leaderboard/stage1"])


def test_what_is_not_installed_is_named_before_anything_runs(train, cli, reals, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    result = cli("train", "--real", reals, "--log", "wandb", "--dry-run")
    assert result.code == 2 and "pip install wandb" in result.err
    with pytest.raises(UsageError, match="pip install trackio"):
        train("trackio")
