"""Between PyTorch and the core: autograd functions for eager mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from qstore_core import GradientError
from qstore_core.runtime.program import LayerProgram

from .engine import TorchOps, full_precision

__all__ = ["DirectCall", "HostCall", "TensorCall"]

_OPS = TorchOps()


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
        if torch.is_grad_enabled() or _is_batched(gradient):
            return None, None, None, *_by_autograd(ctx.run, (theta, x), wanted, gradient)
        with full_precision(gradient):
            gradients = ctx.pull(gradient)
        return None, None, None, *(g if w else None for g, w in zip(gradients, wanted, strict=True))


def _by_autograd(
    run: Callable[..., torch.Tensor], tensors: Sequence[torch.Tensor], wanted: Sequence[bool], gradient: torch.Tensor
) -> Iterator[torch.Tensor | None]:
    """Gradients through the plain operations, which can be differentiated again."""
    twice = torch.is_grad_enabled()
    leaves = [t for t, w in zip(tensors, wanted, strict=True) if w]
    with torch.enable_grad(), full_precision(gradient):
        outputs = run(*tensors)
        grads = iter(
            torch.autograd.grad(
                outputs, leaves, gradient, create_graph=twice, allow_unused=True, materialize_grads=True
            )
        )
    return (next(grads) if w else None for w in wanted)


class HostCall(torch.autograd.Function):
    """Runs a layer's host path; its gradient is the core's vjp."""

    @staticmethod
    def forward(ctx: Any, program: LayerProgram, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`theta` (W,), `x` (B, F) → (B, O), on the device of `x`."""
        arrays = theta.numpy(force=True), x.numpy(force=True)
        ctx.program = program
        if any(ctx.needs_input_grad):
            outputs, ctx.pull = program.value_and_vjp(*arrays, wrt_inputs=ctx.needs_input_grad[2])
            ctx.save_for_backward(theta, x)
        else:
            outputs = program.forward(*arrays)
        return _like(outputs, x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        """Pull `gradient` back."""
        theta, x = ctx.saved_tensors  # raises where one was changed in place: the arrays share their memory
        if torch.is_grad_enabled() or _is_batched(gradient):
            return _pull_by_twin(ctx, gradient)
        d_theta, d_x = ctx.pull(gradient.numpy(force=True))
        return None, _like(d_theta, theta), _like(d_x, x) if d_x is not None and ctx.needs_input_grad[2] else None


def _pull_by_twin(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    """A backward pass that is to be differentiated again, or is one of many at once, in PyTorch operations.

    Also where `gradient` is a constant, which `once_differentiable` lets through.
    """
    twin, (theta, x) = ctx.program.twin, ctx.saved_tensors
    if twin is None:
        raise GradientError(
            "second derivatives need a circuit in PyTorch operations, and this backend is on the host. Use "
            'backend="torch" for create_graph=True.'
        )
    dtype = "float64" if x.dtype == torch.float64 else "float32"
    return None, *_by_autograd(
        lambda theta_, x_: twin.apply(_OPS, theta_, x_, dtype), (theta, x), ctx.needs_input_grad[1:], gradient
    )


class DirectCall(torch.autograd.Function):
    """`HostCall` on CPU tensors of one dtype where a gradient is wanted: nothing to convert, nothing to ask."""

    @staticmethod
    def forward(ctx: Any, program: LayerProgram, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`theta` (W,), `x` (B, F) → (B, O)."""
        outputs, ctx.pull = program.value_and_vjp(theta.numpy(force=True), x.numpy(force=True))
        ctx.program = program
        ctx.save_for_backward(theta, x)
        return torch.from_numpy(outputs)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        """Pull `gradient` back."""
        ctx.saved_tensors  # noqa: B018 - raises where one was changed in place: the arrays share their memory
        if torch.is_grad_enabled() or _is_batched(gradient):
            return _pull_by_twin(ctx, gradient)
        d_theta, d_x = ctx.pull(gradient.numpy(force=True))
        return None, torch.from_numpy(d_theta), torch.from_numpy(d_x)


def _is_batched(tensor: torch.Tensor) -> bool:
    """True inside `is_grads_batched=True`, by which PyTorch computes Jacobians in one backward pass."""
    return torch._C._functorch.is_legacy_batchedtensor(tensor)


def _like(array: np.ndarray, tensor: torch.Tensor) -> torch.Tensor:
    if not (array.flags.c_contiguous and array.flags.writeable):  # a backend may hand out views of its own memory
        array = np.require(array, requirements=("C", "W"))
    result = torch.from_numpy(array)
    if result.dtype == tensor.dtype and tensor.is_cpu:
        return result
    return result.to(device=tensor.device, dtype=tensor.dtype)
