"""Imports go down: the allowed edges between rooms, as a table."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "probe"
BASE = {
    "errors", "registry", "files", "devices", "streams", "processes", "options", "run_files",
    "stored", "stored_arrays", "events", "context", "accel", "missing", "figures", "shown",
    "stops", "workers", "launchers", "heartbeat",
}  # fmt: skip
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "bundled": set(),
    "run_files": set(),
    "streams": set(),
    "workers": set(),
    "events": set(),
    "context": {"events"},
    "options": {"errors", "registry"},
    "registry": {"errors"},
    "figures": set(),
    "stops": set(),
    "shown": {"registry"},
    "missing": {"errors"},
    "files": {"errors", "registry"},
    "devices": {"errors", "options"},
    "processes": {"errors", "launchers", "heartbeat"},
    "launchers": {"errors"},
    "heartbeat": set(),
    "stored": {"errors", "files"},
    "stored_arrays": {"files"},
    "accel": {"devices", "errors"},
    "images": BASE,
    # BatchNorm images are an ImageSource; fingerprints are of bundled pictures
    "bank": BASE | {"images", "bundled"},
    "generators": BASE | {"images"},
    "features": BASE | {"images", "bank"},
    "probing": BASE | {"images", "bank", "features"},
    "scoring": BASE | {"images", "bank", "features", "probing"},
    "metrics": BASE | {"images", "bank", "features"},
    # probing: the leaderboard that a ranking left
    "discriminators": BASE | {"bank", "generators", "images", "probing", "bundled"},
    "compat": BASE | {"bank", "discriminators"},
    "training": BASE
    | {"__init__", "images", "generators", "bank", "features", "probing", "metrics"}
    | {"discriminators"},
    "checks": BASE | {"images", "bank", "features", "probing", "training"},
    # __init__: the version
    "reports": BASE | {"__init__", "probing", "scoring", "metrics", "checks"},
}
ALLOWED["api"] = {*ALLOWED, "__init__"}
ALLOWED["cli"] = {
    "__init__", "api", "accel", "errors", "events", "files", "options", "registry", "reports",
    "run_files", "stops", "bank", "devices", "launchers", "processes", "features.config",
    "features.contents",
    "features.merge", "generators.config", "generators.files", "generators.seeds",
    "metrics.config", "probing.config", "probing.strategies", "scoring.probes", "training.config",
}  # fmt: skip


def edges():
    """Yield (file, its room, imported module below probe) of every import in the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        tree = ast.parse(path.read_text("utf-8"))
        for_types = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if node in for_types:
                continue
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
                if node.module == "probe":
                    names = [f"probe.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                if name == "probe" or name.startswith("probe."):
                    yield path, room, name.removeprefix("probe").lstrip(".") or "__init__"


def test_every_import_is_an_allowed_edge():
    found = list(edges())
    assert len(found) > 100
    wrong = []
    for path, room, target in found:
        target_room = target.split(".")[0].replace("__version__", "__init__")
        allowed = ALLOWED.get(room, {"cli"})  # __init__ and __main__ start the command line
        if target_room != room and target_room not in allowed and target not in allowed:
            wrong.append(f"{path.relative_to(PACKAGE)} imports probe.{target}")
    assert not wrong, wrong


def test_no_trick_is_known_outside_its_room():
    inside = ("accel.fold", "accel.fuse", "accel.merge", "accel.depthwise", "accel.low_pass_kernel")
    assert not [path for path, room, target in edges() if room != "accel" and target in inside]


@pytest.mark.parametrize("room", [p for p in sorted(PACKAGE.iterdir()) if p.is_dir()])
def test_every_room_says_what_it_is_for(room):
    if not (room / "__init__.py").exists():
        pytest.skip("data")
    assert ast.get_docstring(ast.parse((room / "__init__.py").read_text()))


# Those whose parameters others have named: flags, arguments of the verbs, of constructors in files.
NAMED_ELSEWHERE = ("api/", "cli/", "compat/", "generators/networks/", "training/discriminator.py")
MOST_PARAMETERS = 7


def test_no_function_takes_many_parameters():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and not place.startswith(NAMED_ELSEWHERE):
                if any("triton.jit" in ast.unparse(d) for d in node.decorator_list):
                    continue  # a kernel takes pointers and sizes one by one
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                names = [a.arg for a in given if a.arg not in ("self", "cls")]
                if len(names) > MOST_PARAMETERS:
                    wrong.append(f"{place}: {node.name}({', '.join(names)})")
    assert not wrong


# Public names that more than one file defines, by what its users see in them.
COMMANDS = {
    "add", "demo", "doctor", "export", "fetch", "generate", "inspect", "measure", "rank",
    "reference", "report", "score", "train",
}  # fmt: skip
SHARED_NAMES = {
    # a command, the verb of the API that it calls, and what that calls: one of each
    ("cli/", "api/", ""): COMMANDS,
    # what `Source` names in each file
    ("bank/sources/",): {"build", "describe"},
    # the same parts of each architecture; `Generator` is their protocol, too
    ("generators/",): {
        "Generator", "Synthesis", "SynthesisLayer", "convert_state", "derive_arguments",
    },
    # the views of each record
    ("reports/",): {"as_csv", "as_html", "as_json", "as_markdown", "as_table", "render"},
    # StyleGAN2's, and the one that programs written for vision_aided_loss call
    ("training/discriminator.py", "compat/vision_aided_loss.py"): {"Discriminator"},
}  # fmt: skip


def public_names():
    """Return every public function and class → the files that define it at their top level."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                found.setdefault(node.name, set()).add(path.relative_to(PACKAGE).as_posix())
    return found


def test_no_two_public_names_are_alike():
    names = {name: files for name, files in public_names().items() if len(files) > 1}
    for folders, shared in SHARED_NAMES.items():
        assert shared <= names.keys(), "defined once: no exception is needed"
        for name in shared:
            files = names.pop(name)
            assert all(file.startswith(folders) for file in files), (name, files)
            if shared is COMMANDS:
                floors = [next(f for f in folders if file.startswith(f)) for file in files]
                assert len(set(floors)) == len(files), (name, files)
    assert not names
