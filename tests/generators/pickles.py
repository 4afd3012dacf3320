"""Pickles as the NVlabs family writes them, from the documented structure alone."""

import io
import pickle
import sys
import types
from collections import OrderedDict

import torch


class EasyDict(dict):
    """Stands for dnnlib.util.EasyDict while pickling."""


def _reconstruct_persistent_obj(meta):
    raise AssertionError("a checkpoint's code must never be called")


class Persistent:
    """Pickles as a persistent module: a call with its class name, source and state."""

    def __init__(self, class_name, state):
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": "raise SystemExit('this source must never run')",
            "class_name": class_name,
            "state": state,
        }

    def __reduce__(self):
        return (_reconstruct_persistent_obj, (self.meta,))


def persistent(module, class_name="Module", **extra):
    """Return a module tree as nested persistent records."""
    state = {
        "training": False,
        "_parameters": OrderedDict(module._parameters),
        "_buffers": OrderedDict(module._buffers),
        "_modules": OrderedDict((n, persistent(m)) for n, m in module._modules.items()),
        **extra,
    }
    return Persistent(class_name, state)


def stylegan2_pickle(network, *, protocol=4, positional=False, **others) -> bytes:
    """Return a training snapshot whose G_ema is `network`."""
    init = dict(network.init_kwargs)
    init["synthesis_kwargs"] = EasyDict(init["synthesis_kwargs"], num_fp16_res=4)
    names = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
    arguments = tuple(init.pop(n) for n in names) if positional else ()
    record = persistent(
        network,
        "Generator",
        _init_args=arguments,
        _init_kwargs=EasyDict(init),
        z_dim=network.z_dim,
        c_dim=network.c_dim,
    )
    content = {
        "G": None,
        "D": Persistent("Discriminator", {"_parameters": {}, "_buffers": {}, "_modules": {}}),
        "G_ema": record,
        "augment_pipe": None,
        "training_set_kwargs": EasyDict(path="/data/x.zip", use_labels=False),
        **others,
    }
    return dumps(content, protocol)


def dumps(content, protocol=4) -> bytes:
    """Pickle with the family's module names in place of ours, storages as they write them."""
    fake = {}
    for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util"):
        fake[name] = types.ModuleType(name)
    fake["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
    fake["dnnlib.util"].EasyDict = EasyDict
    kept = _reconstruct_persistent_obj.__module__, EasyDict.__module__
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    EasyDict.__module__ = "dnnlib.util"
    try:
        sys.modules.update(fake)
        buffer = io.BytesIO()
        pickle.Pickler(buffer, protocol).dump(content)
        return buffer.getvalue()
    finally:
        _reconstruct_persistent_obj.__module__, EasyDict.__module__ = kept
        for name in fake:
            del sys.modules[name]


def channels_last(network: torch.nn.Module) -> torch.nn.Module:
    """Store 4-D weights non-contiguously, as a trainer on a GPU leaves them."""
    return network.to(memory_format=torch.channels_last)
