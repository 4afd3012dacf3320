"""Bank files: found, read and validated. No torch here."""

import dataclasses
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from probe.bank.document import parse, read
from probe.bank.errors import explain, refuse, repeats
from probe.bank.lock import pinned, read_lock
from probe.bank.spec import BackboneSpec, Rename, Weights
from probe.errors import BankError
from probe.registry import lookup

FILE_NAME = "modelbank.yaml"


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
        """The entry that judges and is never chosen, where there is one."""
        return next((spec for spec in self.specs if spec.role == "evaluator"), None)

    def select(self, names: Sequence[str] | None = None) -> tuple[BackboneSpec, ...]:
        """Return the entries of the given names or shell patterns, in the bank's order; None: all.

        Raises:
            UsageError: a name or pattern that fits nothing, with the nearest.
        """
        if names is None:
            return self.specs
        table = {spec.name: spec for spec in self.specs}
        chosen = set()
        for name in names:
            fitting = fnmatch.filter(table, name) or [lookup(table, name, "backbone").name]
            chosen.update(fitting)
        return tuple(spec for spec in self.specs if spec.name in chosen)


def find_bank() -> Path:
    """Return ./modelbank.yaml, else the packaged one.

    Raises:
        BankError: there is none.
    """
    for place in (Path(FILE_NAME), packaged_bank()):
        if place.is_file():
            return place
    raise BankError(f"No {FILE_NAME} here or in the package. Name one with --bank.")


def packaged_bank() -> Path:
    """Return the bank that comes with probe: in the package, or at the top of a checkout."""
    packaged = Path(__file__).resolve().parent.parent / FILE_NAME
    return packaged if packaged.is_file() else packaged.parent.parent / FILE_NAME


def load_bank(path: Path | None = None) -> Bank:
    """Read and validate a bank file; all mistakes are reported at once, each with its line.

    Args:
        path: the file; None finds one (see `find_bank`).

    Raises:
        BankError: missing, not YAML, or wrong entries; or its lock file is wrong.
    """
    path = find_bank() if path is None else path
    specs = read_specs(path, read(path))
    locked = read_lock(path)
    return Bank(path, tuple(pinned(_anchor(spec, path), locked) for spec in specs))


def read_specs(path: Path, data: bytes) -> tuple[BackboneSpec, ...]:
    """Return the entries of a bank file as they are written.

    Args:
        path: what to call the file.
        data: what is in it.

    Raises:
        BankError: not YAML, or wrong entries; every mistake with its line.
    """
    root, entries = parse(path, data)
    found = repeats(root, entries)
    specs: tuple[BackboneSpec, ...] = ()
    try:
        specs = TypeAdapter(tuple[BackboneSpec, ...]).validate_python(entries)
    except ValidationError as error:
        known = {"": BackboneSpec, "weights": Weights, "keys": Rename}
        fields = {key: [f.name for f in dataclasses.fields(kind)] for key, kind in known.items()}
        found += explain(error.errors(), root, entries, fields)
    judges = [i for i, spec in enumerate(specs) if spec.role == "evaluator"]
    for i in judges[1:]:
        line = root.value[i].start_mark.line + 1
        first = specs[judges[0]].name
        found.append((line, f"{specs[i].name}: the evaluator is '{first}' already; there is one"))
    if found:
        refuse(path, found)
    return specs


def _anchor(spec: BackboneSpec, path: Path) -> BackboneSpec:
    """Make the entry's file path absolute: it is relative to the bank file."""
    if spec.weights.kind != "file" or spec.weights.file is None:
        return spec
    place = path.resolve().parent / Path(spec.weights.file).expanduser()
    return dataclasses.replace(spec, weights=dataclasses.replace(spec.weights, file=str(place)))
