"""Between PyTorch and the core: autograd functions for eager mode."""

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
        return outputs.detach()  # `pull` holds `outputs`: a tensor that leads back here would never be freed

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        """Pull `gradient` back."""
        wanted = ctx.needs_input_grad[3:]
        theta, x = ctx.saved_tensors
        twice = torch.is_grad_enabled()
        if not twice and not _is_batched(gradient):
            return None, None, None, *(g if w else None for g, w in zip(ctx.pull(gradient), wanted, strict=True))
        leaves = [t for t, w in zip((theta, x), wanted, strict=True) if w]
        with torch.enable_grad():
            outputs = ctx.run(theta, x)
        grads = iter(
            torch.autograd.grad(
                outputs, leaves, gradient, create_graph=twice, allow_unused=True, materialize_grads=True
            )
        )
        return None, None, None, *(next(grads) if w else None for w in wanted)


class HostCall(torch.autograd.Function):
    """Runs a layer's host path; its gradient is the core's vjp."""

    @staticmethod
    def forward(ctx: Any, program: LayerProgram, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`theta` (W,), `x` (B, F) → (B, O), on the device of `x`."""
        arrays = theta.numpy(force=True), x.numpy(force=True)
        if any(ctx.needs_input_grad):
            outputs, ctx.pull = program.value_and_vjp(*arrays, wrt_inputs=ctx.needs_input_grad[2])
            ctx.save_for_backward(theta, x)
        else:
            outputs = program.forward(*arrays)
        return _like(outputs, x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor, torch.Tensor | None]:
        """Pull `gradient` back."""
        if torch.is_grad_enabled():  # also where `gradient` is a constant, which `once_differentiable` lets through
            raise GradientError(
                "second derivatives need a circuit in PyTorch operations, and this backend is on the host. Use "
                'backend="torch" for create_graph=True.'
            )
        theta, x = ctx.saved_tensors  # raises where one was changed in place: the arrays share their memory
        d_theta, d_x = ctx.pull(gradient.numpy(force=True))
        return None, _like(d_theta, theta), None if d_x is None else _like(d_x, x)


def _is_batched(tensor: torch.Tensor) -> bool:
    """True inside `is_grads_batched=True`, by which PyTorch computes Jacobians in one backward pass."""
    return torch._C._functorch.is_legacy_batchedtensor(tensor)


def _like(array: np.ndarray, tensor: torch.Tensor) -> torch.Tensor:
    writable = np.require(array, requirements=("C", "W"))  # a backend may hand out views of its own memory
    return torch.from_numpy(writable).to(device=tensor.device, dtype=tensor.dtype)
