"""A third party's engine for torch tensors, written here from docs/architecture.md alone: it trains as ours do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qstore_core import Capabilities, FallbackWarning
from qstore_core.circuit.gates.table import GATES
from qstore_torch import QuantumFeatureExtractor, QuantumReadout

X = torch.rand(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Dense:
    """States as tensors of shape (batch, 2, …, 2); one matrix product per gate. Needs nothing but PyTorch."""

    name, capabilities = "dense-torch", Capabilities(vjp=True, framework="torch")

    def __init__(self):
        self.calls, self.fault = 0, None

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        return DenseExecutable(self, circuit, measurement)


class DenseExecutable:
    def __init__(self, backend, circuit, measurement):
        self.backend, self.circuit, self.observables = backend, circuit, measurement.as_observables(circuit.n_qubits)

    def apply(self, theta, inputs):
        self.backend.calls += 1
        if self.backend.fault is not None:
            raise self.backend.fault
        n, kind = self.circuit.n_qubits, torch.complex128 if theta.dtype == torch.float64 else torch.complex64
        state = torch.zeros(len(inputs), *[2] * n, dtype=kind)
        state[(slice(None), *[0] * n)] = 1
        for operation in self.circuit.operations:
            angles = [self.angle(angle, theta, inputs) for angle in operation.params]
            state = self.gate(state, self.matrices(operation.gate, angles, kind), operation.qubits)
        return torch.stack([self.expectation(state, observable) for observable in self.observables], dim=1)

    def angle(self, angle, theta, inputs):
        slots = {"w": theta.expand(len(inputs), -1), "x": inputs}
        total = torch.zeros(len(inputs), dtype=inputs.dtype)
        for monomial, coefficient in angle.terms:
            term = torch.full_like(total, coefficient)
            for slot, index in monomial:
                term = term * slots[slot][:, index]
            total = total + term
        return total

    def matrices(self, gate, angles, kind):
        """By generators: exp(-i a/2 P) for rotations, the table's matrix for the rest."""
        if not angles:
            return torch.as_tensor(GATES[gate].matrix(), dtype=kind)
        generator = torch.as_tensor(1j * GATES[gate].matrix(torch.pi), dtype=kind)  # exp(-i π/2 P) = -i P
        half = (angles[0] / 2).reshape(-1, 1, 1)
        return torch.cos(half) * torch.eye(len(generator), dtype=kind) - 1j * torch.sin(half) * generator

    def gate(self, state, matrix, qubits):
        axes = [1 + q for q in qubits]
        rest = [axis for axis in range(1, state.dim()) if axis not in axes]
        moved = state.permute(0, *axes, *rest)
        flat = matrix @ moved.reshape(len(state), 2 ** len(axes), -1)
        order = torch.argsort(torch.tensor([0, *axes, *rest])).tolist()
        return flat.reshape(moved.shape).permute(order)

    def expectation(self, state, observable):
        total = 0
        for pauli, coefficient in observable.terms:
            other = state
            for qubit, letter in enumerate(pauli):
                if letter != "I":
                    matrix = torch.as_tensor(GATES[letter.lower()].matrix(), dtype=state.dtype)
                    other = self.gate(other, matrix, (qubit,))
            total = total + coefficient * (state.conj() * other).real.flatten(1).sum(1)
        return total

    def apply_and_vjp(self, theta, inputs):
        with torch.enable_grad():
            leaves = theta.detach().requires_grad_(), inputs.detach().requires_grad_()
            outputs = self.apply(*leaves)

        def vjp_fn(cotangents):
            return torch.autograd.grad(outputs, leaves, cotangents, retain_graph=True, materialize_grads=True)

        return outputs.detach(), vjp_fn


def pair(**more):
    backend = Dense()
    arguments = {"depth": 2, "encoding": "angle", "seed": 0, "dtype": torch.float64, **more}
    return backend, QuantumFeatureExtractor(2, backend=backend, **arguments), QuantumFeatureExtractor(2, **arguments)


def gradients(layer):
    x = X.clone().requires_grad_()
    y = layer(x)
    return y.detach(), *torch.autograd.grad(y.square().sum(), (layer.theta, x))


@pytest.mark.parametrize("bases", ["Z", ("Z", "X", "Y")])
def test_it_agrees(bases):
    backend, layer, ours = pair(measurement_bases=bases)
    torch.testing.assert_close(gradients(layer), gradients(ours))
    assert backend.calls == 1
    assert layer.last_run.backend == layer.backend_name == "dense-torch"
    assert layer.last_run.backward.gradient == "vjp"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, when it first loads forward mode
def test_transforms_take_it_apart():
    _, layer, ours = pair()
    torch.testing.assert_close(torch.func.jacfwd(layer)(X), torch.func.jacfwd(ours)(X))
    found, expected = (torch.func.hessian(lambda x, m=m: m(x).sum())(X) for m in (layer, ours))
    torch.testing.assert_close(found, expected)


def test_it_trains_a_model_on_the_default_fallback():
    torch.manual_seed(0)
    quantum = QuantumReadout(2, encoding="angle", backend=Dense(), seed=0)
    model = nn.Sequential(nn.Linear(2, 2), quantum, nn.Linear(2, 2))
    labels = (X.sum(1) > 1).long()
    optimizer, losses = torch.optim.Adam(model.parameters(), 0.1), []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X.float()), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert not quantum.fallbacks


def test_where_it_fails_the_host_computes_and_says_so():
    backend, layer, ours = pair()
    backend.fault = RuntimeError("out of memory")
    with pytest.warns(FallbackWarning, match="dense-torch.*out of memory"):
        torch.testing.assert_close(gradients(layer), gradients(ours))
    assert layer.last_run.backend == "statevector"
    assert layer.last_run.fallback == "dense-torch: RuntimeError: out of memory"
    assert sum(layer.fallbacks.values()) == 1
