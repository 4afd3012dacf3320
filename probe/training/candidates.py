"""The bank as a training run sees it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from probe.bank.load import input_spec
from probe.bank.spec import BackboneSpec
from probe.bank.weights.find import weights_digest
from probe.context import Context
from probe.files import digest_json


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


def network_digest(spec: BackboneSpec, ctx: Context) -> str:
    """Return a digest of an entry's weights, input and taps, which decide what it computes.

    Raises:
        BackboneUnavailable: the weights are missing.
    """
    weights = weights_digest(spec, offline=ctx.offline, bn_images=ctx.bn_images)
    taken = {"pool": spec.pool, "taps": spec.taps, "tap_norm": spec.tap_norm}
    return digest_json({"weights": weights, "input": asdict(input_spec(spec)), **taken})
