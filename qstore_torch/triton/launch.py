"""Launches the kernels of one circuit on tensors: no host synchronisation, no autograd."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch

from qstore_core.circuit.lowering.plan import Plan

from .device import kernels
from .tables import Program

__all__ = [
    "INTERPRETED",
    "REDUCE_COLUMNS",
    "REDUCE_ROWS",
    "REGISTERS",
    "TINY",
    "Circuit",
    "Kept",
    "Launch",
    "on_device",
]

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
"""True where Triton's interpreter runs the kernels, on CPU tensors; fixed when Triton is imported."""

REGISTERS = {torch.float32: 4, torch.float64: 3}
"""Bits of a register's number: amplitudes that a thread holds, as a power of two."""
_STATE = {torch.float32: torch.int64, torch.float64: torch.float64}  # complex64, as one number
_LEAST_LANES = 64
_MOST_LAUNCHES = 64
REDUCE_ROWS = 128
REDUCE_COLUMNS = 8
TINY = {torch.float32: 1.1754943508222875e-38, torch.float64: 2.2250738585072014e-308}


_HERE = nullcontext()


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """Launches go to the current device: this makes it the tensors', where it is another."""
    if INTERPRETED or torch.cuda.current_device() == device.index:
        return _HERE
    return torch.cuda.device(device)


class Launch:
    """A kernel with its constants. Launches of a size that was seen go past Triton's look-up of the arguments."""

    def __init__(self, kernel: Any, constants: dict[str, Any], warps: int) -> None:
        names = [name for name in kernel.arg_names if name in constants]
        assert names == kernel.arg_names[-len(names) :], kernel.arg_names
        self.kernel, self.constants, self._warps = kernel, {name: constants[name] for name in names}, warps
        self._values = tuple(self.constants.values())
        self._launches: dict[tuple[int | None, int], Any] = {}  # by device and number of programs

    def __call__(
        self, index: int | None, programs: int, tensors: tuple[torch.Tensor, ...], numbers: tuple[int, ...]
    ) -> None:
        """So many programs, on tensors of the current device, whose number is `index`."""
        launch = self._launches.get((index, programs))
        if launch is not None:  # addresses as numbers: Triton asks the driver about every tensor
            launch(*[tensor.data_ptr() for tensor in tensors], *numbers, *self._values)
            return
        if INTERPRETED:
            self.kernel[(programs,)](*tensors, *numbers, *self._values)
            return
        compiled = self.kernel[(programs,)](*tensors, *numbers, *self._values, num_warps=self._warps)
        if len(self._launches) >= _MOST_LAUNCHES:
            self._launches = {}
        self._launches[index, programs] = compiled[(programs, 1, 1)]


class _Batch(NamedTuple):
    """Of rows of one shape on one device: tables, how many programs, shapes of what they write, and their numbers."""

    device: int | None
    ints: torch.Tensor
    floats: torch.Tensor
    no_state: torch.Tensor
    programs: int
    outputs: tuple[int, int]
    scratch: tuple[int, int]
    state: tuple[int]
    strings: tuple[int, int] | None
    angles: tuple[int, int]
    forward: tuple[int, ...]
    backward: tuple[int, ...]
    reduce_programs: int
    reduce: tuple[int, ...]


class Kept(NamedTuple):
    """What a forward pass leaves for the backward pass."""

    state: torch.Tensor
    scratch: torch.Tensor


