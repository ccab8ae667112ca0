"""The variance of gradients over random weights: what a barren plateau is measured by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..circuit.checks import check_items
from ..circuit.measurements.measurement import Pauli, as_measurement
from ..circuit.spec.initial import Init, initial_theta
from ..errors import SpecError
from ..layers.numpy import QuantumFeatureExtractor, QuantumLayer

__all__ = ["GradientVariance", "beta_init", "gradient_variance"]


def beta_init(features: Any) -> Init:
    """An init that draws angles from the Beta distribution which fits the features best.

    Args:
        features: Numbers of any shape, at least two different ones; they are scaled to [0, 1].

    Returns:
        A function (generator, size) → angles in [0, 1]; α and β by the method of moments.

    Raises:
        SpecError: all features are equal, or some are not finite.

    Example:
        >>> init = beta_init(np.linspace(0, 1, 101))   # nearly uniform: α = β ≈ 1
        >>> angles = initial_theta(init, 1000, seed=0)
        >>> bool(0 <= angles.min() < 0.01 and 0.99 < angles.max() <= 1)
        True

    Source:
        Kulshrestha & Safro, arXiv:2204.13751 (BEINIT; without its perturbation of gradients).
    """
    try:
        x = np.asarray(features, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        x = np.empty(0)
    if x.size < 2 or not np.isfinite(x).all() or np.ptp(x) == 0:
        raise SpecError("beta_init takes at least two different finite numbers.", argument="features")
    x = (x - x.min()) / np.ptp(x)
    mean, variance = x.mean(), x.var()
    concentration = max(mean * (1 - mean) / variance - 1, 1e-2)  # 0 for two values only, at the ends
    alpha, beta = mean * concentration, (1 - mean) * concentration

    def init(rng: np.random.Generator, size: int) -> np.ndarray:
        return rng.beta(alpha, beta, size)

    return init


@dataclass(frozen=True)
class GradientVariance:
    """The variance of dL/dθ_k over random weights, for one size of a layer.

    Attributes:
        n_qubits: Number of qubits.
        depth: Levels.
        mean: Mean over the weights of the variance.
        smallest: Of the weights' variances.
        largest: Of the weights' variances.
        slope: Largest root mean square of a weight's slope: what is left to train with, also where it hardly varies.
    """

    n_qubits: int
    depth: int
    mean: float
    smallest: float
    largest: float
    slope: float = 0.0


def gradient_variance(
    qubits: Iterable[int],
    depths: Iterable[int] = (2,),
    *,
    observable: Any = None,
    samples: int = 200,
    init: Init = "uniform",
    seed: int = 0,
    backend: Any = "auto",
    **arguments: Any,
) -> list[GradientVariance]:
    """Variance of the gradient of ⟨O⟩ over random weights, for layers of several sizes.

    All features are zero, so that only the ansatz counts.

    Args:
        qubits: Numbers of qubits.
        depths: Numbers of levels.
        observable: n_qubits → what L is; ⟨Z⟩ of qubit 0 by default (a local observable).
        samples: Random draws of theta.
        init: How theta is drawn: "uniform" asks about a random circuit, "small_normal" about the start of training.
        seed: Of the draws.
        backend: As in the layers.
        **arguments: Of `QuantumFeatureExtractor`: ansatz, entanglement, ….

    Returns:
        One entry per size, in order of qubits, then depths.

    Raises:
        SpecError: samples is below 2, or a layer has no weights.

    Example:
        One qubit and RY(w): ⟨Z⟩ = cos w, whose slope has variance ½ over a turn:

        >>> found = gradient_variance([1], [1], ansatz="real_amplitudes", samples=2000)
        >>> abs(found[0].largest - 0.5) < 0.2
        True

    Source:
        McClean et al., arXiv:1803.11173 (barren plateaus); Cerezo et al., arXiv:2001.00550 (local observables).
    """
    if samples < 2:
        raise SpecError(f"a variance needs at least 2 samples, received {samples}.", argument="samples")
    out = []
    sizes = [(n, d) for n in check_items(qubits, "qubits", 1000) for d in check_items(depths, "depths", 1000)]
    for n, depth in sizes:
        shape = QuantumFeatureExtractor(n, depth, encoding="angle", **arguments)
        measured = as_measurement(Pauli("Z" + "I" * (n - 1)) if observable is None else observable(n))
        layer = QuantumLayer(shape.circuit, measured, backend=backend)
        weights = layer.spec.n_weights
        if not weights:
            raise SpecError(f"a layer of {n} qubits and depth {depth} has no weights, so no gradient.")
        x, one = np.zeros((1, layer.spec.n_features)), np.ones((1, layer.output_dim))
        gradients = np.empty((samples, weights))
        children = np.random.SeedSequence([seed, n, depth]).generate_state(samples)
        for row, child in enumerate(children):
            layer.theta = initial_theta(init, weights, int(child))
            gradients[row] = layer.vjp(x, one)[0]
        variances = gradients.var(axis=0)
        slope = float(np.sqrt((gradients**2).mean(axis=0).max()))
        spread = float(variances.mean()), float(variances.min()), float(variances.max())
        out.append(GradientVariance(n, depth, *spread, slope))
    return out
