"""The study, from one command: train what is missing, judge it, write the page.

    python experiments/study.py                        # 2.5 hours on two cores; may be stopped
    python experiments/study.py --only first --jobs 1  # a group or a run: --only '500-none-*'
    python experiments/study.py --status               # what is done, what is left
    python experiments/study.py --report               # the page from what is done, no training

A study can be trained on one machine and judged on another:

    python experiments/study.py --config experiments/photos.yaml --prepare     # what to take along
    python experiments/study.py --config experiments/photos.yaml --dry-run --minutes 5 --pace 3
    python experiments/study.py --config experiments/photos.yaml --minutes 5 --train-only --pack DIR
    python experiments/study.py --config experiments/photos.yaml --judge-only  # what is trained

Finished runs are skipped, also those that experiments/results/ holds from another machine;
unfinished ones go on. Runs and features go to --out, results to experiments/results/, the page to
docs/NAME.md with its figures in docs/NAME/.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import schedule
from data import training_archive
from execute import (
    BANK,
    FEATURES,
    RESULT,
    finished_result,
    identity,
    run_folder,
)
from jobs import Stopped, run_all
from pack import pack_runs
from plan import HERE, Run, Study, read_json, read_study

from probe.errors import ProbeError, UsageError
from probe.files import lock, write_json, write_text

ROOT = HERE.parent
SCHEMA = 1
INTERVALS = "intervals.json"
JOBS, JOBS_ON_A_GPU = 2, 12  # small networks leave a GPU waiting for the processor


@dataclass(frozen=True, kw_only=True)
class Doing:
    """What a start of the command does.

    Attributes:
        jobs: runs at a time.
        device: what trains, if it is not the configuration's.
        train, judge: whether runs are trained, and judged.
        minutes: after which running trainings are stopped; None for as long as it takes.
        pace: seconds per thousand images with so many runs at a time; None to go by what the runs
            so far have taken.
    """

    jobs: int
    device: str | None = None
    train: bool = True
    judge: bool = True
    minutes: float | None = None
    pace: float | None = None


def say(text: str) -> None:
    """Tell the user."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def locked(out: Path) -> Any:
    """Keep a second study out of the same folder.

    Raises:
        UsageError: another process is at it.
    """
    out.mkdir(parents=True, exist_ok=True)
    held = lock(out / ".lock")
    if held is None:
        raise UsageError(f"--out: another process is running the study in {out}.")
    with held:
        yield


def run_missing(study: Study, runs: Sequence[Run], out: Path, doing: Doing) -> list[str]:
    """Execute the runs that have no result yet, or as much of that as is to be done.

    Returns:
        The names of those that failed.
    """
    from weights import prepare_bank

    begun = time.monotonic()
    missing = [run for run in runs if finished_result(out, study, run) is None]
    warmups, untrained = schedule.parts(study, missing, out)
    if not doing.judge:
        missing = untrained
    if not doing.train:
        missing, warmups = [run for run in missing if run not in untrained], []
    if not missing:
        return []
    os.environ.setdefault("PROBE_CACHE_DIR", str((out / "cache").resolve()))
    if doing.train:
        training_archive(study, out)
    prepare_bank(out, study.evaluators if doing.judge else [], study.inputs)
    say(
        f"{len(missing)} runs to do, {doing.jobs} at a time with {study.threads} thread(s) each, "
        f"{len(warmups)} warm-ups before them; logs are in {out}/runs/*/log.txt"
    )
    options = ["--config", str(study.path), "--out", str(out)]
    options += ["--device", doing.device] if doing.device else []
    options += [] if doing.judge else ["--train-only"]
    failed = []
    for part in (warmups, missing):
        failed += run_all(
            {run.name: [str(HERE / "execute.py"), *options, "--run", run.name] for run in part},
            {run.name: run_folder(out, run) / "log.txt" for run in part},
            jobs=doing.jobs,
            threads=study.threads,
            say=say,
            limit=_limit(study, part, out, doing, begun),
        )
    return failed


def _limit(
    study: Study, runs: Sequence[Run], out: Path, doing: Doing, begun: float
) -> schedule.Limit | None:
    """Return when these runs are stopped, and how long each would take."""
    if doing.minutes is None:
        return None
    pace = doing.pace or schedule.measured_pace(out) or 0.0
    seconds = {run.name: schedule.seconds_left(study, run, out, pace) for run in runs}
    return schedule.Limit(begun + 60 * doing.minutes, seconds)


