"""The host function: a layer's backend on NumPy arrays, differentiable by PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from qstore_core import GradientError
from qstore_core.runtime.program import LayerProgram

from .engine import is_batched
from .tensor import vjp_by_autograd

__all__ = ["HostFunction", "on_host", "to_array", "to_tensor"]


def on_host(program: LayerProgram, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`theta` (W,), `x` (B, F) → (B, O), on the device of `x`."""
    if torch.is_grad_enabled() and (theta.requires_grad or x.requires_grad):
        return HostFunction.apply(program, theta, x)
    return to_tensor(program.forward(to_array(theta), x.numpy(force=True)), x)


class HostFunction(torch.autograd.Function):
    """The vjp of the core as the gradient.

    What the forward pass leaves for the backward pass hangs on a saved tensor, so that it lives exactly as long as
    autograd keeps that: until the backward pass, or not at all under activation checkpointing.
    """

    @staticmethod
    def forward(ctx: Any, program: LayerProgram, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`theta` (W,), `x` (B, F) → (B, O)."""
        ctx.program, residual = program, theta.clone()  # as in `to_array`
        _, wrt_theta, wrt_inputs = ctx.needs_input_grad  # the backend runs no circuits for others
        outputs, residual.vjp_fn = program.value_and_vjp(
            residual.numpy(force=True), x.numpy(force=True), wrt_theta=wrt_theta, wrt_inputs=wrt_inputs
        )
        ctx.save_for_backward(theta, x, residual)
        return to_tensor(outputs, x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        """Pull `gradient` back."""
        theta, x, residual = ctx.saved_tensors  # raises where one was changed in place
        if torch.is_grad_enabled() or is_batched(gradient):
            # To be differentiated again, or one of many at once. Also where `gradient` is a constant, which
            # `once_differentiable` lets through.
            where = ctx.program.route(wanted="second derivatives")
            if where.where == "refused":
                raise GradientError(where.why)
            return None, *vjp_by_autograd(ctx.program, theta, x, ctx.needs_input_grad[1:], gradient)
        vjp_fn = getattr(residual, "vjp_fn", None)
        if vjp_fn is None:  # saved tensors were copied, as by `save_on_cpu`
            _, wrt_theta, wrt_inputs = ctx.needs_input_grad
            arrays = to_array(theta), x.numpy(force=True)
            vjp_fn = ctx.program.value_and_vjp(*arrays, wrt_theta=wrt_theta, wrt_inputs=wrt_inputs)[1]
        d_theta, d_x = vjp_fn(gradient.numpy(force=True))
        return (
            None,
            d_theta if d_theta is None else to_tensor(d_theta, theta),
            d_x if d_x is None else to_tensor(d_x, x),
        )


def to_array(theta: torch.Tensor) -> np.ndarray:
    """A copy: `Tensor.numpy` pins the storage for ever, and FSDP resizes that of parameters."""
    return theta.detach().clone().numpy(force=True)


def to_tensor(array: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """An array as a tensor of the dtype and on the device of `like`."""
    if not array.flags.carray:  # a backend may hand out views of its own memory
        array = np.require(array, requirements=("C", "W"))
    result = torch.from_numpy(array)
    if result.dtype == like.dtype and like.is_cpu:
        return result
    return result.to(device=like.device, dtype=like.dtype)
