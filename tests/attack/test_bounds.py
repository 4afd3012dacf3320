"""Small files that would cost much, and what inspection says of a pickle without running it."""

import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from attack.streams import (
    ARRAY,
    DTYPE,
    ORDERED,
    SYSTEM,
    TENSOR,
    integer,
    legacy,
    proto,
    refused,
    repeated,
    short,
    snapshot_bytes,
    stack_global,
    storage,
    torch_zip,
)
from generators.pickles import Persistent, dumps, stylegan2_pickle
from inputs import tiny_generator

from probe.errors import CheckpointError, UnsafeCheckpoint, UsageError, shown
from probe.generators.checkpoint import Checkpoint, build_network
from probe.generators.config import SampleOptions
from probe.generators.files.formats import load_generator
from probe.generators.files.listing import globals_in, globals_in_torch
from probe.generators.files.records import Global, LazyTensor, Storage, make_tensors
from probe.generators.files.snapshot import save_snapshot
from probe.generators.files.unpickle import pickle_file, read_pickle
from probe.generators.networks.stylegan2 import Generator
from probe.generators.sampler import GeneratorSource

LOAD = stack_global("torch.storage", "_load_from_bytes")
ENCODE = stack_global("_codecs", "encode")
PRIME = 2**61 - 1  # every multiple of it has the hash 0


def nested(depth: int, calls: int) -> bytes:
    """A torch file whose first pickle reads another, `calls` times, and so on."""
    rest = legacy(1, 1, bytes(4))[len(pickle.dumps(0x1950A86A20F9469CFC6C, 2)) :]
    inner = legacy(1, 1, bytes(4))
    for _ in range(depth):
        data = b"B" + struct.pack("<I", len(inner)) + inner
        inner = (
            proto(LOAD, b"q\x000", data, b"\x85q\x010", b"h\x00h\x01R0" * calls, b"K\x00.") + rest
        )
    return proto(storage(inner), b".")


def buffers(count: int, numbers: int) -> bytes:
    """Many tensors that are one in the file."""
    shared = torch.zeros(numbers)
    state = {"_buffers": {f"b{i}": shared for i in range(count)}, "_modules": {}}
    return dumps({"G_ema": Persistent("Generator", state)})


def long_names() -> bytes:
    module = Persistent("M", {"_buffers": {f"b{i}": torch.zeros(1) for i in range(60)}})
    for _ in range(12):
        module = Persistent("M", {"_modules": {"n" * 1_000_000: module}})
    return dumps({"G_ema": module})


def size_lists() -> bytes:
    head = proto(TENSOR, b"q\x000", storage(legacy(4, 4, bytes(16))), b"q\x010")
    sizes = b"]q\x02(" + b"K\x01" * 200_000 + b"e0"
    return head + sizes + b"](" + b"(h\x01K\x00h\x02h\x02th\x00\x86" * 10 + b"e" + (
        b"h\x00(h\x01K\x00h\x02h\x02tR."
    )  # fmt: skip


MEGABYTE = legacy(250_000, 250_000, bytes(1_000_000))
COSTLY = {
    "a storage read 3000 times": lambda: repeated(
        LOAD, b"B" + struct.pack("<I", len(MEGABYTE)) + MEGABYTE, 3000
    ),
    "a text encoded 3000 times": lambda: proto(
        ENCODE, b"q\x000", b"X" + struct.pack("<I", 10**6) + b"a" * 10**6,
        b"X\x06\x00\x00\x00latin1\x86q\x010", b"](", b"h\x00h\x01R" * 3000, b"e.",
    ),
    "a dict copied 3000 times": lambda: repeated(
        ORDERED, b"}(" + b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(10**5)) + b"u",
        3000,
    ),
    "files within files, deep": lambda: nested(300, 1),
    "files within files, 8 to the 8th": lambda: nested(8, 8),
    "integers of one hash as keys": lambda: proto(
        b"}(", b"".join(integer(i * PRIME) + b"N" for i in range(1, 60_000)), b"u."
    ),
    "integers of one hash as memo": lambda: b"\x80\x02N" + b"".join(
        b"p%d\n" % (i * PRIME) for i in range(1, 60_000)
    ) + b".",
    "a hundred thousand names": lambda: b"\x80\x02(" + b"".join(
        b"ctorch.nn.modules.x\nC%d\n" % i for i in range(10**5)
    ) + b"l.",
    "five million opcodes": lambda: proto(b"(", b"N" * 5_000_000, b"l."),
    "a shape of huge integers": lambda: proto(
        TENSOR, b"(", storage(legacy(4, 4, bytes(16))), b"K\x00(", integer(2**8_000_000),
        b"q\x05", b"h\x05" * 15, b"t(", b"K\x01" * 16, b"t\x89}tR.",
    ),
    "an empty tensor of huge shape": lambda: proto(
        TENSOR, b"(", storage(legacy(4, 4, bytes(16))), b"K\x00(K\x00", integer(2**40),
        integer(2**40), b"t(K\x01K\x01K\x01t\x89}tR.",
    ),
    "sizes as endless lists": size_lists,
    "a dtype without end": lambda: proto(DTYPE, b"]" + b"2\x86" * 60 + b"\x89\x88\x87R."),
    "many tensors in one storage": lambda: buffers(600, 1_250_000),
    "names of a megabyte at each level": long_names,
}  # fmt: skip


