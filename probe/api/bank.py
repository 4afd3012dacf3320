"""Check whether a bank's entries can be loaded."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from probe.accel.memory import is_out_of_memory
from probe.bank.file import load_bank
from probe.bank.load import load_backbone
from probe.errors import BackboneUnavailable


def check_bank(
    bank: Path | None, backbones: Sequence[str] | str | None
) -> Iterator[tuple[str, str | None, int | None]]:
    """Load every entry of a bank, offline.

    Yields:
        Name, the problem or None, and the width of the pooled feature or None.
    """
    for spec in load_bank(bank).select(backbones):
        try:
            yield spec.name, None, load_backbone(spec, offline=True).dim
        except BackboneUnavailable as error:
            yield spec.name, str(error), None
        except Exception as error:  # for example too large for this machine; check the others
            if not is_out_of_memory(error):
                raise
            yield spec.name, "it needs more memory than this machine has", None
