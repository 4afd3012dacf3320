"""The record of a measurement."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from probe.metrics import all_metrics
from probe.shown import Shown

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1


def value_names() -> list[str]:
    """Return the names of all metrics' values, in order."""
    return [name for metric in all_metrics() for name in metric.values]


@dataclass(frozen=True, kw_only=True)
class Distances:
    """Distances of generated from real images in one backbone; None if it has no features.

    Attributes:
        name: the bank entry's name.
        role: "evaluator", "candidate" or "control" (random weights).
        status: "ok", "absent" (its weights are not on this machine), "unavailable" (weights or
            code cannot be used) or "failed" (it raised an error).
        reason: why it is not "ok".
        remedy: how to fix it.
        values: name → number of every metric, None if there is none; see `probe.metrics.METRICS`.
            They are also attributes: `row.frechet`.
        trained_against: whether the generator was trained against a discriminator on this
            backbone, which makes all its values look better. None if unknown.
        dim: width of the pooled feature.
        computed_in: "fp32" or "bf16".
        license: of the weights.
    """

    name: str
    role: str
    status: str = "ok"
    reason: str = ""
    remedy: str = ""
    values: Mapping[str, float | None] = field(default_factory=lambda: dict.fromkeys(value_names()))
    trained_against: bool | None = None
    dim: int | None = None
    computed_in: str | None = None
    license: str | None = None

    def __getattr__(self, name: str) -> float | None:
        """Return a metric's number."""
        values = vars(self).get("values", {})  # not set yet while being copied
        if name not in values:
            raise AttributeError(f"a measurement has no '{name}'")
        return values[name]

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, including the metrics' values, in table order."""
        flat: dict[str, Any] = {}
        for own in fields(self):
            value = getattr(self, own.name)
            flat |= value if own.name == "values" else {own.name: value}
        return flat


@dataclass(frozen=True, kw_only=True)
class Measurement(Shown):
    """The distances of one set of generated images from one set of reals.

    Attributes:
        seed: of the subset, latents and groups.
        n_real, n_fake: numbers of images used.
        resolution: side in pixels to which reals and fakes were brought.
        rows: one per backbone, in bank order.
        notes: sentences the reader must see.
        config: options, digests of every input, versions.
        schema_version: of this record.
    """

    as_text = "probe.reports.metrics_table:as_table"
    as_html = "probe.reports.metrics_table:as_html"

    seed: int
    n_real: int
    n_fake: int
    resolution: int
    rows: tuple[Distances, ...]
    notes: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __getitem__(self, name: str) -> Distances:
        """Return a backbone's row.

        Raises:
            KeyError: it was not measured.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    @property
    def exit_code(self) -> int:
        """0 if every row is "ok", 3 if some are unavailable or failed."""
        return 0 if all(row.status == "ok" for row in self.rows) else 3

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {**asdict(self), "rows": tuple(row.to_dict() for row in self.rows)}

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per backbone as a pandas frame."""
        import pandas as pd

        columns = list(Distances(name="", role="").to_dict())
        frame = pd.DataFrame([row.to_dict() for row in self.rows], columns=columns)
        frame = frame.astype({"dim": "Int64", "trained_against": "boolean"})
        return frame.assign(n_real=self.n_real, n_fake=self.n_fake)