@pytest.mark.parametrize("name", COSTLY)
def test_small_files_cost_little(tmp_path, name):
    data = COSTLY[name]()
    refused(tmp_path / "x.pkl", data)
    globals_in(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02cos\n" + b"\x1b[2Jx" * 200_000 + b"\n.",
        dumps({"\x1b[31m" * 200_000: 1}),
        dumps({"G_ema": Persistent("\x1b[31m" * 200_000, {})}),
    ],
)
def test_messages_are_short_and_cannot_steer_a_terminal(tmp_path, data):
    text = str(refused(tmp_path / "x.pkl", data))
    assert len(text) < 1000 and text.isprintable()


# Files of some kilobytes that took gigabytes, made so small here that they take megabytes.

LAUGHS = [0]
for _ in range(20):  # a text of a million numbers
    LAUGHS = [LAUGHS, LAUGHS]
STORAGE_ID = ("storage", LAUGHS, "0", "cpu", 1, None)


def array_states() -> bytes:
    """Arrays whose numbers are one text: each would hold a copy of it as bytes."""
    count = 100_000
    new = ARRAY + b"q\x000" + b"N\x85q\x010"
    numbers = b"X" + struct.pack("<I", count) + b"a" * count
    shape, dtype = b"J" + struct.pack("<i", count) + b"\x85", DTYPE + short("|u1") + b"\x85R"
    state = b"(K\x01" + shape + dtype + b"\x89" + numbers + b"tq\x020"
    return proto(new, state, b"(", b"h\x00h\x01Rh\x02b" * 200, b"l.")


def module_tree(parameters: dict, children: int, depth: int, name: str) -> bytes:
    """Modules that share their parameters, below a chain of modules."""
    state = {"_parameters": parameters, "_buffers": {}, "_modules": {}}
    top = Persistent("M", {
        "_modules": {f"{i}": Persistent("M", state) for i in range(children)}
    })  # fmt: skip
    for _ in range(depth):
        top = Persistent("M", {"_modules": {name: top}})
    return dumps({"G_ema": top})


def legacy_id(pid) -> bytes:
    """A torch file of the old form whose storage has any id."""
    head = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {}))
    return proto(storage(head + pickle.dumps(pid, 2)[:-1] + b"Q."), b".")


def with_arguments(group=None, **changes) -> bytes:
    return stylegan2_pickle(arguments(group, **changes))


