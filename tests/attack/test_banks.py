"""Hostile banks: every door of the bank ends in time, with a message, and harms nothing else."""

import contextlib
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from probe.bank.file import packaged_bank, read_specs
from probe.bank.lock import lock_path, read_lock
from probe.errors import UNREADABLE, BankError

SECONDS = 120  # of one attempt, on a machine that is busy with others; far less is the rule
MEMORY = 2 * 2**30

ENTRY = """\
- name: one
  source: timm
  model: resnet18
  weights: {hub: timm/resnet18.a1_in1k}
  keys: [{pattern: 'a', to: b}]
  args: {a: [1, 2]}
  taps: [1, x]
  input: 224
  mean: [0.485, 0.456, 0.406]
  std: [0.229, 0.224, 0.225]
  task: classification
  data: ImageNet-1k
  license: Apache-2.0
"""


def nested(first: str, step: str, levels: int = 9, width: int = 9) -> str:
    """Return a list in which each entry holds the one before it many times."""
    text = f"- &a0 {first}\n"
    for i in range(1, levels + 1):
        text += f"- &a{i} {step.format(', '.join([f'*a{i - 1}'] * width))}\n"
    return text


ENDLESS = {
    "nested aliases": nested("[x]", "[{}]"),
    "nested aliases as a name": nested("[x]", "[{}]") + "- {name: *a9}\n",
    "nested aliases as arguments": nested("[x]", "[{}]") + ENTRY.replace("{a: [1, 2]}", "{a: *a9}"),
    "nested mappings": nested("{k: x}", "{{k: [{}]}}"),
    "merges of merges": nested("{x: y}", "{{<<: [{}]}}"),
    "a long chain of aliases": nested("[x]", "[{}]", levels=2000, width=1),
    "an entry, many times": ENTRY.replace("- ", "- &a\n  ", 1) + "- *a\n" * 60_000,
    "a merge of itself": "- &a {<<: *a}\n",
    "merges in a ring": "- &a {b: &b {<<: *a}, <<: *b}\n",
    "a list in itself": "- &a [*a]\n",
    "the list in itself": "&a\n- *a\n",
    "a key in itself": "- &a {? *a : 1}\n",
    "brackets": "[" * 100_000,
    "braces": "{" * 100_000,
    "dashes": "- " * 100_000,
    "question marks": "? " * 100_000,
    "levels": "[" * 300 + "]" * 300,
    "many wrong entries": "- 3\n" * 60_000,
    "many wrong keys": "- {" + ",".join(f"k{i}: 1" for i in range(30_000)) + "}",
    "anchors": "".join(f"- &b{i} x\n" for i in range(20_000)),
    "a number of many digits": ENTRY.replace("input: 224", f"input: {'9' * 100_000}"),
    "a hexadecimal number": ENTRY.replace("input: 224", f"input: 0x{'f' * 4000}"),
    "a number to the base of 60": ENTRY.replace("input: 224", f"input: 1{':59' * 1300}"),
    "a long word": ENTRY.replace("Apache-2.0", "a" * 400_000),
    "too many bytes": "# " + "x" * 2**20,
}

# Read "as" the program that runs one bank with bounds: see `bounded`.
PROGRAM = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]), int(sys.argv[2])))
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[3]), int(sys.argv[3])))
sys.argv = ["probe", "bank", "list", "--bank", sys.argv[1]]
from probe.cli import main
main()
"""


def bounded(path: Path) -> subprocess.CompletedProcess:
    """Run `probe bank list` on a bank, with bounds on its time and memory."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), str(SECONDS), str(MEMORY)],
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", ENDLESS)
def test_a_bank_without_end_is_refused_in_time(name, rounds, tally, tmp_path):
    if name not in list(ENDLESS)[:: rounds(4, 1)]:
        pytest.skip("in the long form")
    path = tmp_path / "bank.yaml"
    path.write_text(ENDLESS[name])
    done = bounded(path)
    assert done.returncode == 1, done.stderr[-500:]
    assert done.stderr.startswith(f"Error: {path}:") and "Traceback" not in done.stderr
    assert len(done.stderr) < 20_000
    tally("endless banks refused in time")


