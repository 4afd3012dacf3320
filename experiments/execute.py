"""One run from beginning to end: train, then judge. Started by `study.py`, once per run.

    python experiments/execute.py --config experiments/study.yaml --out experiments/runs/study \
        --run 500-none-s0

Goes on where it was stopped, or from the end of the warm-up that it shares. What it leaves: train/
(the trainer's own run directory), trained.json (where it was trained), result.json (everything the
page needs) and features.npy (of the judged samples, for intervals).
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from data import judged_parts, training_archive
from plan import HERE, WARMUP, Run, Study, read_json, read_study
from warmup import go_on_from
from weights import bank_digest, judge_digest

from probe.accel.memory import keep_freed_memory
from probe.errors import ProbeError, UsageError
from probe.events import Event, Note, RunPlanned, SnapshotSaved, StageStarted, TickDone
from probe.files import atomic_path, write_json
from probe.images.open import open_images
from probe.run_files import OPTIONS_FILE, PROGRESS_FILE

RESULT, FEATURES, BANK, IDENTITY = "result.json", "features.npy", "bank.yaml", "identity.json"
TRAINED = "trained.json"
OTHERWISE = "{} was made with other options. Remove it, or choose another --out."
SCHEMA = 1
LIBRARIES = ("torch", "torchvision", "timm", "scikit-learn", "numpy", "scipy", "pillow")


def run_folder(out: Path, run: Run) -> Path:
    """Return where a run's files are."""
    return out / "runs" / run.name


def finished_result(out: Path, study: Study, run: Run) -> dict[str, Any] | None:
    """Return a run's result, None where it has none yet, or was judged otherwise.

    Raises:
        UsageError: it was trained with other options.
    """
    folder = run_folder(out, run)
    result = read_json(folder / RESULT)
    if result is None:
        return None
    ours, theirs = identity(study, run), result["identity"]
    if any(theirs.get(key) != value for key, value in training_identity(study, run).items()):
        raise UsageError(OTHERWISE.format(folder))
    return result if ours == theirs else None  # what was trained is judged again


def identity(study: Study, run: Run) -> dict[str, Any]:
    """Return what decides a run's numbers, as plain values."""
    return {
        **training_identity(study, run),
        "evaluators": study.evaluators,
        "judges": judge_digest(study.inputs_of(study.evaluators)),
        "fakes": study.fakes,
        "judge_seed": study.judge_seed,
    }


def training_identity(study: Study, run: Run) -> dict[str, Any]:
    """Return the part of a run's identity on which its training depends."""
    return {
        "options": dict(run.options),
        "backbones": list(run.backbones),
        "bank": bank_digest(study.inputs_of(run.backbones)),
        "threads": study.threads,
    }


def finished_training(out: Path, study: Study, run: Run) -> Path | None:
    """Return the trainer's directory of a run that has come to its end.

    Raises:
        UsageError: what is in its folder was begun with other options.
    """
    folder = run_folder(out, run)
    theirs = read_json(folder / IDENTITY)
    if theirs not in (None, training_identity(study, run)):
        raise UsageError(OTHERWISE.format(folder))
    for trained in sorted((folder / "train").glob("[0-9]*-*"), reverse=True):
        progress = read_json(trained / PROGRESS_FILE)
        if progress is not None and progress["finished"]:
            return trained
    return None


def execute(study: Study, run: Run, out: Path, device: str | None = None) -> dict[str, Any]:
    """Train and judge, unless that is done; see `train`.

    Returns:
        The result.
    """
    done = finished_result(out, study, run)
    if done is not None:
        return done
    folder, started = run_folder(out, run), time.monotonic()
    trained = train(study, run, out, device)
    trained_seconds = time.monotonic() - started
    from judge import open_judge
    from records import last_snapshot, read_training

    training = read_training(trained, run)
    source, parts = open_images(study.archive), judged_parts(study, run)
    resolution = run.config.resolution or source.resolution
    snapshots = {"last": last_snapshot(trained, run.kimg)}
    if training["best_kimg"] not in (None, run.kimg):
        snapshots["best"] = last_snapshot(trained, training["best_kimg"])
    judged: dict[str, Any] = {which: {} for which in snapshots}
    floor, precision = {}, None
    for name in study.evaluators:
        judge = open_judge(out / BANK, name, source, resolution=resolution)
        floor[name], precision = judge.floor(parts["all"]), judge.precision
        for which, snapshot in snapshots.items():
            _say(f"judging {snapshot.name} with {name}")
            fakes = judge.features(
                snapshot, count=study.fakes, seed=study.judge_seed, resolution=resolution
            )
            judged[which][name] = judge.measure(fakes, parts)
            if which == "last" and name == study.evaluators[0]:
                import numpy as np

                with atomic_path(folder / FEATURES) as temporary, temporary.open("wb") as f:
                    np.save(f, fakes)
    result = {
        "schema": SCHEMA,
        "run": run.name,
        "arm": run.arm,
        "group": run.group,
        "images": run.images,
        "seed": run.seed,
        "identity": identity(study, run),
        "training": training,
        "judged": judged,
        "floor": floor,
        "precision": precision,
        **(read_json(folder / TRAINED) or {"machine": machine(), "versions": versions()}),
        "seconds": {
            "this_start_training": trained_seconds,
            "steps": sum(
                (b["kimg"] - a["kimg"]) * b["Timing/sec_per_kimg"]
                for a, b in zip(
                    [{"kimg": 0}, *training["series"]], training["series"], strict=False
                )
            ),
            "judging": time.monotonic() - started - trained_seconds,
        },
    }
    write_json(folder / RESULT, result)
    return result


