"""The experiments are scripts: their folder becomes importable, as when one of them is started."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
