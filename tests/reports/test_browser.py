"""The page in a browser: it loads without a network, sorts, and complains about nothing."""

import re
import shutil
import subprocess

import pytest

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
    import html
    import json

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
