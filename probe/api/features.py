"""Extract features of one set of images, whole or as one of many tasks."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from probe.api.context import open_context, with_progress
from probe.api.inputs import Images, open_given
from probe.api.on_ray import Job, extract_on_ray
from probe.bank.file import few_controls, load_bank
from probe.events import OnEvent, ignore
from probe.features.config import ExtractOptions
from probe.features.share import Coverage, Share
from probe.images.remote import is_remote
from probe.options import split_names
from probe.probing.config import RankOptions


def extract(
    real: Images,
    *,
    bank: Path | str | None = None,
    backbones: Sequence[str] | str | None = None,
    options: ExtractOptions | None = None,
    only_count: bool = False,
    device: str = "auto",
    offline: bool = False,
    on_event: OnEvent = ignore,
    progress: bool = False,
) -> Coverage | None:
    """Compute features of real images, and store them for rankings and measurements.

    Any number of tasks may work on one set at the same time, into one cache folder or into several
    that `probe cache merge` joins; they do not wait for each other. Repeating a task computes what
    is missing.

    Args:
        real: as in `rank`.
        bank: the bank file; default ./modelbank.yaml or else the packaged one.
        backbones: names, patterns or @presets of the entries; default those that `rank` ranks.
        options: number, share, seed, resolution, precision; see `ExtractOptions`.
        only_count: compute nothing, and say how much is missing.
        device: "auto", "cpu", "cuda" or "cuda:N".
        offline: never download weights.
        on_event: called with progress events; see `probe.events`.
        progress: show a bar with the time left, on a terminal, in a notebook or as lines in a log.

    Returns:
        What is stored and what is missing, by backbone. Under torchrun all processes split the
        work, and all but the first return None.

    Raises:
        ProbeError: see the subclasses in `probe.errors`.
    """
    options = options or ExtractOptions()
    specs = load_bank(bank).select(backbones)
    if backbones is None:
        specs = few_controls(specs, RankOptions().controls)
    with (
        with_progress(on_event, progress) as on_event,
        open_context(
            device, precision=options.precision, offline=offline, on_event=on_event, shared=True
        ) as ctx,
    ):
        share = Share(open_given(real, "real", ctx.on_event), specs, options, ctx)
        if only_count:
            found = share.count_missing()
        elif options.engine == "ray":
            job = Job(
                images=_whole_path(real),
                specs=specs,
                options=options,
                device=device,
                offline=offline,
                cache=str(ctx.store.root.absolute()),
            )
            found = share.finish(extract_on_ray(share, job, ctx))
        else:
            found = share.extract()
    asked = tuple(split_names(backbones) or ())
    return None if found is None else replace(found, asked=asked)


def _whole_path(real: Images) -> Images:
    """Return images as processes that were started elsewhere find them; a URL stays one."""
    if isinstance(real, str | Path) and not is_remote(str(real)):
        return os.path.abspath(real)  # noqa: PTH100, text may have braces
    return real
