"""Results that show themselves as a table when they are printed, or last in a notebook's cell."""

from collections.abc import Callable
from typing import Any, ClassVar

from probe.registry import Place, load


class Shown:
    """Base of a result that is shown as a table; the views are in rooms above its own.

    Attributes:
        as_text: the function that makes its text.
        as_html: the function that makes its HTML.
    """

    as_text: ClassVar[Place[Callable[[Any], str]]]
    as_html: ClassVar[Place[Callable[[Any], str]]]

    def __str__(self) -> str:
        """Return the table as text."""
        return load(type(self).as_text)(self).rstrip("\n")

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        return load(type(self).as_html)(self)