SMALL = {
    "numbers of arrays, copied": (array_states, "copy more than the file holds"),
    "a long module's name": (
        lambda: proto(
            b"X" + struct.pack("<I", 10**4) + b"training." + b"a" * (10**4 - 9) + b"q\x000",
            b"".join(b"h\x00" + short(f"{i:04x}") + b"\x930" for i in range(2000)), b"N.",
        ),
        "a name of 10000 characters, 'training.aaa",
    ),
    "a long name in a module": (
        lambda: b"\x80\x02ctraining\n" + b"a" * 201 + b"\n.", "a name of 201 characters",
    ),
    "a long class name": (
        lambda: dumps({"G_ema": Persistent("a" * 201, {})}), "a name of 201 characters",
    ),
    "parameters in many modules": (
        lambda: module_tree({f"{i}": None for i in range(1000)}, 30, 0, ""), "more tensors or long",
    ),
    "long names of many parameters": (
        lambda: module_tree({f"{i}": None for i in range(2000)}, 1, 60, "n" * 200),
        "more tensors or longer names",
    ),
    "a storage of endless type": (
        lambda: torch_zip(pickle.dumps(STORAGE_ID[:5], 2)[:-1] + b"Q."),
        "a storage of unknown type",
    ),
    "an embedded storage of endless type": (
        lambda: legacy_id(STORAGE_ID), "a storage of unknown type",
    ),
    "an argument in many places": (
        lambda: with_arguments(z_dim=["a" * 900] * 9000),
        "z_dim = something of type list; 1 to 16384 is expected",
    ),
    "another argument in many places": (
        lambda: with_arguments("synthesis_kwargs", architecture=["a" * 900] * 9000),
        "architecture something of type list",
    ),
    "a long argument": (lambda: with_arguments(note="a" * 1001), "far too long"),
    "a long argument's name": (lambda: with_arguments(note={"a" * 201: 1}), "a proper name"),
    "an argument's name of bytes": (lambda: with_arguments(note={b"a" * 201: 1}), "a proper name"),
    "a shape that no storage bounds": (
        lambda: proto(
            TENSOR, b"(", storage(legacy(4, 4, bytes(16))), b"K\x00", integer(2**31 + 1),
            b"K\x00\x86K\x00K\x00\x86\x89}tR.",
        ),
        "a tensor of shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_small_files_take_little_memory(tmp_path, name):
    make, words = SMALL[name]
    data = make()
    path = tmp_path / "x.pkl"
    path.write_bytes(data)
    globals_in(data)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=words):
            load_generator(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20 + 25 * len(data)
    finally:
        tracemalloc.stop()


def sparse(path, data: bytes, size: int):
    """Write a file that ends in zeros which no disk holds."""
    path.write_bytes(data)
    os.truncate(path, size)
    return path


@pytest.mark.parametrize(
    ("data", "size", "words"),
    [
        (b"\x80\x04", 2**32, "makes no sense at byte"),
        (proto(b"\x8e" + struct.pack("<Q", 3 * 2**30)), 2**32, "a value of 3221225472 bytes"),
        (b"\x80\x04", 2**34, "has 16 GiB; up to 8 GiB are read"),
        (b"PK\x03\x04", 2**34, "has 16 GiB"),
        (struct.pack("<Q", 100) + b"{", 2**34, "has 16 GiB"),
    ],
)
def test_files_of_gigabytes_that_hold_nothing(tmp_path, data, size, words):
    assert words in str(load_error(sparse(tmp_path / "x.pkl", data, size)))


def load_error(path) -> CheckpointError:
    """Return why a file is not read; it must not take memory to find out."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            load_generator(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    return caught.value


def test_inspection_of_gigabytes_lists_what_there_is(tmp_path):
    with pickle_file(sparse(tmp_path / "x.pkl", pickle.dumps(SYSTEM)[:-1], 2**32)) as data:
        listed = globals_in(data)
    assert listed[0].startswith("posix.system (not allowed: would") and "stops" in listed[-1]


def test_a_zip_that_lists_a_million_members(tmp_path):
    path = tmp_path / "x.pt"
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", *[20] * 2, *[0] * 14) + b"g/data.pkl"
    entry = entry[:28] + struct.pack("<H", 10) + entry[30:]
    directory = entry * 400_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(directory), 4, 0)
    path.write_bytes(b"PK\3\4" + directory + end)
    assert "a zip, damaged" in str(load_error(path))
    assert "far too many members" in globals_in_torch(path)[0]


def test_safetensors_of_more_tensors_than_any_network(tmp_path):
    empty = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(f'"{i}":{empty}' for i in range(30_000)) + "}").encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert "holds 30000 tensors" in str(load_error(path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"img_resolution": 4096, "lrelu_upsampling": 8}, "8192 samples a side, not 32768"),
        ({"img_resolution": 256, "filter_size": 64}, "up to 128 taps, not 2048"),
        ({"img_resolution": 16, "first_stopband": 1e-3}, "at least half a sample"),
        ({"img_resolution": 16, "last_stopband_rel": 1e-6}, "at least half a sample"),
    ],
)
def test_stylegan3_networks_that_would_take_memory_to_run(options, words):
    init = {"z_dim": 4, "c_dim": 0, "w_dim": 4, "img_channels": 3, "num_layers": 3, **options}
    with pytest.raises(CheckpointError, match=words):
        build_network("stylegan3", init, {})


def test_inspection_joins_no_long_names():
    data = SMALL["a long module's name"][0]()
    assert "stops at byte" in globals_in(data)[-1] and "10000 characters" in globals_in(data)[-1]


def test_inspection_unpacks_nothing(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(torch_zip(pickle.dumps(SYSTEM), zipfile.ZIP_DEFLATED))
    (line,) = globals_in_torch(path)
    assert line.startswith("(the listing stops: ") and "a compressed member" in line


def test_no_network_has_so_many_tensors():
    one = LazyTensor(Storage(torch.uint8, 1, memoryview(bytes(1))), 0, (1,), (1,))
    with pytest.raises(CheckpointError, match="more tensors"):
        make_tensors({f"{i}": one for i in range(20_001)})


def test_foreign_values_in_sentences():
    for value, text in (
        ("a\x1b'", repr("a\x1b'")),
        ("a" * 10**6, "'" + "a" * 59 + "…"),
        (b"a" * 10**6, "b'" + "a" * 58 + "…"),
        (10**19, "1" + "0" * 19),
        (10**5000, "something of type int"),
        (-(10**5000), "something of type int"),
        (float("nan"), "nan"),
        (None, "None"),
        (True, "True"),
        (LAUGHS, "something of type list"),
        (Global("os", "system"), "something of type class or function"),
        (LazyTensor(None, 0, (), ()), "something of type tensor"),
    ):
        assert shown(value) == text


def test_a_partial_is_kept_as_a_record():
    block = stack_global("pg_modules.blocks", "CCBN")
    partial = stack_global("functools", "partial") + block + b"\x85R(" + block + b")}Ntb"
    record, _ = read_pickle(proto(partial, b"."))
    assert str(record.type) == "functools.partial"
    assert str(record.state["func"]) == "pg_modules.blocks.CCBN"


def arguments(group=None, **changes):
    g = tiny_generator()
    (g.init_kwargs if group is None else g.init_kwargs[group]).update(changes)
    return g


@pytest.mark.parametrize(
    ("group", "changes"),
    [
        ("synthesis_kwargs", {"activation": "sine"}),
        ("synthesis_kwargs", {"activation": ["lrelu"]}),
        ("synthesis_kwargs", {"conv_clamp": "256"}),
        ("synthesis_kwargs", {"use_noise": "False"}),
        ("synthesis_kwargs", {"resample_filter": [1, -1, 1, -1]}),
        ("synthesis_kwargs", {"resample_filter": "1331"}),
        ("synthesis_kwargs", {"resample_filter": [1] * 9000}),
        ("mapping_kwargs", {"lr_multiplier": 0}),
        ("mapping_kwargs", {"lr_multiplier": float("nan")}),
        ("mapping_kwargs", {"activation": "sine"}),
        ("mapping_kwargs", {"w_dim": 16}),
        (None, {"img_channels": 2}),
        (None, {"z_dim": None}),
        (None, {"z_dim": True}),
        (None, {"z_dim": 2**100_000}),
        (None, {"img_resolution": 4096, "synthesis_kwargs": {"channel_base": 16}}),
    ],
)
def test_arguments_without_a_meaning_are_refused(tmp_path, group, changes):
    refused(tmp_path / "x.pkl", stylegan2_pickle(arguments(group, **changes)))


@pytest.mark.parametrize("probe", ["[" * 100_000, "[]", "{}", "null", '{"format": []}'])
def test_metadata_that_is_none_of_ours(tmp_path, probe):
    refused(tmp_path / "x.safetensors", snapshot_bytes(probe))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "complex64", "bool", "int64"])
def test_snapshots_hold_plain_floats(tmp_path, dtype):
    save_snapshot(tmp_path / "x.safetensors", tiny_generator(), metadata={},
                  dtype=getattr(torch, dtype))  # fmt: skip
    with pytest.raises(CheckpointError, match=f"holds {dtype} numbers"):
        load_generator(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("kimg", "expected"),
    [(3, 3.0), (10**400, None), (float("nan"), None), (True, None), ("3", None)],
)
def test_kimg_of_any_kind(tmp_path, kimg, expected):
    save_snapshot(tmp_path / "x.safetensors", tiny_generator(), metadata={"kimg": kimg})
    assert load_generator(tmp_path / "x.safetensors").kimg == expected


def test_a_header_length_that_reads_like_a_web_page(tmp_path):
    path = tmp_path / "x.safetensors"
    save_snapshot(path, tiny_generator(), metadata={})
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    wanted = 0x3C20  # the bytes " <"
    assert length < wanted
    padded = data[8 : 8 + length] + b" " * (wanted - length)
    path.write_bytes(struct.pack("<Q", wanted) + padded + data[8 + length :])
    assert load_generator(path).architecture == "stylegan2"


def test_other_kinds_are_called_by_their_name(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "new.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    network = stack_global("dnnlib.tflib.network", "Network") + b")\x81}b"
    (tmp_path / "tf.pkl").write_bytes(proto(network, network, network, b"\x87."))
    for name, words in [
        ("new.pt", "only the tensors"),
        ("old.pt", "only the tensors"),
        ("tf.pkl", "TensorFlow"),
    ]:
        with pytest.raises(CheckpointError, match=words) as caught:
            load_generator(tmp_path / name)
        assert not isinstance(caught.value, UnsafeCheckpoint)


def test_inspection_of_a_genuine_snapshot():
    data = stylegan2_pickle(tiny_generator(c_dim=2))
    listed = globals_in(data)
    # Reading does not list the storage types that the embedded files name.
    names = {name.partition(" ")[0] for name in listed}
    assert names == {*read_pickle(data)[1], "torch.FloatStorage"}
    # The family's own loader runs the source text that its files hold.
    marked = [name for name in listed if " " in name]
    assert marked == [
        "torch_utils.persistence._reconstruct_persistent_obj (would have run source text of the "
        "file)"
    ]
    assert "BINPERSID" in globals_in(proto(short("x"), b"Q."))[0]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_inspection_names_what_would_run(protocol):
    listed = globals_in(pickle.dumps({"a": SYSTEM, "b": dict, "c": np.load}, protocol))
    assert "posix.system (not allowed: would have been called)" in listed
    assert any(name.endswith("load (not allowed: imported)") for name in listed)


@pytest.mark.parametrize(
    ("module", "name", "mark"),
    [
        ("torch.nn.modules.module", "torch.os.system", "(not allowed: would have been called)"),
        ("torchvision.io", "write_file", "(not allowed: would have been called)"),
        ("dnnlib.util", "call_func_by_name", "(not allowed: would have been called)"),
        ("torchvision.datasets", "MNIST", "(would have been called)"),
        ("dnnlib.tflib.network", "Network", "(would have run source text of the file)"),
        ("functools", "partial", ""),
    ],
)
def test_calls_within_known_libraries_are_marked(module, name, mark):
    data = proto(stack_global(module, name), short("x"), b"\x85R.")
    assert globals_in(data) == [f"{module}.{name} {mark}".rstrip()]


def test_inspection_looks_into_embedded_files():
    for protocol in (2, 4):
        payload = proto(pickle.dumps(SYSTEM, 2)[2:])
        call = b"ctorch.storage\n_load_from_bytes\n" + pickle.dumps(payload, protocol)[2:-1]
        assert "posix.system (not allowed: would have been called)" in globals_in(
            b"\x80" + bytes([protocol]) + call + b"\x85R."
        )


def test_inspection_of_damage_keeps_what_runs_before_it():
    listed = globals_in(pickle.dumps(SYSTEM, 4)[:-1] + b"0000.")
    assert listed[0].startswith("posix.system") and "stops at byte" in listed[-1]
    assert "after the pickle's end" in globals_in(proto(b"N.") + b"x")[-1]
    assert "EXT1" in globals_in(proto(b"\x82\x01."))[0]


def test_inspection_never_raises_on_mutations():
    rng = np.random.default_rng(1)
    original = stylegan2_pickle(tiny_generator())[:4000]
    for _ in range(200):
        data = bytearray(original)
        for position in rng.integers(0, len(data), 3):
            data[position] = rng.integers(0, 256)
        assert all(name.isprintable() for name in globals_in(bytes(data)))


def source(**options):
    c_dim = options.pop("c_dim", 0)
    chosen = {"class_index": options.pop("class_index")} if "class_index" in options else {}
    network = options.pop("network", None) or tiny_generator(c_dim)
    checkpoint = Checkpoint(network, "stylegan2", "digest", {})
    return GeneratorSource(
        checkpoint, name="g.pkl", count=4, sample=SampleOptions(**chosen), **options
    )


@pytest.mark.parametrize(
    "options", [{"class_index": -1}, {"labels": []}, {"labels": [-1]}, {"labels": [0, 1.5]}]
)
def test_labels_that_are_no_class(options):
    with pytest.raises(UsageError):
        source(c_dim=3, **options)


def test_no_images_are_uint8_too():
    assert source().load([], 16).images.dtype == torch.uint8


def test_a_grey_generator_says_so():
    network = Generator(8, 0, 8, 16, 1, {"num_layers": 1}, {"channel_base": 64})
    grey = source(network=network.eval())
    assert grey.headers([0])[0].mode == "L"
    images = grey.load([0, 1], 16).images
    assert images.shape == (2, 3, 16, 16) and images.is_contiguous()
