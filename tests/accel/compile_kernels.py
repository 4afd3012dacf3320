"""Compile every kernel for an H100, in the forms that the networks use; prints how many."""

import itertools

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from probe.accel import finish_kernels, low_pass_kernel

TARGET = GPUTarget("cuda", 90, 32)
INTEGERS = {"channels", "pixels", "height", "width", "high", "wide", "before", "noise_step"}
FLOATS = {"slope", "clamp"}
OF_ACTIVATIONS = {"x", "y", "g", "dx", "dg", "ux"}  # others are float32


def build(kernel, constants, dtype, absent=()):
    """Compile one form; arguments in `absent` are None."""
    signature = {}
    for name in kernel.arg_names:
        if name in constants or name in absent:
            signature[name] = "constexpr"
        elif name in INTEGERS:
            signature[name] = "i32"
        elif name in FLOATS:
            signature[name] = "fp32"
        elif kernel is low_pass_kernel._resample and name == "f":
            signature[name] = "*fp32"
        else:
            signature[name] = f"*{dtype}" if name in OF_ACTIVATIONS else "*fp32"
    fixed = {**constants, **dict.fromkeys(absent)}
    indices = {(kernel.arg_names.index(name),): value for name, value in fixed.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=indices)
    assert triton.compile(source, target=TARGET).asm["ptx"]


count = 0
for last, dtype in itertools.product((True, False), ("fp32", "bf16", "fp16")):
    tile = {"LAST": last, "PIXELS": 16 if last else 64, "CHANNELS": 64 if last else 16}
    forms = [
        (low_pass_kernel._resample, {**tile, "TAPS": 4, "UP": up, "DOWN": down}, ())
        for up, down in ((1, 1), (2, 1), (1, 2))
    ]
    forms += [
        (finish_kernels._forward, tile, ()),
        (finish_kernels._forward, tile, ("scale", "noise")),
        (finish_kernels._backward, tile, ()),
        (finish_kernels._backward, tile, ("x", "scale", "dscale", "dnoise")),
        (finish_kernels._second, tile, ()),
        (
            finish_kernels._second,
            tile,
            ("uscale", "unoise", "ubias", "x", "scale", "dx", "dscale"),
        ),
    ]
    for kernel, constants, absent in forms:
        build(kernel, constants, dtype, absent)
        count += 1
print(count, "forms compile")
