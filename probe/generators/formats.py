"""Which reader takes a generator file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from probe.errors import CheckpointError, printable
from probe.files import digest_bytes
from probe.generators.checkpoint import Checkpoint, build_network
from probe.generators.families import FAMILIES, family_of
from probe.generators.run_folder import best_snapshot, is_run_folder
from probe.generators.snapshot import read_snapshot
from probe.generators.unpickle import Record, module_state, plain, read_pickle

SUPPORTED = (
    "PyTorch pickles of StyleGAN2-ADA, StyleGAN3, Projected GAN and R3GAN, and probe's own "
    ".safetensors snapshots"
)
# What the constructor's positional arguments are called.
DISCRIMINATOR_ARGUMENTS = ("c_dim", "img_resolution", "img_channels")

# First bytes of files that are often taken for a checkpoint.
OTHER_FILES = {
    b"<": "a web page, not a checkpoint. Download it again",
    b"PK\x03\x04": f"a zip or torch file (.pt), of no kind that is read. Supported are {SUPPORTED}",
    b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19": (
        f"an old torch file (.pt), of no kind that is read. Supported are {SUPPORTED}"
    ),
    b"\x89HDF": f"an HDF5 file, of no kind that is read. Supported are {SUPPORTED}",
}


def _is_safetensors(head: bytes) -> bool:
    # Eight bytes of header length, then JSON.
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**30


def is_pickle(head: bytes) -> bool:
    """Return whether a file that begins so is a pickle."""
    # Protocol 2 and later begin with PROTO; a text pickle of a dict with "(d".
    return head[:1] == b"\x80" or head[:2] in (b"(d", b"c_", b"(i", b"(l")


def read_family_pickle(path: Path) -> Checkpoint:
    """Read `G_ema` of an NVlabs-family pickle; nothing of the pickle is run.

    Raises:
        UnsafeCheckpoint: it refers to something outside the allow-list.
        CheckpointError: damaged, without a generator, or of another family.
    """
    data = path.read_bytes()
    content, names = read_pickle(data)
    if isinstance(content, tuple) and any(_kind(part) == "Network" for part in content):
        raise CheckpointError(f"it is a TensorFlow pickle, which is not read yet; {SUPPORTED} are")
    if not isinstance(content, dict):
        raise CheckpointError(
            f"it holds a {_kind(content)}, not a dict with G_ema. Supported are {SUPPORTED}"
        )
    network = content.get("G_ema")
    if not isinstance(network, Record):
        held = ", ".join(printable(str(key), 40) for key in list(content)[:8]) or "nothing"
        raise CheckpointError(f"it holds no generator under 'G_ema', only {held}")
    state = module_state(network)
    architecture = family_of(state)
    if architecture is None:
        raise CheckpointError(
            f"its generator is a {printable(network.type.name, 40)} of an unknown kind. Supported "
            f"are {SUPPORTED}"
        )
    init = _init(network.state or {}, FAMILIES[architecture].arguments)
    return Checkpoint(
        generator=build_network(architecture, init, state),
        architecture=architecture,
        digest=digest_bytes(data),
        init=init,
        globals=names,
        ignored=[printable(str(key), 100) for key in content if key != "G_ema"],
    )


def read_modules(path: Path) -> dict[str, tuple[dict[str, Any], dict[str, torch.Tensor]]]:
    """Return what else a StyleGAN2-ADA pickle holds to train on: "G" and "D", where they are.

    Returns:
        Name → the constructor's arguments and the tensors by their dotted names.

    Raises:
        CheckpointError: damaged; see `load_generator`, which should have read the file before.
    """
    content, _ = read_pickle(path.read_bytes())
    found = {}
    for name, names in (("G", FAMILIES["stylegan2"].arguments), ("D", DISCRIMINATOR_ARGUMENTS)):
        network = content.get(name) if isinstance(content, dict) else None
        if isinstance(network, Record) and (state := module_state(network)):
            found[name] = (_init(network.state or {}, names), state)
    return found


def _kind(content: Any) -> str:
    name = content.type.name if isinstance(content, Record) else type(content).__name__
    return printable(name, 100)


def _init(state: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the constructor's arguments, positional ones by their names."""
    positional = plain(state.get("_init_args") or ())
    keywords = plain(state.get("_init_kwargs") or {})
    if not isinstance(keywords, dict) or len(positional) > len(names):
        raise CheckpointError("its constructor arguments are malformed")
    return {**dict(zip(names, positional, strict=False)), **keywords}


FORMATS: Mapping[str, tuple[Callable[[bytes], bool], Callable[[Path], Checkpoint]]] = {
    "safetensors": (_is_safetensors, read_snapshot),
    "pickle": (is_pickle, read_family_pickle),
}


def load_generator(path: Path | str) -> Checkpoint:
    """Load a generator checkpoint, on the CPU, in float32, running nothing of the file.

    A training run's directory stands for its best snapshot.

    Raises:
        UnsafeCheckpoint: the file refers to code outside the allow-list; it is named.
        CheckpointError: missing, empty, damaged, or of a kind that is not supported.
    """
    path = Path(path)
    if is_run_folder(path):
        path = best_snapshot(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder; name a checkpoint file in it.")
    try:
        with path.open("rb") as f:
            head = f.read(16)
        if not head:
            raise CheckpointError("it is empty")
        for start, what in OTHER_FILES.items():
            # The length that a safetensors file begins with can look like any text.
            if head.lstrip().startswith(start) and not _is_safetensors(head):
                raise CheckpointError(f"it is {what}")
        for matches, read in FORMATS.values():
            if matches(head):
                return read(path)
        raise CheckpointError(f"it is of no kind that is read. Supported are {SUPPORTED}")
    except CheckpointError as error:
        # Parts of the file may be quoted in it: nothing that would steer a terminal.
        raise type(error)(f"{path}: {printable(str(error), 500)}.") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
