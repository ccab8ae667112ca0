"""An engine for torch tensors, written out of tree, and faults of such engines."""

from __future__ import annotations

import itertools
import math
from typing import ClassVar

import numpy as np
import torch

from qstore_core import Capabilities, CapabilityError, Probabilities
from qstore_core.circuit.gates.table import GATES

from .faults import fault

KIND = "tensors"
KNOWN = {"rx", "ry", "rz", "p", "rot", "u3", "cp", "crx", "cry", "crz", "rxx", "ryy", "rzz"}
WHOLE = {("p", 0), ("cp", 0), ("u3", 1), ("u3", 2)}  # e^(i·angle); all other angles appear halved


class TorchBackend:
    """Dense state vectors in torch operations; torch differentiates them."""

    name = "torch_dense"
    capabilities = Capabilities(exact=True, vjp=True, framework="torch", max_qubits=12)
    methods: ClassVar[dict] = {}

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        if shots is not None:
            raise CapabilityError(f"backend 'torch_dense' computes exact values; shots={shots} was asked for.")
        if circuit.n_qubits > 12:
            raise CapabilityError(f"backend 'torch_dense' takes at most 12 qubits, received {circuit.n_qubits}.")
        for op in circuit.operations:
            if op.params and op.gate not in KNOWN:
                raise CapabilityError(
                    f"backend 'torch_dense' does not know how gate {op.gate!r} depends on its angles."
                )
        return type("Executable", (TorchExecutable,), self.methods)(circuit, measurement)


def series(op):
    """A gate's matrix as a polynomial in 1, cos and sin of each angle: coefficients (3, …, 3, d, d)."""
    points = [0.0, 0.9, 2.1]
    grid = np.array([GATES[op.gate].matrix(*angles) for angles in itertools.product(points, repeat=len(op.params))])
    grid = grid.reshape((3,) * len(op.params) + grid.shape[1:]).astype(complex)
    for k in range(len(op.params)):
        scale = 1.0 if (op.gate, k) in WHOLE else 0.5
        basis = np.array([[1.0, math.cos(scale * a), math.sin(scale * a)] for a in points])
        grid = np.moveaxis(np.tensordot(np.linalg.inv(basis), grid, (1, k)), 0, k)
    return torch.tensor(grid)


class TorchExecutable:
    """One circuit; keeps constants only."""

    def __init__(self, circuit, measurement):
        self.circuit, self.measurement, self.n = circuit, measurement, circuit.n_qubits
        self.series = [series(op) for op in circuit.operations]
        self.paulis = {letter.upper(): torch.tensor(GATES[letter].matrix()) for letter in "xyz"}
        self.width = measurement.n_outputs(self.n)

    def value(self, angle, theta, x):
        total = torch.zeros(len(x), dtype=torch.float64)
        for monomial, coefficient in angle.terms:
            total = total + coefficient * math.prod(
                (theta[index] if kind == "w" else x[:, index] for kind, index in monomial),
                start=torch.ones((), dtype=torch.float64),
            )
        return total

    def on(self, state, matrices, qubits):
        k, axes = len(qubits), [1 + q for q in qubits]
        moved = torch.movedim(state, axes, list(range(1, k + 1)))
        out = matrices @ moved.reshape(len(state), 1 << k, -1)
        return torch.movedim(out.reshape(moved.shape), list(range(1, k + 1)), axes)

    def evolve(self, theta, inputs):
        start, batch = self.circuit.n_amplitudes, len(inputs)
        if start:
            state = inputs[:, :start].to(torch.complex128)
        else:
            state = torch.zeros(batch, 1 << self.n, dtype=torch.complex128)
            state[:, 0] = 1.0
        state = state.reshape((batch,) + (2,) * self.n)
        for op, table in zip(self.circuit.operations, self.series, strict=True):
            matrices = table[None].expand(batch, *table.shape)
            for k, angle in enumerate(op.params):
                a = self.value(angle, theta, inputs[:, start:]) * (1.0 if (op.gate, k) in WHOLE else 0.5)
                basis = torch.stack([torch.ones_like(a), torch.cos(a), torch.sin(a)], dim=1).to(torch.complex128)
                matrices = torch.einsum("bi,bi...->b...", basis, matrices)
            state = self.on(state, matrices, op.qubits)
        return state

    def measure(self, state):
        flat = state.reshape(len(state), -1)
        if isinstance(self.measurement, Probabilities):
            kept = range(self.n) if self.measurement.qubits is None else self.measurement.qubits
            bits = torch.arange(1 << self.n)
            index = sum((bits >> self.n - 1 - q & 1) << len(kept) - 1 - k for k, q in enumerate(kept)) % self.width
            return (flat.abs() ** 2) @ torch.nn.functional.one_hot(index, self.width).to(torch.float64)
        columns = []
        for observable in self.measurement.as_observables(self.n):
            total = torch.zeros(len(state), dtype=torch.float64)
            for string, c in observable.terms:
                turned = state
                for q, letter in enumerate(string):
                    if letter != "I":
                        turned = self.on(turned, self.paulis[letter], (q,))
                total = total + c * (flat.conj() * turned.reshape(len(state), -1)).sum(dim=1).real
            columns.append(total)
        return torch.stack(columns, dim=1)

    # -- the contract

    def apply(self, theta, inputs):
        return self.measure(self.evolve(theta.double(), inputs.double())).to(inputs.dtype)

    def apply_and_vjp(self, theta, inputs):
        leaves = [theta.detach().requires_grad_(), inputs.detach().requires_grad_()]
        with torch.enable_grad():
            outputs = self.apply(*leaves)

        def vjp_fn(cotangents):
            if not outputs.requires_grad:
                return torch.zeros_like(theta), torch.zeros_like(inputs)
            return torch.autograd.grad(
                outputs, leaves, cotangents, retain_graph=True, allow_unused=True, materialize_grads=True
            )

        return outputs.detach(), vjp_fn

    def forward(self, theta, inputs):
        return self.apply(torch.tensor(theta), torch.tensor(inputs)).numpy()

    def value_and_vjp(self, theta, inputs):
        outputs, vjp_fn = self.apply_and_vjp(torch.tensor(theta), torch.tensor(inputs))
        return outputs.numpy(), lambda cotangents: tuple(
            d.numpy() for d in vjp_fn(torch.tensor(cotangents).to(outputs.dtype))
        )


