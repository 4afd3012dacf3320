"""Packed attention computes what PyTorch's does, and leaves to PyTorch what it does not know."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from probe import accel
from probe.accel import attention as attention_module
from probe.accel.attention import SelfAttention, pack_attention
from probe.bank.load import load_backbone
from probe.bank.spec import BackboneSpec, Weights


def attention(**options):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(32, 4, **{"batch_first": True, **options})
    if module.in_proj_bias is not None:
        nn.init.normal_(module.in_proj_bias)
    return module.eval().requires_grad_(False)


def packed(module):
    network = nn.Sequential(copy.deepcopy(module))
    pack_attention(network)
    return network[0]


@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_equal(bias):
    plain = attention(bias=bias)
    quick = packed(plain)
    assert type(quick) is SelfAttention
    assert list(quick.state_dict()) == list(plain.state_dict())
    x, results = torch.randn(3, 7, 32, requires_grad=True), []
    for module in (plain, quick):
        found, weights = module(x, x, x, need_weights=False)
        assert weights is None
        results.append((found, *torch.autograd.grad(found.square().sum(), x)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [7, 1])
def test_weights_masks_and_other_tokens_are_as_in_pytorch(size):
    plain = attention()
    quick = packed(plain)
    x, y = torch.randn(3, size, 32), torch.randn(3, 5, 32)
    causal = torch.triu(torch.full((size, size), -torch.inf), 1)
    padding = torch.arange(size).expand(3, size) > 4
    for inputs, options in (
        ((x, x, x), {}),
        ((x, x, x), {"need_weights": False, "attn_mask": causal}),
        ((x, x, x), {"need_weights": False, "key_padding_mask": padding}),
        ((x, y, y), {"need_weights": False}),
        ((x[0], x[0], x[0]), {"need_weights": False}),
    ):
        found, expected = quick(*inputs, **options), plain(*inputs, **options)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 16}, {"batch_first": False}],
)
def test_other_kinds_stay(options):
    assert type(packed(attention(**options))) is nn.MultiheadAttention


def test_clip_is_packed_when_it_is_loaded_and_has_the_same_features(monkeypatch):
    spec = BackboneSpec(
        name="x#0", source="open_clip", model="ViT-S-32-alt", weights=Weights(random=0),
        role="control", input=224, mean=(0.5,) * 3, std=(0.5,) * 3, task="none", data="none",
        license="MIT",
    )  # fmt: skip
    quick = load_backbone(spec, offline=True)
    assert any(type(m) is SelfAttention for m in quick.modules())
    monkeypatch.setenv("PROBE_ACCEL", "0")
    plain = load_backbone(spec, offline=True)
    assert not any(type(m) is SelfAttention for m in plain.modules())
    x = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(quick(x), plain(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_gradients_in_bf16_are_computed_in_float32(dtype, monkeypatch):
    torch.manual_seed(0)
    tensors = [torch.randn(2, 4, 9, 16, dtype=dtype) for _ in range(3)]
    weights, calls, attend = torch.randn(2, 4, 9, 16), [], attention_module.attend

    def derivatives(tensors, **options):
        leaves = [t.clone().requires_grad_() for t in tensors]
        found = F.scaled_dot_product_attention(*leaves, **options)
        gradients = torch.autograd.grad((found.float() * weights).sum(), leaves)
        return [found, *(t.float() for t in gradients)]

    monkeypatch.setattr(
        attention_module, "attend", lambda *a, **k: calls.append(1) or attend(*a, **k)
    )
    exact = derivatives([t.float() for t in tensors], scale=0.3)
    with accel.quick_gradients(torch.device("cpu")), torch.autocast("cpu", torch.bfloat16):
        derivatives(tensors, attn_mask=torch.ones(9, 9, dtype=torch.bool))
        with torch.no_grad():
            F.scaled_dot_product_attention(*tensors)
        assert not calls
        quick = derivatives(tensors, scale=0.3)
    assert len(calls) == 1 and quick[0].dtype == torch.bfloat16
    for a, b in zip(quick, exact, strict=True):
        assert (a - b).abs().max() <= 0.02 * b.abs().max()
