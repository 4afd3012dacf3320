"""Make a reference of real images, which stands for them in later comparisons."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import probe
from probe.api.context import open_context, with_progress
from probe.api.inputs import Images, open_given
from probe.bank.fid import fid_spec
from probe.bank.file import few_controls, load_bank
from probe.errors import UsageError
from probe.events import OnEvent, ignore
from probe.features.config import ReferenceOptions
from probe.features.gather import gather_reference
from probe.features.reference import SUFFIX
from probe.features.share import Coverage
from probe.options import split_names
from probe.probing.config import RankOptions


def reference(
    real: Images,
    out: Path | str,
    *,
    bank: Path | str | None = None,
    backbones: Sequence[str] | str | None = None,
    options: ReferenceOptions | None = None,
    device: str = "auto",
    offline: bool = False,
    on_event: OnEvent = ignore,
    progress: bool = False,
) -> Coverage | None:
    """Write a file that `rank` and `measure` take in place of real images.

    Per backbone it holds the features of a seeded sample and the moments of all images. Features
    that are in the cache are not computed again.

    Args:
        real: as in `rank`.
        out: the file to write, NAME.safetensors; an existing one is replaced.
        bank: the bank file; default ./modelbank.yaml or else the packaged one.
        backbones: names, patterns or @presets of the entries; default those that `rank` ranks.
        options: number, seed, resolution, precision, canonical FID; see `ReferenceOptions`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        offline: never download weights.
        on_event: called with progress events; see `probe.events`.
        progress: show a bar with the time left, on a terminal, in a notebook or as lines in a log.

    Returns:
        What went into it, by backbone. Under torchrun all processes split the work, and all but
        the first return None.

    Raises:
        UsageError: `out` has another suffix.
        ProbeError: see the subclasses in `probe.errors`.
    """
    options, path = options or ReferenceOptions(), Path(out)
    if path.suffix != SUFFIX:
        raise UsageError(f"--out: {path}: a reference is a {SUFFIX} file; call it so.")
    specs = load_bank(bank).select(backbones)
    if backbones is None:
        specs = few_controls(specs, RankOptions().controls)
    with (
        with_progress(on_event, progress) as on_event,
        open_context(
            device, precision=options.precision, offline=offline, on_event=on_event, shared=True
        ) as ctx,
    ):
        source = open_given(real, "real", ctx.on_event)
        passes = [(specs, ctx)]
        if options.fid:
            passes.append(((fid_spec(),), ctx.in_precision("fp32")))
        found = gather_reference(source, passes, options, path, probe.__version__)
    asked = tuple(split_names(backbones) or ())
    return None if found is None else replace(found, asked=asked)
