"""Do chosen backbones help a trainer that is not probe's? The DCGAN of examples/, three seeds.

    python experiments/any_trainer.py              # 40 minutes in one thread
    python experiments/any_trainer.py --report     # the page alone, from the results so far

For each seed a plain DCGAN warms up. Its images rank the backbones of bank.yaml. Then three copies
train on, shown equally many images: plain, against the first of the ranking, and against its last.
You can stop it at any time; the same command goes on from the last 250 steps.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from any_trainer_page import draw_sheet, render
from plan import HERE
from weights import HED, RANDOM_JUDGE, prepare_bank

import probe
from probe.files import atomic_path, write_json, write_text
from probe.images.grid import save_grid

sys.path.insert(0, str(HERE.parent / "examples"))
import dcgan

PLAIN, FIRST, LAST = "plain", "first", "last"
ARMS = (PLAIN, FIRST, LAST)
PART = 250  # steps between two saved states
RESULTS = HERE / "results" / "any_trainer.json"
PAGE = HERE.parent / "docs" / "dcgan.md"
SHEET = HERE.parent / "docs" / "dcgan" / "samples.png"
SHEET_SEED = 77


@dataclass(frozen=True)
class Plan:
    """What is trained, and how it is judged; all of it was chosen before the first result.

    Attributes:
        images: folder or zip.
        bank: of the backbones and the judges.
        candidates: the backbones that are ranked.
        judges: the first decides.
        pool: how many of the images are trained on; judges compare with the others.
        warmup, steps: of the plain GAN, and of each arm after it.
        samples: how many images of each arm are judged.
        gamma: weight of R1 at the features; that of the other studies.
    """

    images: Path
    bank: Path
    candidates: tuple[str, ...] = (
        "efficientnet-lite0", "efficientnet-lite1", "mobilenetv2", "craft-vgg16",
    )  # fmt: skip
    judges: tuple[str, ...] = (HED["name"], RANDOM_JUDGE, "efficientnet-lite2")
    seeds: tuple[int, ...] = (0, 1, 2)
    pool: int = 1500
    warmup: int = 2000
    steps: int = 700
    batch: int = 32
    side: int = 32
    width: int = 32
    samples: int = 3000
    gamma: float = 50.0


class Sets:
    """The images that are trained on, and those that no run sees; uint8 (N, 3, side, side)."""

    def __init__(self, plan: Plan) -> None:
        source = probe.open_images(plan.images)
        order = np.random.default_rng(0).permutation(len(source))
        every = source.load(range(len(source)), plan.side).images
        self.training, self.unseen = every[order[: plan.pool]], every[order[plan.pool :]]


def make_gan(plan: Plan, seed: int, backbone: str | None) -> dcgan.Gan:
    """Return a new GAN, with a discriminator on a backbone if one is named."""
    torch.manual_seed(seed)
    options = probe.DiscriminatorOptions(augmentation="diffaugment", seed=seed)
    critics = probe.Discriminators(options, gamma=plan.gamma)
    if backbone is not None:
        (spec,) = probe.load_bank(plan.bank).select([backbone])
        critics.add_entry(spec, offline=True)
    return dcgan.Gan(plan.side, plan.width, critics, "cpu")


def train(plan: Plan, sets: Sets, gan: dcgan.Gan, seed: int, first: int, path: Path) -> None:
    """Train until `path` says it is done; goes on from what `path` holds.

    Args:
        plan: see `Plan`.
        sets: see `Sets`.
        gan: changed in place.
        seed: of the run.
        first: number of its first step; 0 is the warm-up.
        path: file of the state.
    """
    last = plan.warmup if first == 0 else first + plan.steps
    parts, done = parts_of(gan), first
    if path.exists():
        state = torch.load(path, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        done = state["done"]
    while done < last:
        torch.manual_seed(1_000_000 * (seed + 1) + done)  # alike for all arms
        gan.generator.train()
        losses: tuple[torch.Tensor, ...] = ()
        for _ in range(min(PART, last - done)):
            chosen = sets.training[torch.randint(len(sets.training), (plan.batch,))]
            with torch.autocast("cpu", torch.bfloat16):
                losses = dcgan.step(gan, chosen.float() / 127.5 - 1)
            done += 1
        loss_d, loss_g = (loss.item() for loss in losses)
        print(f"{path.stem}: step {done}, D {loss_d:.2f}, G {loss_g:.2f}", flush=True)
        with atomic_path(path) as temporary:
            torch.save({n: p.state_dict() for n, p in parts.items()} | {"done": done}, temporary)


def parts_of(gan: dcgan.Gan) -> dict[str, Any]:
    """Return everything of a GAN that has a state."""
    names = ("generator", "own", "critics", "for_g", "for_d", "average")
    return {name: getattr(gan, name) for name in names}


def rank(plan: Plan, sets: Sets, gan: dcgan.Gan, seed: int) -> list[dict[str, Any]]:
    """Return the candidates with their scores on the images of a generator, best first."""
    fakes = dcgan.draw(gan.average.module, len(sets.training), seed)
    ranking = probe.rank(
        sets.training, fakes, bank=plan.bank, backbones=list(plan.candidates), offline=True,
        device="cpu", options=probe.RankOptions(num=len(sets.training)),
    )  # fmt: skip
    assert ranking is not None  # this is the only process
    return [{"name": row.name, "score": row.score} for row in ranking.leaderboard.ranked]


def judge(plan: Plan, sets: Sets, gan: dcgan.Gan) -> dict[str, dict[str, float]]:
    """Return each judge's distances of the generator's images from the unseen photographs."""
    fakes = dcgan.draw(gan.average.module, plan.samples, seed=10_000_000)
    measured = probe.measure(
        sets.unseen, fakes, bank=plan.bank, backbones=list(plan.judges), offline=True, device="cpu",
        options=probe.MeasureOptions(num=len(sets.unseen), num_gen=plan.samples),
    )  # fmt: skip
    return {row.name: {k: v for k, v in row.values.items() if v is not None}
            for row in measured.rows}  # fmt: skip


def run_seed(plan: Plan, sets: Sets, seed: int, out: Path) -> dict[str, Any]:
    """Return a seed's record; does what is missing."""
    path = out / f"seed{seed}.json"
    record: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    warm = make_gan(plan, seed, None)
    train(plan, sets, warm, seed, 0, out / f"seed{seed}-warmup.pt")
    if "ranking" not in record:
        record |= {"seed": seed, "ranking": rank(plan, sets, warm, seed), "arms": {}}
        record["warmup"] = judge(plan, sets, warm)
        write_json(path, record)
    names = [row["name"] for row in record["ranking"]]
    for arm, backbone in zip(ARMS, (None, names[0], names[-1]), strict=True):
        if arm in record["arms"]:
            continue
        # New optimizers for all: old moments make the first steps against a backbone too long.
        gan = make_gan(plan, seed, backbone)
        for name in ("generator", "own", "average"):
            getattr(gan, name).load_state_dict(getattr(warm, name).state_dict())
        train(plan, sets, gan, seed, plan.warmup, out / f"seed{seed}-{arm}.pt")
        record["arms"][arm] = {"backbone": backbone, "judged": judge(plan, sets, gan)}
        tile = dcgan.draw(gan.average.module, 48, SHEET_SEED)
        save_grid(out / f"seed{seed}-{arm}.png", tile, columns=16)
        write_json(path, record)
    return record


