"""One layer's calls on PyTorch tensors, by the way that `route` says: of PyTorch's layers and of Keras's."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch.masked import MaskedTensor

from qstore_core import GradientError, InputError
from qstore_core.engines.arrays.planes import PlanesOps
from qstore_core.runtime.program import LayerProgram
from qstore_core.runtime.route import Route

from .engine import OPS, TorchOps, has_tangent, surroundings
from .graph import content_of, exports_to_onnx, in_graph, operations
from .host import TransformedFunction, on_host, to_array
from .tensor import on_tensors

__all__ = ["LayerCall", "as_plain"]


def as_plain(x: Any, name: str) -> torch.Tensor:
    """An unusual tensor as an ordinary one, or a refusal in the name of a layer."""
    if not isinstance(x, torch.Tensor):
        raise InputError(f"{name} takes a torch.Tensor, received {type(x).__name__}. Use torch.as_tensor(x).")
    if x.is_complex():
        raise InputError(f"{name} takes real numbers, received dtype {x.dtype}.")
    if x.is_nested:
        raise InputError(f"{name} takes one tensor (…, features), received a nested one. Call it on x.values().")
    if isinstance(x, MaskedTensor):
        raise InputError(
            f"{name} takes plain tensors, received one with a mask, which it would ignore. Fill what is "
            "masked: x.to_tensor(0.0)."
        )
    return x if x.layout is torch.strided else x.to_dense()


class LayerCall:
    """`theta` (W,), `x` (B, F), both float32 or float64 → (B, O).

    Args:
        program: The layer.
        in_operations: Whether graphs hold PyTorch's own operations, not one operator of ours.
    """

    def __init__(self, program: LayerProgram, in_operations: bool = False) -> None:
        self.program, self.in_operations = program, in_operations
        self.content, self.width = content_of(program.spec, program.execution), program.spec.output_dim
        self.eager = program.route()

    @cached_property
    def cuda(self) -> Route:
        """Where plain calls on CUDA tensors compute: asked when there is the first one."""
        return self.program.route(device="cuda")

    def __call__(self, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`theta` (W,), `x` (B, F) of one dtype → (B, O), by the way that `route` says."""
        if self.in_operations:
            return operations(self.content, theta, x)
        if torch.compiler.is_compiling():
            return in_graph(self.content, self.width, theta, x)
        around = surroundings()
        if around:
            where = self._route(around, theta, x)
        elif x.is_cpu and theta.is_cpu:
            where = self.eager
        else:
            where = self.cuda if x.is_cuda and theta.is_cuda else self._route(around, theta, x)
        if where.where == "graph":
            return in_graph(self.content, self.width, theta, x)
        if torch.autograd._profiler_enabled():
            with torch.autograd.profiler.record_function(self.program.name):
                return self._on(where, theta, x, around)
        return self._on(where, theta, x, around)

    def functions(self) -> TorchOps | PlanesOps:
        """Array functions for what is computed from outputs."""
        runtime = "ONNX" if exports_to_onnx() else ""
        return PlanesOps(OPS, double=True, runtime=runtime) if runtime or self.in_operations else OPS

    def _route(self, around: str, theta: torch.Tensor, x: torch.Tensor) -> Route:
        """Where an unusual call computes."""
        program, device = self.program, x.device.type
        if theta.is_meta and not (x.is_meta or around == "tracing"):
            raise InputError(
                f"{program.name}: theta is on the device meta and has no values. Load a checkpoint into the layer, or "
                'make room for values and draw them: layer.to_empty(device="cpu"), then layer.reset_parameters().'
            )
        if around == "tracing" or x.is_meta:
            return Route("graph", "calls are recorded")
        if around in ("vmap and grad", "a function transform"):
            where = program.route(device=device, transform=around)
        elif around == "tangents" and torch.is_inference_mode_enabled():
            where = Route("refused", "inference_mode drops tangents. Use torch.no_grad() for forward mode.")
        elif around == "tangents" and has_tangent(theta, x):
            where = program.route(device=device, wanted="tangents")
        else:
            where = program.route(device=device)
        if where.where == "refused":
            raise GradientError(f"{program.name}: {where.why}")
        return where

    def _on(self, where: Route, theta: torch.Tensor, x: torch.Tensor, around: str) -> torch.Tensor:
        program = self.program
        if where.where == "host":
            return (
                on_host(program, theta, x)
                if around != "vmap and grad"
                else TransformedFunction.apply(program, theta, x)
            )
        program.check_shapes(tuple(theta.shape), tuple(x.shape))
        if x.requires_grad and torch.is_grad_enabled():
            program.on_tensors(x).check_input_gradient()
        if not around and x.is_cpu:
            encoded = program.on_tensors(x)
            if encoded.looks or not torch.isfinite(x).all() or not torch.isfinite(theta).all():  # as in NumPy layers
                encoded.check_values(to_array(theta), to_array(x))
        if around or len(program.backends) < 2:
            return on_tensors(program, theta, x)
        failures: list[str] = []

        def attempt(index: int) -> torch.Tensor:
            return on_host(program.only(index), theta, x) if index else on_tensors(program, theta, x)

        out, index = program.chain.run(attempt, failures=failures)
        if index:
            program.adopt(program.only(index), failures)
        return out
