"""probe: which pretrained vision backbone can tell real images from generated ones?

Data flows one way through the subpackages:

    images → generators → bank → features → probing → metrics → training → reports

`api` has one function per command, `cli` the commands. The public names below are imported lazily,
so that `import probe` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers, which cannot follow `__getattr__`
    from probe.api.doctor import doctor as doctor
    from probe.api.export import export as export
    from probe.api.features import extract as extract
    from probe.api.generate import generate as generate
    from probe.api.generate import inspect as inspect
    from probe.api.metrics import measure as measure
    from probe.api.rank import rank as rank
    from probe.api.rank import rank_features as rank_features
    from probe.api.reference import reference as reference
    from probe.api.report import report as report
    from probe.api.score import score as score
    from probe.api.selector import Selector as Selector
    from probe.api.train import train as train
    from probe.bank.file import load_bank as load_bank
    from probe.checks.watch import Run as Run
    from probe.discriminators.ensemble import Discriminators as Discriminators
    from probe.discriminators.options import DiscriminatorOptions as DiscriminatorOptions
    from probe.errors import ProbeError as ProbeError
    from probe.features.config import ExtractOptions as ExtractOptions
    from probe.features.config import ReferenceOptions as ReferenceOptions
    from probe.features.share import Coverage as Coverage
    from probe.generators.config import SampleOptions as SampleOptions
    from probe.generators.files.formats import load_generator as load_generator
    from probe.images.base import ImageSource as ImageSource
    from probe.images.open import open_images as open_images
    from probe.metrics.config import MeasureOptions as MeasureOptions
    from probe.metrics.record import Measurement as Measurement
    from probe.probing.config import RankOptions as RankOptions
    from probe.probing.leaderboard import Leaderboard as Leaderboard
    from probe.probing.rank import Ranking as Ranking
    from probe.scoring.score import Scores as Scores
    from probe.training.config import TrainConfig as TrainConfig

__version__ = "0.2.0.dev0"

_PUBLIC = {
    "Coverage": "probe.features.share",
    "DiscriminatorOptions": "probe.discriminators.options",
    "Discriminators": "probe.discriminators.ensemble",
    "ExtractOptions": "probe.features.config",
    "ImageSource": "probe.images.base",
    "Leaderboard": "probe.probing.leaderboard",
    "MeasureOptions": "probe.metrics.config",
    "Measurement": "probe.metrics.record",
    "ProbeError": "probe.errors",
    "RankOptions": "probe.probing.config",
    "Ranking": "probe.probing.rank",
    "ReferenceOptions": "probe.features.config",
    "Run": "probe.checks.watch",
    "SampleOptions": "probe.generators.config",
    "Scores": "probe.scoring.score",
    "Selector": "probe.api.selector",
    "TrainConfig": "probe.training.config",
    "doctor": "probe.api.doctor",
    "export": "probe.api.export",
    "extract": "probe.api.features",
    "generate": "probe.api.generate",
    "inspect": "probe.api.generate",
    "load_bank": "probe.bank.file",
    "load_generator": "probe.generators.files.formats",
    "measure": "probe.api.metrics",
    "open_images": "probe.images.open",
    "rank": "probe.api.rank",
    "rank_features": "probe.api.rank",
    "reference": "probe.api.reference",
    "report": "probe.api.report",
    "score": "probe.api.score",
    "train": "probe.api.train",
}

# Type checkers find the names in the imports above.
__all__ = [*_PUBLIC, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


if not TYPE_CHECKING:  # type checkers would accept any misspelt name

    def __getattr__(name: str) -> Any:
        """Import a public name from its module on first use."""
        if name not in _PUBLIC:
            raise AttributeError(f"module 'probe' has no attribute '{name}'")
        return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
