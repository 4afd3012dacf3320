"""What is stored of a share of images, as text."""

from typing import TYPE_CHECKING

from probe.errors import printable
from probe.missing import missing_rows
from probe.reports.text import columns_of, text_table

if TYPE_CHECKING:
    from probe.features.share import Coverage


def as_table(found: "Coverage") -> str:
    """Return a row per backbone with features or missing ones, and remarks."""
    rows = [
        (row.name, str(row.images), str(row.missing))
        for row in found.rows
        if row.status == "ok" or row.images
    ]
    title = f"{found.images} images at {found.resolution} px"
    remarks = [*found.notes, *missing_rows({row.name: row for row in found.rows}, found.asked)]
    table = text_table(columns_of(("backbone", "stored", "missing"), rows)) if rows else ""
    return "\n".join([title, table + "".join(f"{printable(text)}\n" for text in remarks)])
