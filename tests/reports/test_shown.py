"""Results that show themselves: `print`, and the last line of a notebook's cell."""

import re

import pytest
from inputs import write_bank, write_images

import probe


@pytest.fixture
def ranked(reals, fakes, bank, tmp_path):
    options = probe.RankOptions(protocol="both")
    return probe.rank(
        reals, fakes, bank=bank, backbones="col*, edges", options=options, out=tmp_path / "run"
    )


def names_in(page: str) -> set[str]:
    return set(re.findall(r"<td [^>]*>([a-z]+)(?: \*)?</td>", page))


def test_rankings_measurements_and_scores_are_tables(ranked, reals, fakes, bank, tmp_path):
    found = probe.measure(reals, fakes, bank=bank, backbones="colour,edges")
    scores = probe.score(fakes, tmp_path / "run", bank=bank, backbones="colour")
    for result, words in (
        (ranked.leaderboard, "score [95 %]"),
        (ranked, "paper protocol"),
        (found, "Fréchet"),
        (scores, "in the run"),
    ):
        text, page = str(result), result._repr_html_()
        assert words in text and "colour" in text
        assert words in page and page.count("<table>") == page.count("</table>") >= 1
    assert {"colour", "edges", "null"} <= names_in(ranked.leaderboard._repr_html_())
    assert ranked._repr_html_().count("<table>") == 2


def test_a_page_runs_nothing_that_a_name_says(bank, tmp_path):
    images = write_images(tmp_path / "odd", 2, seed=0)
    (images / "000.png").rename(images / "<script>alert(1)<.png")
    real = write_images(tmp_path / "reals", 40, seed=1)
    fake = write_images(tmp_path / "fakes", 40, seed=2, blue=40)
    probe.rank(real, fake, bank=bank, backbones="colour", out=tmp_path / "run")
    page = probe.score(images, tmp_path / "run", bank=bank)._repr_html_()
    assert "&lt;script&gt;" in page and "<script>" not in page


def test_text_and_sequences_name_the_same_backbones(tmp_path):
    bank = probe.load_bank(write_bank(tmp_path))
    assert bank.select("colour, ed*") == bank.select(["colour", "ed*"])
    assert bank.select("") == bank.select(None) == bank.specs
    with pytest.raises(probe.ProbeError, match="Did you mean 'colour'"):
        bank.select("colr")


def test_a_string_of_names_decides_the_exit_code_by_name(ranked):
    assert ranked.leaderboard.asked == {"col*", "edges"}


def test_progress_is_shown_on_demand(reals, fakes, bank, capsys):
    seen = []
    for progress in (False, True):
        probe.rank(
            reals, fakes, bank=bank, backbones="colour", on_event=seen.append, progress=progress
        )
        assert ("60 real images, 1 backbone\n" in capsys.readouterr().err) == progress
    assert len(seen) > 8


def test_a_run_shows_its_snapshots(cli, reals, bank, tmp_path):
    result = cli("train", "--real", reals, "--outdir", tmp_path / "runs", "--bank", bank, "--batch",
                 "4", "--tick", "0.02", "--snap", "1", "--channel-base", "128", "--channel-max",
                 "8", "--z-dim", "8", "--w-dim", "8", "--eval-num", "0", "--kimg",
                 "0.04")  # fmt: skip
    assert result.code == 0, result.err
    assert "kimg 0.020 " in result.err and "kimg 0.040 " in result.err
    run = probe.Run(tmp_path / "runs" / "00000-reals")
    assert run.finished and run.kimg == run.total_kimg == 0.04 and run.best is None
    assert "0.04 of 0.04 kimg, finished" in str(run) and "finished" in run._repr_html_()
    with pytest.raises(probe.ProbeError, match="Did you mean '.*00000-reals'"):
        probe.Run(tmp_path / "runs" / "0000-reals")
