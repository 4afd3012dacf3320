"""The leaderboard: the record of a ranking."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from probe.bank.layers import depth, split
from probe.bank.spec import RecordedRole
from probe.errors import BackboneAbsent, ProbeError
from probe.probing.protocol import CHANCE, PROTOCOLS
from probe.registry import lookup
from probe.run_files import LEADERBOARD_FILE
from probe.shown import Shown
from probe.stored import Text, read_record

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Row:
    """One backbone on the leaderboard; numbers are None where it has none.

    Attributes:
        name: the bank entry's name; the null row's says whose features it uses.
        role: "candidate", "evaluator", "control" (random weights) or "null".
        status: "ok", "absent" (its weights can be had and are not on this machine), "unavailable"
            (weights or code cannot be used), "failed" (broke) or "dropped" (clearly not the best on
            the images of an early round).
        reason: why it is not "ok".
        remedy: the command that helps.
        rank: one more than the number of backbones that are better beyond luck, all pairs counted;
            never above that of a lower row. Only pretrained backbones have one.
        tied: whether others share the rank.
        score: mean held-out log-probability of the correct class, nats.
        score_low, score_high: the 95 % interval of the score that probes fitted to as many images
            of these sources are expected to have.
        gap: score minus the first's, under `paper` accuracy minus the first's; gap_low, gap_high:
            its 95 % interval.
        p_best: share of draws from the values' joint distribution in which it is the best, by score
            or accuracy likewise.
        accuracy, auroc: held-out.
        dim: width of the pooled feature.
        params: number of parameters.
        flops: multiply-adds per image.
        images_per_second: measured while its features were extracted.
        precision: what it ran in.
        task, data, license: of the pretrained weights.
        picked: whether K-fixed would take it; only those above chance, nobody if the first is not.
        above_chance: whether it tells the two sets apart beyond luck, counting how many backbones
            were tried. By score under `fair`, by accuracy under `paper`.
    """

    name: str
    role: RecordedRole
    status: str = "ok"
    reason: Text = ""
    remedy: Text = ""
    rank: int | None = None
    tied: bool = False
    score: float | None = None
    score_low: float | None = None
    score_high: float | None = None
    gap: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    p_best: float | None = None
    accuracy: float | None = None
    auroc: float | None = None
    dim: int | None = None
    params: int | None = None
    flops: int | None = None
    images_per_second: float | None = None
    precision: str | None = None
    task: str | None = None
    data: str | None = None
    license: str | None = None
    picked: bool = False
    above_chance: bool | None = None

    @property
    def network(self) -> str:
        """The network's name, which layers of one network share."""
        return split(self.name)[0]

    @property
    def layer(self) -> str:
        """The layer of the network, "" for a whole backbone."""
        return split(self.name)[1]

    @property
    def told_apart(self) -> bool:
        """Whether it tells the two sets apart beyond luck."""
        if self.above_chance is None:  # a record made by hand
            return self.score_low is not None and self.score_low > CHANCE
        return self.above_chance


@dataclass(frozen=True)
class Verdict:
    """What the numbers mean, in a sentence that says what to do.

    Attributes:
        kind: "encoding", "colours", "null-above", "null-below", "no-winner", "saturated", "too-few"
            or "more-images".
        sentence: for the reader.
        value: of "too-few", the difference that is as often missed as found, in nats, under `paper`
            in accuracy; of "more-images", images of each class; otherwise None.
    """

    kind: str
    sentence: Text
    value: float | None = None


@dataclass(frozen=True)
class Learned:
    """One point of a learning curve.

    Attributes:
        name: of the backbone.
        images: of each class.
        score: of probes fitted to half as many, nats.
        score_low, score_high: its 95 % interval.
    """

    name: str
    images: int
    score: float
    score_low: float
    score_high: float


