"""Derivatives through the PyTorch layers: first, second, batched, in function transforms, and refused ones."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from torch import nn

import qstore_torch
from qstore_core import GradientError, Probabilities
from qstore_torch import QuantumEncoder, QuantumFeatureExtractor, QuantumLayer, QuantumPooling, QuantumReadout
from tests.support.faults import FaultyBackend
from tests.support.strategies import batches, layer_arguments

SMOOTH = ("amplitude", "angle", "iqp")


def double(layer):
    return layer.to(torch.float64)


def point(layer, rows=2, features=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    width = features or layer.spec.n_features
    return torch.rand(rows, width, dtype=torch.float64, generator=generator).add(0.2).requires_grad_()


@pytest.mark.parametrize("backend", ["torch", "statevector", "auto"])
@settings(max_examples=12)
@given(drawn=layer_arguments(max_qubits=3, max_depth=2, encodings=SMOOTH), batch=batches(("float64",), min_rows=1))
def test_gradcheck(backend, drawn, batch):
    kind, arguments = drawn
    more = {} if kind == "QuantumEncoder" else {"backend": backend}
    layer = double(getattr(qstore_torch, kind)(**arguments, **more))
    x = torch.from_numpy(batch.features(layer.spec)).flatten(0, -2)[:2].requires_grad_()
    with torch.no_grad():
        layer.theta.copy_(torch.from_numpy(batch.theta(layer.spec)))
    theta = layer.theta if layer.spec.n_weights else torch.zeros(0, dtype=torch.float64)

    def run(theta, x):
        return torch.func.functional_call(layer, {"theta": theta}, (x,))

    # Slopes of polynomial angles make third derivatives of some thousand: the step's error is relative to that.
    assert torch.autograd.gradcheck(run, (theta, x), atol=1e-4, rtol=1e-3, eps=1e-6, fast_mode=False)


@pytest.mark.parametrize("encoding", SMOOTH)
def test_gradgradcheck(encoding):
    layer = double(QuantumReadout(2, n_classes=3, encoding=encoding, backend="torch", init="normal", seed=0))
    assert torch.autograd.gradgradcheck(
        lambda theta, x: torch.func.functional_call(layer, {"theta": theta}, (x,)), (layer.theta, point(layer))
    )


@pytest.mark.parametrize("make", [lambda: QuantumEncoder(2), lambda: QuantumPooling(2, backend="torch", seed=0)])
def test_gradgradcheck_of_other_layers(make):
    layer = double(make())
    assert torch.autograd.gradgradcheck(layer, (point(layer, features=3),))


def gradient_penalty(layer, x):
    """(|dy/dx| - 1)², as in a Wasserstein GAN: the upstream gradient of y is a constant."""
    (slope,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    return (slope.norm(dim=1) - 1).square().sum()


def test_a_gradient_penalty_trains():
    layer = double(QuantumFeatureExtractor(2, backend="torch", seed=0))
    x = point(layer)
    gradient_penalty(layer, x).backward()
    base, step = layer.theta.detach().clone(), 1e-5
    for k in range(len(base)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                layer.theta.copy_(base)
                layer.theta[k] += sign * step
            values.append(gradient_penalty(layer, x).item())
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(layer.theta.grad[k].item(), abs=1e-6)


@pytest.mark.parametrize("upstream", ["constant", "variable"])
def test_a_second_derivative_through_the_host_is_refused_not_zero(upstream):
    layer = QuantumFeatureExtractor(2, backend=FaultyBackend("host", None))
    x = torch.rand(3, 4, requires_grad=True)
    y = layer(x)
    loss = y.sum() if upstream == "constant" else y.square().sum()
    with pytest.raises(GradientError, match="second derivatives"):
        torch.autograd.grad(loss, x, create_graph=True)
    layer(x).sum().backward()  # still usable
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("backend", ["auto", "statevector"])
def test_our_engines_have_second_derivatives(backend):
    layer = double(QuantumFeatureExtractor(2, seed=0, backend=backend))
    plain = double(QuantumFeatureExtractor(2, seed=0, backend="torch"))
    x = point(layer)
    values = [torch.autograd.grad(gradient_penalty(m, x), x)[0] for m in (layer, plain)]
    assert values[0].abs().sum() > 0
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("backend", ["torch", "statevector", "auto"])
def test_basis_encoding_refuses_input_gradients(backend):
    layer = QuantumReadout(2, encoding="basis", backend=backend, seed=0)
    bits = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    with pytest.raises(GradientError, match="stop gradients"):
        layer(bits.clone().requires_grad_())
    with pytest.raises(GradientError, match="no gradient for its inputs"):
        nn.Sequential(nn.Linear(2, 2), layer)(bits)
    with torch.no_grad():
        layer(bits.clone().requires_grad_())
    layer(bits[:1]).sum().backward()  # both rows: their slopes cancel
    assert layer.theta.grad.abs().sum() > 0


def test_parameter_shift_has_no_amplitude_gradient():
    layer = QuantumReadout(2, gradient="parameter-shift", backend="statevector")
    with pytest.raises(GradientError, match="parameter-shift"):
        layer(torch.rand(2, 4, requires_grad=True))
    layer(torch.rand(2, 4)).sum().backward()
    assert layer.theta.grad is not None


def test_parameter_shift_agrees_with_autograd():
    for encoding in ("angle", "zz"):
        layers = [
            double(QuantumReadout(2, encoding=encoding, gradient=g, backend="torch", seed=0, depth=2))
            for g in ("auto", "parameter-shift")
        ]
        grads = []
        for layer in layers:
            x = point(layer)
            layer(x).square().sum().backward()
            grads.append((layer.theta.grad, x.grad))
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("backend", ["torch", "statevector", "auto"])
def test_only_what_is_wanted_gets_a_gradient(backend):
    layer = QuantumFeatureExtractor(2, backend=backend, seed=0)
    x = torch.rand(3, 4)
    layer(x).sum().backward()
    only_theta = layer.theta.grad.clone()
    layer.theta.grad = None
    layer.theta.requires_grad_(requires_grad=False)
    assert not layer(x).requires_grad
    x.requires_grad_()
    layer(x).sum().backward()
    assert layer.theta.grad is None
    layer.theta.requires_grad_()
    only_x, x.grad = x.grad, None
    layer(x).sum().backward()
    torch.testing.assert_close(layer.theta.grad, only_theta)
    torch.testing.assert_close(x.grad, only_x)


@pytest.mark.parametrize("backend", ["torch", "statevector", "auto"])
def test_backward_twice(backend):
    layer = QuantumFeatureExtractor(2, backend=backend, seed=0)
    y = layer(torch.rand(3, 4)).sum()
    y.backward(retain_graph=True)
    once = layer.theta.grad.clone()
    y.backward()
    torch.testing.assert_close(layer.theta.grad, 2 * once)
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


@pytest.mark.parametrize("backend", ["torch", "statevector", "auto"])
@pytest.mark.parametrize("encoding", ["amplitude", "angle"])
def test_changes_in_place_before_the_backward_pass_are_noticed(backend, encoding):
    layer = QuantumFeatureExtractor(2, encoding=encoding, backend=backend, seed=0)
    y = layer(torch.rand(3, layer.spec.n_features)).sum()
    with torch.no_grad():
        layer.theta.add_(1.0)  # what an optimiser's step does
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@pytest.mark.parametrize("backend", ["torch", "statevector", "auto"])
def test_outputs_may_be_changed_in_place(backend):
    layer = QuantumFeatureExtractor(2, backend=backend, seed=0)
    x = torch.rand(3, 4)
    layer(x).sum().backward()
    once, layer.theta.grad = layer.theta.grad, None
    layer(x).mul_(2).sum().backward()
    torch.testing.assert_close(layer.theta.grad, 2 * once)


@pytest.mark.parametrize("backend", ["torch", "statevector", "auto"])
def test_a_step_is_freed_without_the_cycle_collector(backend):
    layer = QuantumFeatureExtractor(2, backend=backend)
    gc.collect()
    gc.disable()
    try:
        y = layer(torch.rand(3, 4))
        node = y.grad_fn
        vjp_fn = weakref.ref(node.vjp_fn)
        assert vjp_fn() is not None
        y.sum().backward(retain_graph=True)
        assert vjp_fn() is not None
        y.sum().backward()
        assert vjp_fn() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_what_inference_mode_compiled_can_train(backend, empty_cache):
    layer = QuantumFeatureExtractor(3, measurement_bases=("Z", "X"), backend=backend, seed=0)
    with torch.inference_mode():
        layer(torch.rand(2, 8))
    x = torch.rand(2, 8, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_function_transforms(backend, empty_cache):
    layer = double(QuantumFeatureExtractor(2, backend=backend, seed=0))
    x = point(layer, rows=3).detach()
    # The transforms come first: what they leave in the cache must serve plain calls.
    inside = torch.func.vmap(lambda row: layer(row[None])[0])(x)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: layer(row[None])[0]))(x)
    hessian = torch.func.jacrev(torch.func.grad(lambda row: layer(row[None]).sum()))(x[0])
    torch.testing.assert_close(inside, layer(x))
    leaf = x.clone().requires_grad_()
    plain = torch.stack([torch.autograd.grad(layer(leaf)[:, k].sum(), leaf)[0] for k in range(2)], dim=1)
    torch.testing.assert_close(jacobian, plain)
    torch.testing.assert_close(hessian, hessian.T)
    assert hessian.abs().sum() > 0


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_jacobians_in_one_backward_pass(backend):
    layer = double(QuantumFeatureExtractor(2, backend=backend, seed=0))
    x = point(layer)
    rows, at_once = (
        torch.autograd.functional.jacobian(lambda x: layer(x).sum(0), x, vectorize=v) for v in (False, True)
    )
    torch.testing.assert_close(rows, at_once)


@pytest.mark.parametrize("backend", ["torch", "statevector", "auto"])
def test_gradient_checkpointing(backend):
    layer = QuantumFeatureExtractor(3, backend=backend, seed=0)
    model = nn.Sequential(nn.Linear(4, 8), layer)
    x = torch.rand(3, 4)
    grads = []
    for run in (model, lambda x: torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)):
        model.zero_grad()
        run(x).sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*grads)


def test_a_weight_that_nothing_depends_on_has_a_zero_gradient():
    circuit = QuantumReadout(2).circuit
    layer = QuantumLayer(circuit, Probabilities(n_classes=1), backend="torch")  # the one probability is 1
    x = torch.rand(3, 4, requires_grad=True)
    y = layer(x)
    torch.testing.assert_close(y, torch.ones(3, 1))
    y.sum().backward()
    assert layer.theta.grad.abs().max() < 1e-6
    assert x.grad.abs().max() < 1e-6
