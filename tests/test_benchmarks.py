"""The benchmarks start, and their README shows the results that are kept."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
PARTS = {"common", "inputs", "reference", "trainers"}  # imported by the others
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
