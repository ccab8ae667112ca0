"""What a circuit can express.

How near its states come to random ones, how entangled they are, which functions of a feature it makes, and how many
directions of its weights matter.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from ..circuit.checks import MAX_SHOTS, check_whole, shown
from ..circuit.measurements.measurement import Expectation, Pauli, Probabilities
from ..errors import ShapeError, SpecError
from ..interchange.files import as_array
from ..layers.definition import LayerDefinition
from ..layers.numpy import QuantumLayer

__all__ = ["effective_dimension", "entangling_capability", "expressibility", "fourier_spectrum"]

_MOST_TOMOGRAPHY = 6  # qubits: 4**n Pauli strings


def expressibility(layer: Any, *, samples: int = 1000, bins: int = 75, seed: int = 0) -> float:
    """Kullback–Leibler divergence of the circuit's fidelities from those of Haar-random states; 0 is most expressive.

    Fidelities of pairs of random weights, features zero. They come from all 4**n Pauli strings,
    |⟨ψ|φ⟩|² = 2⁻ⁿ Σ_P ⟨P⟩_ψ ⟨P⟩_φ, so that the layer may have at most 6 qubits.

    Args:
        layer: A layer with weights.
        samples: Pairs.
        bins: Of the histogram, over [0, 1].
        seed: Of the weights.

    Raises:
        SpecError: more than 6 qubits, no weights, or channels.

    Example:
        >>> from qstore_core import QuantumFeatureExtractor
        >>> idle = QuantumFeatureExtractor(2, 1, encoding="angle", ansatz="real_amplitudes", entanglement="none")
        >>> rich = QuantumFeatureExtractor(2, 4, encoding="angle", ansatz="strongly_entangling")
        >>> expressibility(rich) < 0.05 < expressibility(idle)
        True

    Source:
        Sim, Johnson & Aspuru-Guzik, arXiv:1905.10876.
    """
    n = _definition(layer).spec.n_qubits
    if n > _MOST_TOMOGRAPHY:
        raise SpecError(f"expressibility reads 4**n Pauli strings: at most {_MOST_TOMOGRAPHY} qubits, received {n}.")
    strings = ["".join(letters) for letters in itertools.product("IXYZ", repeat=n)][1:]
    rows = _over_random_weights(layer, Expectation(observables=tuple(map(Pauli, strings))), 2 * samples, seed)
    fidelities = np.clip((1.0 + (rows[:samples] * rows[samples:]).sum(axis=1)) / (1 << n), 0.0, 1.0)
    counts, edges = np.histogram(fidelities, bins=bins, range=(0.0, 1.0))
    observed = counts / samples
    dimension = 1 << n
    haar = np.diff(-((1.0 - edges) ** (dimension - 1)))  # P(F) = (N - 1)(1 - F)^(N - 2), integrated over each bin
    seen = observed > 0
    return float((observed[seen] * np.log(observed[seen] / np.maximum(haar[seen], np.finfo(float).tiny))).sum())


def entangling_capability(layer: Any, *, samples: int = 500, seed: int = 0) -> float:
    """Mean Meyer–Wallach entanglement over random weights.

    0 for product states, 1 where every qubit by itself is maximally mixed.

    Example:
        >>> from qstore_core import QuantumFeatureExtractor
        >>> alone = QuantumFeatureExtractor(3, 2, encoding="angle", entanglement="none")
        >>> abs(entangling_capability(alone, samples=10)) < 1e-12
        True

    Source:
        Meyer & Wallach, arXiv:quant-ph/0108104; Sim et al., arXiv:1905.10876.
    """
    bloch = _over_random_weights(layer, Expectation(("X", "Y", "Z")), samples, seed)
    n = _definition(layer).spec.n_qubits
    lengths = (bloch.reshape(samples, 3, n) ** 2).sum(axis=1)  # |r|² of each qubit: its purity is (1 + |r|²)/2
    return float(1.0 - lengths.mean())


def fourier_spectrum(layer: Any, *, feature: int = 0, frequencies: int = 8, x: Any = None) -> np.ndarray:
    """Coefficients c_k of each output as a function of one feature, f(x) = Σ_k c_k exp(i k x).

    Args:
        layer: A layer with angle-encoded features.
        feature: Which feature runs over a turn; the others stay at `x`.
        frequencies: Highest k; must be at least the number of times that the feature is encoded.
        x: Features (F,) of the others; zero by default.

    Returns:
        Complex (2·frequencies + 1, O), from k = -frequencies to frequencies.

    Example:
        One encoding gives one frequency:

        >>> from qstore_core import QuantumFeatureExtractor
        >>> layer = QuantumFeatureExtractor(1, 1, encoding="angle", init="zeros")
        >>> abs(fourier_spectrum(layer, frequencies=2)[:, 0]).round(6)
        array([0. , 0.5, 0. , 0.5, 0. ])

    Source:
        Schuld, Sweke & Meyer, arXiv:2008.08605.
    """
    points = 2 * frequencies + 1
    width = _definition(layer).spec.n_features
    base = np.zeros(width) if x is None else np.asarray(x, dtype=np.float64)
    if base.shape != (width,) or not 0 <= feature < width:
        raise SpecError(f"the layer has {width} features, received feature={feature} and x of shape {base.shape}.")
    rows = np.tile(base, (points, 1))
    rows[:, feature] = 2 * math.pi * np.arange(points) / points
    values = np.asarray(_plain(layer)(rows))
    return np.asarray(np.fft.fftshift(np.fft.fft(values, axis=0) / points, axes=0))


def effective_dimension(
    layer: Any, x: Any, *, data: int, samples: int = 100, gamma: float = 1.0, seed: int = 0
) -> float:
    """How many directions of the weights matter, out of W, for a readout trained on `data` rows.

    Args:
        layer: A layer whose outputs are probabilities (`QuantumReadout` with n_classes).
        x: Features (B, F) over which the Fisher information is averaged.
        data: Size n of the training set; above 2π.
        samples: Random draws of the weights, uniform over a turn.
        gamma: Constant in (0, 1].
        seed: Of the draws.

    Returns:
        A number between 0 and W.

    Source:
        Abbas et al., arXiv:2011.00027, equation 2.
    """
    kappa = gamma * data / (2 * math.pi * math.log(data)) if data > 1 else 0.0
    if kappa <= 1.0:
        raise SpecError(f"data={data} is too small for an effective dimension: n γ / (2π log n) must be above 1.")
    plain, rows = _plain(layer), np.asarray(x, dtype=np.float64)
    if not isinstance(plain.spec.measurement, Probabilities):
        raise SpecError(
            f"an effective dimension is one of probabilities, the layer measures {shown(plain.spec.measurement)}.",
            argument="layer",
        )
    weights, outputs = plain.spec.n_weights, plain.output_dim
    rng = np.random.default_rng(seed)
    fishers = np.zeros((samples, weights, weights))
    for number in range(samples):
        plain.theta = rng.uniform(0.0, 2 * math.pi, weights)
        p = plain(rows)
        for row, probabilities in zip(rows, p, strict=True):
            jacobian = np.stack([plain.vjp(row[None], one[None])[0] for one in np.eye(outputs)])
            scaled = jacobian / np.sqrt(np.maximum(probabilities, np.finfo(float).tiny))[:, None]
            fishers[number] += scaled.T @ scaled / len(rows)
    trace = np.trace(fishers, axis1=1, axis2=2).mean()
    if trace == 0.0:
        return 0.0
    normalised = fishers * weights / trace
    signs_logs = np.linalg.slogdet(np.eye(weights) + kappa * normalised)
    halves = 0.5 * signs_logs[1]
    top = halves.max()
    return float(2.0 * (top + math.log(np.exp(halves - top).mean())) / math.log(kappa))


def _definition(layer: Any) -> LayerDefinition:
    if not isinstance(layer, LayerDefinition):
        raise SpecError(f"expected a quantum layer, received {type(layer).__name__}.", argument="layer")
    return layer


def _plain(layer: Any) -> QuantumLayer:
    """The same circuit, weights and measurement on NumPy arrays, whatever the layer's framework."""
    spec = _definition(layer).spec
    plain = QuantumLayer(spec.circuit, spec.measurement)
    theta = as_array(layer.theta)
    if theta.ndim != 1:
        raise ShapeError(
            f"this is a measure of one theta ({spec.n_weights},), received an ensemble of shape {theta.shape}. Give "
            "the layer one member's.",
            expected=(spec.n_weights,),
            received=theta.shape,
        )
    plain.theta = theta
    return plain


def _over_random_weights(layer: Any, measurement: Expectation, samples: int, seed: int) -> np.ndarray:
    """Outputs (samples, O) at zero features, for weights uniform over a turn."""
    circuit = _definition(layer).spec.circuit
    if circuit.noisy:
        raise SpecError(
            "this is a measure of pure states, and the circuit has channels: use the circuit without them.",
            argument="layer",
        )
    other = QuantumLayer(circuit, measurement)
    if not circuit.n_weights:
        raise SpecError("the layer has no weights to draw at random.", argument="layer")
    x = np.zeros((1, circuit.n_amplitudes + circuit.n_inputs))
    rng = np.random.default_rng(seed)
    rows = np.empty((check_whole(samples, "samples", 1, MAX_SHOTS, "samples"), other.output_dim))
    for row in rows:
        other.theta = rng.uniform(0.0, 2 * math.pi, circuit.n_weights)
        row[:] = other(x)[0]
    return rows
