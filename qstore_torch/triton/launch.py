"""Launches the kernels of one circuit on tensors: no host synchronisation, no autograd."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch

from qstore_core.circuit.lowering.plan import Plan

from .device import kernels
from .tables import Program

__all__ = ["INTERPRETED", "REDUCE_COLUMNS", "REDUCE_ROWS", "REGISTERS", "TINY", "Circuit", "Kept", "Launch"]

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


class Launch:
    """A kernel with its constants. Launches of a size that was seen go past Triton's look-up of the arguments."""

    def __init__(self, kernel: Any, constants: dict[str, Any], warps: int) -> None:
        names = [name for name in kernel.arg_names if name in constants]
        assert names == kernel.arg_names[-len(names) :], kernel.arg_names
        self.kernel, self.constants, self._warps = kernel, {name: constants[name] for name in names}, warps
        self._values = tuple(self.constants.values())
        self._launches: dict[tuple[int, int], Any] = {}  # by device and number of programs

    def __call__(self, device: torch.device, programs: int, *arguments: Any) -> None:
        """So many programs, on tensors of a device."""
        if device.type != "cuda":  # the interpreter
            self.kernel[(programs,)](*arguments, *self._values)
            return
        if torch.cuda.current_device() == device.index:
            self._on_current_device(device.index, programs, arguments)
        else:
            with torch.cuda.device(device):
                self._on_current_device(device.index, programs, arguments)

    def _on_current_device(self, index: int, programs: int, arguments: tuple[Any, ...]) -> None:
        launch = self._launches.get((index, programs))
        if launch is not None:  # addresses as numbers: Triton asks the driver about every tensor
            launch(*[a if type(a) is int else a.data_ptr() for a in arguments], *self._values)
            return
        compiled = self.kernel[(programs,)](*arguments, *self._values, num_warps=self._warps)
        if len(self._launches) >= _MOST_LAUNCHES:
            self._launches = {}
        self._launches[index, programs] = compiled[(programs, 1, 1)]


class _Sizes(NamedTuple):
    """Of one batch: how many programs, shapes of what they write, and the numbers that kernels take."""

    programs: int
    scratch: tuple[int, int]
    state: int
    strings: tuple[int, int] | None
    forward: tuple[int, ...]
    backward: tuple[int, ...]
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
        self._sizes: dict[tuple[int, int], _Sizes] = {}
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

    def sizes(self, batch: int, width: int) -> _Sizes:
        """Numbers of launches on rows (batch, width), remembered: in a training step they are always the same."""
        found = self._sizes.get((batch, width))
        if found is None:
            plan, p, programs = self.plan, self.program, -(-batch // self.samples)
            amplitudes = programs * self.samples << plan.n_qubits
            shared = (batch, width, width - plan.n_inputs, plan.n_weights)
            found = _Sizes(
                programs,
                ((programs * self.samples if p.sampled else programs), max(p.scratch, 1)),
                amplitudes if self.dtype == torch.float32 else 2 * amplitudes,
                None if self._is_plain else (batch, len(plan.measurement.strings)),
                (*shared, plan.n_outputs, p.round_size, p.monomials, p.degree, p.out_entries),
                (
                    *shared, plan.n_inputs, plan.n_outputs, p.round_size, p.degree, p.string_entries, p.input_entries,
                ),
                (*shared, p.weight_entries, p.degree),
            )  # fmt: skip
            if len(self._sizes) >= _MOST_LAUNCHES:
                self._sizes = {}
            self._sizes[batch, width] = found
        return found

    def forward(self, theta: torch.Tensor, x: torch.Tensor, *, keep: bool) -> tuple[torch.Tensor, Kept | None]:
        """Outputs (B, O) of `theta` (W,) and rows `x` (B, amplitudes or features + angles), both contiguous."""
        batch, device = x.shape[0], x.device
        sizes = self.sizes(*x.shape)
        outputs = x.new_empty((batch, self.plan.n_outputs))
        scratch = x.new_empty(sizes.scratch)
        state = torch.empty(sizes.state if keep else 0, dtype=_STATE[self.dtype], device=device)
        values = outputs if sizes.strings is None else x.new_empty(sizes.strings)
        if batch:
            ints, floats = self.tables(device)
            self._forward[keep](
                device, sizes.programs, ints, floats, theta, x, scratch, state, values, outputs, *sizes.forward
            )
        return outputs, Kept(state, scratch) if keep else None

    def backward(
        self, theta: torch.Tensor, x: torch.Tensor, kept: Kept, cotangents: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`(d_theta (W,), d_x like x)` from cotangents (B, O)."""
        batch, device = x.shape[0], x.device
        d_theta = torch.empty_like(theta)
        d_x = torch.empty_like(x)
        if not batch:
            return d_theta.zero_(), d_x
        ints, floats = self.tables(device)
        sizes = self.sizes(*x.shape)
        d_angles = x.new_empty((batch, max(self.program.n_angles, 1)))
        strings = cotangents if sizes.strings is None else x.new_empty(sizes.strings)
        self._backward(
            device, sizes.programs, ints, floats, theta, x, kept.scratch, kept.state, strings, cotangents,
            d_angles, d_x, *sizes.backward,
        )  # fmt: skip
        if len(theta):
            programs = -(-len(theta) // REDUCE_COLUMNS)
            self._reduce(device, programs, ints, floats, theta, x, d_angles, d_theta, *sizes.reduce)
        return d_theta, d_x
