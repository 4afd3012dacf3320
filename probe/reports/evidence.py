"""The pictures and feature maps on the page of a ranking.

They are saved next to the leaderboard as evidence.safetensors, so that the page can be rebuilt
without the images.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load, save

from probe.errors import ProbeError
from probe.files import write_bytes
from probe.probing.protocol import ProbeResult
from probe.probing.rank import Ranking
from probe.run_files import EVIDENCE_FILE
from probe.streams import numpy_stream

SHOWN = 8  # pictures per kind and backbone
MAPPED = 250  # images of each class on a map
SIDE = 96  # of a picture, in pixels
QUALITY = 80

Draw = Callable[[Sequence[int]], Mapping[int, np.ndarray]]
Read = Callable[[str, Sequence[int]], np.ndarray]


@dataclass(frozen=True)
class Evidence:
    """Pictures and maps of a ranking; images are identified by position, reals first.

    Attributes:
        pictures: position → WebP.
        mapped: int64 (P,), positions of the images on the maps.
        heights: backbone → float32 (P,), each image's coordinate along the direction of largest
            feature variance orthogonal to the probe's direction, in standard deviations.
        shares: backbone → share of the features' variance along this direction.
    """

    pictures: dict[int, bytes]
    mapped: np.ndarray
    heights: dict[str, np.ndarray]
    shares: dict[str, float]


def telling(logits: np.ndarray, n_real: int, count: int = SHOWN) -> dict[str, list[int]]:
    """Return the positions of the most extreme images by a probe's log-odds, clearest first.

    Args:
        logits: float (n,), positive for "generated"; NaN is left out.
        n_real: number of reals, which come first.
        count: how many of each kind.

    Returns:
        "caught": generated images most clearly seen as generated; "passed": generated images that
        look most real; "accused": reals that look most generated.
    """
    order = np.argsort(logits, kind="stable")
    order = order[np.isfinite(logits[order])]
    real, fake = order[order < n_real], order[order >= n_real]
    return {
        "caught": fake[::-1][:count].tolist(),
        "passed": fake[:count].tolist(),
        "accused": real[::-1][:count].tolist(),
    }


def gather_evidence(ranking: Ranking, draw: Draw, read: Read) -> Evidence:
    """Collect the evidence of a ranking's leading protocol.

    Args:
        ranking: the finished ranking.
        draw: returns images by position, position → uint8 (h, w, 3); unreadable ones are left
            out.
        read: (backbone, positions) → features, float32 (n, d).
    """
    results = ranking.results[ranking.leaderboard.protocol]
    wanted = {
        position
        for result in results.values()
        for positions in telling(result.image_logits, result.n_real).values()
        for position in positions
    }
    drawn = draw(sorted(wanted))
    board = ranking.leaderboard
    kinds = ((0, board.n_real), (board.n_real, board.n_fake))
    mapped = np.concatenate(
        [
            start + np.sort(numpy_stream(board.seed, "map", start).permutation(n)[:MAPPED])
            for start, n in kinds
        ]
    )
    heights, shares = {}, {}
    for name, result in results.items():
        heights[name], shares[name] = _height(read(name, mapped.tolist()), result)
    return Evidence({p: _webp(image) for p, image in drawn.items()}, mapped, heights, shares)


def save_evidence(evidence: Evidence, folder: Path) -> None:
    """Write evidence.safetensors atomically."""
    tensors: dict[str, np.ndarray] = {"mapped": evidence.mapped.astype(np.int64)}
    for position, data in evidence.pictures.items():
        tensors[f"picture.{position}"] = np.frombuffer(data, np.uint8)
    for name, values in evidence.heights.items():
        tensors[f"height.{name}"] = values.astype(np.float32)
        tensors[f"share.{name}"] = np.array([evidence.shares[name]])
    write_bytes(folder / EVIDENCE_FILE, save(tensors))


def load_evidence(folder: Path) -> Evidence | None:
    """Read what `save_evidence` wrote, or return None if there is no file.

    Raises:
        ProbeError: the file is damaged.
    """
    path = folder / EVIDENCE_FILE
    if not path.exists():
        return None
    try:
        tensors = load(path.read_bytes())
        named = [(key.split(".", 1), value) for key, value in tensors.items() if "." in key]
        return Evidence(
            {int(name): v.tobytes() for (kind, name), v in named if kind == "picture"},
            tensors["mapped"],
            {name: v for (kind, name), v in named if kind == "height"},
            {name: float(v[0]) for (kind, name), v in named if kind == "share"},
        )
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ProbeError(f"{path} is damaged ({error}). Rank again with --out {folder}.") from error


def _height(features: np.ndarray, result: ProbeResult) -> tuple[np.ndarray, float]:
    """Return each image's `Evidence.heights` value, and the direction's share of the variance."""
    deviation = features.std(axis=0)
    x = (features - features.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    total = float((x**2).sum())
    direction = result.weights * deviation
    length = np.linalg.norm(direction)
    if length > 0:
        direction = direction / length
        x = x - np.outer(x @ direction, direction)
    if not total > 0:
        return np.zeros(len(x), dtype=np.float32), 0.0
    # The Gram matrix is small, since images are few, and has the same singular vectors.
    values, vectors = np.linalg.eigh(x @ x.T)
    axis = vectors[:, -1]
    axis = axis * np.sign(axis[np.abs(axis).argmax()]) * np.sqrt(len(axis))
    return axis.astype(np.float32), float(values[-1] / total)


def _webp(image: np.ndarray) -> bytes:
    picture = Image.fromarray(image)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()
