"""The verbs: `rank`, `train` …. Paths become objects here, once; every room below takes objects.

Each is imported on first use: a ranking pays for no trainer.
"""

from importlib import import_module
from typing import Any

_VERBS = {
    "check_bank": "checking",
    "demo": "ranking",
    "doctor": "examining",
    "export": "exporting",
    "generate": "generating",
    "inspect": "generating",
    "measure": "measuring",
    "plan_training": "training",
    "rank": "ranking",
    "report": "reporting",
    "score": "scoring",
    "train": "training",
}

__all__ = list(_VERBS)


def __getattr__(name: str) -> Any:
    """Import a verb on first use."""
    if name not in _VERBS:
        raise AttributeError(f"module 'probe.api' has no attribute '{name}'")
    return getattr(import_module(f"probe.api.{_VERBS[name]}"), name)
