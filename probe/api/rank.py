"""Rank a bank or features, or run the bundled demonstration."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

import probe
from probe.api.context import open_context, with_progress
from probe.api.inputs import Images, open_fakes_given, open_reals_given
from probe.bank.file import few_controls, load_bank
from probe.bundled import DEMO_BACKBONES, DEMO_GENERATOR, DEMO_REALS
from probe.events import Note, OnEvent, ignore
from probe.features.given import Features, read_given
from probe.generators.callables import SampleFunction
from probe.generators.config import Drawing, SampleOptions
from probe.images.base import ImageSource
from probe.options import split_names
from probe.probing.config import RankOptions
from probe.probing.given import check_given, rank_given
from probe.probing.rank import Ranking
from probe.probing.rank import rank as rank_sources
from probe.reports.evidence import SIDE, Draw, gather_evidence, save_evidence
from probe.reports.rank_files import save_ranking
from probe.reports.report import write_report
from probe.run_files import REPORT_FILE


def rank(
    real: Images,
    gen: Images | SampleFunction,
    *,
    bank: Path | str | None = None,
    backbones: Sequence[str] | str | None = None,
    options: RankOptions | None = None,
    sample: SampleOptions | None = None,
    out: Path | str | None = None,
    device: str = "auto",
    offline: bool = False,
    on_event: OnEvent = ignore,
    progress: bool = False,
) -> Ranking | None:
    """Rank the bank's backbones by how well they tell real images from generated ones.

    Args:
        real: real images: a folder, zip, tars, Parquet or NumPy file or an LMDB, by its path, by
            braces that stand for several paths, or by a URL; an `ImageSource`; or uint8
            (N, 3, H, W); or the path or URL of a reference that `reference` wrote.
        gen: a generator checkpoint, generated images in any of these forms, `module:function`, or
            a function `(n, seed) → uint8 (n, 3, H, W)`, for example a diffusion pipeline; it should
            be deterministic in the seed.
        bank: the bank file; default ./modelbank.yaml or else the packaged one.
        backbones: names, patterns or @presets of the entries to rank, as a sequence or as text,
            "mobilenetv2,dino*"; default all.
        options: protocol, numbers, seed, precision; see `RankOptions`.
        sample: truncation, noise and class of a checkpoint; see `SampleOptions`.
        out: a folder for leaderboard.json, leaderboard.csv, scores.csv, the probes and
            report.html.
        device: "auto", "cpu", "cuda" or "cuda:N".
        offline: never download weights.
        on_event: called with progress events; see `probe.events`.
        progress: show a bar with the time left, on a terminal, in a notebook or as lines in a log.

    Returns:
        Leaderboards, per-image results and the skipped images. Under torchrun all processes split
        the extraction, and all but the first return None.

    Raises:
        ProbeError: see the subclasses in `probe.errors`.
    """
    options = options or RankOptions()
    sample = sample or SampleOptions()
    whole = load_bank(bank)
    specs = whole.select(backbones)
    if backbones is None:
        specs = few_controls(specs, options.controls)
    with (
        with_progress(on_event, progress) as on_event,
        open_context(
            device, precision=options.precision, offline=offline, on_event=on_event, shared=True
        ) as ctx,
    ):
        reals = open_reals_given(real, ctx)
        count = min(options.num, len(reals))
        drawing = Drawing(count, options.seed, sample, ctx.device, options.precision)
        fakes = open_fakes_given(gen, reals, drawing, on_event)
        ranking = rank_sources(
            reals,
            fakes,
            specs,
            options,
            ctx,
            config={
                "probe": probe.__version__,
                "sample": asdict(sample),
                "bank": None if bank is None else str(bank),
                "backbones": split_names(backbones),
            },
        )
    if out is not None and ranking is not None:
        _write(ranking, _drawer(ranking, reals, fakes), Path(out), on_event)
    return ranking


def rank_features(
    features: Mapping[str, Features],
    *,
    options: RankOptions | None = None,
    out: Path | str | None = None,
    on_event: OnEvent = ignore,
) -> Ranking:
    """Rank backbones by features of theirs that you already have.

    As in `rank`, equal numbers of reals and fakes are drawn by the seed, and each backbone's
    features are standardised, probed and compared with the others'. No image and no network is
    needed.

    Args:
        features: name → reals (N, d) and fakes (M, d), arrays or tensors of finite numbers, whose
            rows are the same images in every backbone; or an .npz or .safetensors file that holds
            them as "real" and "fake". Widths d may differ. They are used as float32.
        options: protocol, num, k and seed; see `RankOptions`.
        out: a folder for leaderboard.json, leaderboard.csv, scores.csv and report.html. There are
            no pictures and no probes in it, since nothing is known of the images.
        on_event: called with progress events; see `probe.events`.

    Returns:
        Leaderboards and per-image results; images are called "real 0", "fake 0", …, by their rows.

    Raises:
        UsageError: options about images, or names that cannot be shown.
        ImagesError: an array or a file cannot be used, the numbers of rows differ between
            backbones, or there are fewer than 16 of a class.
    """
    options = options or RankOptions()
    check_given(list(features), options)
    given = read_given(features)
    with open_context("cpu", on_event=on_event) as ctx:
        ranking = rank_given(given, options, ctx, config={"probe": probe.__version__})
    if out is not None:
        _write(ranking, lambda positions: {}, Path(out), on_event)
    return ranking


def _write(ranking: Ranking, draw: Draw, out: Path, on_event: OnEvent) -> None:
    """Write a ranking's files and its page."""

    def read(name: str, positions: Sequence[int]) -> np.ndarray:
        return ranking.rows[name].read([ranking.keys[p] for p in positions])

    on_event(Note(f"Writing the report to {out / REPORT_FILE}."))
    save_ranking(ranking, out)
    save_evidence(gather_evidence(ranking, draw, read), out)
    write_report(out)


def demo(
    *, out: Path | str | None = None, num: int = 128, on_event: OnEvent = ignore
) -> Ranking | None:
    """Rank the packaged backbones on the bundled images and generator; never downloads.

    Backbones whose weights are not installed appear as unavailable rows.
    """
    return rank(
        DEMO_REALS,
        DEMO_GENERATOR,
        backbones=DEMO_BACKBONES,
        options=RankOptions(num=num),
        out=out,
        offline=True,
        on_event=on_event,
    )


def _drawer(ranking: Ranking, reals: ImageSource, fakes: ImageSource) -> Draw:
    """Return a function that makes small pictures of a ranking's images, given positions."""
    n_real = ranking.leaderboard.n_real
    sides = min(SIDE, ranking.leaderboard.resolution or SIDE)

    def draw(positions: Sequence[int]) -> dict[int, np.ndarray]:
        drawn = {}
        for kind, source in (("real", reals), ("fake", fakes)):
            first = 0 if kind == "real" else n_real
            mine = [p for p in positions if (p >= n_real) == (kind == "fake")]
            at = {ranking.indices[kind][p - first]: p for p in mine}
            batch = source.load(sorted(at), sides)
            pixels = batch.images.permute(0, 2, 3, 1).numpy()
            drawn |= {at[i]: image for i, image in zip(batch.indices, pixels, strict=True)}
        return drawn

    return draw
