"""probe: which pretrained vision backbone can tell real images from generated ones?

Data flows one way, and the folders carry the words:

    images → generators → bank → features → probing → metrics → training → reports

`api` holds the verbs, `cli` the commands. The public names below are resolved lazily, so that
importing `probe` costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0.dev0"

_PUBLIC = {
    "ImageSource": "probe.images.base",
    "Leaderboard": "probe.probing.leaderboard",
    "MeasureOptions": "probe.metrics.config",
    "Measurement": "probe.metrics.record",
    "ProbeError": "probe.errors",
    "RankOptions": "probe.probing.config",
    "Ranking": "probe.probing.rank",
    "SampleOptions": "probe.generators.config",
    "Scores": "probe.scoring.score",
    "TrainConfig": "probe.training.config",
    "doctor": "probe.api.doctor",
    "export": "probe.api.export",
    "generate": "probe.api.generate",
    "inspect": "probe.api.generate",
    "load_bank": "probe.bank.file",
    "load_generator": "probe.generators.files.formats",
    "measure": "probe.api.metrics",
    "open_images": "probe.images.open",
    "rank": "probe.api.rank",
    "report": "probe.api.report",
    "score": "probe.api.score",
    "train": "probe.api.train",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name from its room on first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'probe' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
