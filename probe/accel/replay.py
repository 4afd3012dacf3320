"""CUDA graphs: passes that launch the same kernels every time are recorded once and replayed.

Most kernels of a small network are shorter than the launch from Python that precedes them: a
StyleGAN2 step at 64 px is 4 400 operations, and an H200 was busy for less than a third of it.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from probe.accel import enabled
from probe.devices import free_bytes

Given = torch.Tensor | None
Pass = Callable[..., torch.Tensor | list[torch.Tensor]]
EAGER_CALLS = 2  # before a recording, so that what is called once or twice is not recorded
TOLERANCE = 0.01  # of a replayed tensor's norm: half precision, in another order


class Replays:
    """Runs passes of networks, on a GPU from recordings.

    A recording belongs to one pass of one network with one kind of arguments. Its results are
    overwritten by its next call, and it has first derivatives only. A pass that cannot be recorded,
    because memory is short or it waits for the GPU, runs as it is.
    """

    def __init__(self) -> None:
        self._calls: dict[Any, int] = {}
        self._recordings: dict[Any, _Recording | None] = {}

    def __call__(self, run: Pass, network: nn.Module, *given: Given, **settings: Hashable) -> Any:
        """Return `run(network, *given, **settings)`.

        Args:
            run: a function defined once that depends on its arguments alone and launches the same
                kernels for tensors of the same shapes.
            network: its parameters get gradients if they need them.
            given: tensors on one device, or None.
            settings: plain values.
        """
        work = partial(run, network, **settings)
        tensors = [t for t in given if t is not None]
        if not enabled() or not all(map(_on_gpu, tensors)):
            return work(*given)
        key = run, network, *settings.items(), *_circumstances(network, given)
        self._calls[key] = self._calls.get(key, 0) + 1
        if self._calls[key] > EAGER_CALLS and key not in self._recordings:
            roomy = _has_room(tensors[0].device)
            self._recordings[key] = _record(work, network, given) if roomy else None
        recording = self._recordings.get(key)
        return work(*given) if recording is None else recording(*given)


def _on_gpu(tensor: torch.Tensor) -> bool:
    return tensor.is_cuda


def _has_room(gpu: torch.device) -> bool:
    """Return whether recordings, which keep what they compute, leave the rest its memory.

    All passes of a step together take less than twice the peak of doing them one by one.
    """
    return free_bytes(gpu) > 2 * torch.cuda.max_memory_allocated(gpu)


def _circumstances(network: nn.Module, given: Sequence[Given]) -> list[Hashable]:
    """Return what decides which kernels run, besides values."""
    weight = next(network.parameters(), None)
    kind = next(t.device.type for t in given if t is not None)
    return [
        *(None if t is None else (t.shape, t.dtype, t.device, t.requires_grad) for t in given),
        weight is not None and weight.requires_grad,
        network.training,
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled(kind),
        torch.get_autocast_dtype(kind),
        torch.backends.cudnn.allow_tf32,
    ]


def _record(work: Pass, network: nn.Module, given: Sequence[Given]) -> "_Recording | None":
    """Return a recording that was compared with the pass itself, or None."""
    try:
        recording = _Recording(work, network, given)
        return recording if recording.is_right() else None
    except RuntimeError:
        # Lack of memory, or something that waits for the GPU. The pass itself runs on, and if it
        # cannot either, its own error says why.
        torch.cuda.synchronize()
        return None


class _Recording:
    """One pass as two CUDA graphs, forward and, if anything needs a gradient, backward."""

    def __init__(self, work: Pass, network: nn.Module, given: Sequence[Given]) -> None:
        self.present = [t is not None for t in given]
        self.given = [
            t.detach().clone().requires_grad_(t.requires_grad) for t in given if t is not None
        ]
        learns = torch.is_grad_enabled()
        self.parameters = [p for p in network.parameters() if p.requires_grad and learns]
        self.work = lambda *tensors: work(*self._among(tensors))
        self.wanted = [t for t in (*self.given, *self.parameters) if t.requires_grad]
        self.kind = self.given[0].device.type
        self._capture()

    def _among(self, tensors: Sequence[torch.Tensor]) -> list[Given]:
        """Return the arguments with None in its places."""
        left = iter(tensors)
        return [next(left) if there else None for there in self.present]

    def _capture(self) -> None:
        pool = torch.cuda.graph_pool_handle()
        options: Any = {"pool": pool, "capture_error_mode": "thread_local"}  # others feed images
        self.forward = torch.cuda.CUDAGraph()
        casts = torch.autocast(
            self.kind,
            dtype=torch.get_autocast_dtype(self.kind),
            enabled=torch.is_autocast_enabled(self.kind),
            cache_enabled=False,  # a cast that is cached outside would never be recorded
        )
        with casts, torch.cuda.graph(self.forward, **options):
            results = self.work(*self.given)
        self.is_list = isinstance(results, list)
        self.results = _as_list(results)
        judged = [r for r in self.results if r.requires_grad]
        self.upstream = [torch.zeros_like(r) for r in judged]
        self.gradients: list[Given] = []
        self.backward = None
        if judged and self.wanted:
            self.backward = torch.cuda.CUDAGraph()
            with _no_casts(self.kind), torch.cuda.graph(self.backward, **options):
                self.gradients = list(
                    torch.autograd.grad(judged, self.wanted, self.upstream, allow_unused=True)
                )
        self.differentiable = [r.requires_grad for r in self.results]
        self.results = [r.detach() for r in self.results]  # drops the graph of autograd

    def is_right(self) -> bool:
        """Return whether a replay on other values gives what the pass gives, gradients included."""
        given = [t.detach().flip(0).requires_grad_(t.requires_grad) for t in self.given]
        wanted = [t for t in (*given, *self.parameters) if t.requires_grad]
        theirs, ours = (
            _values(work(*given), wanted)
            for work in (self.work, lambda *tensors: self(*self._among(tensors)))
        )
        return all(map(_agree, theirs, ours))

    def __call__(self, *given: Given) -> Any:
        """Replay the pass."""
        inputs = *(t for t in given if t is not None), *self.parameters
        results = _Replay.apply(self, *inputs)
        return list(results) if self.is_list else results[0]


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recording: _Recording, *inputs: torch.Tensor) -> Any:
        for mine, theirs in zip(recording.given, inputs, strict=False):
            mine.copy_(theirs)
        recording.forward.replay()
        ctx.recording = recording
        results = [r.detach() for r in recording.results]
        fixed = zip(results, recording.differentiable, strict=True)
        ctx.mark_non_differentiable(*(r for r, moves in fixed if not moves))
        return tuple(results)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[Given, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        recording: _Recording = ctx.recording
        judged = zip(upstream, recording.differentiable, strict=True)
        for mine, theirs in zip(recording.upstream, (g for g, m in judged if m), strict=True):
            mine.copy_(theirs)
        assert recording.backward is not None
        recording.backward.replay()
        left = iter(recording.gradients)
        inputs = *recording.given, *recording.parameters
        gradients = [next(left) if t.requires_grad else None for t in inputs]
        return None, *(None if g is None else g.detach() for g in gradients)


def _no_casts(kind: str) -> torch.autocast:
    """Return the context in which derivatives are taken: as always, outside autocast."""
    return torch.autocast(kind, enabled=False)


def _as_list(results: torch.Tensor | list[torch.Tensor]) -> list[torch.Tensor]:
    return results if isinstance(results, list) else [results]


def _values(
    results: torch.Tensor | list[torch.Tensor], wanted: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Return copies of results, and all gradients of their squares in one row."""
    results = _as_list(results)
    found = [r.detach().clone() for r in results]
    judged = [r for r in results if r.requires_grad]
    if judged and wanted:
        loss = torch.stack([r.float().square().mean() for r in judged]).sum()
        with _no_casts(loss.device.type):
            gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
        found.append(torch.cat([g.flatten().float() for g in gradients if g is not None]))
    return found


def _agree(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether two tensors are equal up to rounding."""
    a, b = a.double(), b.double()
    return bool((a - b).norm() <= TOLERANCE * a.norm())
