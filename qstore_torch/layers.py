"""The layers as `torch.nn.Module`s. What they compute is in `qstore_core`; here are parameters and tensors."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import nn

from qstore_core import GradientError, InputError, LayerSpec, ShapeError
from qstore_core.backends import runner
from qstore_core.circuit.initial import Init, initial_theta
from qstore_core.layers import definition
from qstore_core.layers.definition import LayerDefinition
from qstore_core.layers.numpy import numbered
from qstore_core.runtime.program import Execution, LayerProgram

from .bridge import DirectCall, HostCall, TensorCall
from .engine import TorchOps, full_precision, is_plain
from .operator import graph_call

__all__ = [
    "QuantumEncoder",
    "QuantumFeatureExtractor",
    "QuantumLayer",
    "QuantumPooling",
    "QuantumReadout",
    "TorchLayer",
]


_OPS = TorchOps()
_traced = torch._C._is_tracing
_WORK = (torch.float32, torch.float64)


class TorchLayer(LayerDefinition, nn.Module):
    """Base of the PyTorch layers. `theta` is a parameter; inputs (…, F) of any float dtype and device.

    NaN and infinity raise an `InputError` on the CPU and on host backends. On a GPU, where looking would wait for the
    device, and in function transforms they propagate: NaN features give NaN outputs.
    """

    theta: torch.Tensor

    def _define(  # type: ignore[override]
        self,
        spec: LayerSpec,
        execution: Execution,
        init: Init,
        config: dict[str, Any],
        *,
        name: str | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Module.__init__(self)
        program = LayerProgram(
            spec, execution, name=name or numbered(type(self).__name__), framework="torch", draw_seed=_draw_seed
        )
        self._program, self._config, self._init = program, config, init
        theta = torch.empty(spec.n_weights, device=device, dtype=dtype)
        if spec.n_weights:
            self.theta = nn.Parameter(theta)
        else:  # a parameter that no gradient ever reaches would stop DistributedDataParallel
            self.register_buffer("theta", theta, persistent=False)
        self.reset_parameters()

    @property
    def name(self) -> str:
        """Name in messages and profiles."""
        return self._program.name

    def reset_parameters(self) -> None:
        """Draw theta anew: from `seed`, or where that is None from PyTorch's generator (`torch.manual_seed`)."""
        seed = self._program.execution.seed
        if seed is None:
            seed = _draw_seed()
        theta = torch.from_numpy(initial_theta(self._init, self.spec.n_weights, seed))
        with torch.no_grad():
            self.theta.copy_(theta)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features (…, F) → outputs (…, O), in the dtype of `x`."""
        if not isinstance(x, torch.Tensor):
            raise InputError(f"{self.name} takes a torch.Tensor, received {type(x).__name__}. Use torch.as_tensor(x).")
        if x.is_complex():
            raise InputError(f"{self.name} takes real numbers, received dtype {x.dtype}.")
        program = self._program
        if torch.compiler.is_compiling():  # dynamo must not trace the core: one operator stands for the layer
            work = torch.float64 if x.dtype == torch.float64 else torch.float32
            rows, theta = x.flatten(0, -2).to(work), self.theta.to(work)
            out = graph_call(program, theta, rows)
            return out.reshape(*x.shape[:-1], out.shape[-1]).to(x.dtype if x.is_floating_point() else work)
        if (
            program.is_direct
            and type(x) is torch.Tensor
            and x.is_cpu
            and x.dtype in _WORK
            and is_plain()
            and not _traced()
        ):
            # Nothing to convert: every operation that is not needed costs a small circuit's time.
            theta = self._parameters.get("theta")
            if theta is not None and theta.dtype == x.dtype and theta.is_cpu and x.dim() == 2:
                if torch.is_grad_enabled() and (theta.requires_grad or x.requires_grad):
                    return DirectCall.apply(program, theta, x)
                return torch.from_numpy(program.forward(theta.numpy(force=True), x.numpy(force=True)))
        return self._forward(x)

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any input outside a compiled graph."""
        program, spec = self._program, self.spec
        spec.check_features(tuple(x.shape))
        if x.dim() == 1:
            raise ShapeError(
                f"{self.name} takes inputs of shape (batch, features), received {tuple(x.shape)}. "
                "Use x[None, :] for one sample."
            )
        work = torch.float64 if x.dtype == torch.float64 else torch.float32
        rows, theta = x, self.theta
        if x.dim() != 2:
            rows = x.flatten(0, -2)
        if x.dtype != work:
            rows = rows.to(work)
        if theta.dtype != work:
            theta = theta.to(work)
        if not torch.is_grad_enabled():  # autograd functions are not told that
            rows, theta = rows.detach(), theta.detach()
        if rows.requires_grad and not program.has_input_gradient:
            raise GradientError(program.no_input_gradient)
        eager = _is_eager()
        if program.twin is not None and not (x.is_cpu and eager):
            program = program.twin
        if program.on_tensors:
            bits = not spec.encoding.differentiable
            if eager and rows.is_cpu and (bits or not torch.isfinite(rows).all()):
                program.check_values(rows.numpy(force=True))  # what NumPy layers refuse is refused here
            dtype = "float64" if work == torch.float64 else "float32"
            with full_precision(rows):
                if eager and (theta.requires_grad or rows.requires_grad):
                    out = program.noting(lambda: TensorCall.apply(program, _OPS, dtype, theta, rows))
                elif eager:
                    out = program.noting(lambda: program.apply(_OPS, theta, rows, dtype))
                else:
                    out = program.apply(_OPS, theta, rows, dtype)
        else:
            out = HostCall.apply(program, theta, rows)
        if x.dim() != 2:
            out = out.reshape(*x.shape[:-1], spec.output_dim)
        return out if x.dtype == work or not x.is_floating_point() else out.to(x.dtype)

    async def call_async(self, x: torch.Tensor) -> torch.Tensor:
        """The same without blocking the running event loop; gradients flow through the result."""
        enabled = torch.is_grad_enabled()  # a thread has a mode of its own

        def call() -> torch.Tensor:
            with torch.set_grad_enabled(enabled):
                return self(x)

        return await runner.to_thread(call)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return self.config()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A layer with weights of its own. A backend that was given as an object is shared, with its connections."""
        memo |= {id(backend): backend for backend in self._program.backends}
        other = memo[id(self)] = type(self).__new__(type(self))
        other.__setstate__(copy.deepcopy(self.__dict__, memo))
        return other

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        spec = self.spec
        return f"n_qubits={spec.n_qubits}, depth={spec.depth}, weights={spec.n_weights}, backend={self.backend_name!r}"


def _draw_seed() -> int:
    """A seed from PyTorch's generator, for layers without one of their own."""
    return int(torch.randint(2**31, (), device="cpu"))


def _is_eager() -> bool:
    """True outside compilation, tracing and function transforms: values exist, and Python may look at them."""
    return is_plain() and not torch.compiler.is_compiling() and not _traced()


class QuantumEncoder(definition.QuantumEncoder, TorchLayer):
    __doc__ = definition.QuantumEncoder.__doc__


class QuantumFeatureExtractor(definition.QuantumFeatureExtractor, TorchLayer):
    __doc__ = definition.QuantumFeatureExtractor.__doc__


class QuantumPooling(definition.QuantumPooling, TorchLayer):
    __doc__ = definition.QuantumPooling.__doc__


class QuantumReadout(definition.QuantumReadout, TorchLayer):
    __doc__ = definition.QuantumReadout.__doc__


class QuantumLayer(definition.QuantumLayer, TorchLayer):
    __doc__ = definition.QuantumLayer.__doc__
