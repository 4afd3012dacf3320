"""Genuine pickles changed byte by byte and opcode by opcode: read or refused, and nothing else.

Whatever is changed, nothing is run, no file is written, and reading takes neither long nor much
memory; what is read has no name in it that the listing marks as not allowed.
"""

import pickletools
import random
import resource
import sys
import time
import zipfile
from contextlib import contextmanager
from io import BytesIO

import pytest
import torch
from attack.streams import PYTHON, TOUCH, integer, short, stack_global
from generators.attributes import ATTRIBUTES
from generators.pickles import GENUINE, WRITERS, snapshot, stylegan2_snapshot
from generators.trees import fastgan, r3gan
from inputs import tiny_generator

from probe.generators.files.inspect import inspect_file
from probe.generators.files.torch_file import OLD_START
from probe.generators.files.unpickle import OLD_PICKLES

LONGEST = 5  # seconds of this process for one file
MOST_MEMORY = 400_000  # KiB that a run of this test may take more than before

# What an attacker would put in: calls, and numbers that are far too large.
INSERTED = [
    stack_global("posix", "system") + short(TOUCH) + b"\x85R",
    stack_global("builtins", "eval") + short(PYTHON) + b"\x85R",
    stack_global("builtins", "exec") + short(PYTHON) + b"\x85R0",
    b"cposix\nsystem\n(S'" + TOUCH.encode() + b"'\ntR",
    b"(S'" + TOUCH.encode() + b"'\niposix\nsystem\n",
    b"(cposix\nsystem\nS'" + TOUCH.encode() + b"'\no",
    stack_global("builtins", "getattr"),
    stack_global("builtins", "set"),
    stack_global("subprocess", "Popen"),
    integer(2**40), integer(-1), integer(2**70), integer(2**100_000),
    b"R", b"b", b"\x81", b"\x92", b"o", b"Q", b"0", b"1", b"2", b"(", b"t", b"]", b"}", b")", b"N",
    b"\x8f", b"\x90", b"\x91", b"a", b"e", b"s", b"u", b"d", b"l", b".", b"\x82\x01", b"\x97",
    b"\x98", b"\x94", b"h\x00", b"j\x01\x00\x00\x00", b"\x95" + b"\xff" * 8, b"\x8e" + b"\xff" * 8,
    b"\x80\x05", b"G\x7f\xf0\x00\x00\x00\x00\x00\x00",
]  # fmt: skip
RUNNING = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen",
           "exec", "socket.connect", "shutil.rmtree", "os.remove", "pickle.find_class"}  # fmt: skip
watching: list[str] | None = None


def _audit(event: str, args: tuple) -> None:
    """Note what Python is about to do while something is read; imports do not count."""
    if watching is None or (event == "exec" and args[0].co_filename != "<string>"):
        return
    if event in RUNNING or (event == "open" and "w" in str(args[1])):
        watching.append(event)


sys.addaudithook(_audit)


@contextmanager
def watched():
    """Fail if anything is run, written or fetched."""
    global watching
    watching = []
    try:
        yield
        assert not watching, f"reading did {watching}"
    finally:
        watching = None


def test_the_watch_sees_what_runs():
    with pytest.raises(AssertionError, match="exec"), watched():
        exec("1")


def everything() -> dict:
    """Return a snapshot that has every kind of attribute."""
    others = {name: value for name, value in ATTRIBUTES.items() if name != "optimizer"}
    return stylegan2_snapshot(tiny_generator(), **others)


