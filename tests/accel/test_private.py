"""Private names of PyTorch and Python: still there, still right, and not needed."""

import ast
import importlib
import inspect
import sys
import zipfile
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from probe.accel import fuse, merge, private
from probe.accel.fuse import ActivatedConvolution, fuse_activations
from probe.bank.batchnorm import BATCHNORMS
from probe.bank.weights import file as weight_file
from probe.generators.files import torch_file
from probe.generators.files.torch_file import opened

PACKAGE = Path(private.__file__).parents[1]
PUBLIC = {"_replace", "_exit"}  # of named tuples and os, in spite of their names
GUARDED = {"_compat_pickle", "_attn"}  # looked for in one place, which does without or says so


class Net(nn.Module):
    """A convolution and its activation; `change` is done to the map between them, in place."""

    def __init__(self, change=lambda x: x):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act, self.change = nn.Conv2d(3, 4, 3), nn.ReLU6(), change

    def levels(self, x):
        y = self.act(self.change(self.conv(x)))
        return [y], y.mean(dim=(2, 3))

    def pool(self, x):
        return self.levels(x)[1]


def is_fused(network: nn.Module) -> bool:
    network.eval().requires_grad_(False)
    fuse_activations(network, 8)
    return any(isinstance(m, ActivatedConvolution) for m in network.modules())


@pytest.fixture
def asked_again():
    private.has_fused_relu.cache_clear()
    yield
    private.has_fused_relu.cache_clear()


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")
def test_this_pytorch_has_the_private_names():
    lost = "lost in PyTorch " + torch.__version__
    assert private.has_fused_relu(), f"{lost}: activations are no longer fused, 14 to 24 % slower"
    assert hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported"), f"{lost}: as above, in bf16"
    x = torch.zeros(1)
    before = private.changes(x)
    x.add_(1)
    assert private.changes(x) == before + 1, f"{lost}: networks with in-place sums stay unmerged"


@pytest.mark.parametrize("broken", [AttributeError, RuntimeError, TypeError, "wrong"])
def test_a_call_that_is_gone_or_changed_is_not_used(monkeypatch, asked_again, broken):
    def call(x, convolution, most):
        if broken == "wrong":
            return convolution(x)
        raise broken("no such call")

    monkeypatch.setattr(private, "fused_relu", call)
    assert not private.has_fused_relu()
    x = torch.randn(2, 3, 8, 8)
    network = Net()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = network.pool(x)
        assert not is_fused(network)
        assert torch.equal(network.pool(x), before)


def test_without_a_count_of_changes_a_wrong_merge_is_undone(monkeypatch):
    monkeypatch.setattr(merge, "changes", lambda tensor: 0)
    x = torch.randn(2, 3, 8, 8)
    network = Net(lambda y: y.add_(1))
    with torch.no_grad():
        before = network.pool(x)
        assert not is_fused(network)
        assert torch.equal(network.pool(x), before)


def test_a_cpu_that_does_not_say_runs_plain_convolutions(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    assert not private.has_bf16_convolutions()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert not fuse._in_bf16(torch.zeros(1))


class Attention(nn.Module):
    """Attention of one head over 5 tokens of 8 channels, and a product with as many."""

    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(x, x, x) @ x.new_ones(8, 8)


@pytest.mark.parametrize("grad", [False, True])
def test_attention_is_among_the_multiply_adds(grad):
    x = torch.randn(1, 1, 5, 8, requires_grad=grad)
    with torch.set_grad_enabled(grad):
        assert private.multiply_adds(lambda: Attention()(x)) == 2 * 5 * 5 * 8 + 5 * 8 * 8


def test_other_threads_do_not_count(monkeypatch):
    def run():
        elsewhere = Thread(target=lambda: torch.ones(9, 9) @ torch.ones(9, 9))
        elsewhere.start()
        elsewhere.join()
        return torch.ones(2, 3) @ torch.ones(3, 4)

    assert private.multiply_adds(run) == 2 * 3 * 4
    monkeypatch.setattr(private, "TorchDispatchMode", None)
    assert private.multiply_adds(run) == 2 * 3 * 4


def test_the_public_batch_norms_are_all_there_are():
    kinds = [kind for _, kind in inspect.getmembers(nn, inspect.isclass)]
    private_base = nn.BatchNorm2d.__mro__[1]
    lazy = (nn.LazyBatchNorm1d, nn.LazyBatchNorm2d, nn.LazyBatchNorm3d)  # become one of them
    found = {kind for kind in kinds if issubclass(kind, private_base)} - set(lazy)
    assert found == set(BATCHNORMS)


def test_private_names_are_used_behind_the_doors_alone():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Attribute):
                own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                names = [] if own else [node.attr]
            elif isinstance(node, ast.ImportFrom | ast.Import):
                names = [part for alias in node.names for part in alias.name.split(".")]
                if isinstance(node, ast.ImportFrom):
                    names += str(node.module).split(".")
            hidden = [n for n in names if n.startswith("_") and not n.endswith("__")]
            if set(hidden) - PUBLIC - GUARDED and path != Path(private.__file__):
                wrong.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {hidden}")
    assert not wrong


def test_this_python_has_the_private_names():
    assert weight_file.NAMES, "files of Python 2 that name its modules are refused"
    assert {"_EndRecData", "_ECD_SIZE"} <= set(vars(zipfile)), "zips are listed before their bound"


def test_torch_files_are_read_by_a_python_without_its_private_names(tmp_path, monkeypatch):
    torch.save({"a": torch.zeros(1)}, tmp_path / "net.pt")
    public = {name: value for name, value in vars(zipfile).items() if name[0] != "_"}
    monkeypatch.setattr(torch_file, "zipfile", SimpleNamespace(**public))
    with opened(tmp_path / "net.pt") as read:
        assert read("data.pkl")
    monkeypatch.undo()
    try:
        monkeypatch.setitem(sys.modules, "_compat_pickle", None)
        importlib.reload(weight_file)
        assert weight_file.NAMES == {}
        assert weight_file._read(tmp_path / "net.pt").keys() == {"a"}
    finally:
        monkeypatch.undo()
        importlib.reload(weight_file)
