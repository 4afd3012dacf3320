"""Choose the reader for a generator file."""

from collections.abc import Callable, Mapping
from pathlib import Path

from probe.errors import CheckpointError, UsageError, printable
from probe.files import stamp
from probe.generators.checkpoint import Checkpoint
from probe.generators.files.pickled import read_pickled
from probe.generators.files.programs import TITLES, read_program
from probe.generators.files.run_folder import checkpoint_file
from probe.generators.files.snapshot import read_safetensors
from probe.generators.files.torch_file import is_old, zip_kind

SUPPORTED = (
    "pickles and torch files of StyleGAN2-ADA, StyleGAN3, Projected GAN and R3GAN, torch files of "
    "rosinality's StyleGAN2, TensorFlow pickles of StyleGAN2, .safetensors files, TorchScript and "
    "torch.export programs"
)
READERS: Mapping[str, Callable[[Path], Checkpoint]] = {
    "safetensors": read_safetensors,
    "pickle": read_pickled,
    "torch": read_pickled,
}
BOM = b"\xef\xbb\xbf"
# First bytes of files that are often mistaken for a checkpoint.
OTHER_FILES = {
    b"<": "a web page, not a checkpoint. Download it again",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself. Run git lfs pull",
    b"PK": f"a zip, damaged or of an unsupported kind. Supported are {SUPPORTED}",
    b"\x89HDF": f"an HDF5 file, which is not supported. Supported are {SUPPORTED}",
    b"\x89PNG": "an image. Images are given as a folder or a zip",
    b"\xff\xd8\xff": "an image. Images are given as a folder or a zip",
}


def _is_safetensors(head: bytes) -> bool:
    # Eight bytes of header length, then JSON.
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**30


def _is_pickle(head: bytes) -> bool:
    # Protocol 2 and later begin with PROTO; a text pickle of a dict with "(d".
    return head[:1] == b"\x80" or head[:2] in (b"(d", b"c_", b"(i", b"(l")


def format_of(path: Path) -> str:
    """Identify a regular file by its first bytes and, for a zip, its members' names.

    Returns:
        A name in `READERS` or `TITLES`.

    Raises:
        CheckpointError: if it is empty, or of an unsupported kind; without the path.
        OSError: if it cannot be opened.
    """
    with path.open("rb") as f:
        head = f.read(32)
    if not head:
        raise CheckpointError("it is empty")
    if _is_safetensors(head):  # first, because its length bytes can look like other formats
        return "safetensors"
    if kind := zip_kind(path) or ("torch" if is_old(path) else None):
        return kind
    for start, what in OTHER_FILES.items():
        if head.removeprefix(BOM).lstrip().startswith(start):
            raise CheckpointError(f"it is {what}")
    if _is_pickle(head):
        return "pickle"
    raise CheckpointError(f"its format is not recognised. Supported are {SUPPORTED}")


def load_generator(
    path: Path | str, *, run_code: bool = False, z_dim: int | None = None
) -> Checkpoint:
    """Load a generator checkpoint on the CPU, in float32, without running any of the file.

    A training run's directory resolves to its best snapshot.

    Args:
        path: the file or directory.
        run_code: allow files that are programs (TorchScript, `torch.export`), which runs them.
        z_dim: width of the latent, for a program that does not give it.

    Raises:
        UnsafeCheckpoint: if the file refers to code outside the allow-list; names it.
        CheckpointError: if it is missing, empty, damaged, of an unsupported kind, changed while
            being read, or a program without `run_code`.
        UsageError: if `z_dim` is given for a file that is not a program, or contradicts it.
    """
    path = checkpoint_file(Path(path))
    try:
        before = stamp(path.stat())
        kind = format_of(path)
        if kind in READERS:
            if z_dim is not None:
                raise UsageError(f"--z-dim: {path} stores the width of its latent. Leave it out.")
            checkpoint = READERS[kind](path)
        elif run_code:
            checkpoint = read_program(path, kind, z_dim)
        else:
            raise CheckpointError(
                f"it is a {TITLES[kind]}: to draw images is to run it. If you trust it, allow that "
                "with --run-code"
            )
        if stamp(path.stat()) != before:  # the digest, which identifies images, may be wrong
            raise CheckpointError("it changed while it was read. Repeat the command")
        return checkpoint
    except CheckpointError as error:
        # The message may quote parts of the file: strip anything that would control a terminal.
        raise type(error)(f"{path}: {printable(str(error), 500)}.") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    except MemoryError as error:
        raise CheckpointError(f"{path}: needs more memory than there is.") from error
