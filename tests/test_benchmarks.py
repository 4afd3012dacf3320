"""The benchmarks start, and their README shows the results that are kept."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
PARTS = {"common", "gpu_parts", "inputs", "reference", "timed_rank", "trainers"}  # of the others
SCRIPTS = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in PARTS)


def run(script, *options):
    return subprocess.run(
        [sys.executable, FOLDER / f"{script}.py", *options], capture_output=True, text=True
    )


def test_the_readme_is_rendered_from_the_results():
    found = run("summary", "--check")
    assert found.returncode == 0, found.stderr


def test_no_kept_result_is_of_a_quick_run():
    records = [json.loads(p.read_text()) for p in (FOLDER / "results").glob("*.json")]
    assert records and not any(record["quick"] for record in records)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_benchmark_says_what_it_measures(script):
    found = run(script, "--help")
    assert found.returncode == 0, found.stderr
    assert f"`{script}.py`" in (FOLDER / "README.md").read_text() or script == "summary"


def test_a_quick_run_leaves_a_record(tmp_path):
    found = run("probes", "--quick", "--out", tmp_path / "probes.json")
    assert found.returncode == 0, found.stderr
    record = json.loads((tmp_path / "probes.json").read_text())
    assert record["quick"] and record["tables"]


def test_the_parts_of_the_gpu_benchmark_run_without_one(tmp_path):
    found = run("gpu", "--quick", "--out", tmp_path / "gpu.json")
    assert found.returncode == 0, found.stderr
    tables = json.loads((tmp_path / "gpu.json").read_text())["tables"]
    assert [table["title"].split(":")[0].split(",")[0] for table in tables] == [
        "What the machine can do", "Drawing", "Training", "One step", "Ranking", "Extraction",
        "Feeding", "Against torch.compile",
    ]  # fmt: skip
    for table in tables:  # a text in place of a number says why there is none
        numbers = [cell for row in table["rows"] for cell in row[1:3] if cell is not None]
        assert numbers and all(isinstance(cell, float) for cell in numbers), table


def test_a_part_that_has_no_time_says_so(tmp_path):
    found = run("gpu", "--quick", "--only", "card,feed", "--minutes", "0.02", "--out",
                tmp_path / "gpu.json")  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "feed  not finished in" in found.stdout or "feed  no time was left" in found.stdout


def test_the_coverage_of_intervals_goes_on_where_it_was_stopped(tmp_path):
    out, journal = tmp_path / "coverage.json", tmp_path / "coverage.jsonl"
    options = ("--cells", "paper normal 32x64 none", "--out", out)
    assert run("coverage", *options, "--draws", "2").returncode == 0
    first, second = journal.read_text().splitlines()
    journal.write_text(first + "\n" + second[:40] + "\n")  # as a kill leaves it
    found = run("coverage", *options, "--draws", "3")
    assert found.returncode == 0, found.stderr
    lines = [json.loads(line) for line in journal.read_text().splitlines() if line.endswith("}")]
    assert [line["seed"] for line in lines] == [0, 1, 2] and lines[1] == json.loads(second)
    (row,) = json.loads(out.read_text())["tables"][0]["rows"]
    assert row[:2] == ["paper normal 32x64 none", 3]
    assert run("coverage", "--cells", "none such", "--out", out).returncode == 2
