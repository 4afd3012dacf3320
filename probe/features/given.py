"""Features that a caller already has: arrays or files become tables that a ranking can read."""

import hashlib
import tokenize
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from probe.errors import ImagesError, UsageError, first_line, kind_of
from probe.features.pair import KINDS
from probe.files import digest_json, near_path, utf8_path
from probe.images.archive import DAMAGED
from probe.images.arrays import IMAGES

Array = np.ndarray | torch.Tensor
Features = tuple[Array, Array] | Path | str
LARGEST = 2**34  # bytes that an array of an .npz file may unpack to
# What safetensors, zipfile and NumPy's parser of headers raise on damaged or hostile files.
UNREADABLE = (
    OSError, SafetensorError, MemoryError, tokenize.TokenError, SyntaxError, TypeError,
    RecursionError, *DAMAGED,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class GivenFeatures:
    """One backbone's features of all rows, read by position as a `FeatureSpace` is by image.

    Attributes:
        table: float32 (N + M, d), finite, reals first.
        n_real: N.
        file: where they came from; None if they were arrays.
        key: digest of the values.
    """

    table: np.ndarray
    n_real: int
    file: str | None
    key: str

    @property
    def counts(self) -> tuple[int, int]:
        """How many reals and how many fakes there are."""
        return self.n_real, len(self.table) - self.n_real

    def read(self, keys: Sequence[str]) -> np.ndarray:
        """Return rows, float32 (n, d).

        Args:
            keys: positions in `table`, as text.
        """
        return self.table[[int(key) for key in keys]]


def read_given(features: Mapping[str, Features]) -> dict[str, GivenFeatures]:
    """Return the features of every backbone, checked.

    Args:
        features: name → two arrays of numbers (N, d) and (M, d), reals first; or an .npz or
            .safetensors file with the arrays "real" and "fake".

    Raises:
        UsageError: there are none, or a value is neither.
        ImagesError: a file or an array cannot be used, or backbones differ in their numbers of
            rows; names the file or backbone, and the array.
    """
    if not features:
        raise UsageError("No features are given. Name at least one backbone's.")
    found: dict[str, GivenFeatures] = {}
    for name, given in features.items():
        found[name] = _read(name, given)
        first = next(iter(found))
        if found[name].counts != found[first].counts:
            raise ImagesError(
                f"{name} has {_counted(found[name])} rows, {first} {_counted(found[first])}. Rows "
                "must be the same images, in the same order, in every backbone."
            )
    return found


def _counted(given: GivenFeatures) -> str:
    return "{} real and {} fake".format(*given.counts)


def _read(name: str, given: Features) -> GivenFeatures:
    if isinstance(given, str | Path):
        place, arrays = str(given), _read_file(Path(given))
    elif isinstance(given, tuple | list) and len(given) == len(KINDS):
        place, arrays = name, dict(zip(KINDS, given, strict=True))
    else:
        raise UsageError(
            f"{name}: features are two arrays, reals and fakes, or a file, not {kind_of(given)}."
        )
    real, fake = (_table(array, f"{place}: '{kind}'") for kind, array in arrays.items())
    if real.shape[1] != fake.shape[1]:
        raise ImagesError(
            f"{place}: 'real' has {real.shape[1]} features per row and 'fake' {fake.shape[1]}. "
            "Take both from one backbone."
        )
    table = np.concatenate([real, fake])
    digest = hashlib.sha256(table.data).hexdigest()
    return GivenFeatures(
        table=table,
        n_real=len(real),
        file=place if isinstance(given, str | Path) else None,
        key=digest_json({"given": digest, "shape": list(table.shape), "n_real": len(real)}),
    )


def _table(array: Array, what: str) -> np.ndarray:
    """Return an array as float32 (n, d).

    Raises:
        ImagesError: it is no table of finite numbers.
    """
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
    if not isinstance(array, np.ndarray):
        raise ImagesError(f"{what} is of type {kind_of(array)}, not a NumPy array or a tensor.")
    if array.dtype.kind not in "fiu":
        raise ImagesError(f"{what} holds {array.dtype}, not real numbers. Save it as float32.")
    if array.ndim != 2 or 0 in array.shape:
        raise ImagesError(
            f"{what} has the shape {array.shape}; one row of features per image is needed, (N, d)."
        )
    with np.errstate(over="ignore"):  # found just below
        table = np.ascontiguousarray(array, dtype=np.float32)
    broken = int((~np.isfinite(table)).any(axis=1).sum())
    if broken:
        raise ImagesError(
            f"{what} has values that are NaN, infinite or beyond float32 in {broken} of "
            f"{len(table)} rows. Compute them again in float32, or leave this backbone out."
        )
    return table


def _read_file(path: Path) -> dict[str, Array]:
    """Return the arrays "real" and "fake" of a file.

    Raises:
        ImagesError: it cannot be read, or lacks one of them.
    """
    if path.suffix not in READERS:
        raise ImagesError(f"{path}: features are read from {' and '.join(READERS)} files.")
    if not path.is_file():
        what = "not a file" if path.exists() else "no such file"
        raise ImagesError(f"{path}: {what}.{near_path(path)} Check the path.")
    try:
        return READERS[path.suffix](path)
    except UNREADABLE as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise ImagesError(f"{path} cannot be read ({why}). Save it again.") from error


def _read_npz(path: Path) -> dict[str, Array]:
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        _require(path, names)
        return {kind: _read_npy(path, archive, kind) for kind in KINDS}


def _read_npy(path: Path, archive: zipfile.ZipFile, kind: str) -> np.ndarray:
    """Return an array of an .npz file; its size is compared with the file's before it is read."""
    info = archive.getinfo(f"{kind}.npy")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ValueError(f"'{kind}' has version {version} of NumPy's format")
        shape, _, dtype = read_header(member)
        if dtype.hasobject:
            raise ImagesError(
                f"{path}: '{kind}' holds Python objects, which are not read. Save numbers: "
                "array.astype('float32')."
            )
        size = dtype.itemsize
        for length in shape:  # of Python's integers, which do not overflow
            size *= length
        if size != info.file_size - member.tell():
            raise ValueError(f"'{kind}' does not have the size that its header says")
        if size > LARGEST:
            raise ValueError(f"'{kind}' is larger than {LARGEST >> 30} GiB")
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _read_safetensors(path: Path) -> dict[str, Array]:
    with ExitStack() as stack:
        reachable = stack.enter_context(utf8_path(path))
        file = stack.enter_context(safe_open(reachable, framework="pt"))
        _require(path, list(file.keys()))
        return {kind: file.get_tensor(kind) for kind in KINDS}


def _require(path: Path, names: Sequence[str]) -> None:
    """Check that a file holds both arrays.

    Raises:
        ImagesError: it does not.
    """
    for kind in KINDS:
        if kind not in names:
            held = ", ".join(f"'{name}'" for name in sorted(names)[:10]) or "nothing"
            if IMAGES in names:
                raise ImagesError(
                    f"{path} has no '{kind}'; it holds '{IMAGES}', as files of images do. If it "
                    "holds pixels, uint8 (N, H, W, 3), give it to --real or --gen."
                )
            raise ImagesError(
                f"{path} has no '{kind}'; it holds {held}. Save the reals' features as 'real' and "
                "the fakes' as 'fake'."
            )


READERS: Mapping[str, Callable[[Path], dict[str, Array]]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
}
