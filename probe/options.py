"""How an option is written once: a dataclass field with its help text.

The command line, the run's record and the documentation are derived from it.
"""

from dataclasses import field
from typing import Any


def option(default: Any, text: str) -> Any:
    """Return a dataclass field with a default and its one-line help."""
    return field(default=default, metadata={"help": text})
