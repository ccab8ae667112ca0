"""Natural gradients in Keras: one step by hand, eager and in the graph of `fit`."""

import keras
import numpy as np
import pytest

import qstore_core
from qstore_core import SpecError
from qstore_core.analysis import metric_tensor, natural_gradient
from qstore_tf import QuantumFeatureExtractor, natural
from tests.support.tolerances import GRADIENT


def model():
    layer = QuantumFeatureExtractor(2, 2, encoding="angle", init="uniform", seed=0, dtype="float64")
    return keras.Sequential([keras.Input((2,), dtype="float64"), layer]), layer


@pytest.mark.parametrize("eager", [True, False])
def test_a_step_of_descent_by_hand(eager):
    net, layer = model()
    x, y = np.random.default_rng(0).normal(size=(2, 4, 2))
    net.compile(natural(keras.optimizers.SGD(0.1), net, approx=None), "mse", run_eagerly=eager)
    theta = layer.theta.numpy().astype(float)
    plain = qstore_core.QuantumFeatureExtractor(2, 2, encoding="angle")
    plain.theta = theta
    d_theta, _ = plain.vjp(x, 2 * (plain(x) - y) / y.size)
    expected = theta - 0.1 * natural_gradient(metric_tensor(plain, x), d_theta)
    net.fit(x, y, batch_size=4, verbose=0)
    np.testing.assert_allclose(layer.theta.numpy(), expected, rtol=0, atol=GRADIENT["float32"])  # of the loss


def test_the_optimizer_keeps_its_kind_and_arguments():
    net, _ = model()
    made = natural(keras.optimizers.Adam(0.01, beta_1=0.8), net)
    assert isinstance(made, keras.optimizers.Adam)
    assert made.beta_1 == 0.8


def test_a_model_without_quantum_layers_is_refused():
    with pytest.raises(SpecError, match="no quantum layer"):
        natural(keras.optimizers.SGD(0.1), keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]))
