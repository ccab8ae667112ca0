"""One layer's calls on PyTorch tensors, by the way that `route` says: of PyTorch's layers and of Keras's."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.masked import MaskedTensor

from qstore_core import GradientError, InputError
from qstore_core.engines.arrays.planes import PlanesOps
from qstore_core.runtime.encoded import EncodedExecutable
from qstore_core.runtime.program import LayerProgram
from qstore_core.runtime.route import Route

from .engine import OPS, TorchOps, full_precision, has_tangent, is_recorded, surroundings
from .graph import content_of, exports_to_onnx, in_graph, operations
from .host import TransformedFunction, on_host, to_array
from .tensor import on_tensors, refuse_gradient

__all__ = ["LayerCall", "as_plain"]

_MOST_SEEN = 256
_is_profiled = torch.autograd._profiler_enabled


def as_plain(x: Any, name: str) -> torch.Tensor:
    """An unusual tensor as an ordinary one, or a refusal in the name of a layer."""
    if not isinstance(x, torch.Tensor):
        raise InputError(f"{name} takes a torch.Tensor, received {type(x).__name__}. Use torch.as_tensor(x).")
    if x.is_complex():
        raise InputError(f"{name} takes real numbers, received dtype {x.dtype}.")
    if x.is_nested:
        raise InputError(f"{name} takes one tensor (…, features), received a nested one. Call it on x.values().")
    if hasattr(x, "full_tensor"):  # DTensor; its module takes long to import
        raise InputError(
            f"{name} takes plain tensors, received a DTensor, of which each process has a part. Use its to_local() or "
            "full_tensor(); fully_shard shards the weights of a layer."
        )
    if isinstance(x, MaskedTensor):
        raise InputError(
            f"{name} takes plain tensors, received one with a mask, which it would ignore. Fill what is "
            "masked: x.to_tensor(0.0)."
        )
    return x if x.layout is torch.strided else x.to_dense()


def _is_finite(x: torch.Tensor) -> bool:
    """Whether all numbers are. Of most tensors their sum tells, in fewer operations."""
    return math.isfinite(x.detach().sum().item()) or bool(torch.isfinite(x).all())


class LayerCall:
    """`theta` (W,), `x` (B, F), both float32 or float64 → (B, O).

    Args:
        program: The layer.
        in_operations: Whether graphs hold PyTorch's own operations, not one operator of ours.
    """

    def __init__(self, program: LayerProgram, in_operations: bool = False) -> None:
        self.program, self.in_operations = program, in_operations
        self.content, self.width = content_of(program.spec, program.execution), program.spec.output_dim
        self._on_host = program.route().where == "host"
        self._seen: dict[Any, tuple[str, EncodedExecutable | None]] = {}

    def __call__(self, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`theta` (W,), `x` (B, F) of one dtype → (B, O), by the way that `route` says."""
        if self.in_operations:
            return operations(self.content, theta, x)
        if torch.compiler.is_compiling():
            return in_graph(self.content, self.width, theta, x)
        around = surroundings()
        if _is_profiled():
            with torch.autograd.profiler.record_function(self.program.name):
                return self._within(around, theta, x) if around else self._plain(theta, x)
        if around:
            return self._within(around, theta, x)
        if self._on_host and x.is_cpu and theta.is_cpu:
            return on_host(self.program, theta, x)
        return self._plain(theta, x)

    def functions(self) -> TorchOps | PlanesOps:
        """Array functions for what is computed from outputs."""
        runtime = "ONNX" if exports_to_onnx() else ""
        return PlanesOps(OPS, double=True, runtime=runtime) if runtime or self.in_operations else OPS

    def _plain(self, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """An eager call. What devices and shapes decide is decided once."""
        program, key = self.program, (x.device, x.dtype, x.shape, theta.device, theta.shape)
        try:
            where, executable = self._seen[key]
        except KeyError:
            where = self._route("", theta, x)
            executable = self._executable(theta, x) if where == "tensor" else None
            if len(self._seen) >= _MOST_SEEN:
                self._seen = {}
            self._seen[key] = where, executable
        if executable is None:
            return in_graph(self.content, self.width, theta, x) if where == "graph" else on_host(program, theta, x)
        if x.requires_grad and torch.is_grad_enabled():
            executable.check_input_gradient()
        if x.is_cpu and (executable.looks or not (_is_finite(x) and _is_finite(theta))):
            executable.check_values(to_array(theta), to_array(x))  # as in NumPy layers
        return program.with_fallback(
            lambda: on_tensors(program, executable, theta, x), lambda other: on_host(other, theta, x)
        )

    def _within(self, around: str, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """A call inside of a function transform or where calls are recorded."""
        where, program = self._route(around, theta, x), self.program
        if where == "graph":
            return in_graph(self.content, self.width, theta, x)
        if where == "tensor":
            executable = self._executable(theta, x)
            with full_precision(x):
                return executable.apply(theta, refuse_gradient(executable, x))
        if around == "vmap and grad":
            return TransformedFunction.apply(program, theta, x)
        return on_host(program, theta, x)

    def _executable(self, theta: torch.Tensor, x: torch.Tensor) -> EncodedExecutable:
        """The layer on these tensors, whose shapes fit."""
        self.program.check_shapes(tuple(theta.shape), tuple(x.shape))
        return self.program.on_tensors(x)

    def _route(self, around: str, theta: torch.Tensor, x: torch.Tensor) -> str:
        """Where a call computes: on the "host", in "tensor" operations, or in the "graph" that is being recorded."""
        program, device = self.program, x.device.type
        if theta.is_meta and not (x.is_meta or around == "tracing"):
            raise InputError(
                f"{program.name}: theta is on the device meta and has no values. Load a checkpoint into the layer, or "
                'make room for values and draw them: layer.to_empty(device="cpu"), then layer.reset_parameters().'
            )
        if around == "tracing" or x.is_meta:
            return "graph"
        if around in ("vmap and grad", "a function transform"):
            where = program.route(device=device, transform=around)
        elif around == "tangents" and torch.is_inference_mode_enabled():
            where = Route("refused", "inference_mode drops tangents. Use torch.no_grad() for forward mode.")
        elif around == "tangents" and (has_tangent(theta, x) or is_recorded()):
            where = program.route(device=device, wanted="tangents")
        else:
            where = program.route(device=device)
        if where.where == "refused":
            raise GradientError(f"{program.name}: {where.why}")
        return where.where
