"""Keras on PyTorch: one layer's calls on its tensors, as in the layers for PyTorch itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from qstore_core.engines.arrays.planes import PlanesOps
from qstore_core.runtime.program import LayerProgram
from qstore_torch import call
from qstore_torch.engine import OPS, surroundings
from qstore_torch.graph import operations
from qstore_torch.host import to_tensor

from .stack import exporter

__all__ = ["FRAMEWORK", "LayerCall", "as_plain", "call_host", "check_dtype", "functions", "supports_jit", "traced"]

FRAMEWORK = "torch"


class LayerCall(call.LayerCall):
    """`theta` (W,), `x` (B, F), both float32 or float64 → (B, O)."""

    def __call__(self, theta: torch.Tensor, x: torch.Tensor, **_: Any) -> torch.Tensor:
        """Run the layer; autograd knows whether it trains. In files that Keras writes are PyTorch's own operations."""
        if (torch.compiler.is_compiling() or surroundings() == "tracing") and _exporter() is not None:
            return operations(self.content, theta, x)
        return super().__call__(theta, x)


_exporter = torch.compiler.assume_constant_result(exporter)


def functions() -> Any:
    """Array functions for what is computed from outputs."""
    runtime = _exporter()
    return OPS if runtime is None else PlanesOps(OPS, double=True, runtime=runtime)


def as_plain(x: Any, name: str) -> Any:
    """An unusual tensor as an ordinary one, or a refusal in the name of a layer."""
    return call.as_plain(x, name) if isinstance(x, torch.Tensor) else x


def supports_jit(program: LayerProgram) -> bool:
    """Whether `torch.compile` takes a model with this layer: one operator stands for it."""
    return True


def check_dtype(dtype: str, name: str) -> None:
    """Nothing: it computes in every precision of Keras's."""


def call_host(function: Callable[..., np.ndarray], *tensors: torch.Tensor) -> torch.Tensor:
    """A function of arrays; its result is like the last tensor."""
    return to_tensor(function(*(tensor.numpy(force=True) for tensor in tensors)), tensors[-1])


def traced(name: str) -> AbstractContextManager[Any]:
    """Nothing: a call tells PyTorch's profiler its name."""
    return nullcontext()
