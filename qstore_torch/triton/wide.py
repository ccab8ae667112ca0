"""Launches the kernels of circuits that no program can hold, pass by pass, and reads what their programs do not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import triton.language as tl

from qstore_core import MemoryLimitError
from qstore_core.circuit.lowering.plan import Plan
from qstore_core.engines.arrays.measuring import Measuring

from ..engine import OPS
from .device import kernels, wide_kernels
from .launch import REDUCE_COLUMNS, REDUCE_ROWS, REGISTERS, TINY, Launch
from .tables import Program

__all__ = ["HELD", "Kept", "WideCircuit"]

HELD = {torch.float32: 11, torch.float64: 10}
"""A program of a pass holds so many qubits' amplitudes: more are fewer passes, fewer are more programs side by side."""

_LINE = {torch.float32: 4, torch.float64: 3}  # amplitudes in 128 bytes of memory, as a power of two
_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
_CHUNK = 1 << 12  # features that a program takes to the length of their row
_LANES = 128  # of kernels on angles
_SUM_ROWS, _SUM_COLUMNS = 64, 16
_ALWAYS = 1 << 28  # bytes that are taken without a look at what is free


@dataclass(frozen=True)
class Kept:
    """What a forward pass leaves for the backward pass."""

    state: torch.Tensor
    scratch: torch.Tensor
    norms: torch.Tensor
    outputs: torch.Tensor


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

    @cached_property
    def _measuring(self) -> Measuring:
        return Measuring(self.plan, self.plan.frames[0])

    def forward(self, theta: torch.Tensor, x: torch.Tensor, *, keep: bool) -> tuple[torch.Tensor, Kept | None]:
        """Outputs (B, O) of `theta` (W,) and rows `x` (B, amplitudes or features + angles), both contiguous."""
        plan, p, batch, device = self.plan, self.program, x.shape[0], x.device
        given, many = x.shape[1] - plan.n_inputs, self._per_sample
        if not batch:
            none = x.new_empty(0)
            return x.new_empty((0, plan.n_outputs)), Kept(none, none, none, none) if keep else None
        self._check_memory(batch, 3 if keep else 1, device)
        ints, floats, combine = self.tables(device)
        rows = batch if p.sampled else 1
        scratch = x.new_empty((rows, max(p.scratch, 1)))
        self._angles(
            device, rows, ints, floats, theta, x, scratch, batch, x.shape[1], given, plan.n_weights, p.monomials,
            p.degree,
        )  # fmt: skip
        norms = x.new_empty((batch, 2))
        if plan.n_amplitudes:
            parts = x.new_empty((batch, self._chunks, 2))
            self._parts(device, batch * self._chunks, x, parts, x.shape[1], given)
            self._norms(device, batch, parts, norms)
        launches = self._forward[keep]
        state = self._new_state(batch if keep or not self.read or len(launches) > 1 else 0, device)
        strings = x.new_empty((batch * many, len(plan.measurement.strings)) if self.read else 0)
        for launch, (record, _, _) in zip(launches, p.passes, strict=True):
            launch(
                device, batch * many, ints, floats, theta, x, norms, scratch, _planes(state), _planes(state), strings,
                record, x.shape[1], given, plan.n_weights, p.round_size,
            )  # fmt: skip
        if self.read:
            outputs = self._over_programs(strings, batch, self.dtype if p.identity_outputs else torch.float64)
            if not p.identity_outputs:
                outputs = (outputs @ combine).to(self.dtype)
        else:
            outputs = self._measuring.outputs(OPS, state)
        return outputs, Kept(state, scratch, norms, outputs) if keep else None

    def backward(
        self, theta: torch.Tensor, x: torch.Tensor, kept: Kept, cotangents: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`(d_theta (W,), d_x like x)` from cotangents (B, O)."""
        plan, p, batch, device = self.plan, self.program, x.shape[0], x.device
        given, many = x.shape[1] - plan.n_inputs, self._per_sample
        d_theta, d_x = torch.empty_like(theta), torch.empty_like(x)
        if not batch:
            return d_theta.zero_(), d_x
        ints, floats, combine = self.tables(device)
        strings = cotangents
        if self.read and not p.identity_outputs:
            strings = (cotangents.double() @ combine.T).to(self.dtype)
        # ψ and λ meet as at the end, where λ is the observables on ψ.
        inner = torch.linalg.vecdot(cotangents, kept.outputs) if plan.n_amplitudes else cotangents
        between = batch if len(p.passes) > 1 else 0
        source, target = kept.state, self._new_state(between, device)
        if self.read:
            lam_source = lam_target = self._new_state(between, device)
        else:
            lam_source = lam_target = 0.5 * self._measuring.pull(OPS, kept.state, cotangents)
        d_angles = x.new_empty((batch * many, max(p.n_angles, 1)))
        for launch, (record, _, _) in zip(self._backward[::-1], p.passes[::-1], strict=True):
            launch(
                device, batch * many, ints, floats, kept.norms, kept.scratch, _planes(source), _planes(lam_source),
                _planes(target), _planes(lam_target), strings, inner, d_angles, d_x, record, x.shape[1], given,
                p.round_size,
            )  # fmt: skip
            source = target
        d_angles = self._over_programs(d_angles, batch, self.dtype)
        if plan.n_weights:
            self._weights(
                device, -(-plan.n_weights // REDUCE_COLUMNS), ints, floats, theta, x, d_angles, d_theta, batch,
                x.shape[1], given, plan.n_weights, p.weight_entries, p.degree,
            )  # fmt: skip
        if plan.n_inputs:
            self._inputs(
                device, batch, ints, floats, theta, x, d_angles, d_x, batch, x.shape[1], given, plan.n_weights,
                plan.n_inputs, p.input_entries, p.degree,
            )  # fmt: skip
        return d_theta, d_x

    @property
    def _per_sample(self) -> int:
        """Programs of a sample."""
        return 1 << (self.plan.n_qubits - self.held)

    def _new_state(self, batch: int, device: torch.device) -> torch.Tensor:
        return torch.empty((batch, 1 << self.plan.n_qubits), dtype=_COMPLEX[self.dtype], device=device)

    def _over_programs(self, parts: torch.Tensor, batch: int, dtype: torch.dtype) -> torch.Tensor:
        """Rows of programs as rows of samples."""
        width = parts.shape[1]
        out = torch.empty((batch, width), dtype=dtype, device=parts.device)
        self._sum(parts.device, batch * -(-width // _SUM_COLUMNS), parts, out, self._per_sample, width)
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
