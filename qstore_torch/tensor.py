"""The tensor function: a layer in PyTorch operations on the tensors' own device, differentiable by PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qstore_core import GradientError
from qstore_core.runtime.encoded import EncodedExecutable
from qstore_core.runtime.program import LayerProgram

from .engine import full_precision, is_batched, surroundings

__all__ = ["TensorFunction", "on_tensors", "refuse_gradient", "vjp_by_autograd"]


def on_tensors(
    program: LayerProgram, executable: EncodedExecutable, theta: torch.Tensor, x: torch.Tensor
) -> torch.Tensor:
    """`theta` (W,), `x` (B, F) → (B, O)."""
    with full_precision(x):
        if surroundings():
            return executable.apply(theta, x)
        if torch.is_grad_enabled() and (theta.requires_grad or x.requires_grad):
            return TensorFunction.apply(program, executable, theta, x)
        return program.record("forward", lambda: executable.apply(theta, x), executable.settings)[0]


def refuse_gradient(executable: EncodedExecutable, x: torch.Tensor) -> torch.Tensor:
    """Features as they are; `GradientError` where a gradient or a tangent of theirs is wanted that is not there."""
    if not executable.no_input_gradient:
        return x
    if x.requires_grad and torch.is_grad_enabled():
        executable.check_input_gradient()
    return x if surroundings() in ("", "tracing") else _Refused.apply(executable, x)


class _Refused(torch.autograd.Function):
    """The identity, without derivatives."""

    generate_vmap_rule = True

    @staticmethod
    def forward(executable: EncodedExecutable, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.executable = inputs[0]

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Raise."""
        raise GradientError(ctx.executable.no_input_gradient)

    backward = jvp


class TensorFunction(torch.autograd.Function):
    """The engine's adjoint vjp as the gradient: fewer operations and less memory than autograd's.

    What the forward pass leaves for the backward pass hangs on a saved tensor, as in `host.HostFunction`.
    """

    @staticmethod
    def forward(
        ctx: Any, program: LayerProgram, executable: EncodedExecutable, theta: torch.Tensor, x: torch.Tensor
    ) -> torch.Tensor:
        """`theta` (W,), `x` (B, F) → (B, O)."""
        ctx.program, ctx.executable, residual = program, executable, torch.Tensor()
        (outputs, residual.vjp_fn), ctx.record = program.record(
            "forward", lambda: executable.apply_and_vjp(theta, x), executable.settings
        )
        ctx.save_for_backward(theta, x, residual)
        return outputs.detach()  # the vjp holds `outputs`: a tensor that leads back here would never be freed

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        """Pull `gradient` back."""
        program, executable, (theta, x, residual) = ctx.program, ctx.executable, ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled() or is_batched(gradient):  # to be differentiated again, or one of many at once
            return None, None, *vjp_by_autograd(program, theta, x, wanted, gradient)

        def pull() -> Any:
            vjp_fn = getattr(residual, "vjp_fn", None)
            if vjp_fn is None:  # saved tensors were copied, as by `save_on_cpu`
                vjp_fn = executable.apply_and_vjp(theta, x)[1]
            return vjp_fn(gradient)

        with full_precision(gradient):
            gradients, _ = program.record("backward", pull, executable.settings, ctx.record)
        return None, None, *(g if w else None for g, w in zip(gradients, wanted, strict=True))


def vjp_by_autograd(
    program: LayerProgram, theta: torch.Tensor, x: torch.Tensor, wanted: Sequence[bool], gradient: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    """Gradients through the plain operations, which can be differentiated again."""
    twice = torch.is_grad_enabled()
    leaves = [t for t, w in zip((theta, x), wanted, strict=True) if w]
    with torch.enable_grad(), full_precision(gradient):
        outputs = program.on_tensors(x).apply(theta, x)
        if not outputs.requires_grad:  # another's engine, whose outputs depend on nothing
            return tuple(torch.zeros_like(t) if w else None for t, w in zip((theta, x), wanted, strict=True))
        grads = iter(
            torch.autograd.grad(
                outputs, leaves, gradient, create_graph=twice, allow_unused=True, materialize_grads=True
            )
        )
    return tuple(next(grads) if w else None for w in wanted)
