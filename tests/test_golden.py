"""What programs read from each verb: the fields, words and numbers recorded in tests/golden.

Fields, their order, their types and all words must be equal. Other processors and libraries round
otherwise, so fractions are compared with a tolerance; speeds, times, digests and versions by type
alone. To accept a change: pytest tests/test_golden.py --write-golden, and read the difference.
"""

import csv
import io
import json
import math
import re
from pathlib import Path

import pytest
from inputs import write_images, write_judged_bank

GOLDEN = Path(__file__).parent / "golden"
MACHINES = re.compile(
    r"images_per_second|total_time|timestamp|Timing/.*|bytes|probe|versions|\w*digest|sha256|weights"
)
TOLERANCE = 0.01  # relative and absolute; two threads in place of one make up to 0.0013
TRAINED = 0.05  # the same after training, where differences grow
TINY = (
    "--strategy", "progressive", "--stage-kimg", "0.008,0.008", "--batch", "4", "--k", "1",
    "--channel-base", "128", "--channel-max", "8", "--z-dim", "8", "--w-dim", "8",
    "--map-layers", "2", "--eval-num", "16", "--rank-num", "40", "--tick", "0.008", "--snap", "1",
)  # fmt: skip


def table(text: str) -> list[dict]:
    """Return a CSV's rows, its numbers as such."""

    def value(cell: str):
        try:
            return json.loads(cell)
        except ValueError:
            return cell

    return [{k: value(v) for k, v in row.items()} for row in csv.DictReader(io.StringIO(text))]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def everywhere(value, key=""):
    """Return a record without what differs from machine to machine."""
    if MACHINES.fullmatch(key) and not isinstance(value, list):
        named = value if isinstance(value, dict) else {}
        return {name: type(v).__name__ for name, v in named.items()} or type(value).__name__
    if isinstance(value, dict):
        return {name: everywhere(v, name) for name, v in value.items()}
    if isinstance(value, list):
        return [everywhere(v, key) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def changes(golden, found, tolerance: float, path="") -> list[str]:
    """Return where a record differs from the golden one."""
    if type(golden) is not type(found):
        return [f"{path}: {found!r} in place of {golden!r}"]
    if isinstance(golden, dict):
        if list(golden) != list(found):
            return [f"{path}: {list(found)} in place of {list(golden)}"]
        return [c for k in golden for c in changes(golden[k], found[k], tolerance, f"{path}/{k}")]
    if isinstance(golden, list):
        if len(golden) != len(found):
            return [f"{path}: {len(found)} in place of {len(golden)}"]
        pairs = enumerate(zip(golden, found, strict=True))
        return [c for i, (a, b) in pairs for c in changes(a, b, tolerance, f"{path}[{i}]")]
    near = isinstance(golden, float) and (
        math.isclose(golden, found, rel_tol=tolerance, abs_tol=tolerance)
        or (math.isnan(golden) and math.isnan(found))
    )
    return [] if near or golden == found else [f"{path}: {found!r} in place of {golden!r}"]


@pytest.fixture
def compare(request):
    def run(name: str, found, tolerance: float = TOLERANCE):
        path, found = GOLDEN / f"{name}.json", everywhere(found)
        if request.config.getoption("--write-golden"):
            path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
        different = changes(json.loads(path.read_text("utf-8")), found, tolerance)
        assert not different, "\n".join(different)

    return run


@pytest.fixture
def verb(cli, tmp_path, monkeypatch):
    """Run a verb where its images lie, so that its output names no folder of this machine."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> str:
        result = cli(*arguments, "--device", "cpu")
        assert result.code == 0, result.err
        return result.out

    return run


def test_rank_features_and_score(verb, compare, reals, fakes, bank):
    ranked = ("--real", "reals", "--gen", "fakes", "--precision", "fp32", "--offline", "--quiet")
    bank = ("--bank", bank.name)
    board = verb("rank", *ranked, *bank, "--out", "out", "--format", "json")
    compare(
        "rank",
        {
            "json": json.loads(board),
            "csv": table(verb("rank", *ranked, *bank, "--format", "csv")),
            "scores.csv": table(Path("out/scores.csv").read_text("utf-8"))[::30],
        },
    )
    stored = ("fakes", *bank, "--precision", "fp32", "--missing", "--json", "--quiet")
    compare("features", json.loads(verb("features", *stored)))
    scored = ("fakes", "--run", "out", *bank, "--offline", "--quiet", "--format")
    scores = json.loads(verb("score", *scored, "json"))
    scores["images"] = scores["images"][::20]
    compare("score", {"json": scores, "csv": table(verb("score", *scored, "csv"))[::20]})


def test_metrics(verb, compare, reals, fakes, bank):
    measured = ("--real", "reals", "--gen", "fakes", "--bank", bank.name, "--backbones", "*")
    run = ("metrics", *measured, "--precision", "fp32", "--offline", "--quiet", "--format")
    compare("metrics", {"json": json.loads(verb(*run, "json")), "csv": table(verb(*run, "csv"))})


def test_inspect_and_doctor(verb, cli, compare, reals, fakes, bank, checkpoint):
    compare("inspect", json.loads(cli("inspect", checkpoint.name, "--json").out))
    asked = ("--real", "reals", "--gen", "fakes", "--bank", bank.name)
    compare("doctor", json.loads(verb("doctor", *asked, "--no-measure", "--json")))


def test_the_records_of_a_training_run(verb, compare, tmp_path):
    write_images(tmp_path / "small", 40, seed=3, size=16)
    bank = ("--bank", write_judged_bank(tmp_path).name, "--backbones", "colour,edges")
    verb("train", "--data", "small", "--outdir", "runs", *bank, *TINY, "--precision", "fp32")
    (folder,) = Path("runs").iterdir()
    files = {path.name: lines(path) for path in sorted(folder.glob("*.jsonl"))}
    for path in sorted(folder.glob("*.json")):
        files[path.name] = json.loads(path.read_text("utf-8"))
    compare("train", files, TRAINED)


def test_a_change_of_any_kind_is_seen():
    golden = {"a": 1, "b": [0.5, float("nan")], "c": "word"}
    same = {"a": 1, "b": [0.5001, float("nan")], "c": "word"}
    assert changes(golden, same, 1e-3) == []
    for other in (
        {**same, "a": 1.0}, {**same, "a": 2}, {**same, "b": [0.51, float("nan")]},
        {**same, "b": [0.5]}, {**same, "b": [0.5, 1.0]}, {**same, "c": "words"},
        {**same, "d": 1}, {"b": same["b"], "a": 1, "c": "word"},
    ):  # fmt: skip
        assert len(changes(golden, other, 1e-3)) == 1
