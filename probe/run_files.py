"""File names in a ranking's folder and in a training run's directory."""

import re

# A ranking; see docs/leaderboard.md.
LEADERBOARD_FILE = "leaderboard.json"
LEADERBOARD_TABLE = "leaderboard.csv"
SCORES_FILE = "scores.csv"
FITTED_FILE, FITTED_TENSORS = "probes.json", "probes.safetensors"
EVIDENCE_FILE = "evidence.safetensors"

# Rankings and training runs; several training runs beside each other.
REPORT_FILE, COMPARISON_FILE = "report.html", "comparison.html"

# A training run; see docs/training.md.
OPTIONS_FILE, PROGRESS_FILE = "training_options.json", "progress.json"
STATE_FILE, PREVIOUS_FILE = "training-state-latest.pt", "training-state-previous.pt"
DAMAGED_FILE = "training-state-damaged.pt"
LOCK_FILE, LOG_FILE = ".lock", "log.txt"
TRACKED_FILE = "tracked-as.txt"  # the run's name at W&B or Trackio
STATS_FILE, PROBES_FILE = "stats.jsonl", "probes.jsonl"
REALS_GRID, FIRST_GRID, GRIDS = "reals.png", "fakes_init.png", "fakes*.png"
BEST = "network-snapshot-best.safetensors"
SNAPSHOTS = "network-snapshot-*"
SELECTIONS = "selection-stage*.json"

# Numbers in snapshot names, in our runs and in those of the StyleGAN family.
NUMBER = "([0-9]{1,12}(?:_[0-9]{3})?)"
# A generator, without a number if a trainer overwrites a single file; and its samples.
SNAPSHOT = re.compile(rf"network-snapshot(?:-{NUMBER})?\.(?:safetensors|pkl)")
GRID = re.compile(rf"fakes{NUMBER}\.png")


def metric_file(name: str) -> str:
    """Return the file name of a metric's log; "*" as the name gives a glob pattern."""
    return f"metric-{name}.jsonl"


ACCURACY_FILE = metric_file("accuracy")


def metric_name(file: str) -> str:
    """Return the metric that a log file belongs to."""
    return file.removeprefix("metric-").removesuffix(".jsonl")


def selection_file(stage: int) -> str:
    """Return the file name of a stage's selection record."""
    return SELECTIONS.replace("*", str(stage))


def snapshot_file(number: str) -> str:
    """Return the file name of the snapshot with this number."""
    return SNAPSHOTS.replace("*", f"{number}.safetensors")


def grid_file(number: str) -> str:
    """Return the file name of a snapshot's image grid."""
    return GRIDS.replace("*", number)


def snapshot_number(images: int, batch: int) -> str:
    """Return the number in a snapshot's file names, unique within a run.

    The first state in each thousand images gets the number of thousands, as in the StyleGAN family
    ("000200"). Later ones in the same thousand add the images beyond it: "000200_064".

    Args:
        images: shown so far.
        batch: images per step; divides `images`.
    """
    kimg, beyond = divmod(images, 1000)
    return f"{kimg:06d}" if beyond < batch else f"{kimg:06d}_{beyond:03d}"


def kimg_of(number: str) -> float:
    """Return the thousands of images that a snapshot's number stands for."""
    kimg, _, beyond = number.partition("_")
    return (int(kimg) * 1000 + int(beyond or 0)) / 1000
