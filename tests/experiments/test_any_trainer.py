"""The study of the DCGAN at the least size: ranks, trains, judges, goes on, writes its page."""

import copy
from dataclasses import replace

import any_trainer
import pytest
import torch
from any_trainer import Plan, Sets, make_gan, run_seed, train
from any_trainer_page import draw_sheet, render
from inputs import write_images, write_judged_bank
from PIL import Image


@pytest.fixture
def plan(tmp_path):
    return Plan(
        write_images(tmp_path / "images", 60, seed=1, size=16), write_judged_bank(tmp_path),
        candidates=("colour", "grid"), judges=("mixed",), seeds=(0,), pool=40, warmup=2, steps=2,
        batch=4, side=16, width=4, samples=20,
    )  # fmt: skip


def test_a_seed_from_ranking_to_page(plan, tmp_path):
    (out := tmp_path / "out").mkdir()
    record = run_seed(plan, Sets(plan), 0, out)
    names = [row["name"] for row in record["ranking"]]
    assert sorted(names) == ["colour", "grid"]
    used = {arm: found["backbone"] for arm, found in record["arms"].items()}
    assert used == {"plain": None, "first": names[0], "last": names[-1]}
    weights = [torch.load(out / f"seed0-{arm}.pt", weights_only=True)["generator"] for arm in used]
    assert not torch.equal(weights[0]["0.weight"], weights[1]["0.weight"])
    assert run_seed(plan, Sets(plan), 0, out) == record  # nothing is done twice
    draw_sheet([out / f"seed0-{arm}.png" for arm in used], tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size == (2 * 16 * 16, 2 * (3 * 3 * 16 + 2 * 8))
    results = {"plan": any_trainer.settings(plan), "seeds": [record]}
    page = render(results, "sheet.png")
    distance = record["arms"]["plain"]["judged"]["mixed"]["frechet"]
    assert "| plain against | times |" in page and f"{distance:.3g}"[:3] in page
    worse = copy.deepcopy(results)
    worse["seeds"][0]["arms"]["plain"]["judged"]["mixed"]["frechet"] *= 2
    assert render(worse, "sheet.png") != page
    assert "one seed, so there is no interval" in page and "It is open whether plain" in page
    clear = {**results, "seeds": [record, record, record]}
    assert ("It is open whether plain or first" in render(clear, None)) is False
    half = {**record, "arms": {"plain": record["arms"]["plain"]}}
    assert "No seed is finished yet" in render({**results, "seeds": [half]}, None)


def test_it_goes_on_exactly(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(any_trainer, "PART", 1)
    sets, found = Sets(plan), []
    for stops in ([1, 2], [2]):
        path = tmp_path / f"{len(stops)}.pt"
        for stop in stops:
            gan = make_gan(plan, 0, "grid")
            train(replace(plan, warmup=stop), sets, gan, 0, 0, path)
        found.append(gan)
    for a, b in zip(*(g.generator.state_dict().values() for g in found)):
        assert torch.equal(a, b)
