"""What holds on a GPU alone; the rest of the suite runs there too, with the GPU as its device."""

import gc
import json
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from contexts import new_state, session
from inputs import tiny_generator
from runs import saved
from torchvision.models import vgg16

import probe
from probe import RankOptions
from probe.accel import replay
from probe.accel.replay import Replays
from probe.bank.file import load_bank
from probe.bank.load import load_backbone
from probe.bundled import DEMO_GENERATOR, DEMO_REALS
from probe.devices import autocast, choose_device
from probe.discriminators import AUGMENTATIONS
from probe.discriminators.critic import P_INTERVAL
from probe.discriminators.draws import Draw
from probe.discriminators.member import vision_member
from probe.discriminators.step import Minibatch, Step
from probe.features import extract
from probe.features.extract import BackbonePool, pooled_features, usual_batch
from probe.generators.config import SampleOptions
from probe.generators.sampler import draw_images
from probe.images.open import open_images
from probe.processes import Processes
from probe.streams import torch_stream
from probe.training.config import TrainConfig
from probe.training.discriminator import Discriminator
from probe.training.own import head_options, own_member
from probe.training.presets import make_plan
from probe.training.reals import open_reals
from probe.training.step import r1_step, train_step
from probe.training.stream import RealStream

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"),
]
choose_device()  # after which float32 is float32
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
PACKAGED = ["efficientnet-lite0", "efficientnet-lite1", "mobilenetv2"]


def backbone(name="mobilenetv2", device=GPU):
    (spec,) = load_bank(None).select([name])
    return BackbonePool(lambda _: load_backbone(spec, offline=True), device).get(name)


def pictures(count, side=64):
    return open_images(DEMO_REALS).load(range(count), side).images


