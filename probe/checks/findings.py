"""What a check found, in words and as plain values. No torch here."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

LEVELS = ("ok", "note", "warning", "problem")
SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: "data", "weights", "cost", "settings" or "run".
        level: "ok"; "note" (good to know); "warning" (results will suffer); "problem" (it will not
            run, or its numbers mean nothing).
        text: a sentence.
        advice: what to do, a sentence or "".
        names: the files or entries that it is about, all of them.
    """

    topic: str
    level: str
    text: str
    advice: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Examination:
    """All that was found.

    Attributes:
        findings: in the order of reading.
        commands: what to run next.
        schema_version: of this record.
    """

    findings: tuple[Finding, ...]
    commands: tuple[str, ...] = field(default=())
    schema_version: int = SCHEMA_VERSION

    @property
    def exit_code(self) -> int:
        """1 where there is a problem, else 0."""
        return int(any(f.level == "problem" for f in self.findings))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)


def some(names: Sequence[str], limit: int = 4) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def counted(names: Collection[object], noun: str = "image") -> str:
    """Return how many there are, with their noun: "1 image", "3 images"."""
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"