def write_page(plan: Plan, out: Path) -> None:
    """Write results, samples of the first seed, and the page, from what is done so far."""
    seeds = [json.loads(p.read_text("utf-8")) for p in sorted(out.glob("seed*.json"))]
    results = {"plan": settings(plan), "seeds": seeds}
    write_json(RESULTS, results)
    tiles = [out / f"seed{plan.seeds[0]}-{arm}.png" for arm in ARMS]
    is_drawn = all(tile.exists() for tile in tiles)
    if is_drawn:
        draw_sheet(tiles, SHEET)
    sheet = str(SHEET.relative_to(PAGE.parent)) if is_drawn else None
    write_text(PAGE, render(results, sheet))


def settings(plan: Plan) -> Mapping[str, Any]:
    """Return what the page tells of a plan."""
    names = ("candidates", "judges", "pool", "warmup", "steps", "batch", "side", "samples", "gamma")
    return {name: getattr(plan, name) for name in names}


def main() -> None:
    """Run what is missing, then write results and page."""
    parser = argparse.ArgumentParser(description="A DCGAN: plain, first and last of the ranking.")
    parser.add_argument(
        "--images", type=Path,
        default=HERE.parent.parent / "shared" / "datasets" / "images" / "clothing_64.zip",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=HERE / "runs" / "any-trainer")
    parser.add_argument("--report", action="store_true", help="write the page alone")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    judges = list(Plan.judges)
    plan = Plan(args.images, prepare_bank(args.out, judges, {RANDOM_JUDGE: 32, judges[2]: 64}))
    if not args.report:
        sets = Sets(plan)
        for seed in plan.seeds:
            run_seed(plan, sets, seed, args.out)
    write_page(plan, args.out)


if __name__ == "__main__":
    main()
