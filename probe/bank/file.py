"""Find, read and validate bank files. No torch here."""

import dataclasses
import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from probe.bank.document import parse_yaml, read
from probe.bank.errors import Mistake, explain, line_of, refuse_bank, repeats
from probe.bank.layers import AT, at_layer
from probe.bank.lock import lock_path, pinned, read_lock
from probe.bank.places import MISTAKEN
from probe.bank.presets import SIGN, preset
from probe.bank.spec import BackboneSpec, Misplaced, Rename, Weights
from probe.errors import BankError, UsageError, shown
from probe.files import cache_folder
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
        """Return the backbones of some names, in bank order.

        Args:
            names: names, shell patterns and @presets, of which each may end in "@LAYER"; what
                follows that and is no name of the bank is another layer of the same. A sequence,
                or text with commas. None: all entries.

        Raises:
            UsageError: if a name, pattern or preset matches nothing (suggests the nearest), or a
                layer is impossible.
        """
        names = split_names(names)
        if names is None:
            return self.specs
        chosen: dict[str, dict[str, None]] = {}  # entry → its layers, "" for the whole
        layered: set[str] = set()  # entries of the last "@LAYER"
        for name in (part.strip() for given in names for part in given.split(",")):
            base, at, layer = name[1:].rpartition(AT)
            if at and not layer:
                raise UsageError(f"--backbones: {shown(name)} has no layer after its {AT}.")
            if at:
                layered = fitting = self._fitting(name[0] + base)
            elif layered and not self._has(name):
                fitting, layer = layered, name
            else:
                layered, fitting, layer = set(), self._fitting(name), ""
            for entry in fitting:
                chosen.setdefault(entry, {})[layer] = None
        return tuple(
            at_layer(spec, layer) if layer else spec
            for spec in self.specs
            for layer in chosen.get(spec.name, ())
        )

    def find(self, name: str) -> BackboneSpec | None:
        """Return the backbone of a name, an entry's or NAME@LAYER; None if there is none."""
        if name.partition(AT)[0] not in {spec.name for spec in self.specs}:
            return None
        return self.select([name])[0]

    def _has(self, name: str) -> bool:
        """Return whether a name is a preset, or fits an entry."""
        return name.startswith(SIGN) or bool(fnmatch.filter((s.name for s in self.specs), name))

    def _fitting(self, name: str) -> set[str]:
        """Return the entries that a name, pattern or preset fits."""
        if name.startswith(SIGN):
            return preset(self.specs, name.removeprefix(SIGN))
        table = {spec.name: spec for spec in self.specs}
        return set(fnmatch.filter(table, name) or [lookup(table, name, "backbone").name])


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


def load_bank(path: Path | str | None = None) -> Bank:
    """Read and validate a bank file; all mistakes are reported at once, each with its line.

    An entry whose weights have an invalid location is `Misplaced`: it cannot be used, but the
    others can.

    Args:
        path: the file; None finds one (see `find_bank`).

    Raises:
        BankError: if it is missing, not YAML or has wrong entries, or its lock file is wrong.
    """
    path = find_bank() if path is None else Path(path)
    specs, found = _validate(path, read(path))
    if found:
        refuse_bank(path, found)
    lock = lock_of(path)
    locked = read_lock(lock)
    return Bank(path, tuple(pinned(_anchor(spec, path), lock, locked) for spec in specs))


def lock_of(path: Path) -> Path:
    """Return a bank's lock file: beside it, or in the cache folder for the packaged bank.

    Raises:
        BankError: if the bank has the lock file's name.
        CacheError: if no cache folder can be named.
    """
    if path.resolve() == packaged_bank():
        return cache_folder() / "modelbank.lock"
    return lock_path(path)


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
        refuse_bank(path, found)
    for spec in specs:
        if isinstance(spec.weights, Misplaced):
            raise BankError(f"{spec.weights.mistake}.")
    return specs


def _validate(path: Path, data: bytes) -> tuple[tuple[BackboneSpec, ...], list[Mistake]]:
    """Return a bank's entries, and its mistakes; none if only locations of weights are wrong."""
    root, entries = parse_yaml(path, data)
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
