"""Images that change between the passes of one measurement."""

from dataclasses import replace

import pytest
from contexts import context
from inputs import write_images

from probe.bank.file import load_bank
from probe.errors import ImagesError
from probe.images.open import open_images
from probe.metrics import measure as module
from probe.metrics.config import MeasureOptions


def test_images_that_change_between_two_passes_are_an_error(tmp_path, bank, monkeypatch):
    real, fake = (open_images(write_images(tmp_path / n, 40, seed=1)) for n in ("real", "fake"))
    (colour,) = load_bank(bank).select(["colour"])
    extract_pair, kept = module.extract_pair, []

    def meanwhile(*given, **named):
        found = extract_pair(*given, **named)
        if kept:  # the second pass reads the folder once more
            name = open_images(tmp_path / "real").captions([found.indices["real"][0]])[0]
            (tmp_path / "real" / name).write_bytes(
                (tmp_path / "real" / "001.png").read_bytes()[:-1]
            )
            found = extract_pair(*given, **named)
        kept.append(found)
        return found

    monkeypatch.setattr(module, "extract_pair", meanwhile)
    monkeypatch.setattr(module, "verified_weights", lambda spec, offline: None)
    monkeypatch.setattr(module, "fid_spec", lambda: replace(colour, name="inception-fid"))
    with pytest.raises(
        ImagesError, match="changed while it was read. Repeat the command when noth"
    ):
        module.measure(
            real,
            fake,
            [colour],
            MeasureOptions(num=40, fid=True),
            context(tmp_path / "cache", bn_images=real),
        )
    assert len(kept) == 2
