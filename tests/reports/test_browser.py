"""The pages in a browser: they load without a network, sort, slide and complain about nothing."""

import html
import json
import re
import shutil
import subprocess

import pytest
from PIL import Image

from probe.reports.train_page import train_page

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Debian's chromium")

# Clicks the heading twice and tells the frame around it the order of the names.
CLICKS = """
<script>
const table = document.querySelector("table.leaderboard");
const names = () => [...table.tBodies[0].rows].map((r) => r.cells[1].textContent.trim()).join("|");
const heading = [...table.querySelectorAll("th button")].find((b) => b.textContent === "score");
const before = names();
heading.click();
const up = names();
const said = heading.parentElement.getAttribute("aria-sort");
heading.click();
parent.postMessage(JSON.stringify({before, up, said, down: names(),
  wide: document.documentElement.scrollWidth > innerWidth,
  width: innerWidth,
  broken: [...document.images].filter((i) => i.complete && !i.naturalWidth).length}), "*");
</script>
"""
FRAME = """
<title>none</title>
<script>addEventListener("message", (event) => {{ document.title = event.data; }});</script>
<iframe src="page.html" style="border: 0; width: {width}px; height: 800px"></iframe>
"""


def browse(page, tmp_path, *flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", *flags, "--dump-dom",
         page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("width", [1200, 390])
def test_it_sorts_without_a_word_of_complaint(cli, bank, reals, fakes, tmp_path, width):
    out = tmp_path / "ranking"
    result = cli("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--offline", "--out", out)
    assert result.code == 0, result.err
    page = tmp_path / "page.html"
    page.write_text((out / "report.html").read_text("utf-8") + CLICKS)
    # in a frame: a window of headless Chromium is never narrower than 500
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(width=width))
    done = browse(frame, tmp_path, f"--window-size={max(width, 500)},900")
    assert not re.findall(r".*CONSOLE.*", done.stderr), done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    found = json.loads(html.unescape(title.group(1)))
    assert found["width"] == width
    up, down = found["up"].split("|"), found["down"].split("|")
    assert down[0].startswith("colour") and up[-1].startswith("colour") and up == down[::-1]
    assert found["said"] == "ascending"
    assert not found["broken"] and not found["wide"]


# Moves the slider to the first grid, and tells the frame which one is to be seen.
SLIDES = """
<script>
const slider = document.querySelector(".film input");
const seen = () => [...document.querySelectorAll(".film figure")]
  .filter((f) => getComputedStyle(f).visibility === "visible").map((f) => f.textContent.trim());
const before = seen();
slider.value = 0;
slider.dispatchEvent(new Event("input"));
parent.postMessage(JSON.stringify({before, after: seen(), hidden: slider.hidden,
  wide: document.documentElement.scrollWidth > innerWidth}), "*");
</script>
"""
COUNT = """
<title>0</title>
<script>let loads = 0; addEventListener("message", () => { document.title = ++loads; });</script>
<iframe src="page.html" style="border: 0; width: 390px; height: 800px"></iframe>
"""


@pytest.fixture
def begun(tmp_path):
    """A run that has only its options and three grids of images."""
    run = tmp_path / "run"
    run.mkdir()
    options = {"real": {"path": "faces", "training": 9}, "options": {"strategy": "none"},
               "resolution": 8, "stage_ends_kimg": [4.0]}  # fmt: skip
    (run / "training_options.json").write_text(json.dumps(options))
    for name in ("reals", "fakes_init", "fakes000001", "fakes000002"):
        Image.effect_noise((96, 64), 80).convert("RGB").save(run / f"{name}.png")
    return run


def test_a_slider_goes_through_the_images(begun, tmp_path):
    (tmp_path / "page.html").write_text(train_page(begun) + SLIDES)
    (tmp_path / "frame.html").write_text(FRAME.format(width=390))
    done = browse(tmp_path / "frame.html", tmp_path)
    assert not re.findall(r".*CONSOLE.*", done.stderr), done.stderr
    found = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1]))
    assert found == {"before": ["2 kimg"], "after": ["Before training"], "hidden": False,
                     "wide": False}  # fmt: skip


@pytest.mark.parametrize("reading", [False, True])
def test_the_page_of_a_run_reloads_itself_unless_it_is_read(begun, tmp_path, reading):
    page = train_page(begun)
    assert "data-reload=30" in page
    act = 'document.querySelector("details").open = true;' if reading else ""
    (tmp_path / "page.html").write_text(
        page.replace("data-reload=30", "data-reload=1")
        + f'<script>{act} parent.postMessage("loaded", "*");</script>'
    )
    (tmp_path / "frame.html").write_text(COUNT)
    done = browse(tmp_path / "frame.html", tmp_path, "--virtual-time-budget=3500")
    loads = int(re.search(r"<title>([0-9]+)</title>", done.stdout)[1])
    assert loads == 1 if reading else loads >= 3
