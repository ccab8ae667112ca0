"""A leading axis of theta in PyTorch, without vmap: values, gradients of each member, and training."""

import pytest
import torch

from qstore_core import ShapeError
from qstore_torch import QuantumFeatureExtractor, QuantumReadout
from tests.support.tolerances import EXACT, EXACT_GRADIENT


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_an_ensemble_is_its_members(backend):
    torch.manual_seed(0)
    layer = QuantumFeatureExtractor(2, encoding="angle", dtype=torch.float64, backend=backend)
    thetas = torch.randn(3, layer.spec.n_weights, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    out = torch.func.functional_call(layer, {"theta": thetas}, x)
    assert out.shape == (3, 2, 4, 2)
    members = torch.stack([torch.func.functional_call(layer, {"theta": theta}, x) for theta in thetas])
    torch.testing.assert_close(out, members, rtol=0, atol=EXACT)
    cotangents = torch.randn_like(out)
    for got, expected in zip(
        torch.autograd.grad(out, (thetas, x), cotangents),
        torch.autograd.grad(members, (thetas, x), cotangents),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=EXACT_GRADIENT)


def test_an_ensemble_is_a_parameter_like_any_other():
    layer = QuantumReadout(2, 2, encoding="angle", log=True)
    layer.theta = torch.nn.Parameter(torch.randn(4, layer.spec.n_weights))
    assert layer(torch.zeros(3, 2)).shape == (4, 3, 2)
    layer(torch.zeros(3, 2)).sum().backward()
    assert layer.theta.grad.shape == layer.theta.shape
    layer.theta = torch.nn.Parameter(torch.zeros(2, 1, layer.spec.n_weights))
    with pytest.raises(ShapeError, match="theta has shape"):
        layer(torch.zeros(3, 2))
