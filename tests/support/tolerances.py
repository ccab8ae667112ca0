"""Tolerances by name, each with its reason. Tests compare with these, never with a number of their own."""

from __future__ import annotations

# Against independent libraries: what the project promises, for outputs and for both gradients.
VALUE = {"float64": 1e-10, "float32": 1e-6}
GRADIENT = {"float64": 1e-8, "float32": 1e-5}

# Two exact methods in float64: a few dozen roundings of 1e-16 each, on numbers of order 1. Polynomial angles reach
# some hundred radians, where one rounding is 3e-14.
EXACT = 1e-11

# Gradients carry the slopes of polynomial angles, up to some hundred as well.
EXACT_GRADIENT = 1e-9

# One spec and theta in every framework: fixed angles of order 1, so that float64 keeps some rounding of 1e-16 a gate.
FRAMEWORK = {"float64": 1e-12, "float32": 1e-6}
FRAMEWORK_GRADIENT = {"float64": 1e-10, "float32": 1e-5}

# A matrix that is multiplied out in float64.
MATRIX = 1e-13

# Central differences with step h = 1e-6 in float64: rounding is eps/h = 2e-10 and truncation h² f'''/6, where f'''
# grows with the third power of the angles' coefficients (up to 10² in the circuits drawn). Relative to the largest
# gradient entry where that is above 1.
FINITE_DIFFERENCE = 1e-6

# Central differences with the step that layers take: truncation 27 h²/6, rounding of values 1e-15/h and of the result.
DIFFERENCE_STEP = {"float64": 2e-9, "float32": 1e-6}

# float32: eps is 1.2e-7, and a sum of 2**n probabilities after some dozen gates loses two or three bits.
FLOAT32_SUM = 2e-6

# Exported graphs in other runtimes: float32, with the runtimes' own cosines, sums and products.
EXPORTED = 1e-5

# Logits of the exported image model: two batch normalisations after circuits bring differences of ⟨Z⟩ in the second
# and third decimal to unit size, which multiplies EXPORTED by up to 100.
EXPORTED_LOGITS = 1e-3

# Density matrices of other libraries, whose channels are normalised to 1e-8 only.
NOISY = 1e-6

# The promise for float32 at any number of qubits: sums have double precision, so what is left are the roundings of
# single amplitudes (1.2e-7 each, which average out) and of cos and sin once per gate.
SUM = 1e-6
SUM_GRADIENT = 5e-6

# What is computed from squares of measured values moves twice as far: the slope of v² is at most 2 for |v| <= 1 (a
# purity is Σ v² / 2**k, a variance ⟨O²⟩ - ⟨O⟩², on the scale of Σ|coefficient|).
SQUARED = 2.0

# Standard deviations that a sampled mean may be away from what it is the mean of: one failure in a million.
SIGMAS = 5.0


def allow(reference, tolerance: float) -> float:
    """`tolerance` on the scale of `reference`: absolute up to 1, relative to the largest entry above."""
    import numpy as np

    return tolerance * max(1.0, float(np.abs(reference).max(initial=0.0)))


def angle_stretch(spec, theta, x) -> float:
    """What float32 tolerances are multiplied by: the largest angle of the circuit in half turns, where above 1.

    The promise holds for angles of a turn. Those of ZZ maps reach 2 (2π)² = 79 rad, where one rounding is 4e-6.
    """
    import math

    if spec.measurement is None:
        return 1.0
    rows = x.reshape(-1, x.shape[-1])[:, -spec.circuit.n_inputs :] if spec.circuit.n_inputs else x[:1]
    values = [abs(angle.value(theta, row)) for op in spec.circuit.operations for angle in op.params for row in rows]
    return max(1.0, max(values, default=0.0) / math.pi)
