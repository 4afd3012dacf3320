"""`--init`: networks of a StyleGAN2-ADA pickle and of our snapshots, read without running them."""

import json

import pytest
import torch
from generators.pickles import EasyDict, persistent, stylegan2_pickle
from runs import saved

from probe.errors import CheckpointError, UsageError
from probe.events import RunPlanned
from probe.generators.files.snapshot import save_snapshot
from probe.generators.networks.stylegan2 import Generator
from probe.training.discriminator import Discriminator
from probe.training.inherit import inherit


def generator(seed, c_dim=0, resolution=16):
    torch.manual_seed(seed)
    return Generator(
        8, c_dim, 8, resolution, 3, {"num_layers": 2}, {"channel_base": 128, "channel_max": 8}
    )


def discriminator(seed=0, c_dim=0, resolution=16, **options):
    torch.manual_seed(seed)
    return Discriminator(
        c_dim, resolution, 3, channel_base=128, channel_max=8, mbstd_group_size=2, **options
    )


def their_discriminator(network, **more):
    """Return the record of a discriminator as that family's trainer would pickle it."""
    arguments = dict(network.init_kwargs)
    arguments["epilogue_kwargs"] = EasyDict(mbstd_group_size=arguments.pop("mbstd_group_size"))
    arguments |= {"num_fp16_res": 4, "block_kwargs": EasyDict(), "mapping_kwargs": EasyDict()}
    return persistent(
        network, "Discriminator", _init_args=(), _init_kwargs=EasyDict(arguments, **more)
    )


@pytest.fixture
def pickled(tmp_path):
    def write(g=None, d=None, average=None, **more):
        average = generator(1) if average is None else average
        others = {}
        if g is not None:
            arguments = dict(g.init_kwargs)
            others["G"] = persistent(
                g, "Generator", _init_args=(), _init_kwargs=EasyDict(arguments)
            )
        if d is not None:
            others["D"] = their_discriminator(d, **more)
        path = tmp_path / "network.pkl"
        path.write_bytes(stylegan2_pickle(average, **others))
        return path

    return write


def same(one, other):
    state = other.state_dict()
    return all(torch.equal(v, state[k]) for k, v in one.state_dict().items())


def test_all_three_networks_come_out_of_a_pickle(pickled):
    g, d = generator(2), discriminator(3)
    found = inherit(pickled(g, d), resolution=16, c_dim=0)
    assert same(found.generator, g) and same(found.discriminator, d)
    assert same(found.average, generator(1)) and not same(found.average, g)
    images = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(found.discriminator(images), d(images))


def test_what_a_file_lacks_is_made(pickled, tmp_path):
    found = inherit(pickled(), resolution=16, c_dim=0)
    assert found.discriminator is None and same(found.generator, generator(1))
    ours = tmp_path / "ours.safetensors"
    save_snapshot(ours, generator(4), metadata={})
    found = inherit(ours, resolution=16, c_dim=0)
    assert found.discriminator is None and same(found.average, generator(4))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resolution": 32, "c_dim": 0}, "makes images of 16 px"),
        ({"resolution": 16, "c_dim": 4}, "has 0 classes, this run has 4"),
    ],
)
def test_networks_that_do_not_fit_the_images_are_refused(pickled, options, words):
    with pytest.raises(UsageError, match=words):
        inherit(pickled(generator(2), discriminator()), **options)


def test_a_discriminator_that_cannot_be_read_is_named(pickled):
    for d, more, words in [
        (
            discriminator(),
            {"architecture": "skip"},
            "architecture 'skip'; only resnet and orig are read",
        ),
        (discriminator(), {"freeze": 3}, "argument 'freeze'"),
        (discriminator(), {"channel_max": 4}, "does not fit"),
        (discriminator(), {"channel_max": 10**9}, "channel_max"),
        (discriminator(resolution=32), {}, "is for 32 px"),
    ]:
        with pytest.raises((CheckpointError, UsageError), match=words):
            inherit(pickled(generator(2), d, **more), resolution=16, c_dim=0)
    broken = discriminator()
    broken.b4.out.weight.data.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="NaN"):
        inherit(pickled(generator(2), broken), resolution=16, c_dim=0)


def test_a_plain_discriminator_is_read_and_trained_on(fit, pickled):
    d = discriminator(3, architecture="orig")
    path = pickled(generator(2), d)
    found = inherit(path, resolution=16, c_dim=0).discriminator
    images = torch.randn(4, 3, 16, 16)
    assert torch.equal(found(images), d(images))
    folder, _ = fit(kimg=0.008, init=path)
    options = json.loads((folder / "training_options.json").read_text())["options"]
    assert options["d_architecture"] == "orig"
    assert not any("skip" in key for key in saved(folder)["members"]["D"]["network"])


def test_a_run_goes_on_from_a_pickle(fit, pickled):
    """The widths are the file's, whatever the options say; nothing moves before the first step."""
    g, d = generator(2), discriminator(3)
    folder, records = fit(
        strategy="progressive", stage_kimg="0,0.008,0.008", init=pickled(g, d), channel_base=256
    )
    first = json.loads((folder / "metric-frechet-mixed.jsonl").read_text().splitlines()[0])
    assert first["kimg"] == 0
    plan = next(r for r in records if isinstance(r, RunPlanned))
    assert plan.plan.config.channel_base == 128
    state = saved(folder)
    assert state["images"] == 16 and len(state["members"]) == 3
    assert not torch.equal(state["generator"]["synthesis.b16.conv1.weight"].cpu(),
                           g.synthesis.b16.conv1.weight)  # fmt: skip


def far(network, state):
    """Return how far a network's parameters are from a state's, relative to their size."""
    pairs = [(p.detach(), state[name]) for name, p in network.named_parameters()]
    between = sum((a - b).square().sum() for a, b in pairs)
    return float((between / sum(a.square().sum() for a, _ in pairs)).sqrt())


@pytest.mark.parametrize("preset", ["auto", "small32", "paper256"])
def test_the_files_average_is_not_forgotten(fit, pickled, preset):
    """A ramp-up would make the first step's average nearly the generator itself."""
    average, g = generator(1), generator(2)
    path = pickled(g, discriminator(3), average)
    options = {"cfg": preset, "kimg": 0.008, "device": "cpu"}
    folder, records = fit(**options, init=path)
    (plan,) = (r.plan for r in records if isinstance(r, RunPlanned))
    assert plan.config.ema_rampup == 0
    assert far(average, saved(folder)["average"]) < 0.05 < far(g, saved(folder)["average"])
    ramped, _ = fit("ramped", **options, init=path, ema_rampup=0.05)
    assert far(average, saved(ramped)["average"]) > 0.5, "it is there for those who ask for it"
