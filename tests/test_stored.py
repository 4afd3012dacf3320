"""Records read back: their shape, and the error for any other."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import FiniteFloat

from probe.errors import ProbeError
from probe.stored import LARGEST, Text, read_lines, read_record


@dataclass(frozen=True, kw_only=True)
class Inner:
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Record:
    path: Text
    kimg: FiniteFloat
    inner: Inner | None = None


def test_keys_that_are_not_asked_for_are_left_out(tmp_path):
    path = tmp_path / "r.json"
    path.write_text('{"path": "a", "kimg": 2, "inner": {"names": ["b"], "more": 1}, "other": NaN}')
    assert read_record(path, Record, "") == Record(path="a", kimg=2.0, inner=Inner(names=("b",)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ('{"path": "a", "ki', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "(should be a dictionary)"),
        ('{"path": "a"}', "'kimg' is missing"),
        ('{"path": 3, "kimg": 1}', "'path' should be text"),
        ('{"path": "a", "kimg": "x"}', "'kimg' should be a valid number"),
        ('{"path": "a", "kimg": NaN}', "'kimg' should be a finite number"),
        ('{"path": "a", "kimg": 1e999}', "'kimg' should be a finite number"),
        ('{"path": "a", "kimg": %s}' % ("9" * 400), "'kimg'"),
        ('{"path": "a", "kimg": %s}' % ("9" * 5000), "not JSON"),
        ('{"path": "a", "kimg": 1, "inner": {"names": [1]}}', "'inner.names.0' should be"),
    ],
)
def test_the_file_the_key_and_the_remedy_are_named(tmp_path, text, words):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ProbeError) as error:
        read_record(path, Record, "Do this.")
    assert str(error.value).startswith(f"{path} is damaged (") and words in str(error.value)
    assert str(error.value).endswith("). Do this.") and len(str(error.value)) < 400


def test_what_is_no_file_or_too_large_is_not_read(tmp_path):
    huge, pipe = tmp_path / "huge.json", tmp_path / "pipe.json"
    with huge.open("wb") as file:
        file.truncate(LARGEST + 1)
    os.mkfifo(pipe)
    for path, words in [
        (huge, "more than 256 MiB"),
        (pipe, "not a regular file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "gone", "No such file"),
    ]:
        with pytest.raises(ProbeError, match=f"{path} cannot be read .*{words}.*Do this"):
            read_record(path, Record, "Do this.")
    for path in (huge, pipe):
        with pytest.raises(ProbeError, match="Move it away"):
            read_lines(path, Record)
    assert read_lines(tmp_path / "gone", Record) == []


def test_lines_of_another_shape_are_left_out(tmp_path):
    path = tmp_path / "r.jsonl"
    good = '{"path": "a", "kimg": 1}'
    path.write_text("\n".join([good, "[" * 5000, "{}", "", good[:-4], good]))
    assert [r.kimg for r in read_lines(path, Record)] == [1.0, 1.0]


def test_names_that_are_not_utf_8_come_back(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"path": name, "kimg": 0}))
    assert Path(read_record(path, Record, "").path) == Path(name)
