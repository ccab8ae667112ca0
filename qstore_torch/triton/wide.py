"""Launches the kernels of circuits that no program can hold, pass by pass, and reads what their programs do not."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
import triton.language as tl

from qstore_core import MemoryLimitError
from qstore_core.circuit.lowering.plan import Plan
from qstore_core.engines.arrays.measuring import Measuring

from ..engine import OPS
from .device import kernels, wide_kernels
from .launch import REDUCE_COLUMNS, REDUCE_ROWS, REGISTERS, TINY, Launch, on_device
from .tables import Program

__all__ = ["HELD", "Kept", "WideCircuit"]

HELD = {torch.float32: 11, torch.float64: 10}
"""A program of a pass holds so many qubits' amplitudes: more are fewer passes, fewer are more programs side by side."""

_LINE = {torch.float32: 4, torch.float64: 3}  # amplitudes in 128 bytes of memory, as a power of two
_STATE = {torch.float32: torch.int64, torch.float64: torch.float64}  # see `_planes`
_MOST_BATCHES = 64
_CHUNK = 1 << 12  # features that a program takes to the length of their row
_LANES = 128  # of kernels on angles
_SUM_ROWS, _SUM_COLUMNS = 64, 16
_ALWAYS = 1 << 28  # bytes that are taken without a look at what is free


class Kept(NamedTuple):
    """What a forward pass leaves for the backward pass; states are what kernels take for them."""

    state: torch.Tensor
    scratch: torch.Tensor
    norms: torch.Tensor
    outputs: torch.Tensor


class _Batch(NamedTuple):
    """Of rows of one shape on one device: tables, shapes, and the numbers that kernels take."""

    device: int | None
    ints: torch.Tensor
    floats: torch.Tensor
    combine: torch.Tensor
    no_state: torch.Tensor
    programs: int
    states: tuple[int, ...]
    scratch: tuple[int, int]
    strings: tuple[int, ...]
    d_angles: tuple[int, int]
    angles: tuple[int, ...]
    given: tuple[int, int]
    forward: tuple[tuple[int, ...], ...]
    backward: tuple[tuple[int, ...], ...]
    weights: tuple[int, ...]
    inputs: tuple[int, ...]


