"""Check a run: can it be resumed, did it go wrong, does it still match these images?"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from probe.checks.findings import Finding, some
from probe.checks.records import (
    CheckedAccuracies,
    CheckedDistance,
    CheckedOptions,
    CheckedProgress,
    CheckedSelection,
    Statistic,
    Stats,
)
from probe.errors import ProbeError
from probe.probing.leaderboard import read_leaderboards
from probe.run_files import (
    ACCURACY_FILE,
    LEADERBOARD_FILE,
    OPTIONS_FILE,
    PROGRESS_FILE,
    SELECTIONS,
    STATS_FILE,
    metric_file,
)
from probe.stored import read_lines, read_record

LEAKING = 0.8  # p above which augmentations show in generated images (Karras et al. 2020b)
GAP = 0.25  # between the accuracies on training and held-out images
CERTAIN = 0.99  # accuracy of a discriminator that has won
STALE = 3  # snapshots in a row without a better distance


def examine_run(folder: Path, real: Path | None) -> Iterator[Finding]:
    """Yield the findings about a ranking's folder or a training run's directory.

    Args:
        folder: the output of `probe rank --out` or `probe train`.
        real: the images it should match, or None.

    Raises:
        ProbeError: it holds neither.
    """
    if (folder / OPTIONS_FILE).is_file():
        parts = _training(folder, real)
    elif (folder / LEADERBOARD_FILE).is_file():
        parts = _ranking(folder, real)
    else:
        raise ProbeError(
            f"{folder} holds no run. Name the folder of `probe rank --out`, or a run directory "
            "of `probe train`."
        )
    try:
        yield from parts
    except ProbeError as error:  # a damaged file should not stop the other checks
        yield _finding("problem", str(error))


def _finding(level: str, text: str, advice: str = "") -> Finding:
    return Finding(topic="run", level=level, text=text, advice=advice)


def _same_images(recorded: str, real: Path | None) -> Iterator[Finding]:
    if real is not None and Path(recorded).resolve() != real.resolve():
        yield _finding("warning", f"The run used the images in {recorded}, not those in {real}.")


def _ranking(folder: Path, real: Path | None) -> Iterator[Finding]:
    board = read_leaderboards(folder)[0]
    yield from _same_images(board.config["real"]["path"], real)
    ranked = board.ranked
    if board.winner is None:
        yield _finding(
            "warning", "No backbone tells reals and generated images apart better than chance.",
            "More images (--num), other backbones; or none of them can see a difference.",
        )  # fmt: skip
    else:
        best = board.winner
        yield _finding("ok", f"{best.name} tells them apart best, with {best.score:.3f}.")
    first = [row.name for row in ranked if row.rank == 1]
    if len(first) == len(ranked) > 2:
        yield _finding(
            "note", f"All {len(ranked)} backbones share the first rank.",
            "More images make the intervals narrower; or all of them see everything, and the "
            "generator needs training before a choice means much.",
        )  # fmt: skip
    for found in board.audit:
        yield _finding("warning", found["message"])
    absent = [row.name for row in board.rows if row.status != "ok"]
    if absent:
        yield _finding("note", f"Not ranked: {some(absent, 8)}.", "See the leaderboard for why.")
    yield _finding("note", f"Its page: probe report {folder}")


def _training(folder: Path, real: Path | None) -> Iterator[Finding]:
    again = f"Its command, or probe train … --resume {folder}, writes it again."
    options = read_record(folder / OPTIONS_FILE, CheckedOptions, again)
    yield from _same_images(options.real.path, real)
    if not (folder / PROGRESS_FILE).exists():
        text = "The run has no saved state yet."
        yield _finding("note", text, "Repeat its command to start again.")
        return
    progress = read_record(folder / PROGRESS_FILE, CheckedProgress, again)
    told = f"{progress.kimg:g} of {progress.total_kimg:g} kimg"
    if progress.finished:
        yield _finding("ok", f"The run is finished: {told}.")
    else:
        yield _finding(
            "note", f"The run is at {told}.", f"Continue: probe train … --resume {folder}"
        )
    yield from _strength(read_lines(folder / STATS_FILE, Stats))
    yield from _overfitting(read_lines(folder / ACCURACY_FILE, CheckedAccuracies))
    for path in sorted(folder.glob(metric_file("frechet-*"))):
        yield from _distance(read_lines(path, CheckedDistance))
    for path in sorted(folder.glob(SELECTIONS)):
        choice = read_record(path, CheckedSelection, "The run goes on without it.")
        if not choice.added:
            yield _finding(
                "note", f"Stage {choice.stage} added no backbone.",
                "None told the snapshot from the reals, or none was left.",
            )  # fmt: skip


def _strength(stats: Sequence[Stats]) -> Iterator[Finding]:
    if not stats:
        return
    for name, value in stats[-1].items():
        if not name.startswith("Progress/augment") or not isinstance(value, Statistic):
            continue
        if value.mean > LEAKING:
            who = name.removeprefix("Progress/augment").strip("/") or "the own discriminator"
            yield _finding(
                "warning", f"The augmentation of {who} is at p = {value.mean:.2f}: it begins to "
                "show in the images.",
                "More data, a lower --target or --target-heads, or diffaugment.",
            )  # fmt: skip


def _overfitting(lines: Sequence[CheckedAccuracies]) -> Iterator[Finding]:
    if not lines:
        return
    right = lines[-1].results
    for name in sorted({key.split("/")[1] for key in right}):
        train, fake, held = (
            right.get(f"Accuracy/{name}/{kind}") for kind in ("train", "fake", "holdout")
        )
        if train is None or fake is None:
            continue
        who = "The own discriminator" if name == "D" else f"The discriminator on {name}"
        if held is not None and train - held > GAP:
            yield _finding(
                "warning", f"{who} is right on {train:.0%} of the training images and on "
                f"{held:.0%} of the held-out ones: it knows them by heart.",
                "Stronger augmentation (--target 0.4, diffaugment), or a shorter run.",
            )  # fmt: skip
        elif min(train, fake) >= CERTAIN:
            yield _finding(
                "warning", f"{who} is right on everything: the generator learns little from it.",
                "A longer warm-up, or stronger augmentation (--aug-heads diffaugment).",
            )  # fmt: skip


def _distance(lines: Sequence[CheckedDistance]) -> Iterator[Finding]:
    values = [(line.kimg, line.value) for line in lines if math.isfinite(line.value)]
    if not values:
        return
    best = min(range(len(values)), key=lambda i: values[i][1])
    evaluator = lines[0].metric.removeprefix("frechet-")
    kimg, least = values[best]
    text = f"Fréchet distance in {evaluator}: least {least:.1f} at {kimg:g} kimg"
    since = len(values) - 1 - best
    if since >= STALE:
        yield _finding(
            "warning", f"{text}; the {since} snapshots since are worse (last {values[-1][1]:.1f}).",
            "The best snapshot is kept. --patience ends a stage by itself.",
        )  # fmt: skip
    else:
        yield _finding("ok", f"{text}, last {values[-1][1]:.1f}.")
