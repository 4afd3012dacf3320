"""Which device is meant, and what goes there. A GPU's own answers stand in where there is none."""

import pytest
import torch

from probe.bank.base import InputSpec, normalise
from probe.devices import choose_device, choose_precision, send
from probe.discriminators.ada import warp
from probe.errors import UsageError
from probe.processes import check_gpus, local_device


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)


@pytest.mark.parametrize(
    ("name", "found"),
    [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")],
)
def test_a_gpu_has_a_number(two_gpus, name, found):
    assert str(choose_device(name)) == found


def test_the_current_gpu_is_taken_where_there_is_one(two_gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert str(choose_device("auto")) == "cuda:1"


def test_a_gpu_that_is_not_there(two_gpus):
    with pytest.raises(UsageError, match="there is no cuda:2 here, only cuda:0 to cuda:1"):
        choose_device("cuda:2")


@pytest.mark.parametrize(
    "name",
    [
        "mps",
        "xpu",
        "hip",
        "meta",
        "cuda:-1",
        "cuda:x",
        "cuda:",
        "cpu:1",
        "nonsense",
        "",
        "é",
        "a\x1b[2J",
    ],
)
def test_other_devices_are_one_sentence(two_gpus, name):
    with pytest.raises(
        UsageError, match="is not supported. Use auto, cpu, cuda or cuda:N"
    ) as caught:
        choose_device(name)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_one_gpu_is_named_alone(two_gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="no cuda:99 here, only cuda:0\\."):
        choose_device("cuda:99")


def test_float32_is_taken_where_torch_cannot_say_what_is_fast(monkeypatch):
    """PyTorch before 2.11 has no get_capabilities."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == "fp32"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert choose_precision("auto", torch.device("cpu")) == "bf16"
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert choose_precision("auto", torch.device("cpu")) == "fp32"


def test_float32_is_not_tf32():
    torch.backends.cudnn.allow_tf32 = True
    choose_device("cpu")
    assert not torch.backends.cudnn.allow_tf32


def test_every_process_needs_a_gpu(two_gpus, monkeypatch):
    check_gpus(2)
    with pytest.raises(UsageError, match="3 processes need a GPU each, and this machine has 2"):
        check_gpus(3)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert local_device(torch.device("cuda", 0)) == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="4 processes"):
        local_device(torch.device("cuda", 0))


def test_what_is_sent_takes_the_dtype_of_what_it_is_sent_to():
    sent = send(torch.arange(3, dtype=torch.float64), torch.zeros(1))
    assert sent.dtype == torch.float32 and sent.tolist() == [0, 1, 2]
    assert send(torch.arange(3), torch.device("cpu")).dtype == torch.int64


def test_constants_first_made_without_gradients_serve_graphs():
    """They are kept for all; a tensor of inference mode could not be saved for a gradient."""
    spec = InputSpec(8, (0.11, 0.22, 0.33), (0.5, 0.6, 0.7))
    turn = torch.eye(3, dtype=torch.float64)[None].repeat(2, 1, 1)
    turn[:, 0, 2] = 0.25  # by a quarter of a pixel
    images = torch.rand(2, 3, 24, 24)
    with torch.inference_mode():
        normalise(images, spec), warp(images, turn)
    images.requires_grad_()
    (normalise(images, spec).square().sum() + warp(images, turn).square().sum()).backward()
    assert images.grad.isfinite().all()
