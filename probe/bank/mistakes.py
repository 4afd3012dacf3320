"""What is wrong in a bank file, and on which line. No torch here."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from probe.errors import BankError
from probe.registry import suggest

Mistake = tuple[int, str]  # line, counted from 1, and a clause without a full stop


def parse(path: Path) -> tuple[yaml.SequenceNode, list[Any]]:
    """Read a YAML list with the safe loader.

    Returns:
        Its nodes, which know their lines, and its plain values.

    Raises:
        BankError: missing, not text, not YAML (with the line), or not a list of entries.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        entries = yaml.safe_load(text)
    except OSError as error:
        raise BankError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise BankError(f"{path}: not a text file in UTF-8.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        problem = getattr(error, "problem", None) or str(error).split("\n", 1)[0]
        raise BankError(f"{where}: not valid YAML: {problem}.") from error
    except (ValueError, RecursionError) as error:  # 2024-13-45 as a date; a thousand brackets
        raise BankError(f"{path}: not valid YAML: {error}.") from error
    if not isinstance(root, yaml.SequenceNode) or not root.value:
        raise BankError(f"{path}: a list of entries is expected, each with '- name: …'.")
    return root, entries


def repeats(root: yaml.SequenceNode, entries: Sequence[Any]) -> list[Mistake]:
    """Return keys that stand twice in a mapping (YAML keeps the last without a word) and names
    that are taken already.
    """  # noqa: D205
    found: list[Mistake] = []
    for mapping in _mappings(root):
        seen: set[str] = set()
        for key, _ in mapping.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # the validation says what is wrong with it
            if key.value in seen and key.value != "<<":
                found.append((_line(key), f"the key '{key.value}' stands twice"))
            seen.add(key.value)
    names: dict[Any, int] = {}
    for node, entry in zip(root.value, entries, strict=True):
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str):
            line = _child(node, "name", _line(node))[1]
            if name in names:
                found.append((line, f"the name '{name}' is taken already, on line {names[name]}"))
            names.setdefault(name, line)
    return found


def explain(
    errors: Sequence[Any],
    root: yaml.SequenceNode,
    entries: Sequence[Any],
    known: Mapping[str, Sequence[str]],
) -> list[Mistake]:
    """Return pydantic's errors in our words, each with its line, once per place.

    Args:
        errors: what `ValidationError.errors()` gives.
        root: the file's nodes.
        entries: the file's plain values.
        known: which keys there are, by the key that holds them ("" for an entry's own).
    """
    found: dict[tuple[Any, ...], Mistake] = {}
    for error in errors:
        place = tuple(step for step in error["loc"] if not _is_alternative(step))
        node, line = root, _line(root)
        for step in place:
            node, line = _child(node, step, line)
        entry = entries[place[0]] if place and isinstance(place[0], int) else None
        name = entry.get("name") if isinstance(entry, dict) else None
        who = name if isinstance(name, str) else f"entry {place[0] + 1}"
        found.setdefault(place, (line, f"{who}: {_sentence(error, place[1:], known)}"))
    # Where a value fits none of several types, the one that got furthest is the one meant.
    return [
        mistake
        for place, mistake in found.items()
        if not any(len(p) > len(place) > 1 and p[: len(place)] == place for p in found)
    ]


def _is_alternative(step: Any) -> bool:
    """Return whether a step of pydantic's names a type that was tried, not a place in the file."""
    return isinstance(step, str) and ("[" in step or step in ("int", "str"))


UNKNOWN = ("unexpected_keyword_argument",)
MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")
WANTED = {
    "name": "letters, digits and any of . _ # - are expected",
    "model": "an architecture's name is expected: no path, no address, no 'hf-hub:'",
    "sha256": "64 hexadecimal digits are expected",
    "mean": "three numbers on the [0, 1] scale are expected",
    "std": "three numbers above 0 on the [0, 1] scale are expected",
    "keys": "the name of a key map (efficientnet-lite) or a list of {pattern, to} is expected",
    "taps": "a list of block indices or module names is expected",
    "url": "an address that begins with https:// and ends in a file name is expected",
    "pattern": "a regular expression is expected",
}


def _sentence(error: Any, place: Sequence[Any], known: Mapping[str, Sequence[str]]) -> str:
    """Return one validation error as a clause."""
    kind, given = error["type"], error["input"]
    wanted = next((step for step in reversed(place) if step in WANTED), None)
    kept = place[: place.index(wanted) + 1] if wanted is not None else place
    path = ".".join(str(step) for step in kept)
    last = place[-1] if place else None
    if kind in UNKNOWN and not isinstance(last, int):
        holder = next((s for s in reversed(place[:-1]) if isinstance(s, str)), "")
        near = suggest(str(last), list(known.get(holder, known[""])))
        return f"unknown key '{last}'.{near}".removesuffix(".")
    if kind in MISSING and isinstance(last, str):
        return f"the key '{'.'.join(map(str, place))}' is missing"
    if kind == "dataclass_type":
        return f"{path or 'an entry'} should be a mapping of keys, not {given!r}"
    if kind == "literal_error":
        allowed = error["ctx"]["expected"].replace("'", "")
        near = suggest(str(given), allowed.replace(" or ", ", ").split(", "))
        return f"{path}: '{given}' is not one of {allowed}.{near}".removesuffix(".")
    if kind == "value_error":
        message = error["msg"].removeprefix("Value error, ")
        return f"{path}: {message}" if path else message
    if kind == "string_type" and isinstance(given, int | float):
        return f"{path}: {given} is read as a number; put it in quotes"
    got = repr(given)
    got = got if len(got) < 60 else got[:57] + "…"
    if wanted is not None:
        return f"{path}: {WANTED[wanted]}, not {got}"
    message = error["msg"].removeprefix("Input should be ")
    return f"{path}: should be {message}, not {got}"


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _child(node: yaml.Node | None, step: Any, line: int) -> tuple[yaml.Node | None, int]:
    """Return the node one step down and its line; (None, `line`) where there is none."""
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
        if step < len(node.value):
            return node.value[step], _line(node.value[step])
    elif isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):
            if key.value == step:
                return value, _line(key)
        for key, value in node.value:
            if key.value == "<<":  # what another entry lends
                parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
                for part in parts:
                    found, at = _child(part, step, line)
                    if found is not None:
                        return found, at
    return None, line


def _mappings(root: yaml.Node) -> Iterator[yaml.MappingNode]:
    """Yield every mapping once, aliases and loops included."""
    seen: set[int] = set()
    todo = [root]
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            todo += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            todo += node.value
