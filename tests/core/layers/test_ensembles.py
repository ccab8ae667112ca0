"""A leading axis of theta: each member as a layer of its own."""

import numpy as np
import pytest

from qstore_core import QuantumFeatureExtractor, QuantumReadout, ShapeError
from tests.support.tolerances import EXACT, EXACT_GRADIENT


@pytest.mark.parametrize("make", [QuantumFeatureExtractor, lambda n, **more: QuantumReadout(n, 3, log=True, **more)])
def test_an_ensemble_is_its_members(make):
    layer, rng = make(2, encoding="angle", seed=0), np.random.default_rng(0)
    thetas, x = rng.normal(size=(3, layer.spec.n_weights)), rng.normal(size=(2, 5, 2))
    cotangents = rng.normal(size=(3, 2, 5, layer.output_dim))
    layer.theta = thetas
    values, (d_theta, d_x) = layer(x), layer.vjp(x, cotangents)
    assert values.shape == (3, 2, 5, layer.output_dim)
    total = np.zeros_like(x)
    for k, theta in enumerate(thetas):
        layer.theta = theta
        np.testing.assert_allclose(values[k], layer(x), rtol=0, atol=EXACT)
        own_theta, own_x = layer.vjp(x, cotangents[k])
        np.testing.assert_allclose(d_theta[k], own_theta, rtol=0, atol=EXACT_GRADIENT)
        total += own_x
    np.testing.assert_allclose(d_x, total, rtol=0, atol=EXACT_GRADIENT)


def test_what_is_no_ensemble_is_refused():
    layer = QuantumFeatureExtractor(2, encoding="angle")
    width = layer.spec.n_weights
    for shape in ((0, width), (2, width + 1), (1, 2, width)):
        with pytest.raises(ShapeError, match="ensemble"):
            layer.theta = np.zeros(shape)
    layer.theta = np.zeros((2, width))
    with pytest.raises(ShapeError, match="ensemble of 2"):
        layer.vjp(np.zeros((3, 2)), np.zeros((3, 2)))
