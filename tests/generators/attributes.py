"""Values that modules and snapshots of some release or other have as attributes."""

import argparse
import datetime
import decimal
import fractions
import logging
import pathlib
import types
import typing
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from functools import partial

import numpy as np
import torch
from generators.pickles import named
from torch import nn


class Hooks(nn.Module):
    """Holds what torch keeps of a module's hooks."""

    def __init__(self):
        super().__init__()
        self.layer = nn.utils.spectral_norm(nn.Linear(2, 2))
        self.handle = self.layer.register_forward_hook(named("training.hooks.Hook")())
        self.logger = logging.getLogger("training")
        self.register_forward_pre_hook(partial(named("training.hooks.Hook"), 1), with_kwargs=True)
        self.register_buffer("passing", torch.ones(2), persistent=False)


def with_attribute(tensor):
    tensor.note = "x"
    return tensor


ATTRIBUTES = {
    "set": {1, "a", None, 2.5, (3, 4)},
    "frozenset": frozenset({"a"}),
    "bytearray": bytearray(b"ab"),
    "empty bytes": [b"", bytearray()],
    "complex": 1 + 2j,
    "object": object(),
    "long": [2**63, -(2**63), 2**64 - 1],
    "keys": {(16, 16): 1, 3: 2, None: 3, "a": 4, True: 5, named("x.Y"): 6, torch.ones(1): 7},
    "size": torch.Size([1, 2]),
    "dtypes": [torch.float32, torch.bfloat16, torch.int8, torch.complex64],
    "device": torch.device("cuda:1"),
    "layout": torch.strided,
    "functions": [nn.functional.relu, nn.functional.gelu, torch.sigmoid, torch.tanh, nn.init.ones_],
    "methods": [nn.Linear(1, 1).extra_repr, nn.ReLU.forward],
    "types": [np.float32, int, dict, float, typing.Any, nn.ReLU, torch.Tensor],
    "partial": partial(nn.LayerNorm, eps=1e-6),
    "namespace": argparse.Namespace(a=1, path=pathlib.Path("/data/x")),
    "simple namespace": types.SimpleNamespace(a=1),
    "path": [pathlib.Path("/data/x.zip"), pathlib.PureWindowsPath("C:/x")],
    "time": [datetime.datetime(2020, 1, 2), datetime.timedelta(3), datetime.UTC],
    "numbers": [decimal.Decimal("1.5"), fractions.Fraction(1, 3), uuid.UUID(int=1)],
    "random state": np.random.RandomState(0),
    "dicts": [defaultdict(list, a=[1]), Counter("ab"), OrderedDict(a=1)],
    "deque": deque([1, 2], 3),
    "range": [range(3), ..., NotImplemented],
    "scalars": [np.float32(1), np.int64(2), np.bool_(True), np.str_("ab"), np.complex64(1j)],
    "arrays": [
        np.arange(6.0).reshape(2, 3), np.ones((2, 3, 4), np.float16).transpose(1, 0, 2),
        np.asfortranarray(np.ones((2, 3))), np.zeros(0), np.array(1), np.array(["a", "bc"]),
        np.zeros((0, 4)), np.ones((3, 4))[:, ::2],
    ],
    "tensors": [
        with_attribute(torch.ones(2)), with_attribute(nn.Parameter(torch.ones(2))),
        nn.Buffer(torch.ones(2)), torch.ones(2, dtype=torch.int16), torch.ones(2) * 1j,
        torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last), torch.ones(4)[::2],
    ],
    "optimizer": torch.optim.Adam(nn.Linear(1, 1).parameters()),
    "modules": [nn.DataParallel(nn.Linear(1, 1)), nn.MultiheadAttention(2, 1), Hooks()],
    "foreign": named("some.package.Thing")(),
}  # fmt: skip
