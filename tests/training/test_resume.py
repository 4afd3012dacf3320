"""Going on: from which file, with what it must be the same as, and what is put right on the way."""

import json
import re

import pytest
import torch
from inputs import Colour, Mixed
from runs import differences, saved

from probe.errors import ProbeError, UsageError
from probe.events import Note
from probe.generators.files.snapshot import read_safetensors
from probe.run_files import PREVIOUS_FILE, STATE_FILE
from probe.training.state_file import read_state

STAGES = {"strategy": "fixed", "k": 1, "stage_kimg": "0.008,0.016", "device": "cpu"}
LONGER = STAGES | {"stage_kimg": "0.008,0.024"}


class Otherwise(torch.nn.Module):
    """Sees what `Colour` or `Mixed` sees, in other units: other weights of the same shape."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * 2


def contents(folder):
    """Return what a run directory holds, but for its log of words."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def notes(records):
    return " ".join(r.text for r in records if isinstance(r, Note))


def flip(path, byte=1000):
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "missing"])
def test_a_damaged_state_is_named_and_the_one_before_it_taken(fit, damage):
    whole, _ = fit("whole", **LONGER)
    folder, _ = fit(**STAGES)
    path = folder / STATE_FILE
    before = path.read_bytes()
    kimg = read_state(folder).record["images"] / 1000
    if damage == "flip":
        flip(path)
    elif damage == "missing":  # killed between two renames
        path.unlink()
    else:
        path.write_bytes(before[: len(before) // 2] if damage == "cut" else b"")
    bad = None if damage == "missing" else path.read_bytes()
    assert read_state(folder).record["images"] / 1000 < kimg
    again, records = fit(**LONGER, resume=folder)
    assert again == folder
    assert differences(saved(whole), saved(folder)) == []
    if bad is None:
        assert "damaged" not in notes(records)
    else:
        assert f"{path} is damaged" in notes(records) and "at kimg 0.016" in notes(records)
        assert (folder / "training-state-damaged.pt").read_bytes() == bad


def test_where_no_state_is_whole_nothing_is_touched(fit):
    folder, _ = fit(**STAGES)
    for name in (STATE_FILE, PREVIOUS_FILE):
        flip(folder / name)
    before = contents(folder)
    with pytest.raises(ProbeError, match=f"{STATE_FILE} is damaged.*{PREVIOUS_FILE} is damaged"):
        fit(**LONGER, resume=folder)
    assert contents(folder) == before


def test_every_flipped_bit_of_the_seal_is_noticed(fit):
    """Its own bytes are not under the digest."""
    folder, _ = fit(kimg=0.008, device="cpu")
    path = folder / STATE_FILE
    whole = path.read_bytes()
    for byte in range(len(whole) - 64 - 22, len(whole)):
        path.write_bytes(whole)
        flip(path, byte)
        with pytest.raises(ProbeError, match="is damaged"):
            read_state(folder)


def test_states_of_earlier_releases_go_on(fit):
    """They have no seal and do not say which weights were used."""
    whole, _ = fit("whole", **LONGER)
    folder, _ = fit(**STAGES)
    record = saved(folder)
    for name in ("version", "weights", "judge"):
        del record[name]
    torch.save(record, folder / STATE_FILE)
    (folder / PREVIOUS_FILE).unlink()
    fit(**LONGER, resume=folder)
    one, other = saved(whole), saved(folder)
    assert other.pop("weights") == {} and one.pop("weights")
    assert differences(one, other) == []


def test_a_state_of_another_shape_is_refused_in_a_sentence(fit):
    folder, _ = fit(**STAGES)
    record = saved(folder)
    del record["generator"]["mapping.w_avg"], record["version"]
    torch.save(record, folder / STATE_FILE)
    with pytest.raises(ProbeError, match="does not fit this release.*--init"):
        fit(**LONGER, resume=folder)


def test_another_runs_state_is_refused_and_stays_as_it_is(fit, tmp_path):
    folder, _ = fit(kimg=0.008)
    before = contents(folder)
    with pytest.raises(ProbeError, match="other images or options"):
        fit(kimg=0.016, lr=0.1, resume=folder)
    assert contents(folder) == before, "its options are needed to go on"
    with pytest.raises(UsageError, match="is a run directory itself"):
        fit(folder.relative_to(tmp_path), kimg=0.008)


def test_other_weights_of_a_backbone_in_use_are_refused(fit, judged_bank):
    folder, _ = fit(**STAGES, backbones=["colour"])
    torch.jit.script(Otherwise(Colour())).save(str(judged_bank.parent / "colour.pt"))
    before = contents(folder)
    with pytest.raises(ProbeError, match="other weights, or another bank entry, of colour"):
        fit(**LONGER, backbones=["colour"], resume=folder)
    assert contents(folder) == before


def test_another_entry_of_a_backbone_in_use_is_refused(fit, judged_bank):
    folder, _ = fit(**STAGES, backbones=["colour"])
    text = judged_bank.read_text()
    judged_bank.write_text(re.sub(r"(name: colour.*?)input: 32", r"\1input: 16", text, flags=re.S))
    with pytest.raises(ProbeError, match="of colour"):
        fit(**LONGER, backbones=["colour"], resume=folder)


def test_another_judge_is_refused(fit, judged_bank):
    folder, _ = fit(**STAGES)
    torch.jit.script(Otherwise(Mixed())).save(str(judged_bank.parent / "mixed.pt"))
    with pytest.raises(ProbeError, match="of the evaluator"):
        fit(**LONGER, resume=folder)


def test_other_weights_of_a_backbone_that_is_not_in_use_are_none_of_its_business(fit, judged_bank):
    folder, _ = fit(**STAGES)
    (used,) = json.loads((folder / "selection-stage1.json").read_text())["added"]
    unused = next(name for name in ("edges", "grid") if name != used)
    torch.jit.script(Colour()).save(str(judged_bank.parent / f"{unused}.pt"))
    assert fit(**LONGER, resume=folder)[0] == folder


def test_a_best_snapshot_from_beyond_the_state_does_not_stay(fit):
    options = {"tick": 0.008, "batch": 4, "device": "cpu"}
    folder, _ = fit(kimg=0.04, **options)
    best = folder / "network-snapshot-best.safetensors"
    wanted, kimg = best.read_bytes(), read_safetensors(best).kimg
    others = [p for p in folder.glob("network-snapshot-0*") if read_safetensors(p).kimg != kimg]
    assert len(others) == 4, "all of one thousand images"
    for other in others:
        best.write_bytes(other.read_bytes())
        fit(kimg=0.04, **options, resume=folder)
        assert best.read_bytes() == wanted


def test_a_best_snapshot_that_is_gone_is_said(fit):
    folder, _ = fit(kimg=0.016, device="cpu")
    kimg = saved(folder)["best"][0]
    for path in folder.glob("network-snapshot-*"):
        if read_safetensors(path).kimg == kimg:
            path.write_bytes(path.read_bytes()[:100])
    _, records = fit(kimg=0.024, device="cpu", resume=folder)
    assert f"The best snapshot, at kimg {kimg:g}, is gone or damaged" in notes(records)
    assert read_safetensors(folder / "network-snapshot-best.safetensors").kimg == 0.024


def test_the_best_of_an_earlier_release_is_found(fit):
    """They called every snapshot of one thousand images alike."""
    folder, _ = fit(kimg=0.008, device="cpu")
    best = folder / "network-snapshot-best.safetensors"
    wanted = best.read_bytes()
    best.unlink()
    (folder / "network-snapshot-000000_008.safetensors").rename(
        folder / "network-snapshot-000000.safetensors"
    )
    fit(kimg=0.008, device="cpu", resume=folder)
    assert best.read_bytes() == wanted


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"finished": "no"}', "[" * 100_000])
def test_damaged_progress_is_written_anew(fit, text):
    folder, _ = fit(kimg=0.008, device="cpu")
    whole = (folder / "progress.json").read_text()
    (folder / "progress.json").write_text(text)
    assert fit(kimg=0.008, device="cpu")[0] == folder, "it might not be finished"
    assert (folder / "progress.json").read_text() == whole


def test_damaged_options_stop_a_run_that_might_be_meant(fit):
    folder, _ = fit(kimg=0.008, device="cpu")
    path = folder / "training_options.json"
    whole = json.loads(path.read_text())
    for text in ("", "{", '{"digest": 1}', path.read_text()[:-20]):
        path.write_text(text)
        with pytest.raises(ProbeError, match=f"{path} is damaged.*--resume {folder}"):
            fit(kimg=0.008, device="cpu")
    assert fit(kimg=0.008, resume=folder, device="cpu")[0] == folder
    assert json.loads(path.read_text()) == whole, "it is written anew"


def test_damaged_lines_of_a_log_are_dropped_and_those_of_others_stay(fit):
    folder, _ = fit(kimg=0.008, device="cpu")
    stats, other = folder / "stats.jsonl", folder / "metric-fid50k_full.jsonl"
    good = stats.read_text()
    stats.write_text(good + '{"kimg": 0.0' + "\n[]\n" + "[" * 5000 + "\n" + good[:-9])
    line = json.dumps({"results": {"fid50k_full": 9.0}, "snapshot_pkl": "x.pkl"}) + "\n"
    other.write_text(line)
    notebook = folder / "mine.jsonl"
    notebook.write_text("not ours")
    fit(kimg=0.008, resume=folder, device="cpu")
    assert stats.read_text() == good and other.read_text() == line
    assert notebook.read_text() == "not ours"


def test_a_run_that_began_twice_has_each_line_once(fit, monkeypatch):
    """Killed before there was a state: what it had logged is logged again."""
    import probe.training.loop as loop

    first, _ = fit("first", kimg=0.008)
    init = first / "network-snapshot-best.safetensors"
    step = loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit(kimg=0.008, init=init)
    monkeypatch.setattr(loop, "train_step", step)
    folder, _ = fit(kimg=0.008, init=init)
    lines = (folder / "metric-frechet-mixed.jsonl").read_text().splitlines()
    assert [json.loads(line)["kimg"] for line in lines] == [0.0, 0.008]
    assert folder.name == "00000-small"


def test_what_a_killed_process_had_begun_to_write_is_removed(fit):
    folder, _ = fit(kimg=0.008, device="cpu")
    begun = [
        folder / f".{name}.a1b2c3.partial"
        for name in (STATE_FILE, "stats.jsonl", "fakes000000.png")
    ]
    mine = folder / ".notes"
    for path in (*begun, mine):
        path.write_bytes(b"half")
    fit(kimg=0.008, resume=folder, device="cpu")
    assert mine.exists() and not any(path.exists() for path in begun)


def test_a_folder_that_was_only_made_is_used(fit, tmp_path):
    (tmp_path / "runs/00000-small").mkdir(parents=True)
    (tmp_path / "runs/00000-small/.lock").touch()
    (tmp_path / "runs/00001-other").mkdir(parents=True)
    assert fit(kimg=0.008)[0].name == "00000-small"
    assert fit(kimg=0.008)[0].name == "00002-small"
