"""The tensor function: a layer in PyTorch operations on the tensors' own device, differentiable by PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qstore_core import GradientError
from qstore_core.runtime.encoded import EncodedExecutable
from qstore_core.runtime.program import LayerProgram

from .engine import full_precision, is_batched, surroundings

__all__ = ["TensorFunction", "keep", "on_tensors", "refuse_gradient", "take", "vjp_by_autograd"]


_packing_of_saved_tensors = torch._C._autograd._top_saved_tensors_default_hooks
_keeps_graph = torch._C._autograd._get_current_graph_task_keep_graph


def on_tensors(
    program: LayerProgram, executable: EncodedExecutable, theta: torch.Tensor, x: torch.Tensor
) -> torch.Tensor:
    """`theta` (W,), `x` (B, F) → (B, O), outside of transforms."""
    with full_precision(x):
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
    """The engine's adjoint vjp as the gradient: fewer operations and less memory than autograd's."""

    @staticmethod
    def forward(
        ctx: Any, program: LayerProgram, executable: EncodedExecutable, theta: torch.Tensor, x: torch.Tensor
    ) -> torch.Tensor:
        """`theta` (W,), `x` (B, F) → (B, O)."""
        ctx.program, ctx.executable = program, executable
        (outputs, vjp_fn), ctx.record = program.record(
            "forward", lambda: executable.apply_and_vjp(theta, x), executable.settings
        )
        keep(ctx, vjp_fn, theta, x)
        return outputs.detach()  # the vjp holds `outputs`: a tensor that leads back here would never be freed

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        """Pull `gradient` back."""
        program, executable, (theta, x, *residual) = ctx.program, ctx.executable, ctx.saved_tensors
        _, _, *wanted = ctx.needs_input_grad
        if torch.is_grad_enabled() or is_batched(gradient):  # to be differentiated again, or one of many at once
            return None, None, *vjp_by_autograd(program, theta, x, wanted, gradient)
        vjp_fn = take(ctx, residual)

        def pull() -> Any:
            return (executable.apply_and_vjp(theta, x)[1] if vjp_fn is None else vjp_fn)(gradient)

        with full_precision(gradient):
            (d_theta, d_x), _ = program.record("backward", pull, executable.settings, ctx.record)
        return None, None, d_theta if wanted[0] else None, d_x if wanted[1] else None


def keep(ctx: Any, vjp_fn: Any, *tensors: torch.Tensor) -> None:
    """Keep what the forward pass leaves for the backward pass, and the tensors, which must not change before.

    It lives as long as saved tensors do: until the backward pass, or the last of several. Where saved tensors are
    packed (activation checkpointing, `save_on_cpu`) it hangs on one of them, and is there again only where that comes
    back as it was.
    """
    if _packing_of_saved_tensors(True) is None:
        ctx.vjp_fn = vjp_fn
        ctx.save_for_backward(*tensors)
    else:
        ctx.vjp_fn, residual = None, torch.Tensor()
        residual.vjp_fn = vjp_fn
        ctx.save_for_backward(*tensors, residual)


def take(ctx: Any, residual: Sequence[torch.Tensor]) -> Any:
    """What `keep` kept; None where saved tensors were copied."""
    vjp_fn = getattr(residual[0], "vjp_fn", None) if residual else ctx.vjp_fn
    if not _keeps_graph():
        ctx.vjp_fn = None
    return vjp_fn


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
