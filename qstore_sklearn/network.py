"""Dense → quantum layer → dense on NumPy arrays, trained with Adam: what classifier and regressor share.

Source:
    Kingma & Ba, arXiv:1412.6980 (Adam).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from qstore_core import QuantumFeatureExtractor

__all__ = ["Adam", "Network", "batches", "softmax_loss", "squared_loss"]

Loss = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]
Parameters = dict[str, np.ndarray]


@dataclass
class Network:
    """`outputs = layer(x @ w_in + b_in) @ w_out + b_out`.

    Attributes:
        layer: The quantum layer.
        parameters: `w_in` (F, n_qubits), `b_in`, `theta` (W,), `w_out` (O, targets), `b_out`.
    """

    layer: QuantumFeatureExtractor
    parameters: Parameters

    @classmethod
    def random(cls, layer: QuantumFeatureExtractor, n_features: int, n_targets: int, seed: int) -> Network:
        """A network with small random weights."""
        rng = np.random.default_rng(seed)
        width, outputs = layer.spec.n_qubits, layer.output_dim
        return cls(
            layer,
            {
                "w_in": rng.normal(0.0, 1.0 / np.sqrt(n_features), (n_features, width)),
                "b_in": np.zeros(width),
                "theta": np.asarray(layer.theta, dtype=np.float64),
                "w_out": rng.normal(0.0, 1.0 / np.sqrt(outputs), (outputs, n_targets)),
                "b_out": np.zeros(n_targets),
            },
        )

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Features (B, F) → outputs (B, targets)."""
        p = self.parameters
        self.layer.theta = p["theta"]
        outputs: np.ndarray = self.layer(x @ p["w_in"] + p["b_in"]) @ p["w_out"] + p["b_out"]
        return outputs

    def gradients(self, x: np.ndarray, y: np.ndarray, loss: Loss) -> tuple[float, Parameters]:
        """The loss of a batch and its gradients, by parameter."""
        p = self.parameters
        self.layer.theta = p["theta"]
        angles = x @ p["w_in"] + p["b_in"]
        expectations = self.layer(angles)
        value, d_out = loss(expectations @ p["w_out"] + p["b_out"], y)
        d_theta, d_angles = self.layer.vjp(angles, d_out @ p["w_out"].T)
        return value, {
            "w_in": x.T @ d_angles,
            "b_in": d_angles.sum(axis=0),
            "theta": d_theta,
            "w_out": expectations.T @ d_out,
            "b_out": d_out.sum(axis=0),
        }


@dataclass
class Adam:
    """Adam with its usual moments; `step` returns new parameters."""

    learning_rate: float
    count: int = 0
    first: Parameters = field(default_factory=dict)
    second: Parameters = field(default_factory=dict)

    def step(self, parameters: Parameters, gradients: Parameters) -> Parameters:
        """Parameters after one step."""
        self.count += 1
        out = {}
        for name, gradient in gradients.items():
            m = 0.9 * self.first.get(name, 0.0) + 0.1 * gradient
            v = 0.999 * self.second.get(name, 0.0) + 0.001 * gradient**2
            self.first[name], self.second[name] = m, v
            rate = self.learning_rate * np.sqrt(1 - 0.999**self.count) / (1 - 0.9**self.count)
            out[name] = parameters[name] - rate * m / (np.sqrt(v) + 1e-8)
        return out


def batches(rows: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of an epoch's batches, in random order."""
    order = rng.permutation(rows)
    for begin in range(0, rows, size):
        yield order[begin : begin + size]


def softmax_loss(logits: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean cross-entropy of classes `y` (B,), and its gradient for the logits (B, classes)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(y))
    gradient = np.exp(log_p)
    gradient[rows, y] -= 1.0
    return float(-log_p[rows, y].mean()), gradient / len(y)


def squared_loss(outputs: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Half the mean squared error over rows, and its gradient for the outputs (B, targets)."""
    difference = outputs - y
    return float(0.5 * (difference**2).sum(axis=1).mean()), difference / len(y)
