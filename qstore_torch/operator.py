"""A layer as one PyTorch operator, `qstore::layer`: what compiled graphs hold, since nobody traces into the core."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch

from qstore_core import GradientError
from qstore_core.runtime.program import LayerProgram

from .engine import TorchOps, full_precision

__all__ = ["graph_call", "layer", "layer_vjp"]

_OPS = TorchOps()
_programs: weakref.WeakValueDictionary[int, LayerProgram] = weakref.WeakValueDictionary()


def graph_call(program: LayerProgram, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A layer inside a compiled graph, whatever its backend: `theta` (W,), `x` (B, F) → (B, O)."""
    return layer(_handle(program), _width(program), theta, x)


@torch.compiler.assume_constant_result
def _handle(program: LayerProgram) -> int:
    """A number for the program: operators take no Python objects."""
    _programs[id(program)] = program
    return id(program)


@torch.compiler.assume_constant_result
def _width(program: LayerProgram) -> int:
    return program.spec.output_dim


def _program(handle: int, x: torch.Tensor) -> LayerProgram:
    program = _programs[handle]
    return program if program.twin is None or x.device.type == "cpu" else program.twin


@torch.library.custom_op("qstore::layer", mutates_args=())
def layer(handle: int, width: int, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Features `x` (B, F) → outputs (B, width)."""
    program = _program(handle, x)
    program.spec.check_features(tuple(x.shape))
    if program.on_tensors:
        with full_precision(x):
            out = program.noting(lambda: program.apply(_OPS, theta, x, _dtype(x)))
            return out.clone()  # an operator may not return its input
    return _like(program.forward(_to_numpy(theta), _to_numpy(x)), x)


@layer.register_fake
def _(handle: int, width: int, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return x.new_empty((x.shape[0], width))


@torch.library.custom_op("qstore::layer_vjp", mutates_args=())
def layer_vjp(
    handle: int, wrt_inputs: bool, theta: torch.Tensor, x: torch.Tensor, gradient: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pull `gradient` (B, width) back; the second result is empty where input gradients are not wanted."""
    program, nothing = _program(handle, x), x.new_empty((0,))
    if wrt_inputs and not program.has_input_gradient:
        raise GradientError(program.no_input_gradient)
    if program.on_tensors:
        with full_precision(x):
            d_theta, d_x = program.apply_and_pull(_OPS, theta, x, _dtype(x))[1](gradient)
        return d_theta.clone(), d_x.clone() if wrt_inputs else nothing
    _, pullback = program.value_and_vjp(_to_numpy(theta), _to_numpy(x), wrt_inputs=wrt_inputs)
    host_theta, host_x = pullback(_to_numpy(gradient))
    return _like(host_theta, theta), nothing if host_x is None else _like(host_x, x)


@layer_vjp.register_fake
def _(
    handle: int, wrt_inputs: bool, theta: torch.Tensor, x: torch.Tensor, gradient: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(theta), torch.empty_like(x) if wrt_inputs else x.new_empty((0,))


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.handle, _, theta, x = inputs
    ctx.save_for_backward(theta, x)


def _pull_back(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    theta, x = ctx.saved_tensors
    wrt_inputs = ctx.needs_input_grad[3]
    d_theta, d_x = layer_vjp(ctx.handle, wrt_inputs, theta, x, gradient)
    return None, None, d_theta, d_x if wrt_inputs else None


def _refuse(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
    raise GradientError("second derivatives do not pass a compiled graph. Run the model without torch.compile.")


layer.register_autograd(_pull_back, setup_context=_keep_inputs)
layer_vjp.register_autograd(_refuse)


def _dtype(x: torch.Tensor) -> str:
    return "float64" if x.dtype == torch.float64 else "float32"


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy(force=True)


def _like(array: np.ndarray, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of its own memory: an operator's results must not share it with anything."""
    return torch.from_numpy(np.array(array)).to(device=tensor.device, dtype=tensor.dtype)
