"""The probes of a ranking as files, for scoring new images.

A saved probe is the mean of the probes fitted on halves, not one refitted on everything: its
log-odds on new images are then spread like the held-out ones, which calibration and error rates
are based on. Its weights include the standardisation. The files contain no code.
"""

import fnmatch
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from probe.errors import ProbeError
from probe.features.copies import group
from probe.files import digest_bytes, digest_file, near_path, write_bytes, write_json
from probe.options import PRECISIONS, split_names
from probe.probing.rank import Ranking
from probe.probing.units import firsts
from probe.registry import lookup
from probe.run_files import FITTED_FILE, FITTED_TENSORS
from probe.scoring.calibration import Calibration, calibrate, error_rates
from probe.stored import read_record

VERSION = 1
THRESHOLD = 0.5
# Errors raised when reading a damaged or forged file.
DAMAGED = (
    SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError,
    OverflowError,
)  # fmt: skip


@dataclass(frozen=True)
class FittedProbe:
    """A probe on one backbone's features.

    Attributes:
        name: the bank entry's.
        role: "candidate", "evaluator" or "control".
        score: its held-out score in the ranking, nats.
        above_chance: whether it tells the ranking's images apart better than chance.
        space: everything except the image that determines a feature; see `probe.features.space`.
        weights: float64 (d,), for features without standardisation.
        intercept: float; log-odds are `features @ weights + intercept`.
        calibration: from log-odds to probabilities.
        logits: float64 (n_real + n_fake,): held-out log-odds of the ranking's images, reals first;
            NaN for images that were never held out.
    """

    name: str
    role: str
    score: float
    above_chance: bool
    space: Mapping[str, Any]
    weights: np.ndarray
    intercept: float
    calibration: Calibration
    logits: np.ndarray


@dataclass(frozen=True)
class FittedProbes:
    """The probes of one ranking.

    Attributes:
        folder: folder they were read from.
        protocol: protocol used to fit them.
        resolution: side in pixels to which all images are brought.
        jpeg_quality: JPEG quality applied to all images, or None.
        n_real, n_fake: numbers of images used to fit and hold out.
        real, fake: names of the image sets, for use in sentences.
        seen: digest of an image's content key → its position in `FittedProbe.logits`.
        groups: int64 (n_real + n_fake,): the same number for images with the same content key.
        probes: name → probe, in leaderboard order.
    """

    folder: Path
    protocol: str
    resolution: int
    jpeg_quality: int | None
    n_real: int
    n_fake: int
    real: str
    fake: str
    seen: dict[bytes, int]
    groups: np.ndarray
    probes: dict[str, FittedProbe]

    @property
    def valid_for(self) -> str:
        """The sentence on when the probabilities hold; always show it."""
        return (
            f"Probabilities hold for images of {self.fake} among reals like {self.real}, in equal "
            "numbers. The probes know nothing about other generators and other images."
        )

    @property
    def generated(self) -> np.ndarray:
        """Mask of the ranking's generated images, bool (n_real + n_fake,)."""
        return np.arange(self.n_real + self.n_fake) >= self.n_real

    @property
    def counted(self) -> np.ndarray:
        """Mask of the images that error rates use, one of each set of copies; bool (n,)."""
        return firsts(self.generated, self.groups)


def row_digest(key: str) -> bytes:
    """Return the 32 bytes that identify an image of the ranking."""
    return hashlib.sha256(key.encode()).digest()


def save_probes(ranking: Ranking, folder: Path) -> None:
    """Write probes.safetensors and probes.json: the leading protocol's probes, calibrated.

    Args:
        ranking: the finished ranking.
        folder: the ranking's output folder.
    """
    board = ranking.leaderboard
    results = ranking.results[board.protocol]
    tensors: dict[str, np.ndarray] = {
        "seen": np.stack([np.frombuffer(row_digest(key), np.uint8) for key in ranking.keys])
    }
    generated = np.arange(board.n_real + board.n_fake) >= board.n_real
    once = firsts(generated, group(ranking.keys))
    probes = {}
    for row in board.rows:
        if row.name not in results:
            continue
        result = results[row.name]
        known = np.isfinite(result.image_logits)
        calibration = calibrate(result.image_logits[known], generated[known])
        counted = known & once
        probabilities = calibration.probability(result.image_logits[counted])
        wrong_real, wrong_fake = error_rates(probabilities, generated[counted], THRESHOLD)
        tensors[f"{row.name}.weights"] = np.append(result.weights, result.intercept)
        tensors[f"{row.name}.logits"] = np.asarray(result.image_logits, dtype=np.float64)
        probes[row.name] = {
            "role": row.role,
            "score": result.score,
            "above_chance": bool(row.above_chance),
            "strengths": list(result.c_values),
            "calibration": {"method": "platt", **asdict(calibration)},
            "threshold": THRESHOLD,
            "false_positive_rate": asdict(wrong_real),
            "false_negative_rate": asdict(wrong_fake),
            "space": ranking.spaces[row.name],
        }
    data = save(tensors)
    write_bytes(folder / FITTED_TENSORS, data)
    config = board.config
    write_json(
        folder / FITTED_FILE,
        {
            "schema_version": VERSION,
            "protocol": board.protocol,
            "resolution": board.resolution,
            "jpeg_quality": config["jpeg_quality"],
            "n_real": board.n_real,
            "n_fake": board.n_fake,
            "real": config["real"],
            "fake": config["fake"],
            "tensors": {"file": FITTED_TENSORS, "sha256": digest_bytes(data)},
            "probes": probes,
        },
    )