def show_plan(study: Study, runs: Sequence[Run], out: Path, doing: Doing) -> None:
    """Print when each training would start and end, and what the minutes are enough for.

    Raises:
        UsageError: it is not known how long a training takes.
    """
    pace = doing.pace or schedule.measured_pace(out)
    if pace is None:
        raise UsageError(
            "--dry-run: nothing has been trained yet. Give the seconds per thousand images with "
            f"--pace; they must be those of {doing.jobs} runs at a time."
        )
    planned = schedule.plan(study, runs, out, jobs=doing.jobs, pace=pace)
    minutes = doing.minutes or float("inf")
    for one in planned:
        word = "" if one.end <= 60 * minutes else "  too late"
        print(f"{one.name:34} minute {one.start / 60:5.1f} to {one.end / 60:5.1f}{word}")
    done = sum(one.end <= 60 * minutes for one in planned)
    last = max((one.end for one in planned), default=0.0)
    print(
        f"{done} of {len(planned)} trainings end in time, {doing.jobs} at a time, at {pace:.3g} s "
        f"per thousand images; all end after {last / 60:.1f} min."
    )


def restore(study: Study, out: Path, results_folder: Path) -> None:
    """Put results that were written elsewhere into the folders of their runs.

    So a study can be gone on with on another machine, or where its runs were removed. Results of
    other options than the configuration's are left out.
    """
    record = read_json(results_folder / f"{study.path.stem}.json")
    if record is None or record["schema"] != SCHEMA:
        return
    runs = {run.name: run for run in study.runs}
    known = [r for r in record["runs"] if r["run"] in runs]
    for result in known:
        run = runs[result["run"]]
        path = run_folder(out, run) / RESULT
        if result["identity"] == identity(study, run) and not path.exists():
            write_json(path, result)
    if not (out / INTERVALS).exists():
        write_json(out / INTERVALS, record["intervals"])


def collect(study: Study, out: Path) -> dict[str, Any]:
    """Return all results as one record: the configuration, the runs, intervals over images."""
    found = {run.name: finished_result(out, study, run) for run in study.runs}
    results = [result for result in found.values() if result is not None]
    plain = {k: v for k, v in vars(study).items() if k not in ("path", "runs")}
    plain["name"] = study.path.stem
    return {
        "schema": SCHEMA,
        "study": plain,
        "runs": results,
        "missing": [name for name, result in found.items() if result is None],
        "intervals": image_intervals(study, out, results),
    }


