"""The contents of a bank entry and its validation. No torch here."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlparse

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat
from pydantic_core import PydanticKnownError

from probe.bank.licences import named
from probe.bank.places import Address, File, Package, Repository, Version, is_inside, mistaken_place
from probe.bank.sources import SOURCES
from probe.registry import either, lookup

# Before 0.2, candidates were called discriminators.
_CURRENT = BeforeValidator(lambda role: "candidate" if role == "discriminator" else role)
Role = Annotated[Literal["candidate", "evaluator", "control"], _CURRENT]
RecordedRole = Annotated[str, _CURRENT]  # of a row, which may not be a backbone's
KeyMap = Literal["efficientnet-lite"]  # the names in probe.bank.weights.keys.KEY_MAPS
Share = Annotated[float, Field(ge=0, le=1)]  # catches the usual slip, 0 to 255
Scale = Annotated[float, Field(gt=0, le=10)]
LARGEST_ARG = 10_000
UNKNOWN = "unknown, see the model card"  # a licence, data or task that no library gives
NAME = r"[A-Za-z0-9][A-Za-z0-9._#-]{0,99}"
PRESET = r"[a-z][a-z0-9-]{0,31}"
Fingerprint = Annotated[tuple[FiniteFloat, ...], Field(min_length=8, max_length=8)]
LONGEST_PATTERN, MOST_RENAMES = 200, 100
Pattern = Annotated[str, Field(max_length=LONGEST_PATTERN)]
Licence = Annotated[str, AfterValidator(lambda text: named(" ".join(text.split())))]
Words = Annotated[str, AfterValidator(lambda text: " ".join(text.split()))]  # on one line

# Constructor arguments through which a bank could reach files, addresses or code. Weights come only
# from `weights`, which is read without running anything.
BARRED_ARGS = re.compile(
    "pretrained|checkpoint|weights|cache|load|force_preprocess|features_only|num_classes|jit"
)


def _known_source(name: str) -> str:
    """Return a source's name; raise the error that a `Literal` would give for other names."""
    if name not in SOURCES:
        raise PydanticKnownError("literal_error", {"expected": either(map(repr, SOURCES))})
    return name


Source = Annotated[str, AfterValidator(_known_source)]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The location of weights: exactly one of hub, url, file, package, random.

    Attributes:
        hub: Hugging Face repository "org/name"; `file` is then the file in it.
        url: http or https address of a file, kept in torch's hub cache.
        mirrors: other addresses of the same file, tried in order if that fails.
        package: an installed distribution that contains the weights; `file` is then its file.
        version: of the package, for the command that installs it.
        file: path of the weights, relative to the bank file unless in a hub or package.
        random: seed of a random initialisation.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    hub: Repository | None = None
    url: Address | None = None
    mirrors: Annotated[tuple[Address, ...], Field(max_length=9)] = ()
    package: Package | None = None
    version: Version | None = None
    file: File | None = None
    random: Annotated[int, Field(ge=0)] | None = None

    def __post_init__(self) -> None:
        """Check that there is exactly one location.

        Raises:
            ValueError: if there is none, or more than one.
        """
        places = [n for n in ("hub", "url", "package", "random") if getattr(self, n) is not None]
        if not places and self.file is not None:
            places = ["file"]
        if len(places) != 1:
            raise ValueError("name exactly one of hub, url, file, package, random")
        if places[0] in ("url", "random") and self.file is not None:
            raise ValueError(f"'file' does not go with '{places[0]}'")
        if places[0] == "package" and self.file is None:
            raise ValueError("a package needs the 'file' in it")
        if self.mirrors and self.url is None:
            raise ValueError("'mirrors' goes with 'url'")
        if self.version is not None and self.package is None:
            raise ValueError("'version' goes with 'package'")
        if self.file is not None and places[0] != "file" and not is_inside(self.file):
            raise mistaken_place(
                f"'file' must stay inside the {places[0]}: no '..', no leading '/'"
            )

    @property
    def digits(self) -> str:
        """The first digits of the SHA-256 in the name of an address's file, or "".

        PyTorch's addresses end in them: resnet50-0676ba61.pth.
        """
        found = re.search(r"-([0-9a-f]{8,64})\.\w+$", urlparse(self.url or "").path)
        return found[1] if found else ""

    @property
    def kind(self) -> str:
        """The kind of location: "hub", "url", "package", "file" or "random"."""
        for name in ("hub", "url", "package"):
            if getattr(self, name) is not None:
                return name
        return "file" if self.random is None else "random"


@dataclass(frozen=True, kw_only=True)
class Misplaced(Weights):
    """Weights with an invalid location; a bank file itself cannot contain one.

    Attributes:
        mistake: what is wrong, with the bank's line.
        meant: the intended kind of location.
    """

    mistake: str
    meant: str

    def __post_init__(self) -> None:
        """Skip the check."""

    @property
    def kind(self) -> str:
        """The intended kind."""
        return self.meant