class WideCircuit:
    """A plan's tables on each device, and the launches.

    Args:
        plan: The circuit.
        dtype: torch.float32 or torch.float64.
        held: Qubits whose amplitudes a program holds, fewer than the circuit's.
        low: Amplitudes of a line of memory, as a power of two.
        registers: Bits of a register's number.
    """

    def __init__(
        self, plan: Plan, dtype: torch.dtype, held: int | None = None, low: int | None = None, registers: int = 0
    ) -> None:
        self.plan, self.dtype = plan, dtype
        held, registers = held or HELD[dtype], registers or REGISTERS[dtype]
        low = _LINE[dtype] if low is None else low
        self.held, n = held, plan.n_qubits
        self.program = p = Program(plan, registers, 1, held, low)
        self.read = bool(plan.measurement.strings) and plan.measurement.is_diagonal
        """Whether the programs of the last pass read the measurement; otherwise PyTorch operations do."""
        self.warps = max(1, (1 << (held - registers)) // 32)
        tiny, chunk = {"TINY": TINY[dtype]}, min(_CHUNK, 1 << n)
        self._chunks = (1 << n) // chunk
        chunks = {**tiny, "CHUNKS": self._chunks}
        self._angles = Launch(wide_kernels.angles, {"LANES": _LANES, "FACTORS": p.factors}, 4)
        self._parts = Launch(wide_kernels.parts_of_norms, {**chunks, "SIZE": chunk}, 4)
        self._norms = Launch(wide_kernels.norms_of, {**chunks, "SIZE": 128}, 4)
        self._sum = Launch(wide_kernels.sum_programs, {"ROWS": _SUM_ROWS, "COLUMNS": _SUM_COLUMNS}, 4)
        self._weights = Launch(kernels.reduce_weights, {"ROWS": REDUCE_ROWS, "COLUMNS": REDUCE_COLUMNS}, 4)
        self._inputs = Launch(wide_kernels.input_gradients, {"LANES": _LANES}, 4)
        shared = {
            "N": n, "K": held, "R": registers, "FACTORS": p.factors, "AMPLITUDES": plan.n_amplitudes > 0,
            "SAMPLED": p.sampled, "TERMS": p.has_terms,
        }  # fmt: skip
        kind = tl.float32 if dtype == torch.float32 else tl.float64
        launches: dict[tuple[Any, ...], Launch] = {}

        def launch(kernel: Any, **constants: Any) -> Launch:
            """The same for passes of one kind."""
            key = (kernel, *constants.values())
            return launches.setdefault(key, Launch(kernel, {**shared, **constants}, self.warps))

        last = len(p.passes) - 1
        self._forward = [
            [
                launch(
                    wide_kernels.pass_forward, ENTERS=enters, LEAVES=leaves, FIRST=k == 0,
                    READ=self.read and k == last, KEEP=keep or k < last or not self.read, DTYPE=kind, **tiny,
                )
                for k, (_, enters, leaves) in enumerate(p.passes)
            ]
            for keep in (False, True)
        ]  # fmt: skip
        self._backward = [
            launch(
                wide_kernels.pass_backward, ENTERS=enters, LEAVES=leaves, FIRST=k == 0, READ=self.read and k == last
            )
            for k, (_, enters, leaves) in enumerate(p.passes)
        ]  # fmt: skip
        self._tables: dict[torch.device, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        self._batches: dict[tuple[torch.Size, torch.device], _Batch] = {}

    def tables(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Integers, coefficients, and the float64 matrix (strings, outputs), on a device."""
        kept = self._tables.get(device)
        if kept is None:
            ints = torch.as_tensor(self.program.ints, device=device)
            floats = torch.as_tensor(self.program.floats, device=device).to(self.dtype)
            measurement = self.plan.measurement
            combine = np.zeros((len(measurement.strings), len(measurement.outputs)))
            for k, terms in enumerate(measurement.outputs):
                for string, coefficient in terms:
                    combine[string, k] += coefficient
            kept = self._tables[device] = ints, floats, torch.as_tensor(combine, device=device)
        return kept

    def _batch(self, x: torch.Tensor) -> _Batch:
        """What launches on such rows (B, F) take, remembered: in a training step it is always the same."""
        key = x.shape, x.device
        found = self._batches.get(key)
        if found is None:
            plan, p, (batch, width) = self.plan, self.program, x.shape
            given, programs = width - plan.n_inputs, batch << (plan.n_qubits - self.held)
            shared = width, given, plan.n_weights
            size = 1 << plan.n_qubits
            found = _Batch(
                x.device.index,
                *self.tables(x.device),
                torch.empty(0, dtype=_STATE[self.dtype], device=x.device),
                programs,
                (batch, size) if self.dtype == torch.float32 else (batch, size, 2),
                (batch if p.sampled else 1, max(p.scratch, 1)),
                (programs, len(plan.measurement.strings)) if self.read else (0,),
                (programs, max(p.n_angles, 1)),
                (batch, *shared, p.monomials, p.degree),
                (width, given),
                tuple((record, *shared, p.round_size) for record, _, _ in p.passes),
                tuple((record, width, given, p.round_size) for record, _, _ in p.passes),
                (batch, *shared, p.weight_entries, p.degree),
                (batch, *shared, plan.n_inputs, p.input_entries, p.degree),
            )
            if len(self._batches) >= _MOST_BATCHES:
                self._batches = {}
            self._batches[key] = found
        return found

    @cached_property
    def _measuring(self) -> Measuring:
        return Measuring(self.plan, self.plan.frames[0])

    def forward(self, theta: torch.Tensor, x: torch.Tensor, *, keep: bool) -> tuple[torch.Tensor, Kept | None]:
        """Outputs (B, O) of `theta` (W,) and rows `x` (B, amplitudes or features + angles), both contiguous."""
        plan, p, batch, b = self.plan, self.program, x.shape[0], self._batch(x)
        if not batch:
            none = x.new_empty(0)
            return x.new_empty((0, plan.n_outputs)), Kept(none, none, none, none) if keep else None
        self._check_memory(batch, 3 if keep else 1, x.device)
        launches, scratch, norms = self._forward[keep], x.new_empty(b.scratch), x
        state = b.no_state
        if keep or not self.read or len(launches) > 1:
            state = state.new_empty(b.states)
        strings = x.new_empty(b.strings)
        with on_device(x.device):
            self._angles(b.device, b.scratch[0], (b.ints, b.floats, theta, x, scratch), b.angles)
            if plan.n_amplitudes:
                norms, parts = x.new_empty((batch, 2)), x.new_empty((batch, self._chunks, 2))
                self._parts(b.device, batch * self._chunks, (x, parts), b.given)
                self._norms(b.device, batch, (parts, norms), ())
            tensors = b.ints, b.floats, theta, x, norms, scratch, state, state, strings
            for launch, numbers in zip(launches, b.forward, strict=True):
                launch(b.device, b.programs, tensors, numbers)
            if self.read:
                outputs = self._over_programs(b, strings, self.dtype if p.identity_outputs else torch.float64)
        if not self.read:
            outputs = self._measuring.outputs(OPS, _complex(state))
        elif not p.identity_outputs:
            outputs = (outputs @ b.combine).to(self.dtype)
        return outputs, Kept(state, scratch, norms, outputs) if keep else None

    def backward(
        self, theta: torch.Tensor, x: torch.Tensor, kept: Kept, cotangents: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`(d_theta (W,), d_x like x)` from cotangents (B, O)."""
        plan, p, batch, b = self.plan, self.program, x.shape[0], self._batch(x)
        d_theta, d_x = torch.empty_like(theta), torch.empty_like(x)
        if not batch:
            return d_theta.zero_(), d_x
        strings = cotangents
        if self.read and not p.identity_outputs:
            strings = (cotangents.double() @ b.combine.T).to(self.dtype)
        # ψ and λ meet as at the end, where λ is the observables on ψ.
        inner = torch.linalg.vecdot(cotangents, kept.outputs) if plan.n_amplitudes else cotangents
        source, target, lam = kept.state, b.no_state, b.no_state
        if len(p.passes) > 1:
            target = target.new_empty(b.states)
            lam = lam.new_empty(b.states) if self.read else lam
        if not self.read:
            lam = _planes(0.5 * self._measuring.pull(OPS, _complex(kept.state), cotangents))
        d_angles = x.new_empty(b.d_angles)
        with on_device(x.device):
            for launch, numbers in zip(self._backward[::-1], b.backward[::-1], strict=True):
                tensors = (
                    b.ints, b.floats, kept.norms, kept.scratch, source, lam, target, lam, strings, inner, d_angles, d_x,
                )  # fmt: skip
                launch(b.device, b.programs, tensors, numbers)
                source = target
            d_angles = self._over_programs(b, d_angles, self.dtype)
            if plan.n_weights:
                reduced = b.ints, b.floats, theta, x, d_angles, d_theta
                self._weights(b.device, -(-plan.n_weights // REDUCE_COLUMNS), reduced, b.weights)
            if plan.n_inputs:
                self._inputs(b.device, batch, (b.ints, b.floats, theta, x, d_angles, d_x), b.inputs)
        return d_theta, d_x

    def _over_programs(self, b: _Batch, parts: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Rows of programs as rows of samples."""
        batch, width = b.states[0], parts.shape[1]
        out = torch.empty((batch, width), dtype=dtype, device=parts.device)
        each = 1 << (self.plan.n_qubits - self.held)
        self._sum(b.device, batch * -(-width // _SUM_COLUMNS), (parts, out), (each, width))
        return out

    def _check_memory(self, batch: int, states: int, device: torch.device) -> None:
        """Raise before anything is taken where so many states of every sample do not fit."""
        size = 8 if self.dtype == torch.float32 else 16
        needed = batch * states * size << self.plan.n_qubits
        if needed <= _ALWAYS or device.type != "cuda" or torch.cuda.is_current_stream_capturing():
            return
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        available = torch.cuda.mem_get_info(device)[0] + kept
        if needed > available:
            raise MemoryLimitError(
                f"backend 'triton' holds {states} of each of {batch} states of {self.plan.n_qubits} qubits on "
                f"{device}. Use fewer qubits or a smaller batch",
                needed_bytes=needed,
                available_bytes=available,
            )


def _planes(state: torch.Tensor) -> torch.Tensor:
    """What kernels take for a state: complex64 as one number, complex128 as two."""
    return state.view(torch.int64) if state.dtype == torch.complex64 else torch.view_as_real(state)


def _complex(state: torch.Tensor) -> torch.Tensor:
    """A state that kernels wrote."""
    return state.view(torch.complex64) if state.dtype == torch.int64 else torch.view_as_complex(state)
