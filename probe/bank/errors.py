"""Report mistakes in a bank file with their lines. No torch here."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from probe.bank.places import MISTAKEN
from probe.errors import BankError, printable, shown
from probe.registry import suggest
from probe.stored import MISSING

Mistake = tuple[int, str]  # line, counted from 1, and a clause without a full stop
MOST_SHOWN = 50


def refuse_bank(path: Path, found: Sequence[Mistake]) -> NoReturn:
    """Raise the error for a bank file, with one line per mistake.

    Raises:
        BankError: always.
    """
    ordered = sorted(set(found))
    lines = [f"{path}:{line}: {text}" for line, text in ordered[:MOST_SHOWN]]
    if len(ordered) > MOST_SHOWN:
        lines.append(f"{path}: there are more mistakes; these are the first {MOST_SHOWN}")
    raise BankError("\n".join(line if line.endswith("?") else f"{line}." for line in lines))


def repeats(root: yaml.SequenceNode, entries: Sequence[Any]) -> list[Mistake]:
    """Return duplicate keys, which YAML would silently overwrite, and duplicate entry names."""
    found: list[Mistake] = []
    for mapping in nodes(root):
        if not isinstance(mapping, yaml.MappingNode):
            continue
        seen: set[str] = set()
        for key, _ in mapping.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # validation reports what is wrong with it
            if key.value in seen and key.value != "<<":
                found.append((line_of(key), f"the key {shown(key.value)} appears twice"))
            seen.add(key.value)
    names: dict[Any, int] = {}
    for node, entry in zip(root.value, entries, strict=True):
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str):
            line = _child(node, "name", line_of(node))[1]
            if name in names:
                text = f"the name {shown(name)} is already taken on line {names[name]}"
                found.append((line, text))
            names.setdefault(name, line)
    return found


def explain(
    errors: Sequence[Any],
    root: yaml.SequenceNode,
    entries: Sequence[Any],
    known: Mapping[str, Sequence[str]],
) -> list[Mistake]:
    """Return pydantic's errors in our words, each with its line, once per location.

    Args:
        errors: from `ValidationError.errors()`.
        root: the file's nodes.
        entries: the file's plain values.
        known: allowed keys, by the key that holds them ("" for an entry itself).
    """
    found: dict[tuple[Any, ...], Mistake] = {}
    for error in errors[: 2 * MOST_SHOWN]:
        place = tuple(step for step in error["loc"] if not _is_alternative(step))
        node, line = root, line_of(root)
        for step in place:
            node, line = _child(node, step, line)
        entry = entries[place[0]] if place and isinstance(place[0], int) else None
        name = entry.get("name") if isinstance(entry, dict) else None
        who = printable(name, 60) if isinstance(name, str) else f"entry {place[0] + 1}"
        found.setdefault(place, (line, f"{who}: {_sentence(error, place[1:], known)}"))
    # If a value fits none of several types, assume the one that got furthest.
    return [
        mistake
        for place, mistake in found.items()
        if not any(len(p) > len(place) > 1 and p[: len(place)] == place for p in found)
    ]


def _is_alternative(step: Any) -> bool:
    """Return whether a step in pydantic's location names an attempted type, not a key or index."""
    return isinstance(step, str) and ("[" in step or step in ("int", "str"))


WANTED = {
    "name": "at most 100 letters, digits, . _ # - are expected, a letter or digit first",
    "model": "an architecture's name is expected: no path, no address, no 'hf-hub:'",
    "sha256": "64 hexadecimal digits are expected",
    "mean": "three numbers on the [0, 1] scale are expected",
    "std": "three numbers above 0 on the [0, 1] scale are expected",
    "keys": "the name of a key map (efficientnet-lite) or a list of {pattern, to} is expected",
    "taps": "a list of block indices or module names is expected",
    "pattern": "a regular expression is expected",
}


def _sentence(error: Any, place: Sequence[Any], known: Mapping[str, Sequence[str]]) -> str:
    """Return one validation error as a clause."""
    kind, given = error["type"], error["input"]
    wanted = next((step for step in reversed(place) if step in WANTED), None)
    kept = place[: place.index(wanted) + 1] if wanted is not None else place
    path = ".".join(map(_step, kept))
    last = place[-1] if place else None
    if kind == "unexpected_keyword_argument" and not isinstance(last, int):
        holder = next((s for s in reversed(place[:-1]) if isinstance(s, str)), "")
        near = suggest(str(last), list(known.get(holder, known[""])))
        return f"unknown key '{_step(last)}'.{near}".removesuffix(".")
    if kind in MISSING and isinstance(last, str):
        return f"the key '{'.'.join(map(_step, place))}' is missing"
    if kind == "invalid_key":
        return f"{path}: a key should be a word"
    if kind == "dataclass_type":
        return f"{path or 'an entry'} should be a mapping of keys, not {_value(given)}"
    if kind == "literal_error":
        allowed = error["ctx"]["expected"].replace("'", "")
        name = given if isinstance(given, str) else ""
        near = suggest(name, allowed.replace(" or ", ", ").split(", "))
        return f"{path}: {_value(given)} is not one of {allowed}.{near}".removesuffix(".")
    if kind in ("value_error", MISTAKEN):
        message = error["msg"].removeprefix("Value error, ")
        return f"{path}: {message}" if path else message
    if kind == "string_type" and isinstance(given, int | float):
        return f"{path}: {_value(given)} is read as a number; put it in quotes"
    if wanted is not None:
        return f"{path}: {WANTED[wanted]}, not {_value(given)}"
    message = error["msg"].removeprefix("Input should be ")
    return f"{path}: should be {message}, not {_value(given)}"


def _step(step: Any) -> str:
    return printable(step, 60) if isinstance(step, str) else shown(step)


def _value(given: Any) -> str:
    """Return a value for use in a sentence; a list is written out if it is short and flat."""
    if isinstance(given, list) and len(given) <= 8:
        return f"[{', '.join(shown(part, 20) for part in given)}]"
    return shown(given)


def line_of(node: yaml.Node) -> int:
    """Return the line that a node begins on, counted from 1."""
    return node.start_mark.line + 1


def _child(node: yaml.Node | None, step: Any, line: int) -> tuple[yaml.Node | None, int]:
    """Return the node one step down and its line; (None, `line`) if there is none."""
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
        if step < len(node.value):
            return node.value[step], line_of(node.value[step])
    elif isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):
            if key.value == step:
                return value, line_of(key)
        for key, value in node.value:
            if key.value == "<<":  # merged from another entry
                parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
                for part in parts:
                    found, at = _child(part, step, line)
                    if found is not None:
                        return found, at
    return None, line


def nodes(root: yaml.Node) -> Iterator[yaml.Node]:
    """Yield every node once, even with aliases and loops."""
    seen: set[int] = set()
    todo = [root]
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            todo += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            todo += node.value
