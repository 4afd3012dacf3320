"""Make a generator small enough to bundle: half-precision weights, the metadata kept.

python scripts/pack_generator.py runs/00000-reals/network-snapshot-000200.safetensors \
        probe/demo/generator.safetensors
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors import safe_open

from probe.generators.files.formats import load_generator
from probe.generators.files.snapshot import save_snapshot


def main() -> None:
    """Pack one snapshot."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("packed", type=Path)
    arguments = parser.parse_args()
    with safe_open(arguments.snapshot, framework="pt") as f:
        metadata = json.loads(f.metadata()["probe"])
    generator = load_generator(arguments.snapshot).generator
    save_snapshot(arguments.packed, generator, metadata=metadata, dtype=torch.float16)


if __name__ == "__main__":
    main()
