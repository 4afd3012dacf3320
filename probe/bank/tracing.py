"""Tracing of networks while other threads run theirs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_tracing = threading.RLock()


@contextmanager
def own_traces() -> Iterator[None]:
    """Let networks that are traced in the body see the modules of this thread only.

    torchvision cuts networks with torch.fx, which replaces the call of every module in the process
    while it traces. Another thread that draws images or extracts features meanwhile would be
    traced, too, and fail: "module is not installed as a submodule".
    """
    from torchvision.models import feature_extraction

    tracer: Any = feature_extraction.NodePathTracer
    mine = threading.get_ident()
    with _tracing:
        traced = tracer.call_module

        def call_module(self: Any, module: Any, forward: Any, args: Any, kwargs: Any) -> Any:
            if threading.get_ident() != mine:
                return forward(*args, **kwargs)
            return traced(self, module, forward, args, kwargs)

        tracer.call_module = call_module
        try:
            yield
        finally:
            tracer.call_module = traced
