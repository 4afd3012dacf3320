"""The page of a ranking: one file, complete, harmless, written again from the run's files."""

import base64
import json
import re
import shlex
from html.parser import HTMLParser

import numpy as np
import pytest
from inputs import write_images

from probe.probing.leaderboard import Leaderboard
from probe.reports.evidence import telling
from probe.reports.rank_page import extremes
from probe.reports.svg import ticks

NASTY = '<img src=x onerror=alert(1)> & "quoted".png'


class Reader(HTMLParser):
    """Collects tags, text and where the page would load something from."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data") and value:
                self.loads.append(value)
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data):
        self.words.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


@pytest.fixture
def ranking(cli, bank, reals, fakes, tmp_path):
    (reals / "000.png").rename(reals / NASTY)
    out = tmp_path / "ranking"
    result = cli("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--offline", "--out", out,
                 "--protocol", "both", "-k", "1", "--format", "json")  # fmt: skip
    assert result.code == 0, result.err
    return out


def test_it_is_one_file_that_loads_nothing_and_runs_no_name(ranking):
    page = (ranking / "report.html").read_text("utf-8")
    found = read(page)
    assert all(url.startswith(("data:image/webp;base64,", "#")) for url in found.loads)
    assert not found.handlers
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert "default-src 'none'" in page
    assert len(page) < 5_000_000


def test_it_shows_every_backbone_with_pictures_and_words(ranking):
    page = (ranking / "report.html").read_text("utf-8")
    board = Leaderboard.from_dict(json.loads((ranking / "leaderboard.json").read_text())[0])
    found = read(page)
    text = " ".join(found.words)
    assert "colour tells these 60 generated images from 60 real ones best" in text
    assert "Checked: file formats" in text and not board.audit
    for row in board.rows:
        assert row.name in text and f"{row.score:.3f}" in text
    assert found.tags.count("details") >= 3 * 5  # a table for every figure
    assert (
        page.count('role="img"') == page.count('aria-label="') == 3 * 4 + 2
    )  # cost, learning curves
    pictures = [url.split(",", 1)[1] for url in found.loads if url[0] != "#"]
    assert all(base64.b64decode(p)[:4] == b"RIFF" for p in pictures)
    # eight of each of three sorts for three backbones, and for the first once more at the top; and
    # what most of the ranked ones catch, and what fewest do
    assert len(pictures) == 3 * 3 * 8 + 3 * 8 + 2 * 8
    assert all(f'id="{url[1:]}"' in page for url in found.loads if url[0] == "#")
    assert "caught by 2 of 2" in text
    assert "protocol “paper”" in text


def test_pictures_are_those_of_the_images_they_are_called_after(ranking, reals):
    """The fakes are blue; so are their pictures, and the reals' are not."""
    import io

    from PIL import Image

    from probe.reports.evidence import load_evidence

    evidence = load_evidence(ranking)
    blue = {}
    for position, data in evidence.pictures.items():
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)
        blue[position] = pixels[:, :, 2].mean() - pixels[:, :, :2].mean()
    real = [b for p, b in blue.items() if p < 60]
    fake = [b for p, b in blue.items() if p >= 60]
    assert min(len(real), len(fake)) >= 8
    assert np.mean(fake) > np.mean(real) + 20


def test_it_says_how_to_repeat_itself(ranking, cli):
    page = (ranking / "report.html").read_text("utf-8")
    (block,) = [b for b in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL) if "probe rank" in b]
    import html

    words = shlex.split(html.unescape(block))
    again = cli(*words[1:], "--offline", "--format", "json")
    assert again.code == 0, again.err
    assert json.loads(again.out) == json.loads((ranking / "leaderboard.json").read_text())


def test_report_writes_it_again_without_the_images(ranking, cli, reals, fakes, tmp_path):
    import shutil

    page = (ranking / "report.html").read_bytes()
    (ranking / "report.html").unlink()
    shutil.rmtree(reals)
    shutil.rmtree(fakes)
    result = cli("report", ranking)
    assert result.code == 0 and result.out.strip() == str(ranking / "report.html")
    assert (ranking / "report.html").read_bytes() == page
    other = tmp_path / "elsewhere" / "page.html"
    assert cli("report", ranking, "--out", other).code == 0
    assert other.read_bytes() == page


def test_a_page_without_pictures_says_so(ranking, cli):
    (ranking / "evidence.safetensors").unlink()
    assert cli("report", ranking).code == 0
    assert "There are no pictures" in (ranking / "report.html").read_text("utf-8")


@pytest.mark.parametrize("name", ["leaderboard.json", "scores.csv", "evidence.safetensors"])
def test_a_damaged_file_is_named(ranking, cli, name):
    whole = (ranking / name).read_bytes()
    (ranking / name).write_bytes(whole[: len(whole) * 2 // 3])
    result = cli("report", ranking)
    assert result.code == 1 and "damaged" in result.err and str(ranking) in result.err


def test_what_is_no_run_is_refused(cli, tmp_path, reals):
    result = cli("report", reals)
    assert result.code == 1 and "holds no run" in result.err
    assert cli("report", tmp_path / "gone").code == 1
    runs = tmp_path / "runs" / "00000-reals"
    runs.mkdir(parents=True)
    (runs / "training_options.json").write_text("{}")
    result = cli("report", tmp_path / "runs")
    assert result.code == 1 and str(runs) in result.err


def test_no_difference_is_no_advice(cli, bank, tmp_path):
    one = write_images(tmp_path / "one", 40, seed=1)
    other = write_images(tmp_path / "other", 40, seed=3)
    out = tmp_path / "out"
    cli("rank", "--real", one, "--gen", other, "--bank", bank, "--offline", "--out", out)
    text = " ".join(read((out / "report.html").read_text("utf-8")).words)
    assert "No pretrained backbone tells" in text and "would be a lottery" in text


def test_it_names_who_sees_the_most_different_things():
    alike = np.array([[1, 0.8, 0.2, 0.0], [0.8, 1, 0.5, 0.0], [0.2, 0.5, 1, 0.0], [0, 0, 0, 1]])
    names = ["a", "b", "c", "control"]
    assert extremes(alike, names, names[:3]) == (("a", "c", 0.2), ("a", "b", 0.8))
    assert extremes(alike, names, names[:2]) is None
    assert extremes(np.full((4, 4), np.nan), names, names[:3]) is None


def test_the_telling_images_are_the_extreme_ones():
    logits = np.array([-3.0, 2.0, np.nan, 0.5, -1.0, 4.0, 1.0, np.nan])
    assert telling(logits, 4, count=2) == {"caught": [5, 6], "passed": [4, 6], "accused": [1, 3]}


@pytest.mark.parametrize("low,high", [(0, 1), (-12.3, 9.9), (1e-5, 3e-5), (0, 48), (5, 5)])
def test_ticks_are_few_round_and_inside(low, high):
    found = ticks(low, high)
    assert 1 <= len(found) <= 8
    assert all(low - 1e-9 <= t <= high + 1e-9 for t in found)
