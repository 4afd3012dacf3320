"""How the files of a snapshot are numbered, in our runs and in those of the StyleGAN family."""

import re

NUMBER = "([0-9]{1,12}(?:_[0-9]{3})?)"
# The generator, without a number where a trainer writes over one file; and its samples.
SNAPSHOT = re.compile(rf"network-snapshot(?:-{NUMBER})?\.(?:safetensors|pkl)")
GRID = re.compile(rf"fakes{NUMBER}\.png")


def snapshot_number(images: int, batch: int) -> str:
    """Return the number in a snapshot's file names: no two snapshots of a run share one.

    It is the thousands of images, as that family writes it ("000200"), for the first state of a run
    that has as many. Later ones within the same thousand say how far they are in it: "000200_064".

    Args:
        images: shown so far.
        batch: images per step, of which `images` is a multiple.
    """
    kimg, beyond = divmod(images, 1000)
    return f"{kimg:06d}" if beyond < batch else f"{kimg:06d}_{beyond:03d}"


def kimg_of(number: str) -> float:
    """Return the thousands of images that a snapshot's number says."""
    kimg, _, beyond = number.partition("_")
    return (int(kimg) * 1000 + int(beyond or 0)) / 1000