VALUES = [
    "", "~", "''", "1e400", ".nan", "-.inf", "9" * 5000, "0x" + "f" * 5000, "1:" * 300 + "1", "[]",
    "{}", "[[]]", "[1, [2]]", "{a: b}", "2024-13-45", "2024-01-01", "!!int ''", "!!float ''",
    "!!bool x", "!!timestamp x", "!!null [1]", "!!binary '!!'", "!!set {a, b}", "!!omap [a: 1]",
    "!!pairs [a: 1]", "!!python/name:os.system ''", "!!python/object/apply:os.system [x]",
    "!!float {=: x}", "!foo bar", "{[a]: b}", "{{a: b}: c}", "{1: 2}", "{null: 3}", "{true: x}",
    "*undefined", "&a [*a]", "&a {<<: *a}", "<<", "=", "{<<: 3}", "{<<: [1]}", '"\\0"', '"\\e[31m"',
    '"\\u202e"', '"\\ud800"', '"\\U00110000"', "|\n    a\n    b", "'" + "a" * 5000 + "'", "true",
    "hub", "https://x", "../../x", "- - - a", "%", "@x", "`x", "!", "&", "*", "|", "'", '"', "? ",
    ": ", "---", "...", "\t", "{hub: '../../x'}", "{hub: 'https://h/x'}", "{hub: a/b, file: ../x}",
    "{package: ''}", "{package: 'a b', file: x}", "{package: a, file: ../x}",
    "{package: a, file: x, version: '1; rm'}", "{package: --index-url=x, file: x}",
    "{url: 'https://[::1/x'}", "{url: ''}", "{url: 'https://h:x/y'}", "{url: 'https://u:p@h/y'}",
    "{file: ''}", "{file: '~nobody_such/x'}", "{random: -1}", "[{pattern: '('}]",
    "[{pattern: '(?i)a{99999999999}'}]", "[{pattern: a, to: '\\1'}]",
    "[{pattern: '" + "(" * 90 + ")" * 90 + "'}]", "[{pattern: '" + "a" * 201 + "'}]",
]  # fmt: skip


def mutated(rng: random.Random, text: str) -> str:
    """Return a bank with a few random changes."""
    letters = list(text)
    for _ in range(rng.randint(1, 6)):
        at, kind = rng.randrange(len(letters)), rng.random()
        if kind < 0.4:
            letters[at:at] = rng.choice(VALUES)
        elif kind < 0.6:
            del letters[at : at + rng.randint(1, 20)]
        elif kind < 0.8:
            letters[at] = rng.choice("{}[]:,&*!|>'\"%@`#-?\n \t\x00\x1b\ud800\u202eé<=")
        else:
            start = rng.randrange(len(letters))
            letters[at:at] = letters[start : start + rng.randint(1, 100)]
        letters = letters or list(text)
    return "".join(letters)


def outcome(data: bytes) -> str:
    """Return "valid" or "refused", where nothing else may come of a bank's bytes."""
    try:
        read_specs(Path("b.yaml"), data)
    except BankError as error:
        for line in str(error).splitlines():
            assert line.startswith("b.yaml:") and len(line) < 1000, line
            assert not UNREADABLE.search(line), ascii(line)
        return "refused"
    return "valid"


def test_every_wrong_value_at_every_key(rounds, tally):
    lines = ENTRY.splitlines(keepends=True)
    for i, line in enumerate(lines):
        key = line.partition(": ")[0]
        for value in VALUES[:: rounds(5, 1)]:
            text = "".join([*lines[:i], f"{key}: {value}\n", *lines[i + 1 :]])
            tally(f"wrong values in a bank: {outcome(text.encode('utf-8', 'surrogatepass'))}")