E = TorchExecutable


def faulty(name, refused_by, *, only=False, **methods):
    fault(KIND, name, refused_by, lambda: type("Faulty", (TorchBackend,), {"methods": methods})(), only=only)


def own_forward(method):
    """The NumPy methods stay right where apply is wrong."""
    return {
        "apply": method,
        "apply_and_vjp": lambda self, theta, inputs: E.apply_and_vjp(_right(self), theta, inputs),
        "forward": lambda self, theta, inputs: E.forward(_right(self), theta, inputs),
        "value_and_vjp": lambda self, theta, inputs: E.value_and_vjp(_right(self), theta, inputs),
    }


def _right(self):
    right = object.__new__(TorchExecutable)
    right.__dict__.update(self.__dict__)
    return right


faulty(
    "apply in half precision",
    "tensors: values",
    only=True,
    **own_forward(lambda self, t, x: E.apply(self, t, x) + 1e-4),
)
faulty("apply gives arrays", "tensors: values", **own_forward(lambda self, t, x: E.apply(self, t, x).detach().numpy()))
faulty(
    "apply gives float64 for float32",
    "tensors: values",
    only=True,
    **own_forward(lambda self, t, x: E.apply(self, t, x).double()),
)
faulty(
    "inputs detached", "tensors: gradients", only=True, **own_forward(lambda self, t, x: E.apply(self, t, x.detach()))
)
faulty(
    "theta detached", "tensors: gradients", only=True, **own_forward(lambda self, t, x: E.apply(self, t.detach(), x))
)
faulty(
    "gradient twice where both are wanted",
    "tensors: gradients",
    only=True,
    **own_forward(
        lambda self, t, x: E.apply(self, *((t * 2 - t.detach(), x) if t.requires_grad and x.requires_grad else (t, x)))
    ),
)


def other_vjp(change):
    """`change` of what the vjp_fn of apply_and_vjp returns."""

    def apply_and_vjp(self, theta, inputs):
        outputs, vjp_fn = E.apply_and_vjp(self, theta, inputs)
        return outputs, lambda cotangents: change(self, *vjp_fn(cotangents))

    return {
        "apply_and_vjp": apply_and_vjp,
        "value_and_vjp": lambda self, theta, inputs: E.value_and_vjp(_right(self), theta, inputs),
    }


faulty(
    "half a gradient from apply_and_vjp", "tensors: apply_and_vjp", only=True, **other_vjp(lambda s, t, x: (t, x / 2))
)
faulty(
    "no gradient for amplitudes from apply_and_vjp",
    "tensors: apply_and_vjp",
    only=True,
    **other_vjp(lambda s, t, x: (t, x * 0 if s.circuit.n_amplitudes else x)),
)


def good_for_one_call(self, theta, inputs):
    leaves = [theta.detach().requires_grad_(), inputs.detach().requires_grad_()]
    outputs = E.apply(self, *leaves)
    return outputs.detach(), lambda cotangents: torch.autograd.grad(
        outputs, leaves, cotangents, allow_unused=True, materialize_grads=True
    )


faulty(
    "a vjp_fn of apply_and_vjp that is good for one call",
    "tensors: apply_and_vjp",
    only=True,
    apply_and_vjp=good_for_one_call,
    value_and_vjp=lambda self, theta, inputs: E.value_and_vjp(_right(self), theta, inputs),
)
faulty(
    "no apply_and_vjp",
    "tensors: apply_and_vjp",
    apply_and_vjp=property(),
    value_and_vjp=lambda self, theta, inputs: E.value_and_vjp(_right(self), theta, inputs),
)
