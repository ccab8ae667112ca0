"""Natural gradients in PyTorch: one step by hand, with layers before it, and what is recorded."""

import pytest
import torch
from torch import nn

from qstore_core import SpecError
from qstore_core.analysis import metric_tensor, natural_gradient
from qstore_torch import QuantumFeatureExtractor, QuantumNaturalGradient
from tests.support.tolerances import EXACT_GRADIENT


def model():
    torch.manual_seed(0)
    first = nn.Linear(3, 2, dtype=torch.float64)
    return nn.Sequential(first, QuantumFeatureExtractor(2, 2, encoding="angle", init="uniform", dtype=torch.float64))


def test_a_step_of_descent_by_hand():
    net, x = model(), torch.randn(5, 3, dtype=torch.float64)
    optimizer = QuantumNaturalGradient(torch.optim.SGD(net.parameters(), lr=0.1), net, approx=None)
    net(x).sum().backward()
    dense, layer = net
    theta, weight = layer.theta.detach().clone(), dense.weight.detach().clone()
    gradient, plain = layer.theta.grad.clone(), dense.weight.grad.clone()
    metric = metric_tensor(layer, dense(x).detach().numpy())
    optimizer.step()
    expected = theta - 0.1 * torch.from_numpy(natural_gradient(metric, gradient.numpy()))
    torch.testing.assert_close(layer.theta.detach(), expected, rtol=0, atol=EXACT_GRADIENT)
    torch.testing.assert_close(dense.weight.detach(), weight - 0.1 * plain)


def test_only_calls_that_are_differentiated_since_the_last_step_count():
    net, x = model(), torch.randn(4, 3, dtype=torch.float64)
    optimizer = QuantumNaturalGradient(torch.optim.SGD(net.parameters(), lr=0.1), net)
    with torch.no_grad():
        net(10 * x)
    assert not any(optimizer._seen.values())
    net(x[:2]).sum().backward()
    net(x[2:]).sum().backward()
    (rows,) = optimizer._seen.values()
    assert sum(len(r) for r in rows) == 4
    optimizer.zero_grad()
    assert not any(optimizer._seen.values())
    optimizer.close()
    net(x)
    assert not any(optimizer._seen.values())


def test_it_trains_with_a_closure_and_a_schedule():
    net, x = model(), torch.randn(8, 3, dtype=torch.float64)
    optimizer = QuantumNaturalGradient(torch.optim.SGD(net.parameters(), lr=0.1), net)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer.optimizer, 5)

    def closure():
        optimizer.optimizer.zero_grad()
        loss = net(x).mean()
        loss.backward()
        return loss

    losses = []
    for _ in range(8):
        losses.append(optimizer.step(closure).item())
        schedule.step()
    assert losses[-1] < losses[0] - 0.05
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups is optimizer.optimizer.param_groups


def test_a_model_without_quantum_layers_is_refused():
    dense = nn.Linear(2, 2)
    with pytest.raises(SpecError, match="no quantum layer"):
        QuantumNaturalGradient(torch.optim.SGD(dense.parameters(), lr=0.1), dense)
