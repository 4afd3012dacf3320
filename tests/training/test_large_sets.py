"""Runs on sets too large for memory: they go on exactly, also those of earlier releases."""

import json

import pytest
from runs import differences, saved

from probe.errors import ProbeError
from probe.events import Note
from probe.run_files import OPTIONS_FILE
from probe.training.order import Shuffled
from probe.training.stream import RealStream

LONG = {"kimg": 0.032, "tick": 0.016, "device": "cpu"}


class Halt(BaseException):
    """Stands for a kill."""


@pytest.fixture(autouse=True)
def large(monkeypatch):
    """Let forty images be too many, and look at thirty of them."""
    monkeypatch.setattr("probe.training.reals.MEMORY", 0)
    monkeypatch.setattr("probe.training.reals.LOOKED_AT", 30)
    monkeypatch.setattr("probe.training.evaluation.MOST_REALS", 20)


def killed_at(monkeypatch, images):
    import probe.training.loop as loop

    step = loop.train_step

    def killed(state, *arguments, **keywords):
        if state.images == images:
            raise Halt
        return step(state, *arguments, **keywords)

    monkeypatch.setattr(loop, "train_step", killed)


def notes(records):
    return [r.text for r in records if isinstance(r, Note)]


def options(folder):
    return json.loads((folder / OPTIONS_FILE).read_text())


def test_a_killed_run_goes_on_bit_by_bit_past_broken_images(fit, small, monkeypatch):
    for i in (1, 2, 17):
        (small / f"{i:03}.png").write_bytes(b"x")
    whole, records = fit("whole", **LONG)
    assert options(whole)["real"]["known_by"] == "marks"
    said = notes(records)
    assert any("40 images are too many to examine each" in text for text in said)
    named = [text for text in said if "skipped" in text]
    assert any("(not an image)" in text for text in named[1:]), "as they were met"
    with monkeypatch.context() as patch, pytest.raises(Halt):
        killed_at(patch, 20)
        fit("parts", **LONG, save_every="0.000001s")
    folder, _ = fit("parts", **LONG)
    assert folder.name == "00000-small"
    assert differences(saved(whole), saved(folder)) == []


def test_a_run_that_examined_every_image_goes_on_so(fit, monkeypatch):
    """As runs of earlier releases did, however many images they had."""
    with monkeypatch.context() as patch:
        patch.setattr("probe.training.reals.MEMORY", 2**30)
        whole, _ = fit("whole", **LONG)
        killed_at(patch, 20)
        with pytest.raises(Halt):
            fit("parts", **LONG)
    folder = whole.parents[1] / "parts" / "00000-small"
    record = options(folder)
    del record["real"]["known_by"]
    (folder / OPTIONS_FILE).write_text(json.dumps(record))
    orders, make = [], RealStream.__init__

    def noting(self, *arguments, **keywords):
        make(self, *arguments, **keywords)
        orders.append(type(self.order))

    monkeypatch.setattr(RealStream, "__init__", noting)
    assert fit("parts", **LONG)[0] == folder
    assert orders == [Shuffled]
    assert differences(saved(whole), saved(folder)) == []
    longer, _ = fit("parts", **LONG | {"kimg": 0.036}, resume="latest")
    assert longer == folder and orders == [Shuffled] * 2
    new, _ = fit("parts", **LONG)
    assert new.name == "00001-small" and options(new)["real"]["known_by"] == "marks"


def test_a_file_of_another_date_is_another_run_and_the_error_says_how_to_copy(fit, small):
    folder, _ = fit(**LONG)
    (small / "005.png").touch()
    with pytest.raises(ProbeError, match=r"other images or options.*cp -p, rsync -t"):
        fit(**LONG | {"kimg": 0.04}, resume=folder)
