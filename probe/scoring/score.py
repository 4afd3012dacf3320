"""Score new images with the probes of a ranking: how likely each image was generated.

The images go through the same steps as in the ranking: resolution, JPEG matching, resize,
normalisation, precision, and the same feature store.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.bank.file import Bank
from probe.bank.layers import networks
from probe.context import Context
from probe.errors import BackboneUnavailable, ImagesError
from probe.events import ExtractionStarted
from probe.features.extract import Extractor, Failure
from probe.features.pair import no_backbone
from probe.features.space import CIRCUMSTANCES, changed_keys, open_space
from probe.features.store import FeatureSpace
from probe.images.base import Broken, ImageSource
from probe.images.decode import describe_broken
from probe.images.jpeg import JpegMatched
from probe.scoring.calibration import ErrorRate, error_rates
from probe.scoring.probes import FittedProbe, FittedProbes, row_digest
from probe.shown import Shown

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """The verdicts of one backbone's probe on the images.

    Attributes:
        name: the bank entry's.
        status: "ok", "changed" (no longer the ranking's backbone), "absent" (its weights are not
            on this machine), "unavailable" (weights or code cannot be used) or "failed" (it raised
            an error).
        reason: why it is not "ok".
        remedy: how to fix it.
        probabilities: float64 (N,) of being generated; None unless "ok", as all fields below.
        logits: float64 (N,): the probe's log-odds, before calibration.
        false_positive_rate: share of the ranking's held-out reals above the threshold.
        false_negative_rate: share of its held-out fakes not above the threshold.
        run_score: the probe's held-out score in the ranking, nats; chance is -0.693.
    """

    name: str
    status: str = "ok"
    reason: str = ""
    remedy: str = ""
    probabilities: np.ndarray | None = None
    logits: np.ndarray | None = None
    false_positive_rate: ErrorRate | None = None
    false_negative_rate: ErrorRate | None = None
    run_score: float | None = None


@dataclass(frozen=True, kw_only=True)
class Scores(Shown):
    """The probability that each image was generated, by each backbone.

    Attributes:
        images: their names.
        in_run: bool (N,): whether the ranking used the image. If so, its probabilities are from
            the probes that did not see it, provided its file is unchanged.
        threshold: images above it are called generated.
        backbones: in leaderboard order.
        broken: the images that were skipped.
        valid_for: the sentence on when the probabilities hold; always show it.
        notes: sentences the reader must see.
        run: the ranking's folder.
        schema_version: of this record.
    """

    as_text = "probe.reports.score_table:as_table"
    as_html = "probe.reports.score_table:as_html"

    images: list[str]
    in_run: np.ndarray
    threshold: float
    backbones: tuple[Verdicts, ...]
    broken: list[Broken]
    valid_for: str
    notes: list[str] = field(default_factory=list)
    run: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def exit_code(self) -> int:
        """0 if every image has a probability from every backbone, else 3."""
        complete = not self.broken and all(v.status == "ok" for v in self.backbones)
        return 0 if complete else 3

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON: one record per image, and one per backbone."""
        backbones = []
        for verdicts in self.backbones:
            record = asdict(verdicts)
            del record["probabilities"], record["logits"]
            backbones.append(record)
        images = [
            {
                "image": name,
                "in_run": bool(self.in_run[i]),
                "probabilities": {
                    v.name: float(v.probabilities[i])
                    for v in self.backbones
                    if v.probabilities is not None
                },
                "logits": {
                    v.name: float(v.logits[i]) for v in self.backbones if v.logits is not None
                },
            }
            for i, name in enumerate(self.images)
        ]
        return {
            "schema_version": self.schema_version,
            "run": self.run,
            "valid_for": self.valid_for,
            "threshold": self.threshold,
            "notes": self.notes,
            "backbones": backbones,
            "images": images,
            "broken": [asdict(broken) for broken in self.broken],
        }

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per image and backbone as a pandas frame.

        Columns: image, backbone, probability, logit, generated (the verdict), in_run, threshold,
        false_positive_rate, false_negative_rate.
        """
        import pandas as pd

        columns = [
            "image", "backbone", "probability", "logit", "generated", "in_run", "threshold",
            "false_positive_rate", "false_negative_rate",
        ]  # fmt: skip
        frames = [
            pd.DataFrame(
                {
                    "image": self.images,
                    "backbone": v.name,
                    "probability": v.probabilities,
                    "logit": v.logits,
                    "generated": v.probabilities > self.threshold,
                    "in_run": self.in_run,
                    "threshold": self.threshold,
                    "false_positive_rate": _value(v.false_positive_rate),
                    "false_negative_rate": _value(v.false_negative_rate),
                }
            )
            for v in self.backbones
            if v.probabilities is not None
        ]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def _value(rate: ErrorRate | None) -> float | None:
    return None if rate is None else rate.value


def score(
    source: ImageSource,
    run: FittedProbes,
    names: Sequence[str],
    bank: Bank,
    ctx: Context,
    *,
    threshold: float,
) -> Scores:
    """Score images with the probes of a ranking.

    Args:
        source: the images.
        run: the ranking's probes.
        names: the probes to use.
        bank: the bank that defines the backbones; one that differs from the ranking's is refused.
        ctx: its precision is ignored; each backbone runs in the ranking's precision.
        threshold: probability above which an image is called generated.

    Raises:
        ImagesError: no image can be read.
        BackboneUnavailable: no backbone can be used; says why.
    """
    if run.jpeg_quality is not None:
        source = JpegMatched(source, run.jpeg_quality)
    opened = {name: _open(run, name, bank, ctx) for name in names}
    spaces = {name: space for name, space in opened.items() if isinstance(space, FeatureSpace)}
    refused = {name: failure for name, failure in opened.items() if isinstance(failure, Failure)}
    if not spaces:
        no_backbone(refused, "No backbone of the ranking can be used")
    together = networks(spec for name in spaces if (spec := bank.find(name)) is not None)
    extractor = Extractor(spaces, together, ctx, resolution=run.resolution)
    count = len(source)
    ctx.on_event(ExtractionStarted("given", count, count, tuple(spaces), extractor.speeds()))
    found = extractor.extract(source, range(count), count)
    refused |= found.failures
    if not found.indices:
        raise ImagesError(f"{source.name}: no image can be read. {describe_broken(found.broken)}")
    if all(name in refused for name in names):
        no_backbone(refused, "No backbone of the ranking can be used")
    places = np.array([run.seen.get(row_digest(key), -1) for key in found.keys])
    backbones = []
    for name in names:
        if name in refused:
            backbones.append(Verdicts(name=name, **asdict(refused[name])))
        else:
            features = spaces[name].read(found.keys)
            backbones.append(_judge(run, run.probes[name], features, places, threshold))
    other = {
        key
        for name, space in spaces.items()
        for key in changed_keys(run.probes[name].space, space.record)
    }
    return Scores(
        images=source.captions(found.indices),
        in_run=places >= 0,
        threshold=threshold,
        backbones=tuple(backbones),
        broken=found.broken,
        valid_for=run.valid_for,
        notes=[*source.notes, *_notes(run, backbones, found.broken, places, other)],
        run=str(run.folder),
    )


def _open(run: FittedProbes, name: str, bank: Bank, ctx: Context) -> FeatureSpace | Failure:
    """Return the feature space of one of the ranking's probes, or why it cannot be used."""
    spec = bank.find(name)
    if spec is None:
        return Failure(
            "unavailable", f"{bank.path} has no such entry", "name the ranking's bank (--bank)"
        )
    recorded = run.probes[name].space
    try:
        precision = recorded.get("precision", "auto")
        space = open_space(spec, ctx.in_precision(precision), resolution=run.resolution)
    except BackboneUnavailable as error:
        return Failure(error.status, error.reason, error.remedy)
    changed = changed_keys(recorded, space.record)
    if serious := [key for key in changed if key not in CIRCUMSTANCES]:
        what = "weights" if "weights" in serious else " and ".join(serious)
        return Failure("changed", f"its {what} changed since the ranking", "rank again")
    return space