SNAPSHOTS = {
    "stylegan2": lambda: stylegan2_snapshot(tiny_generator(c_dim=2)),
    "fastgan": lambda: snapshot(fastgan(64, ngf=2, lite=True, z_dim=3)),
    "r3gan": lambda: snapshot(r3gan((4, 4), (2, 2), (1, 1), z_dim=3)),
    "everything": everything,
}
WAYS = [name for name in WRITERS if not name.startswith("dill")]


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """Change some bytes, or take some out, double them, put others in, or cut the rest."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, length = rng.randrange(len(changed)), rng.choice((1, 2, 4, 8, 100))
        kind = rng.randrange(6)
        if kind <= 1:
            changed[at] = rng.randrange(256)
        elif kind == 2:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            del changed[at : at + length]
        elif kind == 4:
            changed[at:at] = changed[at : at + length]
        else:
            changed[at : at + rng.choice((0, length))] = rng.choice(INSERTED)
    return bytes(changed[: rng.randrange(len(changed))] if rng.random() < 0.05 else changed)


def opcodes(data: bytes) -> list[bytes]:
    """Cut a pickle, or those of an old torch file, into opcodes; what follows them is the last."""
    stream, starts = BytesIO(data), []
    for _ in range(OLD_PICKLES if OLD_START in data[:32] else 1):
        starts += [position for _, _, position in pickletools.genops(stream)]
    starts.append(stream.tell())
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def mutated_opcodes(parts: list[bytes], rng: random.Random) -> bytes:
    """Take opcodes out, double, swap, replace and repeat them, or put others in."""
    changed = list(parts)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, other = rng.randrange(len(changed)), rng.randrange(len(changed))
        kind = rng.randrange(7)
        if kind == 0:
            del changed[at]
        elif kind == 1:
            changed[at:at] = changed[other : other + rng.choice((1, 3, 20))]
        elif kind == 2:
            changed[at], changed[other] = changed[other], changed[at]
        elif kind == 3:
            changed[at] = changed[other]
        elif kind == 4:
            changed[at:at] = changed[at : at + rng.choice((1, 2))] * rng.choice((2, 1000))
        else:
            changed[at : at + rng.randrange(2)] = [rng.choice(INSERTED)]
    # A frame that no longer fits would end the reading before anything else did.
    return b"".join(part for part in changed if not part.startswith(b"\x95") or rng.random() < 0.1)


def zipped(file: bytes, change) -> bytes:
    """Change the pickle within a torch file, and nothing else of it."""
    buffer = BytesIO()
    with zipfile.ZipFile(BytesIO(file)) as old, zipfile.ZipFile(buffer, "w") as new:
        for member in old.infolist():
            data = old.read(member)
            new.writestr(member, change(data) if member.filename.endswith("data.pkl") else data)
    return buffer.getvalue()


def changes(file: bytes, rng: random.Random, count: int):
    """Yield changed files, half of them by bytes, half by opcodes."""
    inside = zipfile.is_zipfile(BytesIO(file)) and file[:2] == b"PK"
    if inside:
        with zipfile.ZipFile(BytesIO(file)) as archive:
            name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
            parts = opcodes(archive.read(name))
    else:
        parts = opcodes(file)
    for i in range(count):
        if i % 2 and inside:
            yield zipped(file, lambda data: mutated_opcodes(parts, rng))
        elif i % 2:
            yield mutated_opcodes(parts, rng)
        elif inside and i % 4:
            yield zipped(file, lambda data: mutated_bytes(data, rng))
        else:
            yield mutated_bytes(file, rng)


def attack(path, file: bytes, count: int, seed: object, tally) -> None:
    path.write_bytes(file)
    assert inspect_file(path).problem is None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rng = random.Random(str(seed))
    for changed in changes(file, rng, count):
        path.write_bytes(changed)
        started = time.process_time()
        with watched():
            found = inspect_file(path)
        assert time.process_time() - started < LONGEST, keep(path, changed)
        if found.problem is None:
            assert not any("not allowed" in name for name in found.globals), keep(path, changed)
        else:
            assert found.problem.isprintable() and len(found.problem) < 1000
        tally(f"changed files {'read' if found.problem is None else 'refused'}")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < MOST_MEMORY, keep(path, changed)


def keep(path, changed: bytes) -> str:
    """Leave a file that did something for whoever looks into it."""
    path.with_suffix(".found").write_bytes(changed)
    return str(path.with_suffix(".found"))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", SNAPSHOTS)
def test_changed_snapshots_are_read_or_refused(tmp_path, kind, way, rounds, tally):
    file = WRITERS[way](SNAPSHOTS[kind]())
    attack(tmp_path / "x.pkl", file, rounds(6, 300), (kind, way), tally)


@pytest.mark.parametrize("name", ["r3gan-32.pkl", "stylegan2-protocol2.pkl",
                                  "stylegan2-protocol3.pkl", "stylegan2-torchsave.pt"])  # fmt: skip
def test_changed_genuine_files_are_read_or_refused(tmp_path, name, rounds, tally):
    if not (GENUINE / name).is_file():
        pytest.skip("genuine files are not at hand")
    attack(tmp_path / name, (GENUINE / name).read_bytes(), rounds(6, 300), name, tally)
