"""`TritonBackend`: circuits on CUDA tensors, in fused kernels where only values and first derivatives are wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from qstore_core import Capabilities, CapabilityError, Circuit, InputError, lower
from qstore_core.backends.contract import check_exact
from qstore_core.circuit.lowering.plan import Plan
from qstore_core.circuit.measurements.measurement import Amplitudes, Measurement
from qstore_core.circuit.spec.encoding import unit_rows
from qstore_core.engines.arrays.program import ArrayProgram

from .. import engine as plain
from . import launch
from .wide import WideCircuit

__all__ = ["IN_ONE_PROGRAM", "MOST_QUBITS", "TritonBackend", "TritonExecutable"]

IN_ONE_PROGRAM = {"float32": 13, "float64": 12}
"""A state of more qubits does not fit the registers of one program: it is computed in passes over memory."""
MOST_QUBITS = 26
"""One state in float32 is half a GiB."""

Vjp = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class TritonBackend:
    """Exact simulation in fused GPU kernels.

    Function transforms, forward mode and second derivatives are computed in PyTorch operations, as by backend "torch".
    """

    name = "triton"
    capabilities = Capabilities(vjp=True, features=True, framework="torch", embedded=True, max_qubits=MOST_QUBITS)

    def compile(
        self, circuit: Circuit, measurement: Measurement, *, dtype: str = "float32", shots: int | None = None
    ) -> TritonExecutable:
        """Lower the circuit to tables. Kernels are compiled once per size and precision, at the first call."""
        check_exact(shots, backend=self.name)
        if isinstance(measurement, Amplitudes):
            raise CapabilityError(
                "backend 'triton' computes expectation values and probabilities, no states. Use 'torch'.",
                backend=self.name,
            )
        if circuit.n_qubits > MOST_QUBITS:
            raise CapabilityError(
                f"backend 'triton' takes at most {MOST_QUBITS} qubits, the circuit has {circuit.n_qubits}. "
                'Use backend="torch".',
                backend=self.name,
            )
        return TritonExecutable(lower(circuit, measurement), dtype)


class TritonExecutable:
    """A compiled circuit: features → outputs on CUDA tensors (`apply`) and on NumPy arrays (`forward`, `vjp`).

    Features are rows (B, F): first amplitude features, which are normalised in the pass that loads them, then angles.
    What is not finite in theta makes all outputs NaN, in a row those of that row.
    """

    def __init__(self, plan: Plan, dtype: str) -> None:
        self.plan, self.dtype = plan, getattr(torch, dtype)
        kind = launch.Circuit if plan.n_qubits <= IN_ONE_PROGRAM[dtype] else WideCircuit
        self._circuit: Any = kind(plan, self.dtype)
        self._array: ArrayProgram | None = None
        self._ops = plain.TorchOps()

    def apply(self, theta: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """`theta` (W,), `features` (B, F) → outputs (B, O), which PyTorch can differentiate any number of times."""
        wanted = torch.is_grad_enabled() and (theta.requires_grad or features.requires_grad)
        if wanted or plain.surroundings():
            return self._in_operations(theta, features)
        return self._circuit.forward(*self._checked(theta, features), keep=False)[0]

    def apply_and_vjp(self, theta: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, Vjp]:
        """The same outside autograd, and the function that pulls cotangents (B, O) back to theta and features."""
        theta, features = self._checked(theta, features)
        outputs, kept = self._circuit.forward(theta, features, keep=True)

        def vjp_fn(cotangents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            assert kept is not None
            return self._circuit.backward(theta, features, kept, self._plain(cotangents))

        return outputs, vjp_fn

    def _in_operations(self, theta: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """In PyTorch operations, which every transform of PyTorch knows."""
        if self._array is None:
            self._array = ArrayProgram(self.plan)
        width = self.plan.n_amplitudes
        if width:
            split = features.shape[-1] - self.plan.n_inputs
            unit = unit_rows(self._ops, features[:, :split], width)
            features = torch.cat([unit, features[:, split:]], -1) if self.plan.n_inputs else unit
        return self._array.forward(self._ops, theta, features)

    def _checked(self, theta: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not (theta.device == features.device and (features.is_cuda or launch.INTERPRETED)):
            raise InputError(
                f"backend 'triton' computes on CUDA tensors, received theta on {theta.device} and features on "
                f'{features.device}. Move the layer and its inputs to one GPU, or use backend="auto".'
            )
        return self._plain(theta), self._plain(features)

    def _plain(self, tensor: torch.Tensor) -> torch.Tensor:
        """What a kernel takes: asking is cheaper than `to` and `contiguous`, where there is nothing to do."""
        if tensor.dtype is self.dtype and tensor.is_contiguous() and not (launch.INTERPRETED and tensor.requires_grad):
            return tensor
        return tensor.detach().to(self.dtype).contiguous()

    # -- on arrays ------------------------------------------------------------------------------------------------

    def forward(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """`apply` on NumPy arrays, by way of the device."""
        with torch.no_grad():
            return self.apply(_tensor(theta), _tensor(inputs)).numpy(force=True)

    def value_and_vjp(
        self, theta: np.ndarray, inputs: np.ndarray
    ) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]]:
        """Outputs, and the function that pulls cotangents back."""
        outputs, vjp_fn = self.apply_and_vjp(_tensor(theta), _tensor(inputs))

        def vjp_of_arrays(cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            d_theta, d_inputs = vjp_fn(_tensor(cotangents))
            return d_theta.numpy(force=True), d_inputs.numpy(force=True)

        return outputs.numpy(force=True), vjp_of_arrays

    def vjp(self, theta: np.ndarray, inputs: np.ndarray, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pull `cotangents` (B, O) back to `(d_theta (W,), d_inputs (B, I))`."""
        return self.value_and_vjp(theta, inputs)[1](cotangents)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array)).to("cpu" if launch.INTERPRETED else "cuda")
