"""Sources: the libraries that build backbones, with one file and one line in `SOURCES` each.

No torch here: bank files are checked against these lines alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from probe.registry import Place, load

if TYPE_CHECKING:
    from probe.bank.base import FeatureNetwork, InputSpec
    from probe.bank.spec import BackboneSpec

# Every source's features are keyed by these versions; a source may add its own.
LIBRARIES = ("torch", "timm", "open_clip_torch", "pillow")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A library, and what its entries need.

    Attributes:
        builder: (entry, weight file or None) → a `probe.bank.base.FeatureNetwork`; None keeps the
            random initialisation.
        libraries: distributions that build its networks and compute their features.
        pools_taps: whether the pooled feature comes from the taps, which an entry must then name.
        has_token: whether its networks may have a class token to pool.
        layers: what its taps are, numbers of blocks or stages or names of modules; None if its
            entries have none.
        whole_file: whether the file includes the architecture, which rules out random weights,
            `keys` and `args`.
        known_input: entry → its `InputSpec`, if the library knows that of its hub weights.
        describe: (the library's name for some weights) → an entry's fields, for `probe bank add`.
    """

    builder: Place["Callable[[BackboneSpec, Path | None], FeatureNetwork]"]
    libraries: tuple[str, ...] = ()
    pools_taps: bool = False
    has_token: bool = True
    layers: Literal["number", "name"] | None = None
    whole_file: bool = False
    known_input: Place["Callable[[BackboneSpec], InputSpec]"] | None = None
    describe: Place[Callable[[str], dict[str, Any]]] | None = None

    def build(self, spec: "BackboneSpec", path: Path | None) -> "FeatureNetwork":
        """Build an entry's network; see `builder`."""
        return load(self.builder)(spec, path)

    def key(self, spec: "BackboneSpec") -> dict[str, Any]:
        """Return what determines a pooled feature besides the entry's input and weights.

        The library is not imported, because a ranking with cached features needs only keys.
        """
        names = dict.fromkeys((*LIBRARIES, *self.libraries))
        return {
            "pool": spec.pool,
            "taps": spec.taps if self.pools_taps or spec.pool == "taps" else (),
            **({"tap_norm": spec.tap_norm} if spec.pool == "taps" else {}),
            "versions": {name: metadata.version(name) for name in names},
        }

    def check(self, spec: "BackboneSpec") -> None:
        """Check an entry against the source's requirements.

        Raises:
            ValueError: if it lacks something, or asks for something the source does not have.
        """
        name, kind = spec.source, spec.weights.kind
        missing = [n for n in ("input", "mean", "std") if getattr(spec, n) is None]
        if missing and not (self.known_input and kind == "hub"):
            able = " and ".join(n for n, source in SOURCES.items() if source.known_input)
            raise ValueError(
                f"the key '{missing[0]}' is missing (only {able} entries with hub weights can do "
                "without)"
            )
        if self.pools_taps and not spec.taps:
            raise ValueError(f"{name} needs 'taps', the names of the modules to read")
        if not self.has_token and spec.pool == "token":
            raise ValueError(f"{name} has no class token: pool: head or average")
        if spec.pool == "taps" and not (self.layers and spec.taps):
            raise ValueError("'pool: taps' needs 'taps'" + ("" if self.layers else f", not {name}"))
        if self.whole_file and (kind == "random" or spec.keys or spec.args):
            raise ValueError(
                f"the file of a {name} entry holds its weights and its architecture: no random "
                "weights, 'keys' or 'args'"
            )


SOURCES: dict[str, Source] = {
    "timm": Source(
        builder="probe.bank.sources.timm:build",
        libraries=("timm",),
        known_input="probe.bank.sources.timm:known_input",
        describe="probe.bank.sources.timm:describe",
        layers="number",
    ),
    "open_clip": Source(
        builder="probe.bank.sources.open_clip:build",
        libraries=("open_clip_torch",),
        describe="probe.bank.sources.open_clip:describe",
        layers="number",
    ),
    "torchvision": Source(
        builder="probe.bank.sources.torchvision:build",
        libraries=("torchvision",),
        pools_taps=True,
        has_token=False,
        layers="name",
    ),
    "swin": Source(
        builder="probe.bank.sources.swin:build",
        libraries=("timm",),
        has_token=False,
        layers="number",
    ),
    "antialiased": Source(
        builder="probe.bank.sources.antialiased:build", has_token=False, layers="number"
    ),
    "unet": Source(builder="probe.bank.sources.unet:build", has_token=False, layers="number"),
    "torchscript": Source(
        builder="probe.bank.sources.torchscript:build", has_token=False, whole_file=True
    ),
    "inception": Source(builder="probe.bank.sources.inception:build", libraries=("torchvision",)),
}
