"""Score single images with the probes of a ranking."""

from collections.abc import Sequence
from pathlib import Path

from probe.api.context import open_context, with_progress
from probe.api.inputs import Images, open_files_given
from probe.bank.file import load_bank
from probe.errors import UsageError
from probe.events import OnEvent, ignore
from probe.scoring.probes import THRESHOLD, choose_probes, load_probes
from probe.scoring.score import Scores
from probe.scoring.score import score as score_source


def score(
    images: Images | Sequence[Path | str],
    run: Path | str,
    *,
    bank: Path | str | None = None,
    backbones: Sequence[str] | str | None = None,
    threshold: float = THRESHOLD,
    device: str = "auto",
    offline: bool = False,
    on_event: OnEvent = ignore,
    progress: bool = False,
) -> Scores:
    """Return each image's probability of being generated, by the probes of a ranking.

    Valid only for that ranking's generator and its kind of reals.

    Args:
        images: a set of images as in `rank`, one or several image files, an `ImageSource`, or
            uint8 (N, 3, H, W).
        run: the folder passed to `rank` as `out`.
        bank: the bank file; default ./modelbank.yaml or else the packaged one. Backbones that no
            longer match the ranking's are refused.
        backbones: names, patterns or @presets; default all with a probe except controls.
        threshold: probability above which an image is called generated.
        device: "auto", "cpu", "cuda" or "cuda:N".
        offline: never download weights.
        on_event: called with progress events; see `probe.events`.
        progress: show a bar with the time left, on a terminal, in a notebook or as lines in a log.

    Raises:
        UsageError: a threshold outside (0, 1), an unknown device, or a folder among several files.
        ProbeError: see the subclasses in `probe.errors`.
    """
    if not 0 < threshold < 1:
        raise UsageError(f"--threshold: must lie between 0 and 1, not {threshold:g}.")
    with (
        with_progress(on_event, progress) as on_event,
        open_context(device, offline=offline, on_event=on_event) as ctx,
    ):
        probes = load_probes(Path(run))
        return score_source(
            open_files_given(images, ctx.on_event),
            probes,
            choose_probes(probes.probes, backbones),
            load_bank(bank),
            ctx,
            threshold=threshold,
        )
