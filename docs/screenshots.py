"""Take the pictures of the pages that the documentation shows, from the top of each.

    python docs/screenshots.py rank=ranking/report.html train=runs/00000-faces/report.html \
        compare=runs/comparison.html

Needs Debian's chromium; writes docs/pictures/NAME.png.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).parent / "pictures"
SIZE = (1100, 1150)
COLOURS = 256  # of the palette


def take(name: str, page: Path) -> Path:
    """Write a picture of the top of a page and return its path."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.exit("This needs Debian's chromium.")
    width, height = SIZE
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
    if len(sys.argv) < 2 or not all("=" in word for word in sys.argv[1:]):
        sys.exit(__doc__)
    for word in sys.argv[1:]:
        name, _, page = word.partition("=")
        print(take(name, Path(page)))