def train(study: Study, run: Run, out: Path, device: str | None = None) -> Path:
    """Return the finished run directory, training first where there is none.

    A run whose warm-up is there goes on from its end.

    Args:
        study: the configuration.
        run: one of its runs, or a warm-up.
        out: folder of the runs.
        device: what trains, if it is not the configuration's.
    """
    import probe

    folder = run_folder(out, run)
    found = finished_training(out, study, run)
    if found is not None:
        return found
    write_json(folder / IDENTITY, training_identity(study, run))
    shared = study.warmup_of(run)
    warmup = finished_training(out, study, shared) if shared else None

    def follow(event: Event) -> None:
        if isinstance(event, RunPlanned) and shared and warmup and go_on_from(warmup, run, event):
            _say(f"goes on from {shared.name}")
        _log(event)

    probe.train(
        training_archive(study, out),
        outdir=folder / "train",
        config=run.config,
        bank=out / BANK,
        backbones=run.backbones,
        device=device or study.device,
        offline=True,
        on_event=follow,
    )
    found = finished_training(out, study, run)
    if found is None:
        raise ProbeError(f"{run.name}: training ended without being finished.")
    write_json(folder / TRAINED, {"machine": machine(found), "versions": versions()})
    return found


def _log(event: Event) -> None:
    """Write one line per tick and per event to the log."""
    match event:
        case TickDone(statistics=found):
            _say(f"kimg {found['Progress/kimg']:g}  {found['Timing/sec_per_kimg']:.1f} s/kimg")
        case StageStarted():
            _say(f"stage {event.stage}: {', '.join(event.added) or 'nothing'} joins")
        case SnapshotSaved():
            measured = event.results.get("frechet")
            text = "" if measured is None else f"  Fréchet {measured:.1f}"
            _say(f"snapshot {Path(event.path).name}{text}")
        case Note(text):
            _say(text)


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def machine(trained: Path | None = None) -> dict[str, Any]:
    """Describe the machine, and the GPU if that trained the run in this directory."""
    name, model = platform.processor() or platform.machine(), ""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
            elif line.startswith("model\t"):
                model = line.split(":", 1)[1].strip()
            elif not line:
                break
    except OSError:
        pass
    able = hasattr(os, "sched_getaffinity")
    return {
        "cpu": name,
        "cpu_model": model,
        "cores": len(os.sched_getaffinity(0)) if able else os.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")) or None,
        "system": f"{platform.system()} {platform.machine()}",
        **({} if trained is None else _gpu(read_json(trained / OPTIONS_FILE)["device"])),
    }


def _gpu(device: str) -> dict[str, str]:
    import torch

    return {"gpu": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {}


def versions() -> dict[str, str]:
    """Return the versions of Python, the package, its commit where it is known, the libraries."""
    import probe

    def git(*command: str) -> str:
        done = subprocess.run(
            ["git", "--no-optional-locks", *command],
            cwd=HERE, capture_output=True, encoding="utf-8", check=True,
        )  # fmt: skip
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "--short", "HEAD")
        # The paths are those of git, from the folder of this file.
        commit += "+" if git("status", "--porcelain", "--", "../probe") else ""
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return {
        "python": platform.python_version(),
        "probe": probe.__version__,
        "commit": commit,
        **{name: metadata.version(name) for name in LIBRARIES},
    }


def main() -> None:
    """Execute one run."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--device", help="what trains, if it is not the configuration's")
    parser.add_argument("--train-only", action="store_true", help="leave judging to a later start")
    arguments = parser.parse_args()
    try:
        study = read_study(arguments.config)
        run = study.run(arguments.run)
        if run.arm == WARMUP or arguments.train_only:
            train(study, run, arguments.out, arguments.device)
        else:
            execute(study, run, arguments.out, arguments.device)
    except ProbeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