def test_random_changes_of_banks(rounds, tally):
    rng = random.Random(rounds(1, 2))
    texts = [ENTRY, packaged_bank().read_text("utf-8")]
    for _ in range(rounds(200, 6000)):
        text = mutated(rng, rng.choices(texts, (4, 1))[0])
        tally(f"banks with random changes: {outcome(text.encode('utf-8', 'surrogatepass'))}")


PLACES = {
    "{hub: 'https://huggingface.co/timm/resnet18.a1_in1k'}": "not a hub repository",
    "{hub: ../../x}": "not a hub repository",
    "{hub: ''}": "not a hub repository",
    "{hub: a/b/c}": "not a hub repository",
    "{hub: a/b, file: ../../../etc/passwd}": "must stay inside the hub",
    "{hub: a/b, file: /etc/passwd}": "must stay inside the hub",
    "{package: '', file: x}": "not a package name",
    "{package: '../../x', file: x}": "not a package name",
    "{package: '-r evil', file: x}": "not a package name",
    "{package: 'a; rm -rf ~', file: x}": "not a package name",
    "{package: a, version: '1 --pre', file: x}": "not a version",
    "{package: a, file: ../../x}": "must stay inside the package",
    "{url: 'https://[::1/x'}": "not the address of a file",
    "{url: 'https://'}": "not the address of a file",
    "{url: 'https://h:port/x'}": "not the address of a file",
    "{url: 'https://h/..'}": "not the address of a file",
    "{url: 'file:///etc/passwd'}": "not the address of a file",
    "{url: 'https://h/a b'}": "not the address of a file",
    "{file: ''}": "not a file name",
    "{file: '~nobody_of_that_name/x'}": "a user who does not exist",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_cannot_be_is_named_with_its_line(cli, tmp_path, place):
    path = tmp_path / "bank.yaml"
    path.write_text("# mine\n\n" + ENTRY.replace("{hub: timm/resnet18.a1_in1k}", place))
    for command in ("list", "check", "fetch"):
        result = cli("bank", command, "--bank", path)
        shown = " ".join((result.out + result.err).split())
        assert result.code == (0 if command == "list" else 3), place
        assert f"{path}:6: one: weights" in shown, place
        assert PLACES[place] in shown and "pip install" not in shown
    assert cli("bank", "show", "one", "--bank", path).code == 0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (("license: ", "licence: "), "licence"),
        (("  source:", "  role: control\n  source:"), "random weights and role 'control'"),
        (("  source:", "  name: two\n  source:"), "appears twice"),
    ],
)
def test_other_mistakes_of_an_entry_with_an_impossible_place_are_named_too(
    cli, tmp_path, change, word
):
    entry = ENTRY.replace("{hub: timm/resnet18.a1_in1k}", "{hub: 'https://x/y'}")
    (tmp_path / "bank.yaml").write_text(entry.replace(*change))
    result = cli("bank", "list", "--bank", tmp_path / "bank.yaml")
    assert result.code == 1 and word in result.err and "not a hub repository" in result.err


def test_an_impossible_place_is_a_row_and_the_others_are_ranked(cli, bank, reals, fakes):
    text = bank.read_text("utf-8")
    bank.write_text(text + ENTRY.replace("{hub: timm/resnet18.a1_in1k}", "{hub: 'https://x/y'}"))
    result = cli("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--format", "json")
    rows = {row["name"]: row for row in json.loads(result.out)["rows"]}
    assert result.code == 3 and rows["colour"]["rank"] == 1
    assert rows["one"]["status"] == "unavailable"
    found = r"bank\.yaml:\d+: one: weights\.hub: .* is not a hub repository"
    assert re.search(found, rows["one"]["reason"])


SCRIPTED = """
- name: {name}
  source: torchscript
  model: x
  weights: {weights}
  input: 32
  mean: [0.5, 0.5, 0.5]
  std: [0.5, 0.5, 0.5]
  task: none
  data: none
  license: none
"""


