"""Circuits of 40 qubits on tensors: as on arrays, forwards, backwards, twice, and with what is not finite."""

import numpy as np
import pytest
import torch

import qstore_core
from qstore_torch import QuantumFeatureExtractor
from tests.support.tolerances import EXACT, EXACT_GRADIENT

BLOCKS = [(q, q + 20) for q in range(20)]


def layer(n=40, backend="torch", **arguments):
    given = {"depth": 2, "encoding": "angle", "entanglement": "linear", "init": "uniform", "seed": 0} | arguments
    return QuantumFeatureExtractor(n, backend=backend, dtype=torch.float64, **given)


@pytest.mark.parametrize("entanglement", ["linear", BLOCKS])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_values_and_gradients_are_those_of_the_layers_on_arrays(backend, entanglement):
    module = layer(backend=backend, entanglement=entanglement)
    plain = qstore_core.QuantumFeatureExtractor(
        40, 2, encoding="angle", entanglement=entanglement, init="uniform", seed=0, backend="statevector"
    )
    x, cotangents = np.random.default_rng(0).normal(size=(2, 3, 40))
    inputs = torch.tensor(x, requires_grad=True)
    out = module(inputs)
    out.backward(torch.tensor(cotangents))
    d_theta, d_x = plain.vjp(x, cotangents)
    np.testing.assert_allclose(out.detach().numpy(), plain(x), rtol=0, atol=EXACT)
    np.testing.assert_allclose(module.theta.grad.numpy(), d_theta, rtol=0, atol=EXACT_GRADIENT)
    np.testing.assert_allclose(inputs.grad.numpy(), d_x, rtol=0, atol=EXACT_GRADIENT)


def test_by_cones_on_tensors():
    """What a window would do more cheaply, by cones all the same."""
    from qstore_core.circuit.lowering import light_cone
    from qstore_core.runtime.cache import Recipe
    from qstore_core.runtime.narrow import _InCones
    from qstore_torch.engine import OPS

    spec = layer(8, entanglement=[(0, 4), (1, 5)]).spec
    recipe = Recipe(spec.circuit, spec.measurement, qstore_core.get_backend("torch"), "float64")
    strings, combine = light_cone._strings_of(spec.measurement, 8)
    cones, _ = light_cone._cones(spec.circuit, strings)
    order = [number for cone in cones for number in cone.strings]
    narrow = _InCones(light_cone.Narrowing(cones=cones, combine=combine[order]), recipe, OPS)
    full = recipe.backend.compile(spec.circuit, spec.measurement, dtype="float64")
    rng = np.random.default_rng(0)
    theta, x = torch.tensor(rng.normal(size=spec.n_weights)), torch.tensor(rng.normal(size=(3, 8)))
    cotangents = torch.tensor(rng.normal(size=(3, 8)))
    torch.testing.assert_close(narrow.apply(theta, x), full.apply(theta, x), rtol=0, atol=EXACT)
    (out, vjp_fn), (expected, full_vjp) = (e.apply_and_vjp(theta, x) for e in (narrow, full))
    torch.testing.assert_close(out, expected, rtol=0, atol=EXACT)
    for got, wanted in zip(vjp_fn(cotangents), full_vjp(cotangents), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=EXACT_GRADIENT)


def test_a_second_derivative_of_a_row_of_rotations():
    module = layer(depth=1, init="zeros")
    x = torch.tensor(np.random.default_rng(0).normal(size=(1, 40)), requires_grad=True)
    (first,) = torch.autograd.grad(module(x)[0, 1], x, create_graph=True)
    (second,) = torch.autograd.grad(first[0, 0], x)
    a, b = x.detach()[0, :2]
    expected = torch.zeros(40, dtype=torch.float64)
    expected[:2] = torch.stack([-a.cos() * b.cos(), a.sin() * b.sin()])  # of ⟨Z_1⟩ = cos a cos b
    torch.testing.assert_close(second[0], expected, rtol=0, atol=EXACT_GRADIENT)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, when it first loads forward mode
def test_tangents_equal_the_vjp():
    module, rng = layer(), np.random.default_rng(0)
    x, along = (torch.tensor(v) for v in rng.normal(size=(2, 1, 40)))
    _, tangent = torch.func.jvp(module, (x,), (along,))
    x.requires_grad_()
    (d_x,) = torch.autograd.grad(module(x).sum(), x)
    assert tangent.sum().item() == pytest.approx((d_x * along).sum().item(), abs=EXACT_GRADIENT)


def test_a_row_that_is_not_finite_is_nan_in_all_outputs_in_transforms():
    module = layer(entanglement="none")
    x = torch.zeros(2, 40, dtype=torch.float64)
    x[1, 7] = torch.nan
    rows = torch.func.vmap(lambda row: module(row[None])[0])(x)
    assert rows[0].isfinite().all()
    assert rows[1].isnan().all()


@pytest.mark.parametrize("entanglement", ["linear", BLOCKS])
@pytest.mark.parametrize("grad", [False, True])
def test_memory_is_asked_for_first(entanglement, grad, monkeypatch):
    """A window and cones keep what a reverse sweep needs, autograd every step; both were taken without a look."""
    monkeypatch.setattr("qstore_core.engines.memory.available_memory", lambda: 1 << 20)
    module, x = layer(entanglement=entanglement), torch.zeros(200_000, 40, dtype=torch.float64)
    with torch.set_grad_enabled(grad), pytest.raises(qstore_core.MemoryLimitError, match="200000 rows of 40 qubits"):
        module(x)
    operations = layer(8).as_operations()
    with torch.set_grad_enabled(grad), pytest.raises(qstore_core.MemoryLimitError, match="100000 rows of 8 qubits"):
        operations(torch.zeros(100_000, 8, dtype=torch.float64))
    assert module(x[:2]).shape == (2, 40)