def image_intervals(
    study: Study, out: Path, results: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the interval over images of `none` against `progressive`, by the latter's name.

    Each takes about a minute; what was computed is kept.
    """
    import numpy as np
    from data import judged_parts
    from intervals import image_interval
    from judge import open_judge

    from probe.images.open import open_images

    kept: dict[str, dict[str, Any]] = read_json(out / INTERVALS) or {}
    by_name = {result["run"]: result for result in results}
    reals = None
    for name in by_name:
        base = name.replace("-progressive-", "-none-")
        if "-progressive-" not in name or base not in by_name:
            continue
        distances = [_distance(study, by_name[n]) for n in (base, name)]
        features = [run_folder(out, study.run(n)) / FEATURES for n in (base, name)]
        if kept.get(name, {}).get("of") == distances or not all(f.exists() for f in features):
            continue
        if reals is None:
            say("computing intervals over images")
            source = open_images(study.archive)
            every = judged_parts(study, study.run(name))["all"]
            reals = open_judge(
                out / BANK, study.evaluators[0], source, resolution=study.train["resolution"]
            ).reals[every]
        tables = [np.load(path) for path in features]
        kept[name] = {**asdict(image_interval(reals, *tables)), "of": distances}
        write_json(out / INTERVALS, kept)
    return {
        name: kept[name]
        for name in by_name
        if name in kept and kept[name]["of"][1] == _distance(study, by_name[name])
    }


def report(study: Study, out: Path, *, results_folder: Path, page: Path) -> None:
    """Write results as JSON and CSV, the figures and the page."""
    from records import to_frame
    from samples import draw_samples

    os.environ.setdefault("PROBE_CACHE_DIR", str((out / "cache").resolve()))
    record = collect(study, out)
    name = study.path.stem
    write_json(results_folder / f"{name}.json", record)
    write_text(results_folder / f"{name}.csv", to_frame(record["runs"]).to_csv(index=False))
    tiles = results_folder / f"{name}-samples"
    draw_samples(study, out, record["runs"], page.with_suffix(""), tiles=tiles)
    render_page(record, page, config=study.path)
    say(f"wrote {results_folder / name}.json, {results_folder / name}.csv and {page}")


def render_page(record: dict[str, Any], page: Path, *, config: Path) -> None:
    """Write figures and page from the results alone."""
    import page as of_emoji
    import photos as of_photos
    from figures import draw_all
    from findings import Results
    from samples import BLIND, BLIND_KEY, SHEET, SHEET_OF_PHOTOS

    results = Results(record)
    folder = page.with_suffix("")
    photos = record["study"].get("real") is not None
    figures = {} if photos else draw_all(results, folder)
    sheets = {"blind": BLIND, "key": BLIND_KEY} if photos else {}
    for name, file in {"samples": SHEET_OF_PHOTOS if photos else SHEET, **sheets}.items():
        if (folder / file).exists():
            figures[name] = file
    render = of_photos.render if photos else of_emoji.render
    command = "python experiments/study.py"
    if config.stem != "study":
        command += f" --config experiments/{config.name}"
    write_text(page, render(results, command=command, figures=figures, folder=folder.name))


def show_status(study: Study, out: Path, *, jobs: int) -> None:
    """Print a line per run, and about how long the rest will take."""
    results = {run.name: finished_result(out, study, run) for run in study.runs}
    spent = {name: _seconds(study, result) for name, result in results.items() if result}
    left = 0.0
    for run in study.runs:
        result = results[run.name]
        if result:
            distance = _distance(study, result)
            text = f"done      {spent[run.name] / 60:4.0f} min  Fréchet {distance:.1f}"
        else:
            alike = [s for n, s in spent.items() if study.run(n).arm == run.arm]
            alike = alike or list(spent.values())
            guess = sum(alike) / len(alike) if alike else None
            kimg = schedule.kimg_done(out, run)
            left += (guess or 0.0) * (1 - kimg / run.kimg)
            state = f"at {kimg:g} of {run.kimg:g} kimg" if kimg else "waiting"
            text = f"{state}" + (f"  about {guess / 60:.0f} min in all" if guess else "")
        print(f"{run.group:10} {run.name:34} {text}")
    if left:
        print(f"About {left / jobs / 3600:.1f} h left with --jobs {jobs}.")


def _distance(study: Study, result: dict[str, Any]) -> float:
    """Return what decides: the last snapshot's distance to all bundled images."""
    return result["judged"]["last"][study.evaluators[0]]["all"]["frechet"]


def _seconds(study: Study, result: dict[str, Any]) -> float:
    """Return what a run took, without the warm-up that others share."""
    shared = study.warmup_of(study.run(result["run"]))
    before, steps = (shared.kimg if shared else 0.0), 0.0
    series = [{"kimg": 0.0}, *result["training"]["series"]]
    for last, tick in pairwise(series):
        if tick["kimg"] > before:
            steps += (tick["kimg"] - last["kimg"]) * tick["Timing/sec_per_kimg"]
    return steps + result["seconds"]["judging"]


def arguments(description: str | None, config: str) -> argparse.ArgumentParser:
    """Return a parser with the flags of a study."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=HERE / config, help="which runs")
    parser.add_argument("--out", type=Path, help="folder of the runs; experiments/runs/NAME")
    parser.add_argument(
        "--jobs", type=int, help=f"runs at a time; {JOBS}, or {JOBS_ON_A_GPU} if a GPU trains"
    )
    parser.add_argument("--device", help="what trains: auto, cpu, cuda; the configuration's")
    return parser


def jobs_of(given: argparse.Namespace, study: Study) -> int:
    """Return how many runs to start at a time."""
    if given.jobs is not None:
        return given.jobs
    from probe.devices import choose_device

    gpu = choose_device(given.device or study.device).type == "cuda"
    return JOBS_ON_A_GPU if gpu else JOBS


def main() -> None:
    """Run the command."""
    parser = arguments(__doc__, "study.yaml")
    parser.add_argument("--only", action="append", default=[], help="a group, a run, or a pattern")
    parser.add_argument("--status", action="store_true", help="say what is done, and stop")
    parser.add_argument("--report", action="store_true", help="write the page, train nothing")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="for JSON and CSV")
    parser.add_argument("--page", type=Path, help="the page; docs/NAME.md")
    parser.add_argument("--prepare", action="store_true", help="write the images to train on")
    parser.add_argument("--dry-run", action="store_true", help="say what will be trained when")
    parser.add_argument("--minutes", type=float, help="stop trainings after so many")
    parser.add_argument("--pace", type=float, help="seconds per thousand images, to plan with")
    parser.add_argument("--train-only", action="store_true", help="judge nothing")
    parser.add_argument("--judge-only", action="store_true", help="train nothing")
    parser.add_argument("--pack", type=Path, help="write what judging needs to this folder")
    given = parser.parse_args()
    try:
        study = read_study(given.config)
        out = given.out or HERE / "runs" / study.path.stem
        runs = study.select(given.only)
        restore(study, out, given.results)
        if given.prepare:
            print(training_archive(study, out))
            return
        doing = Doing(
            jobs=jobs_of(given, study), device=given.device, train=not given.judge_only,
            judge=not given.train_only, minutes=given.minutes, pace=given.pace,
        )  # fmt: skip
        if given.status:
            show_status(study, out, jobs=doing.jobs)
            return
        if given.dry_run:
            show_plan(study, runs, out, doing)
            return
        failed = []
        with locked(out):
            if not given.report:
                failed = run_missing(study, runs, out, doing)
            if given.pack:
                pack_runs(study, runs, out, given.pack)
            if doing.judge:
                page = given.page or ROOT / "docs" / f"{study.path.stem}.md"
                report(study, out, results_folder=given.results, page=page)
    except ProbeError as error:
        sys.exit(f"error: {error}")
    except Stopped:
        sys.exit("Stopped. Repeat the command to go on.")
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}. Repeat the command to try them again.")


if __name__ == "__main__":
    main()
