"""Read a bank file as YAML, with limits checked before anything is built. No torch here.

A few hundred bytes can expand to more values than fit in memory: aliases of aliases, merges of
merges, or an alias of the node that contains it.
"""

import copy
from pathlib import Path
from typing import Any

import yaml

from probe.bank.errors import Mistake, line_of, nodes, refuse_bank
from probe.errors import UNREADABLE, BankError, printable, shown
from probe.files import read_small, why_not

MOST_BYTES = 2**19
MOST_VALUES = 200_000  # with every alias and merge expanded
MOST_LEVELS = 20
LONGEST = 4096  # characters per value


def read(path: Path) -> bytes:
    """Return the bytes of a bank file.

    Raises:
        BankError: if it is missing, not a regular file, or too large.
    """
    try:
        return read_small(path, MOST_BYTES)
    except OSError as error:
        raise BankError(f"{path}: {why_not(error, path)}") from error


def parse_yaml(path: Path, data: bytes) -> tuple[yaml.SequenceNode, list[Any]]:
    """Parse a YAML list.

    Args:
        path: the file's name, for messages.
        data: its contents.

    Returns:
        Its nodes, which know their lines, and its plain values.

    Raises:
        BankError: if it is not text, not YAML, not a list of entries, or exceeds the limits above;
            with the line if there is one.
    """
    root = _compose(path, data)
    if not isinstance(root, yaml.SequenceNode) or not root.value:
        raise BankError(f"{path}: a list of entries is expected, each with '- name: …'.")
    try:
        _measure(root, {})
    except _Unbounded as error:
        refuse_bank(path, [error.mistake])
    found = [m for node in nodes(root) if (m := _scalar_mistake(node)) is not None]
    if found:
        refuse_bank(path, found)
    try:
        # Merging modifies the nodes, which must stay as written.
        entries = yaml.constructor.SafeConstructor().construct_document(copy.deepcopy(root))
    except yaml.YAMLError as error:
        raise _not_yaml(path, error) from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # mismatched tags
        raise BankError(f"{path}: not valid YAML: {printable(str(error), 200)}.") from error
    return root, entries


def _compose(path: Path, data: bytes) -> yaml.Node | None:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BankError(f"{path}: not a text file in UTF-8.") from error
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise BankError(
            f"{path}:{line}: {shown(chr(error.character))} is not allowed in YAML."
        ) from error
    except yaml.YAMLError as error:
        raise _not_yaml(path, error) from error
    except ValueError as error:  # "\U00110000", which is not a character
        raise BankError(f"{path}: not valid YAML: {printable(str(error), 200)}.") from error
    except RecursionError as error:
        raise BankError(f"{path}: nested deeper than {MOST_LEVELS} levels.") from error


def _not_yaml(path: Path, error: yaml.YAMLError) -> BankError:
    mark = getattr(error, "problem_mark", None)
    where = path if mark is None else f"{path}:{mark.line + 1}"
    problem = getattr(error, "problem", None) or str(error).split("\n", 1)[0]
    return BankError(f"{where}: not valid YAML: {printable(problem, 200)}.")


class _Unbounded(Exception):
    """A node expands beyond the limits."""

    def __init__(self, node: yaml.Node, text: str) -> None:
        super().__init__(text)
        self.mistake: Mistake = (line_of(node), text)


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Return how many values a node expands to, and how deeply they are nested.

    Args:
        node: of a document; an alias is the same node as its anchor.
        known: node id → its result; None while it is being measured.

    Raises:
        _Unbounded: if there are too many values, too many levels, or the node contains itself.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1, 1
    if id(node) not in known:
        known[id(node)] = None
        parts = [_measure(part, known) for part in _parts(node)]
        values = 1 + sum(count for count, _ in parts)
        levels = 1 + max((depth for _, depth in parts), default=0)
        if values > MOST_VALUES:
            text = f"more than {MOST_VALUES} values with its aliases and merges written out"
            raise _Unbounded(node, text)
        if levels > MOST_LEVELS:
            raise _Unbounded(node, f"nested deeper than {MOST_LEVELS} levels")
        known[id(node)] = values, levels
    found = known[id(node)]
    if found is None:
        raise _Unbounded(node, "an alias in it refers to itself")
    return found


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value


def _scalar_mistake(node: yaml.Node) -> Mistake | None:
    """Return what is wrong with a scalar, regardless of its key."""
    if not isinstance(node, yaml.ScalarNode) or node.value == "<<":
        return None
    if len(node.value) > LONGEST:
        return line_of(node), f"{shown(node.value, 30)} has more than {LONGEST} characters"
    if hidden := [c for c in UNREADABLE.findall(node.value) if c not in "\n\t"]:
        text = f"{shown(node.value, 30)} contains an unprintable character, {shown(hidden[0])}"
        return line_of(node), text
    try:
        yaml.constructor.SafeConstructor().construct_object(node)
    except Exception:  # 2024-13-45 as a date, an empty number, a Python tag: any error
        kind = printable(node.tag.removeprefix("tag:yaml.org,2002:"), 30)
        return line_of(node), f"{shown(node.value, 30)} cannot be read as {kind}"
    return None
