"""Whole runs in small: strategies, files, stopping and going on, divergence, the best snapshot."""

import importlib.util
import json

import pytest
from runs import differences, saved

from probe.errors import ProbeError, UsageError
from probe.events import Note, StageStarted, TickDone
from probe.generators.files.snapshot import read_safetensors
from probe.probing.strategies import Strategy

STAGES = {"strategy": "progressive", "stage_kimg": "0.008,0.008,0.008"}


class Killed(BaseException):
    """Stands for a kill between two steps."""


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_progressive_adds_the_best_unused_backbone_stage_by_stage(fit):
    folder, records = fit(**STAGES)
    first, second = (json.loads((folder / f"selection-stage{n}.json").read_text()) for n in (1, 2))
    assert first["in_use"] == [] and second["in_use"] == first["added"]
    for record in (first, second):
        board = record["leaderboard"]
        best = min((row for row in board["rows"] if row["rank"]), key=lambda row: row["rank"])
        assert record["added"] == [best["name"]]
        assert {row["name"] for row in board["rows"] if row["rank"]}.isdisjoint(record["in_use"])
    state = saved(folder)
    assert list(state["members"]) == ["D", *first["added"], *second["added"]]
    assert state["images"] == 24 and state["stage"] == 2
    assert [r.stage for r in records if isinstance(r, StageStarted)] == [1, 2]


def test_the_generators_optimizer_begins_anew_when_a_backbone_joins(fit):
    folder, _ = fit(**STAGES)
    state = saved(folder)  # three stages of two steps
    steps = {name: {int(s["step"]) for s in optimizer["state"].values()}
             for name, optimizer in [("G", state["generator_optimizer"]),
                                     ("D", state["members"]["D"]["optimizer"])]}  # fmt: skip
    assert steps["G"] == {2}
    assert max(steps["D"]) == 7  # and one of R1


def test_heads_can_be_regularised_at_their_features(fit):
    plain, _ = fit("plain", **STAGES)
    flat, _ = fit("flat", **STAGES, gamma_heads=10.0, r1_interval=2)
    names = {f"Loss/r1_penalty/{name}" for name in saved(flat)["members"] if name != "D"}
    assert names and names <= lines(flat / "stats.jsonl")[-1].keys()
    assert not any("r1_penalty/" in name for name in lines(plain / "stats.jsonl")[-1])
    first = next(name for name in saved(flat)["members"] if name != "D")
    heads = [saved(folder)["members"][first]["network"] for folder in (plain, flat)]
    assert differences(*heads)


def test_fixed_takes_k_at_once_and_never_again(fit):
    folder, _ = fit(strategy="fixed", stage_kimg="0.008,0.016")
    selection = json.loads((folder / "selection-stage1.json").read_text())
    ranks = [r["name"] for r in selection["leaderboard"]["rows"] if r["rank"]]
    assert selection["added"] == ranks[:2]
    assert not (folder / "selection-stage2.json").exists()
    assert list(saved(folder)["members"]) == ["D", *ranks[:2]]


def test_greedy_ranks_beside_what_is_in_use(fit):
    folder, _ = fit(**{**STAGES, "strategy": "greedy"})
    first, second = (json.loads((folder / f"selection-stage{n}.json").read_text()) for n in (1, 2))
    assert first["joint"] is None
    joint = {r["name"]: r["score"] for r in second["joint"]["rows"] if r["rank"]}
    assert second["added"] == [max(joint, key=joint.get)]
    alone = {r["name"]: r["score"] for r in second["leaderboard"]["rows"] if r["rank"]}
    assert joint.keys() == alone.keys()
    assert joint != alone


def test_none_uses_no_backbone(fit):
    folder, _ = fit(kimg=0.016)
    assert list(saved(folder)["members"]) == ["D"]
    assert not list(folder.glob("selection*"))
    assert not any("colour" in name for name in lines(folder / "stats.jsonl")[-1])