class Circuit:
    """A plan's tables on each device, and the launches.

    Args:
        plan: The circuit.
        dtype: torch.float32 or torch.float64.
    """

    def __init__(self, plan: Plan, dtype: torch.dtype) -> None:
        self.plan, self.dtype = plan, dtype
        n, r = plan.n_qubits, min(REGISTERS[dtype], plan.n_qubits)
        samples = max(1, _LEAST_LANES >> (n - r))
        self.program = p = Program(plan, r, samples)
        self.samples, self.warps = samples, (samples << (n - r)) // 32
        self._tables: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}
        self._batches: dict[tuple[torch.Size, torch.device], _Batch] = {}
        self._is_plain = p.identity_outputs or not plan.measurement.strings
        shared = {
            "TINY": TINY[dtype], "S": samples, "K": n, "R": r, "FACTORS": p.factors, "SAMPLED": p.sampled,
            "TERMS": p.has_terms, "STRINGS": bool(plan.measurement.strings), "SHIFTED": p.has_shifts,
            "PLAIN": p.identity_outputs, "AMPLITUDES": plan.n_amplitudes > 0,
        }  # fmt: skip
        self._forward = [Launch(kernels.forward, {**shared, "KEEP": keep}, self.warps) for keep in (False, True)]
        self._backward = Launch(kernels.backward, shared, self.warps)
        self._reduce = Launch(kernels.reduce_weights, {"ROWS": REDUCE_ROWS, "COLUMNS": REDUCE_COLUMNS}, 4)

    def tables(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Integers and coefficients on a device."""
        kept = self._tables.get(device)
        if kept is None:
            ints = torch.as_tensor(self.program.ints, device=device)
            floats = torch.as_tensor(self.program.floats, device=device).to(self.dtype)
            kept = self._tables[device] = ints, floats
        return kept

    def _batch(self, x: torch.Tensor) -> _Batch:
        """What launches on such rows (B, F) take, remembered: in a training step it is always the same."""
        key = x.shape, x.device
        found = self._batches.get(key)
        if found is None:
            plan, p, (batch, width) = self.plan, self.program, x.shape
            programs = -(-batch // self.samples)
            amplitudes = programs * self.samples << plan.n_qubits
            shared = (batch, width, width - plan.n_inputs, plan.n_weights)
            found = _Batch(
                x.device.index,
                *self.tables(x.device),
                torch.empty(0, dtype=_STATE[self.dtype], device=x.device),
                programs,
                (batch, plan.n_outputs),
                ((programs * self.samples if p.sampled else programs), max(p.scratch, 1)),
                (amplitudes if self.dtype == torch.float32 else 2 * amplitudes,),
                None if self._is_plain else (batch, len(plan.measurement.strings)),
                (batch, max(p.n_angles, 1)),
                (*shared, plan.n_outputs, p.round_size, p.monomials, p.degree, p.out_entries),
                (
                    *shared, plan.n_inputs, plan.n_outputs, p.round_size, p.degree, p.string_entries, p.input_entries,
                ),
                -(-plan.n_weights // REDUCE_COLUMNS),
                (*shared, p.weight_entries, p.degree),
            )  # fmt: skip
            if len(self._batches) >= _MOST_LAUNCHES:
                self._batches = {}
            self._batches[key] = found
        return found

    def forward(self, theta: torch.Tensor, x: torch.Tensor, *, keep: bool) -> tuple[torch.Tensor, Kept | None]:
        """Outputs (B, O) of `theta` (W,) and rows `x` (B, amplitudes or features + angles), both contiguous."""
        b = self._batch(x)
        outputs, scratch = x.new_empty(b.outputs), x.new_empty(b.scratch)
        state = b.no_state.new_empty(b.state) if keep else b.no_state
        values = outputs if b.strings is None else x.new_empty(b.strings)
        if b.programs:
            with on_device(x.device):
                tensors = b.ints, b.floats, theta, x, scratch, state, values, outputs
                self._forward[keep](b.device, b.programs, tensors, b.forward)
        return outputs, Kept(state, scratch) if keep else None

    def backward(
        self, theta: torch.Tensor, x: torch.Tensor, kept: Kept, cotangents: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`(d_theta (W,), d_x like x)` from cotangents (B, O)."""
        b, d_theta, d_x = self._batch(x), torch.empty_like(theta), torch.empty_like(x)
        if not b.programs:
            return d_theta.zero_(), d_x
        d_angles = x.new_empty(b.angles)
        strings = cotangents if b.strings is None else x.new_empty(b.strings)
        with on_device(x.device):
            tensors = b.ints, b.floats, theta, x, kept.scratch, kept.state, strings, cotangents, d_angles, d_x
            self._backward(b.device, b.programs, tensors, b.backward)
            if b.reduce_programs:
                reduced = b.ints, b.floats, theta, x, d_angles, d_theta
                self._reduce(b.device, b.reduce_programs, reduced, b.reduce)
        return d_theta, d_x