def load_probes(folder: Path) -> FittedProbes:
    """Read what `save_probes` wrote.

    Raises:
        ProbeError: there are none, or they are damaged or from another version.
    """
    path = folder / FITTED_FILE
    if not path.is_file():
        what = f"holds no {FITTED_FILE}" if folder.is_dir() else "is not a folder"
        near = "" if folder.exists() else near_path(folder)
        raise ProbeError(
            f"{folder} {what}.{near} Make one: probe rank --real … --gen … --out {folder}"
        )
    again = f"Rank again with --out {folder}."
    try:
        record = read_record(path, dict[str, Any], again)
        version = record["schema_version"]
        if version != VERSION:
            raise ProbeError(f"{path} has schema version {version}; {VERSION} is expected. {again}")
        if digest_file(folder / FITTED_TENSORS) != record["tensors"]["sha256"]:
            raise ProbeError(
                f"{folder / FITTED_TENSORS} is not the file that {path} names. {again}"
            )
        return _assemble(folder, record, load((folder / FITTED_TENSORS).read_bytes()))
    except DAMAGED as error:
        raise ProbeError(f"The probes in {folder} are damaged ({error}). {again}") from error


def _assemble(
    folder: Path, record: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> FittedProbes:
    """Build the probes from a record and its tensors.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: they do not match.
    """
    count = int(record["n_real"]) + int(record["n_fake"])
    probes = {}
    for name, entry in record["probes"].items():
        weights, logits = tensors[f"{name}.weights"], tensors[f"{name}.logits"]
        if weights.ndim != 1 or logits.shape != (count,) or not np.isfinite(weights).all():
            raise ValueError(f"the tensors of {name} do not fit")
        if entry["space"].get("precision") not in PRECISIONS:
            raise ValueError(f"the precision of {name} is unknown")
        slope, offset = (float(entry["calibration"][key]) for key in ("slope", "intercept"))
        if not np.isfinite([slope, offset]).all():
            raise ValueError(f"the calibration of {name} is not finite")
        probes[name] = FittedProbe(
            name=name,
            role=entry["role"],
            score=float(entry["score"]),
            above_chance=bool(entry["above_chance"]),
            space=dict(entry["space"]),
            weights=weights[:-1],
            intercept=float(weights[-1]),
            calibration=Calibration(slope, offset),
            logits=logits,
        )
    seen = [row.tobytes() for row in tensors["seen"]]
    quality, resolution = record["jpeg_quality"], int(record["resolution"])
    jpeg = None if quality is None else int(quality)
    if not 8 <= resolution <= 4096 or not probes or not (jpeg is None or 1 <= jpeg <= 100):
        raise ValueError("no ranking writes such a resolution, JPEG quality or set of probes")
    if len(tensors["seen"]) != count:
        raise ValueError("the numbers of images do not fit")
    return FittedProbes(
        folder=folder,
        protocol=record["protocol"],
        resolution=resolution,
        jpeg_quality=jpeg,
        n_real=int(record["n_real"]),
        n_fake=int(record["n_fake"]),
        real=_called(record["real"]),
        fake=_called(record["fake"]),
        seen={row: i for i, row in enumerate(seen)},
        groups=group(seen),
        probes=probes,
    )


def _called(identity: Mapping[str, Any]) -> str:
    """Return the name of an image source for use in a sentence."""
    return str(identity.get("path", identity.get("kind", "images")))


def choose_probes(
    probes: Mapping[str, FittedProbe], names: Sequence[str] | str | None
) -> list[str]:
    """Return the names of the probes to use, in order; controls only if named, or if alone.

    Args:
        probes: of a ranking.
        names: names or shell patterns, also as text with commas; or None.

    Raises:
        UsageError: a name or pattern matches none of them.
    """
    names = split_names(names)
    if names is None:
        return [name for name, p in probes.items() if p.role != "control"] or list(probes)
    chosen = set()
    for name in names:
        chosen.update(fnmatch.filter(probes, name) or [lookup(probes, name, "backbone").name])
    return [name for name in probes if name in chosen]