def test_a_run_writes_what_its_users_parse(fit):
    folder, _ = fit(**STAGES, holdout=10, track_probes=True)
    names = {p.name for p in folder.iterdir()}
    assert {"training_options.json", "reals.png", "fakes_init.png", "fakes000000_008.png",
            "network-snapshot-best.safetensors", "progress.json"} <= names  # fmt: skip
    if importlib.util.find_spec("tensorboard"):
        assert any(name.startswith("events.out.tfevents") for name in names)
    stats = lines(folder / "stats.jsonl")
    assert [s["Progress/kimg"]["mean"] for s in stats] == [0.008, 0.016, 0.024]
    last = stats[-1]
    for name in ("Loss/G/loss", "Loss/D/loss", "Loss/scores/real", "Progress/augment",
                 "Timing/sec_per_kimg", "Timing/G", "Timing/D", "Timing/augment"):  # fmt: skip
        assert last[name].keys() == {"num", "mean", "std"}
    assert last["Loss/D/loss"]["num"] == 2 and "timestamp" in last
    metric = lines(folder / "metric-frechet-mixed.jsonl")
    assert len(metric) == 3 and metric[0]["results"]["frechet-mixed"] >= 0
    snapshots = {path.name for path in folder.glob("network-snapshot-0*")}
    assert snapshots == {line["snapshot"] for line in metric} and len(snapshots) == 3
    assert len(list(folder.glob("fakes0*.png"))) == 3
    accuracy = lines(folder / "metric-accuracy.jsonl")[-1]["results"]
    assert {"Accuracy/D/train", "Accuracy/D/holdout", "Accuracy/D/fake"} <= accuracy.keys()
    assert len(accuracy) == 9 and all(0 <= v <= 1 for v in accuracy.values())
    probes = lines(folder / "probes.jsonl")
    assert len(probes) == 3 and probes[0]["scores"].keys() == {"colour", "edges", "grid"}


def test_the_best_snapshot_is_the_one_with_the_least_distance(fit):
    folder, _ = fit(kimg=0.032)
    best = min(
        line["results"]["frechet-mixed"] for line in lines(folder / "metric-frechet-mixed.jsonl")
    )
    kimg = next(
        line["kimg"]
        for line in lines(folder / "metric-frechet-mixed.jsonl")
        if line["results"]["frechet-mixed"] == best
    )
    assert read_safetensors(folder / "network-snapshot-best.safetensors").kimg == kimg
    assert tuple(saved(folder)["best"]) == (kimg, best)


@pytest.mark.parametrize("stop", [4, 12, 20])
@pytest.mark.parametrize("strategy", ["progressive", "greedy"])
def test_a_killed_run_goes_on_bit_by_bit(fit, monkeypatch, strategy, stop):
    """Killed in the warm-up, in the first stage, in the second: repeating the command is enough."""
    import probe.training.loop as loop

    # A GPU adds in another order each time.
    options = {**STAGES, "strategy": strategy, "pl_weight": 2.0, "style_mixing": 0.9,
               "device": "cpu"}  # fmt: skip
    whole, _ = fit("whole", **options)
    step = loop.train_step

    def killed_step(state, *arguments, **keywords):
        if state.images == stop:
            raise Killed
        return step(state, *arguments, **keywords)

    monkeypatch.setattr(loop, "train_step", killed_step)
    with pytest.raises(Killed):
        fit("parts", **options)
    monkeypatch.setattr(loop, "train_step", step)
    parts, _ = fit("parts", **options)
    assert parts.name == "00000-small"
    assert differences(saved(whole), saved(parts)) == []
    for name in ("stats.jsonl", "metric-frechet-mixed.jsonl"):
        assert [line["kimg"] for line in lines(whole / name)] == [
            line["kimg"] for line in lines(parts / name)
        ]
    for name in ("selection-stage1.json", "selection-stage2.json"):
        one, other = (json.loads((folder / name).read_text()) for folder in (whole, parts))
        assert one["added"] == other["added"]


def test_a_finished_run_is_not_touched_by_the_same_command(fit):
    first, _ = fit(kimg=0.008)
    second, _ = fit(kimg=0.008)
    assert (first.name, second.name) == ("00000-small", "00001-small")


def test_a_batch_may_be_larger_than_a_tick(fit):
    folder, records = fit(kimg=0.04, batch=16, tick=0.002, snap=3)
    ticks = [r.statistics["Progress/kimg"] for r in records if isinstance(r, TickDone)]
    assert ticks == [0.016, 0.032, 0.048]
    assert len(lines(folder / "metric-frechet-mixed.jsonl")) == 3


