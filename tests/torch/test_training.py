"""Training in PyTorch on real digits."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from qstore_torch import QuantumFeatureExtractor, QuantumPooling, QuantumReadout


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