def waits(work):
    """Return how often the program waits for the GPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(w.message) for w in caught)


@contextmanager
def only(size):
    """Let the body take this many bytes of the GPU beyond what is in use."""
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + size) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def distance(found, exact):
    """Return the norm of the difference, relative to that of the exact value."""
    found, exact = (x.detach().double().cpu() for x in (found, exact))
    return ((found - exact).norm() / exact.norm()).item()


def cosines(a, b):
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / lengths


def test_a_wait_is_noticed():
    assert waits(lambda: torch.ones(3, device=GPU).sum().item()) == 1


@pytest.mark.parametrize("name", PACKAGED)
def test_features_are_those_of_the_cpu(name):
    images = pictures(40)
    exact = pooled_features(backbone(name, CPU), images, device=CPU, precision="fp32")
    same = pooled_features(backbone(name), images, device=GPU, precision="fp32")
    assert np.allclose(same, exact, rtol=1e-3, atol=1e-3)
    rounded = pooled_features(backbone(name), images, device=GPU, precision="bf16")
    assert cosines(rounded, exact).min() > 0.98
    assert not np.array_equal(rounded, same)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_extraction_waits_once_for_all_batches(precision):
    network, images = backbone(), pictures(64)

    def run(batch):
        pooled_features(network, images, device=GPU, precision=precision, batch=batch)

    run(64)
    assert waits(lambda: run(64)) == waits(lambda: run(4)) == 1


def test_the_batch_follows_the_free_memory():
    torch.cuda.empty_cache()
    many = usual_batch(GPU, 224)
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(free - 2 * 2**30, dtype=torch.uint8, device=GPU)
    assert usual_batch(GPU, 224) == 8 < many
    del taken
    assert usual_batch(GPU, 224) == many  # what torch keeps is free, too


def test_what_the_batch_takes_is_less_than_what_was_reckoned():
    network = vgg16(weights=None).features.eval().to(GPU, memory_format=torch.channels_last)
    x = torch.rand(32, 3, 224, 224, device=GPU).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        network(x)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        network(x)
        taken = torch.cuda.max_memory_allocated() - before
    assert taken < 32 * extract.GPU_BYTES * 224**2


def test_out_of_memory_halves_the_batch():
    network, images = backbone(), pictures(256)
    expected = pooled_features(network, images, device=GPU, precision="fp32", batch=16)
    with only(2**30):
        with pytest.raises(torch.OutOfMemoryError):
            network(torch.rand(256, 3, 224, 224, device=GPU))
        found = pooled_features(network, images, device=GPU, precision="fp32", batch=256)
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_images_are_those_of_the_cpu_and_waited_for_once():
    options = {"sample": SampleOptions(trunc=0.7), "name": "g"}

    def draw(device, count=100):
        network = tiny_generator().to(device, memory_format=torch.channels_last)
        with torch.inference_mode():
            return draw_images(network, range(count), device=device, **options)

    exact, found = draw(CPU), draw(GPU)
    assert found.device == CPU
    difference = (found.int() - exact.int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.001
    network = tiny_generator().to(GPU)
    with torch.inference_mode():
        few, many = (
            waits(lambda n=n: draw_images(network, range(n), device=GPU, **options))
            for n in (8, 200)
        )
    assert few == many == 1


@torch.inference_mode()
def test_half_precision_draws_the_same_images():
    network, z = tiny_generator().to(GPU), torch.randn(16, 16).to(GPU)
    exact = network(z, noise_mode="const")
    with autocast(GPU, "bf16"):
        rounded = network(z, noise_mode="const")
    assert rounded.dtype == torch.float32
    assert 1e-5 < distance(rounded, exact) < 0.05


def test_float32_is_float32():
    x, w = torch.randn(4, 64, 32, 32), torch.randn(64, 64, 3, 3)
    exact = torch.conv2d(x.double(), w.double(), padding=1)
    assert distance(torch.conv2d(x.to(GPU), w.to(GPU), padding=1), exact) < 1e-5


def test_a_ranking_is_that_of_the_cpu(tmp_path, monkeypatch):
    boards = {}
    for device in ("cpu", "cuda"):
        monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / device))
        boards[device] = probe.rank(
            DEMO_REALS, DEMO_GENERATOR, backbones=PACKAGED, device=device,
            options=RankOptions(num=200, precision="fp32"), offline=True,
        )  # fmt: skip
    boards = {device: ranking.leaderboard for device, ranking in boards.items()}
    scores = {device: {r.name: r.score for r in b.rows} for device, b in boards.items()}
    for name in PACKAGED:
        assert scores["cuda"][name] == pytest.approx(scores["cpu"][name], abs=0.02)
    assert boards["cuda"].winner.name == boards["cpu"].winner.name


def trainer(**options):
    """Return something that takes steps on the GPU, with a backbone in the ensemble."""
    reals = open_reals(open_images(DEMO_REALS), resolution=32, holdout=0, cond=False, seed=0)
    made = TrainConfig(batch=8, channel_base=1024, pl_weight=2.0, pl_interval=4, **options)
    config = make_plan(made, resolution=32, images=len(reals.training)).config
    state = new_state(config, 32, device=GPU)
    state.members.append(vision_member(head_options(config), backbone(), device=GPU))
    stream = RealStream(reals, batch=8, mirror=True, seed=0, processes=Processes(), device=GPU)
    chosen = session(config, device=GPU, precision="bf16")
    clock = chosen.clock

    def step():
        with clock.span("data"):
            reals = stream.at(state.images)
        return train_step(state, reals, chosen)

    step.replays = chosen.replays
    return step, state, clock


def recorded(replays):
    """Return which passes were tried, and which of them are replayed."""
    found = replays._recordings
    return len(found), sum(recording is not None for recording in found.values())


def test_a_step_from_recordings_is_the_step(monkeypatch):
    losses = []
    for on_gpu in (replay._on_gpu, lambda tensor: False):
        monkeypatch.setattr(replay, "_on_gpu", on_gpu)
        step, state, _ = trainer(aug="none", aug_heads="none")
        losses.append([{n: v.item() for n, v in step().items()} for _ in range(8)])
        assert state.is_finite()
        made = recorded(step.replays)
        assert made == ((6, 6) if len(losses) == 1 else (0, 0))
    for ours, theirs in zip(*losses, strict=True):
        assert ours == pytest.approx(theirs, rel=0.05, abs=0.02)


@torch.inference_mode()
def test_images_from_recordings_are_the_images():
    network, replays = tiny_generator().to(GPU), Replays()
    options = {"sample": SampleOptions(), "device": GPU, "name": "g"}
    exact = draw_images(network, range(200), **options)
    assert torch.equal(draw_images(network, range(200), **options, replays=replays), exact)
    assert recorded(replays) == (1, 1)


@pytest.mark.parametrize("augmentation", ["ada", "diffaugment"])
def test_training_does_not_wait(augmentation):
    options = {"aug_p": 0.5} if augmentation == "ada" else {}
    step, state, clock = trainer(aug=augmentation, aug_heads=augmentation, **options)
    for _ in range(17):
        step()
    assert waits(lambda: [step() for _ in range(16)]) == 0  # R1 and path lengths among them
    assert state.is_finite()
    assert {"data", "D", "G", "mobilenetv2", "r1", "path_length"} <= clock.take().keys()


def test_the_strength_of_augmentation_is_waited_for_now_and_then():
    step, state, _ = trainer(aug="ada", aug_heads="ada")
    for _ in range(17):
        step()
    found = waits(lambda: [step() for _ in range(2 * P_INTERVAL)])
    assert found == 2 * len(state.members)


def regularised(device, augmentation, precision):
    """Return R1 of the first step and its gradient, on images that are augmented for certain."""
    made = TrainConfig(batch=8, aug=augmentation, aug_p=1.0, channel_base=1024)
    config = make_plan(made, resolution=32, images=100).config
    torch.manual_seed(0)
    network = Discriminator(0, 32, 3, channel_base=1024, channel_max=64).to(device)
    member = own_member(config, network.to(memory_format=torch.channels_last))
    reals = (pictures(8, 32).float() / 127.5 - 1).to(device)
    weight = config.gamma * config.r1_interval
    found = r1_step(member, Minibatch(reals), weight, Step(precision=precision))
    gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    return found["Loss/r1_penalty"], torch.cat(gradients)


@pytest.mark.parametrize("augmentation", ["ada", "diffaugment"])
def test_r1_and_its_pull_are_those_of_the_cpu(augmentation):
    exact = regularised(CPU, augmentation, "fp32")
    for found, expected in zip(regularised(GPU, augmentation, "fp32"), exact, strict=True):
        assert distance(found, expected) < 1e-3
    penalty, gradient = regularised(GPU, augmentation, "bf16")
    assert distance(penalty, exact[0]) < 0.1 and gradient.isfinite().all()


@pytest.mark.parametrize("augmentation", ["ada", "diffaugment"])
def test_both_derivatives_of_augmentations_are_exact(augmentation):
    rng = torch_stream(1)
    images = torch.randn(2, 3, 8, 8, generator=rng, dtype=torch.float64).to(GPU).requires_grad_()

    def augmented(x):
        return AUGMENTATIONS[augmentation](x, 1.0, Draw(torch_stream(2), 2))

    assert (augmented(images) - images).abs().max() > 0.1
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        # A GPU adds in another order each time.
        assert check(augmented, images, fast_mode=True, nondet_tol=1e-8)


TINY = {"batch": 8, "channel_base": 256, "z_dim": 16, "w_dim": 16, "eval_num": 0, "tick": 0.016,
        "snap": 1, "kimg": 0.048, "pl_weight": 2.0}  # fmt: skip


def test_a_run_that_was_ended_goes_on(reals, bank, tmp_path, monkeypatch):
    from probe.training import loop

    def fit(outdir):
        path = probe.train(reals, outdir=tmp_path / outdir, config=TrainConfig(**TINY), bank=bank,
                           device="cuda", precision="fp32")  # fmt: skip
        return saved(path.parent), path.parent

    def ended(state, *arguments):
        if state.images == 24:
            raise KeyboardInterrupt
        return step(state, *arguments)

    step = loop.train_step
    whole, _ = fit("whole")
    monkeypatch.setattr(loop, "train_step", ended)
    with pytest.raises(KeyboardInterrupt):
        fit("parts")
    monkeypatch.setattr(loop, "train_step", step)
    parts, folder = fit("parts")
    assert whole["images"] == parts["images"] == 48
    assert len((folder / "stats.jsonl").read_text().splitlines()) == 3
    for name, weight in whole["generator"].items():  # to what rounding makes of six steps
        if weight.norm() > 0:
            assert distance(parts["generator"][name], weight) < 0.02, name


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_train_without_memory_names_what_to_make_smaller(cli, reals, bank, tmp_path, more):
    options = [x for k, v in TINY.items() for x in (f"--{k.replace('_', '-')}", v)]
    command = ("train", "--real", reals, "--outdir", tmp_path / "runs", "--bank", bank, "--quiet")
    with only(2**28):
        result = cli(*command, *options, "--batch", 8192, "--channel-base", 4096, *more)
    said = result.err.splitlines()[-1]
    assert result.code == 1
    assert "Out of memory on cuda:0 with --batch 8192 at --resolution 32" in said


def test_doctor_without_memory_makes_it_a_finding(cli, reals, bank):
    with only(2**26):
        result = cli("doctor", "--real", reals, "--bank", bank, "--strategy", "none", "--json")
    assert result.code == 1, result.err
    problems = [f for f in json.loads(result.out)["findings"] if f["level"] == "problem"]
    assert any("--batch 32 at --resolution 32" in f["text"] for f in problems)


def test_more_processes_than_gpus(cli, reals, tmp_path, monkeypatch):
    monkeypatch.delattr("os.execv")
    count = torch.cuda.device_count() + 1
    result = cli("train", "--real", reals, "--outdir", tmp_path / "runs", "--gpus", count)
    assert result.code == 2 and f"{count} processes need a GPU each" in result.err
    assert not (tmp_path / "runs").exists()


def test_a_gpu_that_is_not_there(cli, reals, fakes):
    result = cli("rank", "--real", reals, "--gen", fakes, "--device", "cuda:99")
    assert result.code == 2 and "there is no cuda:99 here" in result.err
