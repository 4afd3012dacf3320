"""Every error that probe raises on purpose.

ProbeError                 exit code 1: one plain sentence, ready to show
├── UsageError             exit code 2: flags or values that do not exist or cannot be combined
├── BankError              the bank file is wrong; names file, line and key
├── BackboneUnavailable    a backbone cannot run here; has the reason and the remedy
│   ├── BackboneAbsent     its weights can be had and are not on this machine
│   └── BackboneBroken     it runs, but its output is unusable
├── ImagesError            a path holds no usable images, or too few
├── CacheError             the feature cache cannot be read or written; ends any job
├── BrokenImageError       one image cannot be read (callers skip, count and name it)
└── CheckpointError        a generator file cannot be used
    └── UnsafeCheckpoint   the file refers to code that would have run; names the global
"""

import re

LARGEST_SHOWN = 2**64  # printing the digits of a huge integer can take hours
# Characters that a terminal or browser acts on, or that hide or reorder text: control characters
# and escapes, bidirectional controls, invisible characters, line separators, undecodable bytes.
# The two joiners used in Persian and emoji are allowed.
UNREADABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f\ud800-\udfff]"
)


def printable(text: str, longest: int | None = None, *, lines: bool = False) -> str:
    r"""Return external text made safe to show on a terminal, in a table or on a page.

    All external text goes through here. Characters that could control a terminal, or hide or
    reorder text, are escaped: \x1b, \u202e.

    Args:
        text: from a bank, a file, a name, a server.
        longest: maximum number of characters; the rest is cut.
        lines: keep line breaks and tabs, for text of several lines.
    """
    if longest is not None and len(text) > longest:
        text = text[:longest] + "…"

    def escape(match: re.Match[str]) -> str:
        c = match[0]
        return c if lines and c in "\n\t" else c.encode("unicode_escape").decode()

    return UNREADABLE.sub(escape, text)


def kind_of(value: object) -> str:
    """Return the type of a foreign value for a message; stand-ins name what they stand in for."""
    return getattr(type(value), "stands_for", type(value).__name__)


def shown(value: object, longest: int = 60) -> str:
    """Return a foreign value for a message; only its type if its text could be endless."""
    if isinstance(value, str | bytes):
        return printable(repr(value[:longest]), longest)
    is_short = isinstance(value, int) and -LARGEST_SHOWN < value < LARGEST_SHOWN
    if is_short or isinstance(value, float | None):
        return repr(value)
    return f"something of type {kind_of(value)}"


def first_line(error: BaseException, longest: int = 160) -> str:
    """Return the first line of a library's error for a message; its type if it has none."""
    lines = str(error).strip().splitlines()
    return printable(lines[0] if lines else type(error).__name__, longest)


class ProbeError(Exception):
    """Base of all errors meant for the user. The message is a sentence that says what to do.

    Attributes:
        repeated: whether another process of the same job says it already.
    """

    exit_code = 1
    repeated = False


class UsageError(ProbeError):
    """A flag, name or combination that does not exist."""

    exit_code = 2


class BankError(ProbeError):
    """The model bank file is missing, malformed or inconsistent."""


class BackboneUnavailable(ProbeError):
    """A backbone's weights or code are not available.

    Args:
        reason: why, without a trailing full stop.
        remedy: the command that gets it, or "" if nothing can be done here.

    Attributes:
        status: of its row on a leaderboard.
    """

    status = "unavailable"

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.reason = reason
        self.remedy = remedy


class BackboneAbsent(BackboneUnavailable):
    """A backbone's weights can be had, and are not on this machine."""

    status = "absent"


class BackboneBroken(BackboneUnavailable):
    """A backbone runs, but its output is unusable."""

    status = "failed"


class CacheError(ProbeError):
    """The feature cache cannot be read or written; not the fault of a backbone or bank."""


class ImagesError(ProbeError):
    """A path that should hold images holds none, or too few."""


class BrokenImageError(ProbeError):
    """One image file is truncated, empty, too large or not an image."""


class CheckpointError(ProbeError):
    """A generator file is missing, damaged or of an unsupported kind."""


class UnsafeCheckpoint(CheckpointError):
    """A checkpoint refers to a global outside the allow-list. Nothing was run."""