@dataclass(frozen=True, kw_only=True)
class Rename:
    r"""One step of a key map, applied to every tensor's name.

    Attributes:
        pattern: a regular expression, searched for anywhere in the name.
        to: the replacement, with groups as \1; None drops the tensor.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    pattern: Pattern
    to: Annotated[str, Field(max_length=LONGEST_PATTERN)] | None = None

    def __post_init__(self) -> None:
        """Check that the pattern compiles and that `to` refers only to its groups.

        Nothing is matched here: matching may never end, so it runs with limits elsewhere
        (`probe.bank.weights.rename`).

        Raises:
            ValueError: if either check fails.
        """
        try:
            groups = re.compile(self.pattern)
            names = {number: f"?P<{name}>" for name, number in groups.groupindex.items()}
            alike = "".join(f"({names.get(i + 1, '')})" for i in range(groups.groups))
            re.sub(alike, self.to or "", "")
        except (re.error, IndexError, OverflowError, RecursionError) as error:
            raise ValueError(f"'{self.pattern}' to '{self.to}': {error}") from error


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """One entry of the bank.

    Attributes:
        name: its name everywhere; at most 100 letters, digits, ". _ - #".
        source: the library that builds the network, a name in `probe.bank.sources.SOURCES`.
        model: the architecture's name in that library, for timm with or without the tag of its
            weights; any name for TorchScript, whose file is the network. A TorchScript file is a
            program: only add ones from a source you trust.
        args: plain values for the architecture's constructor.
        weights: their location.
        sha256: of the weight file, checked before use.
        fingerprint: what the network makes of two pictures; see `probe.bank.fingerprint`.
        keys: key map from the file to the network: a name in `probe.bank.weights.keys.KEY_MAPS`, or
            renames applied in order. The result must be exactly the network's tensors.
        input: side of the square input in pixels.
        mean, std: normalisation on the [0, 1] scale, per channel.
        resize: how images reach the input size; antialiased, except "tf1-bilinear", which only
            canonical FID needs.
        pool: the pooled feature: "head" (the network's own, before its classifier), "average"
            (global average of the last map), "token" (class token) or "taps" (global averages of
            the taps, side by side).
        taps: the maps for training, shallow to deep: block indices for timm and open_clip, module
            names for torchvision. Defaults to the last map.
        tap_norm: whether to apply the network's final norm to tapped maps.
        task, data: what the weights were trained for, and on.
        license: of the weights; its spelling is made that of SPDX, see `probe.bank.licences`.
        paper: to cite, with its authors, year and address.
        role: "candidate" can be chosen; "evaluator" only judges; "control" has random weights,
            and BatchNorm statistics from unlabelled images, without which it is refused.
        presets: the presets it belongs to, chosen as @NAME (see `probe.bank.presets`).

    `input`, `mean` and `std` may be left out of a timm entry with hub weights: timm knows them
    (see `probe.bank.load.input_spec`).
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    source: Source
    # No "hf-hub:…" and no path: a library would download settings for such names.
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    weights: Weights
    task: Words
    data: Words
    license: Licence
    input: Annotated[int, Field(ge=16, le=2048)] | None = None
    mean: tuple[Share, Share, Share] | None = None
    std: tuple[Scale, Scale, Scale] | None = None
    paper: Words | None = None
    role: Role = "candidate"
    args: dict[str, Any] = dataclasses.field(default_factory=dict)
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    fingerprint: Fingerprint | None = None
    keys: KeyMap | Annotated[tuple[Rename, ...], Field(max_length=MOST_RENAMES)] = ()
    resize: Literal["bicubic", "bilinear", "area", "tf1-bilinear"] = "bicubic"
    pool: Literal["head", "average", "token", "taps"] = "head"
    taps: tuple[int | str, ...] = ()
    tap_norm: bool = False
    presets: tuple[Annotated[str, Field(pattern=f"^{PRESET}$")], ...] = ()

    def __post_init__(self) -> None:
        """Check combinations of keys.

        Raises:
            ValueError: if keys contradict each other; says which.
        """
        kind = self.weights.kind
        if (self.role == "control") != (kind == "random"):
            raise ValueError("random weights and role 'control' belong together")
        if kind == "random" and (self.sha256 or self.keys):
            raise ValueError("'sha256' and 'keys' do not go with random weights")
        lookup(SOURCES, self.source, "source").check(self)
        for name, value in self.args.items():
            if BARRED_ARGS.search(name):
                raise ValueError(f"args: '{name}' is not the bank's to set")
            parts = value if isinstance(value, list) else [value]
            if not all(_is_plain(part) for part in parts):
                raise ValueError(
                    f"args: '{name}' should be a number (at most {LARGEST_ARG}), true or false, "
                    "a word, or a list of those"
                )


def _is_plain(value: Any) -> bool:
    """Return whether a value is safe for a constructor: it cannot be a path or an address.

    Nor can it be a number too large for any layer or side, which could keep a constructor busy
    without end.
    """
    if isinstance(value, str):
        return re.fullmatch(r"\w+", value) is not None
    if isinstance(value, int | float):  # False for NaN
        return abs(value) <= LARGEST_ARG
    return value is None
