"""Snapshots as the original programs write them, attribute by attribute, and every way of writing.

The classes are names alone: nothing of them computes, and calling their code fails a test. What
their objects hold was read off genuine files, which `test_genuine.py` compares them with.
"""

import io
import pickle
import sys
import types
import warnings
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

GENUINE = Path(__file__).resolve().parents[3] / "shared" / "checkpoints"


class EasyDict(dict):
    """Stands for dnnlib.util.EasyDict while pickling."""


def _reconstruct_persistent_obj(meta):
    raise AssertionError("a checkpoint's code must never be called")


class Network:
    """Stands for dnnlib.tflib.network.Network while pickling."""

    def __init__(self, **state):
        self.__dict__.update(state)

    def __setstate__(self, state):
        raise AssertionError("a checkpoint's code must never be called")

    def __getstate__(self):
        return self.__dict__


# What the original programs call the things that are pickled; `named` adds classes.
STANDING_FOR = {
    "torch_utils.persistence": _reconstruct_persistent_obj,
    "dnnlib.util": EasyDict,
    "dnnlib.tflib.network": Network,
}
NAMED = {}


def named(path, base=nn.Module):
    """Return the class that stands for a name, such as "pg_modules.blocks.GLU"."""
    if path not in NAMED:
        module, name = path.rsplit(".", 1)
        NAMED[path] = type(name, (base,), {"__module__": module})
    return NAMED[path]


@contextmanager
def importable():
    """Let all that stands for something be found under its name, and nowhere else."""
    kept = {thing: thing.__module__ for thing in STANDING_FOR.values()}
    places = [(module, thing.__name__, thing) for module, thing in STANDING_FOR.items()]
    places += [(path.rsplit(".", 1)[0], cls.__name__, cls) for path, cls in NAMED.items()]
    before = dict(sys.modules)
    for module, name, thing in places:
        parts = module.split(".")
        for depth in range(len(parts)):
            path = ".".join(parts[: depth + 1])
            if path not in sys.modules:
                sys.modules[path] = types.ModuleType(path)
                if depth:
                    setattr(sys.modules[path.rpartition(".")[0]], parts[depth], sys.modules[path])
        setattr(sys.modules[module], name, thing)
    for module, thing in STANDING_FOR.items():
        thing.__module__ = module
    try:
        yield
    finally:
        for thing, module in kept.items():
            thing.__module__ = module
        for path in sys.modules.keys() - before.keys():
            del sys.modules[path]


def dumps(content, protocol=4) -> bytes:
    """Pickle under the names that the original programs have."""
    with importable():
        return pickle.dumps(content, protocol)


def torch_saved(content, old=False, **options) -> bytes:
    """Write a torch file under those names; `old`, of the form before PyTorch 1.6."""
    buffer = io.BytesIO()
    with importable(), warnings.catch_warnings(action="ignore"):  # of classes without source text
        torch.save(content, buffer, _use_new_zipfile_serialization=not old, **options)
    return buffer.getvalue()


def dilled(content, protocol) -> bytes:
    """Pickle with dill, as Projected GAN writes its best snapshot."""
    import dill

    with importable():
        return dill.dumps(content, protocol)


WRITERS = {
    "protocol 2": lambda content: dumps(content, 2),
    "protocol 3": lambda content: dumps(content, 3),
    "protocol 4": lambda content: dumps(content, 4),
    "protocol 5": lambda content: dumps(content, 5),
    "torch.save": torch_saved,
    "torch.save before 1.6": lambda content: torch_saved(content, old=True),
    "dill 3": lambda content: dilled(content, 3),
    "dill 4": lambda content: dilled(content, 4),
}


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


# What the family calls the classes of our networks, and the attributes of theirs that ours lack.
THEIR_NAMES = {
    "FullyConnected": "FullyConnectedLayer",
    "Mapping": "MappingNetwork",
    "Skip": "Conv2dLayer",
    "Synthesis": "SynthesisNetwork",
    "ToRGB": "ToRGBLayer",
}
THEIR_ATTRIBUTES = {
    "Mapping": lambda m: {"num_ws": 8},
    "Skip": lambda m: {"activation": "linear", "up": 2, "down": 1, "conv_clamp": None},
    "Synthesis": lambda m: {
        "w_dim": 16, "img_resolution": 32, "img_resolution_log2": 5, "img_channels": 3,
        "block_resolutions": [4, 8, 16, 32],
    },
    "SynthesisBlock": lambda m: {
        "in_channels": 16, "w_dim": 16, "resolution": 4, "img_channels": 3, "is_last": False,
        "use_fp16": True, "channels_last": False, "num_torgb": 1,
    },
    "SynthesisLayer": lambda m: {"padding": 1, "act_gain": np.sqrt(2)},
}  # fmt: skip
OURS_ALONE = {"init_kwargs", "resolutions", "activation_gain", "in_half", "halved"}


def attributes(module) -> dict:
    """Return a module's attributes as its class in the family has them."""
    kind = type(module).__name__
    known = vars(nn.Module()).keys() | OURS_ALONE
    found = {n: v for n, v in vars(module).items() if n not in known}
    found = {n: np.float64(v) if n.endswith("_gain") else v for n, v in found.items()}
    return found | THEIR_ATTRIBUTES.get(kind, lambda m: {})(module)


def persistent(module, class_name=None, **extra):
    """Return a module tree as nested persistent records, with all that genuine ones hold."""
    kind = type(module).__name__
    state = {
        **vars(nn.Module()),
        **attributes(module),
        "training": False,
        "_parameters": OrderedDict(module._parameters),
        "_buffers": OrderedDict(module._buffers),
        "_modules": OrderedDict((n, persistent(m)) for n, m in module._modules.items()),
        "_init_args": (),
        "_init_kwargs": EasyDict(),
        **extra,
    }
    return Persistent(class_name or THEIR_NAMES.get(kind, kind), state)


def snapshot(network, **others) -> dict:
    """Return a training snapshot whose G_ema is a module."""
    return {"G": None, "D": None, "G_ema": network, "training_set_kwargs": {}, **others}


def stylegan2_snapshot(network, *, positional=False, **others) -> dict:
    """Return a training snapshot whose G_ema is `network`."""
    init = dict(network.init_kwargs)
    init["synthesis_kwargs"] = EasyDict(init["synthesis_kwargs"], num_fp16_res=4)
    names = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
    arguments = tuple(init.pop(n) for n in names) if positional else ()
    record = persistent(network, _init_args=arguments, _init_kwargs=EasyDict(init))
    return {
        "G": None,
        "D": Persistent("Discriminator", {"_parameters": {}, "_buffers": {}, "_modules": {}}),
        "G_ema": record,
        "augment_pipe": None,
        "training_set_kwargs": EasyDict(path="/data/x.zip", use_labels=False),
        **others,
    }


def stylegan2_pickle(network, *, protocol=4, positional=False, **others) -> bytes:
    """Return `stylegan2_snapshot` as a pickle."""
    return dumps(stylegan2_snapshot(network, positional=positional, **others), protocol)


def channels_last(network: torch.nn.Module) -> torch.nn.Module:
    """Store 4-D weights non-contiguously, as a trainer on a GPU leaves them."""
    return network.to(memory_format=torch.channels_last)
