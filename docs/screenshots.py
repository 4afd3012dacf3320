"""Take the pictures of the reports that these pages show: `python docs/screenshots.py RANK TRAIN`.

RANK is a folder of `probe rank --out`, TRAIN a run directory of `probe train`. Needs Debian's
chromium; writes docs/pictures/.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).parent / "pictures"
SIZES = {"rank": (1100, 1150), "train": (1100, 1150)}
COLOURS = 128  # of the palette


def take(page: Path, name: str) -> Path:
    """Write a picture of the top of a page and return its path."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.exit("This needs Debian's chromium.")
    width, height = SIZES[name]
    with tempfile.TemporaryDirectory() as profile:
        shot = Path(profile) / "shot.png"
        subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--disable-background-networking", f"--user-data-dir={profile}",
             f"--window-size={width},{height}", f"--screenshot={shot}", page.resolve().as_uri()],
            check=True, capture_output=True,
        )  # fmt: skip
        picture = Image.open(shot).convert("RGB").quantize(COLOURS)
    PICTURES.mkdir(exist_ok=True)
    path = PICTURES / f"{name}.png"
    picture.save(path, optimize=True)
    return path


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    for name, run in zip(SIZES, sys.argv[1:], strict=True):
        print(take(Path(run) / "report.html", name))
