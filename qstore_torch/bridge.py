"""From PyTorch to backends on the host: one autograd function."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from qstore_core import GradientError
from qstore_core.program import LayerProgram

__all__ = ["HostCall", "TensorCall"]


class TensorCall(torch.autograd.Function):
    """Runs a layer on tensors with adjoint gradients, which take fewer operations and less memory than autograd's.

    Second derivatives go through autograd: the backward pass of a backward pass runs the plain operations.
    """

    @staticmethod
    def forward(
        ctx: Any, program: LayerProgram, ops: Any, dtype: str, theta: torch.Tensor, x: torch.Tensor
    ) -> torch.Tensor:
        """`theta` (W,), `x` (B, F) → (B, O)."""
        outputs, ctx.pull = program.apply_and_pull(ops, theta, x, dtype)
        ctx.run = lambda theta_, x_: program.apply(ops, theta_, x_, dtype)
        ctx.save_for_backward(theta, x)
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        """Pull `gradient` back."""
        wanted = ctx.needs_input_grad[3:]
        theta, x = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return None, None, None, *(g if w else None for g, w in zip(ctx.pull(gradient), wanted, strict=True))
        leaves = [t for t, w in zip((theta, x), wanted, strict=True) if w]
        outputs = ctx.run(theta, x)
        grads = iter(
            torch.autograd.grad(outputs, leaves, gradient, create_graph=True, allow_unused=True, materialize_grads=True)
        )
        return None, None, None, *(next(grads) if w else None for w in wanted)


class HostCall(torch.autograd.Function):
    """Runs a layer's host path; its gradient is the core's vjp."""

    @staticmethod
    def forward(ctx: Any, program: LayerProgram, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`theta` (W,), `x` (B, F) → (B, O), on the device of `x`."""
        arrays = _to_numpy(theta), _to_numpy(x)
        if any(ctx.needs_input_grad):
            outputs, ctx.pullback = program.value_and_vjp(*arrays, wrt_inputs=ctx.needs_input_grad[2])
            ctx.like = theta, x
        else:
            outputs = program.forward(*arrays)
        return torch.from_numpy(np.ascontiguousarray(outputs)).to(x.device)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor | None, torch.Tensor | None]:
        """Pull `gradient` back."""
        if torch.is_grad_enabled():
            raise GradientError(
                "second derivatives need a circuit in PyTorch operations, and this backend is on the host. Use "
                'backend="torch" for create_graph=True.'
            )
        d_theta, d_x = ctx.pullback(_to_numpy(gradient))
        theta, x = ctx.like
        return None, _like(d_theta, theta), None if d_x is None else _like(d_x, x)


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _like(array: np.ndarray, tensor: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device=tensor.device, dtype=tensor.dtype)