def test_what_is_only_known_later_is_a_row_and_the_others_stand(cli, bank, reals, fakes, tmp_path):
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "empty.pt").touch()
    os.mkfifo(tmp_path / "pipe.pt")
    later = {
        "long": f"{{file: '{'a' * 300}'}}",
        "folder": "{file: folder.pt}",
        "pipe": "{file: pipe.pt}",
        "device": "{file: /dev/zero}",
        "empty": "{file: empty.pt}",
        "below": "{file: empty.pt/x}",
        "far": f"{{url: 'https://127.0.0.1:1/{'b' * 300}.pth'}}",
        "nowhere": "{package: no-such-package-of-weights, file: x}",
    }
    text = "".join(SCRIPTED.format(name=n, weights=w) for n, w in later.items())
    bank.write_text(text + bank.read_text())
    listed = cli("bank", "list", "--bank", bank)
    assert listed.code == 0 and listed.out.count("missing") == len(later) - 1, listed.out
    checked = cli("bank", "check", "--bank", bank)
    assert checked.code == 3 and "colour: ok" in checked.out and "edges: ok" in checked.out
    result = cli("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--offline", "--format",
                 "json")  # fmt: skip
    assert result.code == 3, result.err
    rows = {row["name"]: row for row in json.loads(result.out)["rows"]}
    assert rows["colour"]["status"] == rows["edges"]["status"] == "ok"
    can_be_had = {"far", "nowhere"}
    assert {n for n in rows if rows[n]["status"] == "absent"} == can_be_had
    assert {n for n in rows if rows[n]["status"] == "unavailable"} == set(later) - can_be_had


PATTERNS = [
    ("(a|aa)+$", "x"),
    ("(?:(?:(?:a?){1000}){1000}){1000}b", "x"),
    ("(?:(?:(?:){65535}){65535}){65535}", None),
    ("(.+)+(.+)+(.+)+(.+)+X", None),
    ("(x?){1000000000}y", "x"),
    (r"(\w*\w*\w*\w*\w*\w*\w*\w*\w*)*\d$", None),
    ("", "y" * 200),
]


def test_key_patterns_without_end_are_one_entry_s_trouble(cli, rounds, tally, tmp_path):
    import timm

    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    torch.save({f"{'a' * 60}!.{key}": value for key, value in state.items()}, tmp_path / "w.pth")
    entry = SCRIPTED.replace("torchscript", "timm").replace("model: x", "model: test_resnet")
    strip = "  keys: [{pattern: '^a+!.', to: ''}]\n"  # one that does no harm
    text = entry.format(name="good", weights="{file: w.pth}") + strip
    chosen = PATTERNS[:: rounds(7, 1)]
    for i, (pattern, to) in enumerate(chosen):
        replaced = "" if to is None else f", to: '{to}'"
        keys = f"  keys: [{{pattern: '{pattern}'{replaced}}}]\n"
        text += entry.format(name=f"bad{i}", weights="{file: w.pth}") + keys
    doubling = ", ".join(["{pattern: '^(.*)$', to: '\\1\\1'}"] * 40)
    text += entry.format(name="doubling", weights="{file: w.pth}") + f"  keys: [{doubling}]\n"
    bank = tmp_path / "bank.yaml"
    bank.write_text(text)
    result = cli("bank", "check", "--bank", bank)
    assert result.code == 3 and "good: ok" in result.out, result.out
    assert result.out.count("its key map takes too") == len(chosen) + 1, result.out
    tally("key maps without end stopped", len(chosen) + 1)


