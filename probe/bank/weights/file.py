"""Identify weight files and read their named tensors, without running any code in them."""

import pickletools
import re
import threading
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file

from probe.bank.spec import BackboneSpec
from probe.bank.weights.find import how_to_replace
from probe.bank.weights.keys import StateDict
from probe.bank.weights.unwrap import SeveralNetworks, named_tensors
from probe.errors import BackboneUnavailable, printable
from probe.files import utf8_path

# Python's own table of Python 2 module names. It is private, in 3.11 to 3.14; without it, Python 2
# files that refer to such modules are refused.
try:
    import _compat_pickle as python2
except ImportError:
    python2 = None
# (module, name) → the Python 3 pair, and module → module.
NAMES: dict[tuple[str, str], tuple[str, str]] = getattr(python2, "NAME_MAPPING", {})
MODULES: dict[str, str] = getattr(python2, "IMPORT_MAPPING", {})

LONGEST_HEADER = 100_000_000  # bytes, of safetensors
NEWEST_PROTOCOL = 3  # of pickles that torch can read without running them
ZIP = b"PK\x03\x04"
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # start of torch.save's files before 1.6
SAVE = "save its tensors where it was made: torch.save(model.state_dict(), 'weights.pth')"
OTHER_KINDS = (
    (b"\x80", "a pickle that torch.save did not write", SAVE),
    (b"\x89HDF", "an HDF5 file, as Keras writes", SAVE),
    (b"version https://git-lfs", "a pointer of Git LFS and not the file itself", "git lfs pull"),
)

_reading = threading.Lock()  # torch's list of allowed names is global to the process


def read_weights(spec: BackboneSpec, path: Path) -> StateDict:
    """Read the named tensors of a weight file: safetensors, or a file from `torch.save`.

    The content decides the format, not the file's name. A torch file may hold a training program's
    record around the tensors, or a whole model: objects of classes unknown to torch are replaced by
    their attributes.

    Args:
        spec: the entry, used to say what to do about an unreadable file.
        path: its weight file.

    Raises:
        BackboneUnavailable: if it is damaged, of another kind, or has no named tensors.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_HEADER:
            with utf8_path(path) as known:
                return load_file(known)
        _check_kind(path, head)
        state = named_tensors(_read(path))
    except BackboneUnavailable:
        raise
    except SeveralNetworks as error:
        raise BackboneUnavailable(
            f"{path} holds several networks, under {printable(str(error), 120)}",
            "save the tensors of the one that is wanted by themselves",
        ) from error
    except Exception as error:  # torch's reader may raise anything on a damaged pickle
        own = f"put a whole copy there, or {SAVE}"
        raise BackboneUnavailable(
            f"{path} is damaged or not a weight file ({_reason(error)})",
            own if spec.weights.kind == "file" else how_to_replace(spec, path),
        ) from error
    if not state:
        raise BackboneUnavailable(f"{path} holds no named tensors", SAVE)
    return state


def _reason(error: Exception) -> str:
    """Return an error's message on one line, without torch's advice to run the file's code."""
    text = str(error).strip() or type(error).__name__
    if "Only persistent_load of storage" in text:
        return "it holds a whole model in the format before PyTorch 1.6"
    found = re.search(r"WeightsUnpickler error:\s*(.*)|(Trying to load unsupported .*)", text)
    return printable(((found[1] or found[2]) if found else text).splitlines()[0], 120)


def _check_kind(path: Path, head: bytes) -> None:
    """Refuse files that are not from `torch.save`, naming what they are.

    Raises:
        BackboneUnavailable: if it is another kind of file.
        zipfile.BadZipFile: if it is a damaged zip.
        ValueError: if it is neither.
    """
    if head.startswith(ZIP):
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
        if "constants.pkl" in names:
            raise BackboneUnavailable(
                f"{path} is a TorchScript program",
                "give the entry source: torchscript, or save the tensors alone: "
                "torch.save(torch.jit.load('program.pt').state_dict(), 'weights.pth')",
            )
        if "data.pkl" not in names:
            raise BackboneUnavailable(f"{path} is a zip that torch.save did not write", SAVE)
    elif not head.startswith(LEGACY):
        for start, kind, remedy in OTHER_KINDS:
            if head.startswith(start):
                raise BackboneUnavailable(f"{path} is {kind}", remedy)
        if head.lstrip(b"\xef\xbb\xbf\r\n\t ").startswith(b"<"):
            raise ValueError("it is a web page")
        raise ValueError("neither safetensors nor torch.save's" if head else "it is empty")


def _read(path: Path) -> Any:
    """Return the content of a `torch.save` file, using torch's own reader, which runs nothing."""
    # Mapped files take no memory of their own. To map a file torch opens it by name, and would
    # guess the format from the suffix.
    mapped = zipfile.is_zipfile(path) and path.suffix != ".safetensors"
    records: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (_Record, found) for found in _globals(path)
    ]
    with (
        _reading,
        warnings.catch_warnings(),
        torch.serialization.safe_globals(records),
        utf8_path(path) as known,
        path.open("rb") as file,
    ):
        warnings.simplefilter("ignore")  # torch warns that protocols other than 2 may fail
        return torch.load(known if mapped else file, "cpu", weights_only=True, mmap=mapped)


class _Record:
    """Stand-in that torch's reader creates for any object whose class it does not know.

    Objects filled item by item or attribute by attribute are created without arguments, or with a
    class (`defaultdict`): they become a dict, with their attributes on it. Nothing of other objects
    is kept.
    """

    def __new__(cls, *args: object) -> Any:
        return super().__new__(cls) if any(not isinstance(a, type) for a in args) else OrderedDict()

    def __setstate__(self, state: object) -> None:
        """Discard the state."""


def _globals(path: Path) -> set[str]:
    """Return the names of classes and functions that a torch file refers to.

    Raises:
        ValueError: if its pickle is malformed, or has a protocol that torch cannot read.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            member = next(m for m in archive.infolist() if m.filename.endswith("/data.pkl"))
            if member.file_size > path.stat().st_size:
                raise ValueError("its pickle is compressed, which torch does not do")
            with archive.open(member) as file:
                return _names(file)
    with path.open("rb") as file:
        for _ in range(3):  # magic number, protocol, system
            _names(file)
        return _names(file)


def _names(file: IO[bytes]) -> set[str]:
    """Return the names that one pickle refers to, as torch looks them up in Python 3."""
    found = set()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "PROTO" and isinstance(argument, int) and argument > NEWEST_PROTOCOL:
            raise ValueError(f"its pickle protocol is {argument}, torch.save's own is 2")
        if opcode.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            places = NAMES.get((module, name), (MODULES.get(module, module), name))
            found.add(".".join(places))
    return found
