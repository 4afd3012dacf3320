"""`probe features --engine ray` on a cluster of this machine, one of whose workers is killed."""

import os
import signal

import psutil
import pytest
from inputs import write_images

import probe
from probe.api import on_ray
from probe.errors import BrokenImageError, ProbeError
from probe.events import FeaturesStored
from probe.features.contents import damaged_files
from probe.files import cache_root

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own code


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="needs the extra 'ray'")
    patch = pytest.MonkeyPatch()
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        patch.setenv(name, "0")
    patch.setenv("OMP_NUM_THREADS", "1")
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
        object_store_memory=80 * 2**20,
    )  # fmt: skip
    yield ray
    ray.shutdown()
    patch.undo()


def workers():
    found = psutil.Process().children(recursive=True)
    return [p for p in found if p.is_running() and p.name().startswith("ray::Worker")]


def test_a_worker_that_is_killed_costs_nothing(cluster, reals, fakes, bank, monkeypatch):
    """The broken image is named, and replaced as in a ranking, which then computes no real."""
    monkeypatch.setattr(on_ray, "PART", 4)
    (reals / "004.png").write_bytes(b"no image")
    killed = []

    def kill(event):
        if isinstance(event, FeaturesStored) and not killed:
            victim = workers()[0]
            killed.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)

    options = probe.ExtractOptions(num=58, engine="ray", workers=2)
    given = {"bank": bank, "offline": True}
    found = probe.extract(reals, options=options, on_event=kill, **given)
    assert killed and found.exit_code == 0
    assert {row.name: (row.images, row.missing) for row in found.rows} == dict.fromkeys(
        ("colour", "edges", "random"), (58, 0)
    )
    assert damaged_files(cache_root()) == []
    here = probe.extract(reals, options=probe.ExtractOptions(num=58), only_count=True, **given)
    assert {row.missing for row in here.rows} <= {0, 1}  # the broken one, if it is among the first
    monkeypatch.setattr(
        "probe.features.extract.Extractor._run", lambda self, *a: pytest.fail("computed")
    )
    again = probe.extract(reals, options=probe.ExtractOptions(num=58), **given)
    assert again.rows == found.rows and [b.name for b in again.broken] == ["004.png"]
    assert found.broken == again.broken


def test_an_error_of_a_worker_is_the_commands(cluster, tmp_path, bank):
    reals = write_images(tmp_path / "some", 20, seed=4)
    (reals / "000.png").write_bytes(b"no image")
    options = probe.ExtractOptions(engine="ray", workers=1, strict=True)
    with pytest.raises(BrokenImageError, match=r"000\.png: not an image"):
        probe.extract(reals, options=options, bank=bank, offline=True)


def test_without_ray_the_extra_is_named(cli, reals, bank, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(on_ray, "import_module", missing)
    done = cli("features", reals, "--bank", bank, "--engine", "ray")
    assert done.code == 2 and "pip install 'gan-probe[ray]'" in done.err
    done = cli("features", reals, "--bank", bank, "--workers", 2)
    assert done.code == 2 and "--workers: is about --engine ray" in done.err


class Gone(Exception):
    """What a lost actor's call raises."""


class Pretended:
    """As much of Ray as the driver uses: calls are done when they are waited for, in order."""

    class exceptions:
        RayActorError = Gone

    def wait(self, calls):
        return calls[:1], calls[1:]

    def get(self, call):
        return call()


class Actor:
    """An actor that is lost for good after some calls."""

    def __init__(self, most):
        self.left, self.run = most, self
        self.done = []

    def remote(self, part):
        def call():
            if not self.left:
                raise Gone
            self.left -= 1
            self.done.append(part)
            return part

        return call


def test_parts_of_lost_workers_go_to_the_others():
    parts, actors = [[i] for i in range(9)], [Actor(1), Actor(0), Actor(99)]
    assert sorted(on_ray._map(Pretended(), list(actors), parts)) == list(enumerate(parts))
    assert [len(actor.done) for actor in actors] == [1, 0, 8]
    with pytest.raises(ProbeError, match="all workers were lost. What they have done is stored"):
        list(on_ray._map(Pretended(), [Actor(2), Actor(3)], parts))
