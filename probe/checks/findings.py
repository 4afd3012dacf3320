"""Findings of the checks, as text and as plain values. Imports no torch."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

LEVELS = ("ok", "note", "warning", "problem")
SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check.

    Attributes:
        topic: "data", "weights", "cost", "settings" or "run".
        level: "ok"; "note" (good to know); "warning" (results will suffer); "problem" (it will not
            run, or its numbers are meaningless).
        text: a sentence.
        advice: what to do, a sentence or "".
        names: all files or entries it is about.
    """

    topic: str
    level: str
    text: str
    advice: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Examination:
    """All findings of one run of the doctor.

    Attributes:
        findings: in reading order.
        commands: what to run next.
        schema_version: of this record.
    """

    findings: tuple[Finding, ...]
    commands: tuple[str, ...] = field(default=())
    schema_version: int = SCHEMA_VERSION

    @property
    def exit_code(self) -> int:
        """1 if there is a problem, else 0."""
        return int(any(f.level == "problem" for f in self.findings))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)


def some(names: Sequence[str], limit: int = 4) -> str:
    """Return the first names, and the number of the rest."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def counted(names: Collection[object], noun: str = "image") -> str:
    """Return the number of names with a noun: "1 image", "3 images"."""
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"
