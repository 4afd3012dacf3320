"""Parse seed lists as the StyleGAN tools do. No torch here: the command line imports this."""

import re

from probe.errors import UsageError

MOST = 1_000_000


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of "0-63,100": single numbers and ranges, both ends included.

    Raises:
        UsageError: if the text is anything else, or lists more than a million seeds.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part, re.ASCII)
        first = int(match[1]) if match else 0
        last = int(match[2]) if match and match[2] else first
        if match is None or last < first or last >= 2**32:
            raise UsageError(
                f"--seeds: '{part.strip()}' is neither a seed nor a range. Write for example "
                "0-63,100; seeds are below 4294967296."
            )
        if len(seeds) + last - first + 1 > MOST:
            raise UsageError(f"--seeds: more than {MOST} seeds. Ask for fewer at a time.")
        seeds += range(first, last + 1)
    return seeds
