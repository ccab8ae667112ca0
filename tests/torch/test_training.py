"""Training in PyTorch: on real digits, and with the tools around a module."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize, prune
from torch.optim.swa_utils import AveragedModel

from qstore_core import Circuit, Expectation
from qstore_torch import QuantumFeatureExtractor, QuantumLayer, QuantumPooling, QuantumReadout


@pytest.fixture(scope="module")
def digits():
    """Zeros and ones of the 8x8 digits: images (360, 64) in [0, 1], and labels."""
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(n_class=2, return_X_y=True)
    return torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)


def train(model, images, labels, steps, loss, rate=0.05):
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    history = []
    for _ in range(steps):
        rows = torch.randint(len(images), (32,))
        optimizer.zero_grad()
        value = loss(model(images[rows]), labels[rows])
        value.backward()
        optimizer.step()
        history.append(value.item())
    return history


@pytest.mark.parametrize("backend", ["torch", "statevector", "auto"])
def test_a_quantum_head_learns_digits(digits, backend):
    torch.manual_seed(3)
    images, labels = digits
    model = nn.Sequential(
        nn.Linear(64, 16), nn.ReLU(),
        QuantumFeatureExtractor(4, backend=backend), nn.Linear(4, 4),
        QuantumPooling(4, encoding="angle", backend=backend), nn.Linear(2, 2),
        QuantumReadout(2, n_classes=2, encoding="angle", backend=backend),
    )  # fmt: skip
    before = {name: value.clone() for name, value in model.named_parameters()}
    history = train(model, images, labels, 40, lambda p, y: functional.nll_loss(p.clamp_min(1e-6).log(), y))
    assert sum(history[-5:]) < 0.6 * sum(history[:5])
    assert (model(images).argmax(dim=1) == labels).float().mean() > 0.9
    assert all((value - before[name]).abs().max() > 1e-3 for name, value in model.named_parameters())


def test_quantum_weights_alone_learn(digits):
    images, labels = digits
    layer = QuantumReadout(6, n_classes=2, depth=3, init="normal", seed=0)  # 64 pixels are 64 amplitudes
    history = train(layer, images, labels, 60, lambda p, y: functional.nll_loss(p.clamp_min(1e-6).log(), y), rate=0.1)
    assert sum(history[-5:]) < 0.9 * sum(history[:5])


def test_two_runs_with_one_seed_are_the_same(digits):
    histories = []
    for _ in range(2):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(64, 8), QuantumReadout(3, n_classes=2))
        histories.append(train(model, *digits, 5, lambda p, y: functional.nll_loss(p.clamp_min(1e-6).log(), y)))
    assert histories[0] == histories[1]


# -- the tools around a module ----------------------------------------------------------------------------------------


def angle(**options):
    """One qubit turned by x and then by theta: ⟨Z⟩ = cos(x + theta)."""
    circuit = Circuit(1)
    circuit.ry(circuit.inputs(1)[0], 0)
    circuit.ry(circuit.weights(1)[0], 0)
    return QuantumLayer(circuit, Expectation("Z"), dtype=torch.float64, **options)


def test_lbfgs_finds_the_angle():
    layer, x = angle(init=[0.3]), torch.tensor([[0.1]], dtype=torch.float64)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=30, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = (layer(x) - torch.cos(torch.tensor(0.9))).square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    assert layer.theta.item() == pytest.approx(0.8, abs=1e-3)  # LBFGS stops where the loss is that flat


def test_a_parametrized_angle_is_the_function_of_what_is_trained():
    layer, x = angle(init=[0.4]), torch.tensor([[0.1]], dtype=torch.float64)
    parametrize.register_parametrization(layer, "theta", nn.Tanh(), unsafe=True)
    original = layer.parametrizations.theta.original
    layer(x).backward()
    torch.testing.assert_close(layer(x).detach()[0], torch.cos(0.1 + torch.tanh(original.detach())))
    torch.testing.assert_close(
        original.grad, -torch.sin(0.1 + torch.tanh(original.detach())) / torch.cosh(original.detach()) ** 2
    )
    again = angle(init=[0.0])
    parametrize.register_parametrization(again, "theta", nn.Tanh(), unsafe=True)
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(x), layer(x))


def test_pruned_angles_are_zero_and_have_no_slope():
    layer, x = QuantumFeatureExtractor(2, depth=1, seed=0), torch.ones(3, 4)
    prune.l1_unstructured(layer, "theta", amount=2)
    layer(x).sum().backward()
    pruned, slope = layer.theta == 0, layer.theta_orig.grad
    assert int(pruned.sum()) == 2
    assert not slope[pruned].any()
    assert slope.any()
    same = QuantumFeatureExtractor(2, depth=1)
    with torch.no_grad():
        same.theta.copy_(layer.theta)
    before = layer(x)
    torch.testing.assert_close(before, same(x))
    prune.remove(layer, "theta")
    assert torch.equal(layer(x), before)


def test_averages_of_weights_are_averages_of_angles():
    layer = angle(init=[0.2])
    swa = AveragedModel(layer)
    for value in (0.2, 0.6):
        torch.nn.utils.vector_to_parameters(torch.tensor([value], dtype=torch.float64), layer.parameters())
        swa.update_parameters(layer)
    torch.testing.assert_close(
        swa(torch.zeros(1, 1, dtype=torch.float64)).detach()[0, 0], torch.tensor(0.4, dtype=torch.float64).cos()
    )
    again = AveragedModel(angle(init=[0.0]))
    again.load_state_dict(swa.state_dict())
    assert torch.equal(again.module.theta, swa.module.theta)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # all of torch.ao is deprecated
def test_dynamic_quantization_leaves_the_layers_alone():
    model = nn.Sequential(nn.Linear(3, 4), QuantumFeatureExtractor(2, seed=0))
    quantized = torch.ao.quantization.quantize_dynamic(model, dtype=torch.qint8)
    assert type(quantized[0]) is not nn.Linear
    assert type(quantized[1]) is QuantumFeatureExtractor
    rows = quantized[0](torch.ones(5, 3))
    assert torch.equal(quantized(torch.ones(5, 3)), model[1](rows))
