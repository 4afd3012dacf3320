"""Whether the entries of a bank can be loaded."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from probe.accel.memory import is_out_of_memory
from probe.bank.file import load_bank
from probe.bank.load import load_backbone
from probe.errors import BackboneUnavailable


def check_bank(
    bank: Path | None, backbones: Sequence[str] | None
) -> Iterator[tuple[str, str | None, int | None]]:
    """Load every entry of a bank, offline.

    Yields:
        Name, what is wrong or None, and the width of the pooled feature or None.
    """
    for spec in load_bank(bank).select(backbones):
        try:
            yield spec.name, None, load_backbone(spec, offline=True).dim
        except BackboneUnavailable as error:
            yield spec.name, str(error), None
        except Exception as error:  # too large for this machine, say; the other entries stand
            if not is_out_of_memory(error):
                raise
            yield spec.name, "it needs more memory than there is", None
