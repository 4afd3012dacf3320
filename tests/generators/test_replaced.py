"""A checkpoint that is replaced while it is read, as by a training run that goes on."""

import os

import pytest
from inputs import tiny_generator

from probe.errors import CheckpointError
from probe.files import digest_file
from probe.generators.files.formats import load_generator
from probe.generators.files.snapshot import save_snapshot


@pytest.mark.parametrize("in_place", [True, False])
def test_a_checkpoint_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, in_place):
    path, other = tmp_path / "best.safetensors", tmp_path / "other.safetensors"
    save_snapshot(path, tiny_generator(seed=0), metadata={})
    save_snapshot(other, tiny_generator(seed=1), metadata={})
    digest = digest_file(other)

    def replaced(read):
        if in_place:
            read.write_bytes(other.read_bytes())
        else:
            os.replace(other, read)
        return digest_file(read)

    with monkeypatch.context() as patch:
        patch.setattr("probe.generators.files.snapshot.digest_file", replaced)
        with pytest.raises(
            CheckpointError, match=r"changed while it was read\. Repeat the command"
        ):
            load_generator(path)
    assert load_generator(path).digest == digest