LOCKS = {
    "brackets": "[" * 100_000,
    "braces": '{"a":' * 100_000,
    "nothing": "",
    "another thing": "[[package]]\nname = 'poetry'\n",
    "a list": "[]",
    "a number": "9" * 10_000,
    "entries that are a list": '{"version": 1, "entries": []}',
    "an entry that is none": '{"version": 1, "entries": {"one": null}}',
    "no checksum": '{"version": 1, "entries": {"one": {"place": "x", "sha256": null}}}',
    "a list for a checksum": json.dumps(
        {"version": 1, "entries": {"one": {"place": "x", "sha256": ["a"] * 64}}}
    ),
    "escapes": json.dumps(
        {"version": 1, "entries": {"one": {"place": "x", "sha256": "\x1b" * 64}}}
    ),
    "another version": '{"version": "\\u001b[31m", "entries": {}}',
    "not text": b"\xff\xfe\xff",
    "too many bytes": " " * 2**23,
}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_that_is_none(cli, tmp_path, name):
    bank, lock = tmp_path / "bank.yaml", tmp_path / "bank.lock"
    bank.write_text(ENTRY)
    content = LOCKS[name]
    lock.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = lock.read_bytes()
    for command in ("list", "fetch", "check"):
        result = cli("bank", command, "--bank", bank)
        assert result.code == 1 and result.err.startswith(f"Error: {lock}: "), result.err
        assert len(result.err.splitlines()) == 1 and "Remove" not in result.err
    assert lock.read_bytes() == before


def test_random_changes_of_lock_files(rounds, tally, tmp_path):
    bank = tmp_path / "bank.yaml"
    good = json.dumps(
        {"version": 1, "entries": {"one": {"place": "a" * 16, "sha256": "0" * 64, "bytes": 3}}}
    )
    rng = random.Random(rounds(1, 2))
    for _ in range(rounds(200, 20_000)):
        letters = list(good)
        for _ in range(rng.randint(1, 4)):
            letters[rng.randrange(len(letters))] = rng.choice('{}[]":,0a\\\x1béΩ-1e.')
        bank.with_suffix(".lock").write_text("".join(letters), "utf-8")
        with contextlib.suppress(BankError):
            read_lock(lock_path(bank))
            tally("lock files with random changes: read")
            continue
        tally("lock files with random changes: refused")


@pytest.fixture
def in_time():
    """Fail where a command hangs."""

    def fail(signum, frame):
        raise TimeoutError(f"more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "kind", ["pipe", "zero", "null", "full", "folder", "socket", "gone", "loop"]
)
def test_a_bank_that_is_no_file(cli, in_time, tmp_path, kind, reals, monkeypatch):
    path = tmp_path / "bank.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # a socket's path has to be short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    elif kind != "gone":
        path = Path(f"/dev/{kind}")
    commands = [
        ("bank", "list"), ("bank", "show", "one"), ("bank", "check"), ("bank", "fetch"),
        ("bank", "add", "timm:test_vit.r160_in1k"),
        ("rank", "--real", reals, "--gen", reals), ("metrics", "--real", reals, "--gen", reals),
        ("train", "--real", reals, "--outdir", tmp_path / "runs"), ("doctor", "--real", reals),
    ]  # fmt: skip
    for command in commands:
        if kind in ("gone", "loop") and command[1] == "add":
            continue  # it makes a bank where there is none
        result = cli(*command, "--bank", path)
        assert result.code == 1, (command, result.err)
        assert result.err.startswith(f"Error: {path}: cannot be read ("), (command, result.err)
        assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_lock_file_that_is_a_pipe(cli, in_time, tmp_path):
    bank = tmp_path / "bank.yaml"
    bank.write_text(ENTRY)
    os.mkfifo(tmp_path / "bank.lock")
    result = cli("bank", "list", "--bank", bank)
    assert result.code == 1 and "bank.lock: cannot be read (not a regular file)" in result.err
    bank = bank.rename(tmp_path / "mine.lock")
    result = cli("bank", "list", "--bank", bank)
    assert result.code == 1 and "Rename the bank" in result.err and bank.exists()


def test_the_bounds_leave_room_for_real_banks(tmp_path):
    """Two thousand entries that lend each other what they have in common."""
    entry = ENTRY.replace("- name: one", "- &one\n  name: one")
    many = entry + "".join(f"- {{<<: *one, name: n{i}}}\n" for i in range(2000))
    soft = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    assert len(read_specs(tmp_path / "b.yaml", many.encode())) == 2001
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - soft < SECONDS
