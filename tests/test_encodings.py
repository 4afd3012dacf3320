"""Text is UTF-8 whatever the locale says: in files, on the way to other programs, in names."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("probe", "scripts", "benchmarks", "experiments", "docs")
SOURCES = sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))
# Methods called `open` that open no text.
BINARY = {"Image", "tarfile", "zipfile", "os", "archive", "opener", "webbrowser", "lmdb", "system"}
PROGRAMS = {"run", "Popen", "check_output"}


def unnamed(tree: ast.AST):
    """Yield every call that leaves a text's encoding to the locale."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        function, count = call.func, len(call.args)
        method = function.attr if isinstance(function, ast.Attribute) else None
        name = function.id if isinstance(function, ast.Name) else None
        if "encoding" in given:
            continue
        if (method == "read_text" and count < 1) or (method == "write_text" and count < 2):
            yield call
        elif method in ("open", "fdopen") or name == "open":
            if method == "open" and getattr(function.value, "id", "") in BINARY:
                continue
            place = 1 if name == "open" or method == "fdopen" else 0
            mode = call.args[place] if count > place else given.get("mode", ast.Constant("r"))
            modes = [str(n.value) for n in ast.walk(mode) if isinstance(n, ast.Constant)]
            if not modes or any("b" not in mode for mode in modes):
                yield call
        elif "TextIOWrapper" in (method, name) or (method in PROGRAMS and "text" in given):
            yield call


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_encoding_is_left_to_the_locale(path):
    found = [call.lineno for call in unnamed(ast.parse(path.read_text("utf-8")))]
    assert not found, f"{path}: no encoding in lines {found}"


@pytest.mark.parametrize(
    "code",
    [
        "p.read_text()", "p.write_text(t)", "p.open()", "p.open('a')", "open(p)", "open(p, 'w')",
        "(a / b).open(mode)", "p.open('a' if b else 'wb')", "open(p, mode='w')",
        "os.fdopen(f, 'w')", "io.TextIOWrapper(f)",
        "subprocess.run(c, text=True)",
    ],
)  # fmt: skip
def test_the_check_finds_them(code):
    assert list(unnamed(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "p.read_text('utf-8')", "p.write_text(t, encoding='utf-8')", "p.open('rb')",
        "open(p, 'wb')", "p.open(encoding='utf-8')", "p.open('ab' if x else 'wb')", "Image.open(p)",
        "write_text(p, t)",
        "subprocess.run(c, text=True, encoding='utf-8')", "p.read_bytes()",
    ],
)  # fmt: skip
def test_the_check_finds_nothing_else(code):
    assert not list(unnamed(ast.parse(code)))
