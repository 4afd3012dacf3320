"""Every error that probe raises on purpose.

ProbeError                 exit code 1: one plain sentence, ready to be shown
├── UsageError             exit code 2: flags or values that cannot be combined or do not exist
├── BankError              the bank file is wrong; names file, line and key
├── BackboneUnavailable    a backbone cannot run here; carries the reason and the remedy
│   └── BackboneBroken     it runs, and what it gives cannot be used
├── ImagesError            a path holds no usable images, or too few of them
├── CacheError             the feature cache cannot be read or written, which ends any job
├── BrokenImageError       one image cannot be read (callers skip, count and name it)
└── CheckpointError        a generator file cannot be used
└── UnsafeCheckpoint   the file asks for code that would have run; names the global
"""

import re

LARGEST_SHOWN = 2**64  # of larger integers, the digits alone can take hours
# What a terminal or a browser obeys, or what hides or reorders text, instead of being read: control
# characters and escapes, bidirectional controls, invisible characters, line separators, stray
# bytes. The two joiners that Persian and emoji are written with stay.
UNREADABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f\ud800-\udfff]"
)


def printable(text: str, longest: int | None = None, *, lines: bool = False) -> str:
    r"""Return text from outside fit to be shown: on a terminal, in a table, on a page.

    The one cleaner. What could steer a terminal, or hide or reorder text, becomes \x1b, \u202e.

    Args:
        text: from a bank, a file, a name, a server.
        longest: what exceeds so many characters is cut.
        lines: keep line breaks and tabs, for text of several lines.
    """
    if longest is not None and len(text) > longest:
        text = text[:longest] + "…"

    def escape(match: re.Match[str]) -> str:
        c = match[0]
        return c if lines and c in "\n\t" else c.encode("unicode_escape").decode()

    return UNREADABLE.sub(escape, text)


def kind_of(value: object) -> str:
    """Return what a foreign value is, for a sentence; our stand-ins say what they stand for."""
    return getattr(type(value), "stands_for", type(value).__name__)


def shown(value: object, longest: int = 60) -> str:
    """Return a foreign value for a sentence: by its kind where its text could be without end."""
    if isinstance(value, str | bytes):
        return printable(repr(value[:longest]), longest)
    is_short = isinstance(value, int) and -LARGEST_SHOWN < value < LARGEST_SHOWN
    if is_short or isinstance(value, float | None):
        return repr(value)
    return f"something of type {kind_of(value)}"


class ProbeError(Exception):
    """Base of all errors meant for the user. The message is a sentence that says what to do."""

    exit_code = 1


class UsageError(ProbeError):
    """A flag, name or combination that does not exist."""

    exit_code = 2


class BankError(ProbeError):
    """The model bank file is missing, malformed or contradicts itself."""


class BackboneUnavailable(ProbeError):
    """A backbone's weights or code are not here.

    Args:
        reason: why, without a trailing full stop.
        remedy: the command that gets it, or "" where nothing can be done from here.

    Attributes:
        status: of its row on a leaderboard.
    """

    status = "unavailable"

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.reason = reason
        self.remedy = remedy


class BackboneBroken(BackboneUnavailable):
    """A backbone runs, and what it gives cannot be used."""

    status = "failed"


class CacheError(ProbeError):
    """The feature cache cannot be read or written: no fault of a backbone or its bank."""


class ImagesError(ProbeError):
    """A path that should hold images holds none, or too few."""


class BrokenImageError(ProbeError):
    """One image file is truncated, empty, too large or not an image."""


class CheckpointError(ProbeError):
    """A generator file is missing, damaged, or of a kind that is not supported."""


class UnsafeCheckpoint(CheckpointError):
    """A checkpoint refers to a global outside the allow-list. Nothing was run."""
