"""The bank as a training run sees it."""

from collections.abc import Sequence
from dataclasses import dataclass

from probe.bank.spec import BackboneSpec


@dataclass(frozen=True)
class Candidates:
    """The backbones a run may choose from, and its evaluator.

    Attributes:
        specs: the backbones that may become discriminators.
        evaluator: the backbone used to evaluate snapshots, or None.
    """

    specs: Sequence[BackboneSpec]
    evaluator: BackboneSpec | None

    def spec(self, name: str) -> BackboneSpec:
        """Return a backbone's bank entry."""
        return next(spec for spec in self.specs if spec.name == name)