def _judge(
    run: FittedProbes,
    probe: FittedProbe,
    features: np.ndarray,
    places: np.ndarray,
    threshold: float,
) -> Verdicts:
    """Return a probe's verdicts; for images of the ranking, held-out log-odds if there are any.

    Args:
        run: the ranking.
        probe: one of its probes.
        features: float32 (N, d).
        places: int (N,): the image's position in the ranking, -1 for a new image.
        threshold: see `Scores`.
    """
    logits = features @ probe.weights + probe.intercept
    held_out = np.where(places >= 0, probe.logits[places], np.nan)
    logits = np.where(np.isfinite(held_out), held_out, logits)
    known = np.isfinite(probe.logits) & run.counted
    positive, negative = error_rates(
        probe.calibration.probability(probe.logits[known]), run.generated[known], threshold
    )
    return Verdicts(
        name=probe.name,
        probabilities=probe.calibration.probability(logits),
        logits=logits,
        false_positive_rate=positive,
        false_negative_rate=negative,
        run_score=probe.score,
    )


def _notes(
    run: FittedProbes,
    backbones: Sequence[Verdicts],
    broken: Sequence[Broken],
    places: np.ndarray,
    other: set[str],
) -> list[str]:
    """Return the sentences the reader must see."""
    notes = [describe_broken(broken)] if broken else []
    blind = [v.name for v in backbones if v.status == "ok" and not run.probes[v.name].above_chance]
    if blind:
        notes.append(
            f"{', '.join(blind)} did not tell the ranking's images apart: ignore their "
            "probabilities."
        )
    if seen := int((places >= 0).sum()):
        notes.append(
            f"{seen} of {len(places)} images were in the ranking; their probabilities are from "
            "probes that had not seen them."
        )
    if other:
        notes.append(
            f"The {' and '.join(sorted(other))} differ from the ranking's: features and "
            "probabilities may be slightly off."
        )
    return notes