@dataclass(frozen=True, kw_only=True)
class Leaderboard(Shown):
    """A ranking by one protocol.

    Attributes:
        protocol: "fair" or "paper".
        seed: of subset, splits and draws.
        n_real, n_fake: how many images were scored.
        resolution: side in pixels at which reals and fakes met; None if features were given.
        rows: best first, by score, or by accuracy under `paper`; then those without a score.
        audit: what the encoding alone gives away; see `probe.images.audit.Shortcut`.
        verdicts: what the numbers mean; see `probe.probing.verdicts`.
        curve: scores of the ranked on a quarter, a half and all of the images, by backbone.
        notes: other sentences a reader must know.
        config: options, digests of every input, versions.
        schema_version: of this record.
    """

    as_text = "probe.reports.rank_table:as_table"
    as_html = "probe.reports.rank_table:as_html"

    protocol: str
    seed: int
    n_real: int
    n_fake: int
    resolution: int | None
    rows: tuple[Row, ...]
    audit: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    curve: list[Learned] = field(default_factory=list)
    notes: list[Text] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Refuse a record of another release.

        Raises:
            ProbeError: another schema version.
        """
        if self.schema_version != SCHEMA_VERSION:
            raise ProbeError(
                f"This leaderboard has schema version {self.schema_version}; version "
                f"{SCHEMA_VERSION} is expected. Rank again."
            )

    @property
    def criterion(self) -> str:
        """What the rows are ordered by: "score" or "accuracy"; gaps and ranks are about it."""
        return PROTOCOLS[self.protocol].criterion

    @property
    def ranked(self) -> tuple[Row, ...]:
        """The pretrained backbones that have a score, best first."""
        return tuple(row for row in self.rows if row.rank is not None)

    @property
    def layers(self) -> dict[str, tuple[Row, ...]]:
        """Network → the rows of its layers with a score, shallow to deep, if there are several."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            if row.layer and row.score is not None and row.role != "null":
                found.setdefault(row.network, []).append(row)
        return {
            name: tuple(sorted(rows, key=lambda row: depth(row.layer)))
            for name, rows in found.items()
            if len(rows) > 1
        }

    @property
    def winner(self) -> Row | None:
        """The first, or None when not even it tells the two sets apart."""
        first = next(iter(self.ranked), None)
        return first if first is not None and first.told_apart else None

    @property
    def exit_code(self) -> int:
        """0, or 3 if a backbone broke, or lacks its weights although it was asked for by name."""
        fine = [
            row.status in ("ok", "dropped")
            or (row.status == BackboneAbsent.status and row.name not in self.asked)
            for row in self.rows
        ]
        return 0 if all(fine) else 3

    @property
    def asked(self) -> frozenset[str]:
        """The backbones that were asked for by their names; patterns and presets name nobody."""
        return frozenset(self.config.get("backbones") or ())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Leaderboard":
        """Return the leaderboard that `to_dict` wrote.

        Raises:
            ProbeError: another schema version, or a protocol that there is not.
        """
        lookup(PROTOCOLS, record["protocol"], "protocol")
        names = {f.name for f in fields(cls)}
        values = {key: value for key, value in record.items() if key in names}
        return cls(
            **{
                **values,
                "rows": tuple(Row(**row) for row in record["rows"]),
                "verdicts": [Verdict(**verdict) for verdict in record.get("verdicts", [])],
                "curve": [Learned(**point) for point in record.get("curve", [])],
            }
        )

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per backbone as a pandas frame."""
        import pandas as pd

        frame = pd.DataFrame(
            [asdict(row) for row in self.rows], columns=[f.name for f in fields(Row)]
        )
        whole = ["rank", "dim", "params", "flops"]
        return frame.astype(dict.fromkeys(whole, "Int64"))


def _complete(board: Leaderboard) -> Leaderboard:
    """Return a leaderboard that was read, provided that it has what its readers rely on.

    Raises:
        ValueError: it has not.
    """
    for row in board.ranked:
        if None in (row.score, row.accuracy, row.auroc):
            raise ValueError(f"{row.name} has a rank and lacks its score, accuracy or AUROC")
    for kind in ("real", "fake"):
        images = board.config.get(kind)
        if not isinstance(images, dict) or not isinstance(images.get("path"), str):
            raise ValueError(f"config does not say what the {kind} images were")
    if not all(isinstance(finding.get("message"), str) for finding in board.audit):
        raise ValueError("a finding of the audit has no message")
    return board


# What a file is read as.
StoredLeaderboard = Annotated[Leaderboard, AfterValidator(_complete)]
# With one protocol the file of a ranking holds its leaderboard, with two a list of them.
_Boards = Annotated[
    list[StoredLeaderboard],
    BeforeValidator(lambda record: record if isinstance(record, list) else [record]),
    Field(min_length=1),
]


def read_leaderboards(folder: Path) -> list[Leaderboard]:
    """Return the leaderboards that a ranking left, the leading protocol's first.

    Args:
        folder: of `probe rank --out`.

    Raises:
        ProbeError: there are none, or they are damaged or of another version.
    """
    return read_record(folder / LEADERBOARD_FILE, _Boards, f"Rank again with --out {folder}.")
