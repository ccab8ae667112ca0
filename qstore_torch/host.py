"""The host function: a layer's backend on NumPy arrays, differentiable by PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from qstore_core import GradientError
from qstore_core.runtime.program import LayerProgram

from .engine import is_batched, is_plain
from .tensor import keep, take, vjp_by_autograd

__all__ = ["HostFunction", "TransformedFunction", "check_second", "on_host", "to_array", "to_tensor"]


def on_host(program: LayerProgram, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`theta` (W,), `x` (B, F) → (B, O), on the device of `x`."""
    if torch.is_grad_enabled() and (theta.requires_grad or x.requires_grad):
        return HostFunction.apply(program, theta, x)
    theta = theta.clone()  # as in `to_array`; nothing is recorded here
    return to_tensor(program.forward(theta.numpy(force=True), x.numpy(force=True)), x)


class HostFunction(torch.autograd.Function):
    """The vjp of the core as the gradient."""

    @staticmethod
    def forward(ctx: Any, program: LayerProgram, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`theta` (W,), `x` (B, F) → (B, O)."""
        ctx.program, copy = program, theta.clone()  # as in `to_array`
        _, wrt_theta, wrt_inputs = ctx.needs_input_grad  # the backend runs no circuits for others
        outputs, vjp_fn = program.value_and_vjp(
            copy.numpy(force=True), x.numpy(force=True), wrt_theta=wrt_theta, wrt_inputs=wrt_inputs, copied=True
        )
        keep(ctx, vjp_fn, theta, x)
        return to_tensor(outputs, x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        """Pull `gradient` back."""
        theta, x, *residual = ctx.saved_tensors  # raises where one was changed in place
        if torch.is_grad_enabled() or is_batched(gradient):
            # To be differentiated again, or one of many at once. Also where `gradient` is a constant, which
            # `once_differentiable` lets through.
            check_second(ctx.program)
            return None, *vjp_by_autograd(ctx.program, theta, x, ctx.needs_input_grad[1:], gradient)
        vjp_fn = take(ctx, residual)
        if vjp_fn is None:
            _, wrt_theta, wrt_inputs = ctx.needs_input_grad
            arrays = to_array(theta), x.numpy(force=True)
            vjp_fn = ctx.program.value_and_vjp(*arrays, wrt_theta=wrt_theta, wrt_inputs=wrt_inputs)[1]
        d_theta, d_x = vjp_fn(gradient.numpy(force=True))
        return (
            None,
            d_theta if d_theta is None else to_tensor(d_theta, theta),
            d_x if d_x is None else to_tensor(d_x, x),
        )


def check_second(program: LayerProgram) -> None:
    """Raise `GradientError` where a layer has no second derivatives."""
    where = program.route(wanted="second derivatives")
    if where.where == "refused":
        raise GradientError(f"{program.name}: {where.why}")


class TransformedFunction(torch.autograd.Function):
    """`HostFunction` inside `torch.func.vmap` and `grad`: samples are one batch, their gradients one sweep each."""

    @staticmethod
    def forward(program: LayerProgram, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`theta` (W,), `x` (B, F) → (B, O)."""
        return to_tensor(program.forward(to_array(theta), x.numpy(force=True)), x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        """Keep the inputs."""
        ctx.program, theta, x = inputs
        ctx.save_for_backward(theta, x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        """Pull `gradient` back."""
        both = _TransformedVjp.apply(ctx.program, ctx.needs_input_grad[1:], *ctx.saved_tensors, gradient)
        return None, *(d if wanted else None for d, wanted in zip(both, ctx.needs_input_grad[1:], strict=True))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], program: LayerProgram, theta: torch.Tensor, x: torch.Tensor) -> Any:
        """Fold the samples into one batch; another theta each is another call each."""
        if in_dims[1] is not None:
            if not info.batch_size:
                size = x.shape[0] if in_dims[2] is None else x.movedim(in_dims[2], 0).shape[1]
                return x.new_zeros((0, size, program.spec.output_dim)), 0
            rows = _unbind(info, in_dims[1:], theta, x)
            return torch.stack([TransformedFunction.apply(program, *row) for row in rows]), 0
        x = x.movedim(in_dims[2], 0)
        outputs = TransformedFunction.apply(program, theta, x.flatten(0, 1))
        return outputs.unflatten(0, x.shape[:2]), 0


class _TransformedVjp(torch.autograd.Function):
    """The backward pass of `TransformedFunction`."""

    @staticmethod
    def forward(
        program: LayerProgram, wanted: Sequence[bool], theta: torch.Tensor, x: torch.Tensor, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        both = _vjp(program, wanted, to_array(theta), x.numpy(force=True), gradient.numpy(force=True))
        return to_tensor(both[0], theta), to_tensor(both[1], x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.program, _, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[Any, ...]:
        """Second derivatives, in PyTorch operations."""
        check_second(ctx.program)
        twice, wanted = torch.is_grad_enabled(), ctx.needs_input_grad[2:]
        with torch.enable_grad():
            # Aliases: `gradient` may depend on the others, and its derivative ends here.
            theta, x, gradient = (
                t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in ctx.saved_tensors
            )
            both = vjp_by_autograd(ctx.program, theta, x, (True, True), gradient)
            seconds = torch.autograd.grad(
                both, (theta, x, gradient), cotangents, create_graph=twice, allow_unused=True, materialize_grads=True
            )
        return None, None, *(d if w else None for d, w in zip(seconds, wanted, strict=True))

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], program: LayerProgram, wanted: Any, *tensors: torch.Tensor
    ) -> tuple[Any, Any]:
        """One sweep per sample: each has a gradient of theta of its own."""
        if not info.batch_size:
            return tuple(
                t.new_zeros((0, *t.shape) if d is None else t.movedim(d, 0).shape)
                for t, d in zip(tensors[:2], in_dims[2:4], strict=True)
            ), (0, 0)
        if is_plain() and not any(tensor.requires_grad for tensor in tensors):  # nothing is recorded
            theta, x, gradient = (tensor.numpy(force=True) for tensor in (tensors[0].clone(), *tensors[1:]))
            rows = _unbind(info, in_dims[2:], theta, x, gradient)
            columns = zip(*(_vjp(program, wanted, *row) for row in rows), strict=True)
            both = tuple(to_tensor(np.stack(c), like) for c, like in zip(columns, tensors[:2], strict=True))
        else:
            results = [_TransformedVjp.apply(program, wanted, *row) for row in _unbind(info, in_dims[2:], *tensors)]
            both = tuple(torch.stack(column) for column in zip(*results, strict=True))
        return both, (0, 0)


def _vjp(
    program: LayerProgram, wanted: Sequence[bool], theta: np.ndarray, x: np.ndarray, gradient: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One sweep; zeros for what is not wanted."""
    d_theta, d_x = program.value_and_vjp(theta, x, wrt_theta=wanted[0], wrt_inputs=wanted[1])[1](gradient)
    return np.zeros_like(theta) if d_theta is None else d_theta, np.zeros_like(x) if d_x is None else d_x


def _unbind(info: Any, dims: Sequence[int | None], *arrays: Any) -> Iterator[tuple[Any, ...]]:
    """The samples of a vmap, one by one, of tensors or arrays."""
    parts = [
        (array,) * info.batch_size if dim is None else array.swapaxes(0, dim) if dim else array
        for array, dim in zip(arrays, dims, strict=True)
    ]
    return zip(*parts, strict=True)


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
