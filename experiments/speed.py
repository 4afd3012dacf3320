"""What a study's runs cost on this machine, before they are started: the figures of the README.

    python experiments/speed.py [--config experiments/study.yaml] [--threads 1]

Seconds per thousand images of the GAN alone and of each backbone, by the product's own dry run, and
what that comes to for each run. Judging and ranking come on top.
"""

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from plan import HERE, Run, read_study

from probe.accel.memory import keep_freed_memory


def hours(run: Run, own: float, each: dict[str, float]) -> float:
    """Return about how long the steps of a run take; stages with the mean of what may join."""
    config = run.config
    if config.strategy == "none":
        return run.kimg * own / 3600
    added = sum(each[name] for name in run.backbones) / len(run.backbones)
    lengths = config.stage_lengths()
    joined = [config.k] * len(lengths) if config.strategy == "fixed" else range(len(lengths))
    total = lengths[0] * own
    total += sum(
        kimg * (own + k * added) for kimg, k in zip(lengths[1:], list(joined)[1:], strict=True)
    )
    return total / 3600


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=HERE / "study.yaml")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    keep_freed_memory()
    study = read_study(given.config)
    from data import training_archive
    from weights import prepare_bank

    from probe.api.train import plan_training

    names = sorted({name for run in study.runs for name in run.backbones})
    with tempfile.TemporaryDirectory() as folder:
        bank = prepare_bank(Path(folder), [], study.inputs)
        found = plan_training(
            training_archive(study, Path(folder)),
            config=replace(study.runs[0].config, strategy="none", stage_kimg=None, eval_num=0),
            bank=bank,
            backbones=names,
            device=study.device,
            offline=True,
        )
    print(f"{'own GAN':34} {found.own:6.1f} s/kimg")
    for name, seconds in found.each.items():
        print(f"  + {name:30} {seconds:6.1f} s/kimg")
    total = 0.0
    for run in study.runs:
        spent = hours(run, found.own, found.each)
        total += spent
        print(f"{run.group:10} {run.name:34} {60 * spent:5.0f} min")
    print(f"All: {total:.1f} h of steps, one run at a time.")


if __name__ == "__main__":
    main()
