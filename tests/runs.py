"""Training runs: what they saved, and where two of them differ."""

from pathlib import Path

import torch


def saved(folder: Path) -> dict:
    """Return a run's training state."""
    return torch.load(folder / "training-state-latest.pt", weights_only=True)


def differences(one, other, path="") -> list[str]:
    """Return where two nested records differ, tensors compared bit by bit."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [path]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{path}: {sorted(one.keys() ^ other.keys())}"]
        return [d for k in one for d in differences(one[k], other[k], f"{path}/{k}")]
    if isinstance(one, list | tuple):
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{path}[{i}]")]
    return [] if one == other else [f"{path}: {one} != {other}"]
