"""Find, read and validate bank files. No torch here."""

import dataclasses
import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from probe.bank.document import parse, read
from probe.bank.errors import Mistake, explain, line_of, refuse, repeats
from probe.bank.lock import pinned, read_lock
from probe.bank.places import MISTAKEN
from probe.bank.presets import SIGN, preset
from probe.bank.spec import BackboneSpec, Misplaced, Rename, Weights
from probe.errors import BankError
from probe.options import split_names
from probe.registry import lookup

FILE_NAME = "modelbank.yaml"
KNOWN = {"": BackboneSpec, "weights": Weights, "keys": Rename}


@dataclass(frozen=True)
class Bank:
    """A validated bank.

    Attributes:
        path: the file it was read from.
        specs: its entries, in order.
    """

    path: Path
    specs: tuple[BackboneSpec, ...]

    @property
    def evaluator(self) -> BackboneSpec | None:
        """The entry that judges and is never chosen, None if there is none."""
        return next((spec for spec in self.specs if spec.role == "evaluator"), None)

    def select(self, names: Sequence[str] | str | None = None) -> tuple[BackboneSpec, ...]:
        """Return the entries of some names, shell patterns or @presets, in bank order; None: all.

        Names are a sequence, or text with commas.

        Raises:
            UsageError: if a name, pattern or preset matches nothing; suggests the nearest.
        """
        names = split_names(names)
        if names is None:
            return self.specs
        table = {spec.name: spec for spec in self.specs}
        chosen: set[str] = set()
        for name in names:
            if name.startswith(SIGN):
                chosen |= preset(self.specs, name.removeprefix(SIGN))
                continue
            fitting = fnmatch.filter(table, name) or [lookup(table, name, "backbone").name]
            chosen.update(fitting)
        return tuple(spec for spec in self.specs if spec.name in chosen)


def few_controls(specs: Sequence[BackboneSpec], most: int) -> tuple[BackboneSpec, ...]:
    """Return entries with at most so many controls of each architecture, the first ones."""
    kept, seen = [], Counter[str]()
    for spec in specs:
        if spec.role == "control":
            kind = f"{spec.source} {spec.model} {spec.args}"
            seen[kind] += 1
            if seen[kind] > most:
                continue
        kept.append(spec)
    return tuple(kept)


def find_bank() -> Path:
    """Return ./modelbank.yaml, else the packaged one.

    Raises:
        BankError: if there is none.
    """
    for place in (Path(FILE_NAME), packaged_bank()):
        if place.is_file():
            return place
    raise BankError(f"No {FILE_NAME} here or in the package. Name one with --bank.")


def packaged_bank() -> Path:
    """Return the bank shipped with probe: in the package, or at the top of a checkout."""
    packaged = Path(__file__).resolve().parent.parent / FILE_NAME
    return packaged if packaged.is_file() else packaged.parent.parent / FILE_NAME


def load_bank(path: Path | None = None) -> Bank:
    """Read and validate a bank file; all mistakes are reported at once, each with its line.

    An entry whose weights have an invalid location is `Misplaced`: it cannot be used, but the
    others can.

    Args:
        path: the file; None finds one (see `find_bank`).

    Raises:
        BankError: if it is missing, not YAML or has wrong entries, or its lock file is wrong.
    """
    path = find_bank() if path is None else path
    specs, found = _validate(path, read(path))
    if found:
        refuse(path, found)
    locked = read_lock(path)
    return Bank(path, tuple(pinned(_anchor(spec, path), locked) for spec in specs))


def read_specs(path: Path, data: bytes) -> tuple[BackboneSpec, ...]:
    """Return a bank file's entries as written.

    Args:
        path: the file's name, for messages.
        data: its contents.

    Raises:
        BankError: if it is not YAML or has wrong entries; lists every mistake with its line.
    """
    specs, found = _validate(path, data)
    if found:
        refuse(path, found)
    for spec in specs:
        if isinstance(spec.weights, Misplaced):
            raise BankError(f"{spec.weights.mistake}.")
    return specs


def _validate(path: Path, data: bytes) -> tuple[tuple[BackboneSpec, ...], list[Mistake]]:
    """Return a bank's entries, and its mistakes; none if only locations of weights are wrong."""
    root, entries = parse(path, data)
    found = repeats(root, entries)
    read = TypeAdapter(tuple[BackboneSpec, ...]).validate_python
    specs: tuple[BackboneSpec, ...] = ()
    wrong: dict[int, Mistake] = {}
    try:
        specs = read(entries)
    except ValidationError as error:
        fields = {key: [f.name for f in dataclasses.fields(kind)] for key, kind in KNOWN.items()}
        errors: list[Any] = error.errors()
        wrong = {int(e["loc"][0]): explain([e], root, entries, fields)[0]
                 for e in errors if e["type"] == MISTAKEN}  # fmt: skip
        try:  # as if the locations were valid: what concerns several keys is checked last
            specs = _misplace(path, entries, wrong)
        except ValidationError as rest:
            others = [e for e in errors if e["type"] != MISTAKEN]
            found += explain([*others, *rest.errors()], root, entries, fields)
    judges = [i for i, spec in enumerate(specs) if spec.role == "evaluator"]
    for i in judges[1:]:
        first = specs[judges[0]].name
        found.append(
            (line_of(root.value[i]), f"{specs[i].name}: the evaluator is already '{first}'")
        )
    return specs, [*found, *wrong.values()] if found else []


def _misplace(
    path: Path, entries: Sequence[Any], wrong: Mapping[int, Mistake]
) -> tuple[BackboneSpec, ...]:
    """Return entries, some of which have an invalid location but are otherwise valid.

    Args:
        path: the file's name, for messages.
        entries: plain values.
        wrong: entry number → what is wrong with its location.

    Raises:
        ValidationError: if they have other mistakes.
    """
    somewhere = {"hub": {"hub": "a/b"}, "url": {"url": "http://a/b"},
                 "package": {"package": "a", "file": "b"}, "file": {"file": "b"}}  # fmt: skip
    valid, meant = list(entries), {}
    for number in wrong:
        given = entries[number]["weights"]
        meant[number] = next(kind for kind in somewhere if kind in given)
        valid[number] = {**entries[number], "weights": somewhere[meant[number]]}
    specs = list(TypeAdapter(tuple[BackboneSpec, ...]).validate_python(valid))
    for number, (line, text) in wrong.items():
        weights = Misplaced(mistake=f"{path}:{line}: {text}", meant=meant[number])
        specs[number] = dataclasses.replace(specs[number], weights=weights)
    return tuple(specs)


def _anchor(spec: BackboneSpec, path: Path) -> BackboneSpec:
    """Make the entry's file path absolute; it is relative to the bank file."""
    if spec.weights.kind != "file" or spec.weights.file is None:
        return spec
    place = path.resolve().parent / Path(spec.weights.file).expanduser()
    return dataclasses.replace(spec, weights=dataclasses.replace(spec.weights, file=str(place)))
