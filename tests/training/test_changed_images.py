"""What a run makes of images and labels that are not as they were."""

import json

import pytest

from probe.errors import ImagesError, ProbeError
from probe.events import Note


def label(folder, classes: int) -> None:
    names = sorted(path.name for path in folder.glob("*.png"))
    labels = [[name, i % classes] for i, name in enumerate(names)]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))


def test_other_labels_are_another_run(fit, small):
    label(small, 2)
    first, _ = fit(kimg=0.008, cond=True, eval_num=0)
    swapped = json.loads((small / "dataset.json").read_text())
    swapped["labels"] = [[name, 1 - which] for name, which in swapped["labels"]]
    (small / "dataset.json").write_text(json.dumps(swapped))
    with pytest.raises(ProbeError, match="other images or options"):
        fit(kimg=0.016, cond=True, eval_num=0, resume=first)


def test_labels_that_cannot_be_used_stop_conditional_training_alone(fit, small):
    (small / "dataset.json").write_text('{"labels": [["000.png", [1, 1]]]}')
    folder, _ = fit(kimg=0.008, eval_num=0)
    assert list(folder.glob("network-snapshot-*"))
    with pytest.raises(ImagesError, match=r"the label of 000\.png, \[1, 1\], is not one-hot"):
        fit("other", kimg=0.008, cond=True)


def test_what_was_left_out_is_said(fit, small):
    (small / "phone.heic").write_bytes(b"")
    _, records = fit(kimg=0.008, eval_num=0)
    notes = [event.text for event in records if isinstance(event, Note)]
    assert any("left out" in note and "1 .heic" in note for note in notes)


def test_an_image_that_changes_before_the_evaluator_sees_it_stops_the_run(fit, small, monkeypatch):
    import probe.training.setup as setup

    make_plan = setup.make_plan

    def meanwhile(*given, **named):  # the images are in memory by now
        (small / "003.png").write_bytes((small / "004.png").read_bytes())
        return make_plan(*given, **named)

    monkeypatch.setattr(setup, "make_plan", meanwhile)
    with pytest.raises(ProbeError, match=r"003\.png \(changed since it was first read\)\. Restore"):
        fit(kimg=0.008)