def test_resume_latest_takes_the_newest_run_and_a_longer_schedule(fit, tmp_path):
    with pytest.raises(UsageError, match="no run in"):
        fit("empty", resume="latest", kimg=0.008)
    fit(kimg=0.008, device="cpu")
    folder, _ = fit(kimg=0.016, resume="latest", device="cpu")
    assert folder.name == "00000-small" and saved(folder)["images"] == 16
    whole, _ = fit("whole", kimg=0.016, device="cpu")
    assert differences(saved(whole), saved(folder)) == []


def test_two_processes_never_share_a_run(fit, monkeypatch):
    import probe.training.loop as loop

    step, folders = loop.train_step, []

    def nested(state, *arguments, **keywords):
        if not folders:
            folders.append(None)
            folders[0] = fit(kimg=0.008)[0].name
        return step(state, *arguments, **keywords)

    monkeypatch.setattr(loop, "train_step", nested)
    outer, _ = fit(kimg=0.008)
    assert outer.name == "00000-small" and folders == ["00001-small"]


def test_divergence_stops_and_keeps_the_last_good_state(fit, monkeypatch):
    folder, _ = fit(kimg=0.008)
    kept = saved(folder)
    import probe.training.loop as loop

    step = loop.train_step

    def broken(state, *arguments, **keywords):
        found = step(state, *arguments, **keywords)
        next(state.generator.parameters()).data.fill_(float("nan"))
        return found

    monkeypatch.setattr(loop, "train_step", broken)
    with pytest.raises(ProbeError, match=r"NaN or infinite.*last good state is in"):
        fit(kimg=0.016, resume=folder)
    assert differences(kept, saved(folder)) == []


def test_a_stage_may_end_early(fit):
    folder, records = fit(**STAGES | {"stage_kimg": "0.008,0.2,0.008"}, patience=1)
    ended = [r for r in records if isinstance(r, Note) and "ends early" in r.text]
    assert ended
    state = saved(folder)
    assert state["images"] < 216 and state["stage"] == 2
    assert json.loads((folder / "progress.json").read_text())["finished"]


def test_init_goes_on_without_a_warm_up(fit):
    first, _ = fit("first", kimg=0.008)
    start = read_safetensors(first / "network-snapshot-best.safetensors").generator
    folder, records = fit(
        strategy="fixed", kimg=0.008, init=first / "network-snapshot-best.safetensors"
    )
    assert [r.kimg for r in records if isinstance(r, StageStarted)] == [0.0]
    first = lines(folder / "metric-frechet-mixed.jsonl")[0]
    snapshot = read_safetensors(folder / first["snapshot"])
    assert first["kimg"] == 0
    assert snapshot.generator.z_dim == start.z_dim


def test_where_nothing_tells_the_sets_apart_nothing_joins(fit, monkeypatch):
    import probe.training.selection as selection

    nothing = Strategy(choose=lambda boards, k, used: ())
    monkeypatch.setitem(selection.STRATEGIES, "progressive", nothing)
    folder, records = fit(**STAGES)
    assert list(saved(folder)["members"]) == ["D"]
    assert [r.added for r in records if isinstance(r, StageStarted)] == [(), ()]


def test_smoothing_follows_the_probes_accuracy(fit):
    folder, _ = fit(**STAGES)
    for n in (1, 2):
        selection = json.loads((folder / f"selection-stage{n}.json").read_text())
        (name,) = selection["added"]
        row = next(r for r in selection["leaderboard"]["rows"] if r["name"] == name)
        target = saved(folder)["members"][name]["target"]
        assert target == (0.8 if row["accuracy"] > 0.9 else 1.0)
    never, _ = fit("never", **STAGES, smooth="never")
    assert {m["target"] for m in saved(never)["members"].values()} == {1.0}
    own, _ = fit("own", **STAGES, smooth="always", smooth_generator=False)
    members = saved(own)["members"]
    assert members.pop("D")["target"] == 1.0
    assert {(m["target"], m["generator_target"]) for m in members.values()} == {(0.8, 1.0)}
