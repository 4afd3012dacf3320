"""The notebooks run from top to bottom, in one namespace, and show tables."""

import ast
import json
import warnings
from pathlib import Path

import pytest

from probe.bank.file import load_bank, packaged_bank
from probe.bank.weights.find import find_weights
from probe.errors import BackboneUnavailable

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDED = {  # weights, and how many cells show a table
    "rank_your_generator": (("mobilenetv2", "efficientnet-lite0"), 4),
    "watch_a_training": (("mobilenetv2", "efficientnet-lite2"), 3),
    "your_own_backbone": ((), 1),
}


def cells(path: Path) -> list[str]:
    record = json.loads(path.read_text("utf-8"))
    assert record["nbformat"] == 4
    for cell in record["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None
    return ["".join(c["source"]) for c in record["cells"] if c["cell_type"] == "code"]


def run_cell(text: str, names: dict) -> object:
    """Run a cell and return the value of its last line, as a notebook does."""
    tree = ast.parse(text)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_all_notebooks_are_known():
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == set(NEEDED)


@pytest.mark.parametrize("name", NEEDED)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    weights, tables = NEEDED[name]
    try:
        for spec in load_bank(packaged_bank()).select(weights):
            find_weights(spec, offline=True)
    except BackboneUnavailable as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    shown = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript
        warnings.simplefilter("ignore", ResourceWarning)  # pictures and archives left open
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        for text in cells(EXAMPLES / f"{name}.ipynb"):
            value = run_cell(text, names)
            if hasattr(value, "_repr_html_"):
                assert "<table" in value._repr_html_()
                shown += 1
    assert shown == tables
