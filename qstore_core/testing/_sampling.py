"""Checks of shots: sampled values spread as the shot count says, are unbiased and come from the seed."""

from __future__ import annotations

import numpy as np

from ..circuit.circuit import Circuit
from ..circuit.measurement import Expectation, Probabilities
from ..errors import CapabilityError
from . import reference
from ._values import random_point, rotations
from .subject import SIGMAS, ConformanceError, NotDeclared, Subject, check, same

_SHOTS = 200
_ROWS = 128
_NO_SHOTS = "it takes no shots"


def _cosine() -> Circuit:
    c = Circuit(1)
    c.append("ry", (0,), c.inputs(1))
    return c


@check("shots refused")
def _shots_refused(subject: Subject) -> None:
    """A backend that does not sample says so, with a CapabilityError, instead of ignoring shots."""
    if subject.capabilities.shots:
        raise NotDeclared("capabilities.shots is True: it takes shots")
    try:
        subject.compile(_cosine(), Expectation(), shots=_SHOTS)
    except CapabilityError:
        return
    raise ConformanceError(f"capabilities.shots is False, yet compile(..., shots={_SHOTS}) raised no CapabilityError.")


@check("shots: mean")
def _shots_mean(subject: Subject) -> None:
    """Sampled expectations and probabilities lie within 5 standard deviations."""
    subject.need("shots", _NO_SHOTS)
    shots = 2000
    circuit = rotations(2)
    theta, inputs = random_point(circuit, 8)
    for measured in (Expectation(("Z", "X")), Probabilities()):
        got = subject.forward(circuit, measured, theta, inputs, shots=shots)
        want = reference.outputs(circuit, measured, theta, inputs)
        tolerance = SIGMAS * reference.scales(circuit, measured) / np.sqrt(shots)
        same(got, want, tolerance, f"{type(measured).__name__} from {shots} shots, 5 standard deviations")
    same(got.sum(axis=1), np.ones(len(got)), 1e-5, "sum of sampled probabilities")


@check("shots: spread")
def _shots_spread(subject: Subject) -> None:
    """Sampled values differ from exact ones by as much as the number of shots says, independently per row."""
    subject.need("shots", _NO_SHOTS)
    x = np.linspace(0.5, 2.6, _ROWS)[:, None]
    got = subject.forward(_cosine(), Expectation(), [], x, shots=_SHOTS)
    deviation = (got - np.cos(x))[:, 0]
    if (np.abs(deviation) < 1e-6).all():
        raise ConformanceError(f"shots are ignored: all {_ROWS} values with shots={_SHOTS} are the exact ones.")
    ratio = float((deviation**2 * _SHOTS / np.sin(x[:, 0]) ** 2).mean())
    margin = SIGMAS * np.sqrt(2 / _ROWS)
    if abs(ratio - 1) > margin:
        raise ConformanceError(
            f"the variance of values with shots={_SHOTS} is {ratio:.3g} times (1 - ⟨Z⟩²)/shots, "
            f"expected 1 ± {margin:.2g}: as if it took {_SHOTS / max(ratio, 1e-9):.0f} shots."
        )
    equal = subject.forward(_cosine(), Expectation(), [], np.full((32, 1), 1.2), shots=_SHOTS)
    if np.ptp(equal) == 0:
        raise ConformanceError("32 equal rows got one and the same sample: rows share their random numbers.")


@check("shots: fresh")
def _shots_fresh(subject: Subject) -> None:
    """Every seed samples anew: noise that is frozen would bias training."""
    subject.need("shots", _NO_SHOTS)
    executable = subject.compile(_cosine(), Expectation(), shots=_SHOTS)
    x = np.linspace(0.5, 2.6, 32)[:, None]
    first, second = (np.asarray(executable.forward(np.zeros(0), x)) for _ in range(2))
    if np.array_equal(first, second):
        raise ConformanceError("two calls of one executable, with different seeds, returned the very same samples.")


@check("shots: seed")
def _shots_seed(subject: Subject) -> None:
    """The same seed gives the same samples, another seed others."""
    subject.need("shots", _NO_SHOTS)
    if subject.capabilities.remote:
        raise NotDeclared("capabilities.remote is True: hardware has no seed")
    x = np.linspace(0.5, 2.6, 32)[:, None]
    first, again, other = (
        subject.forward(_cosine(), Expectation(), [], x, shots=_SHOTS, seed=seed) for seed in (7, 7, 8)
    )
    if not np.array_equal(first, again):
        raise ConformanceError("two calls with seed=7 sampled different values: the seed is ignored.")
    if np.array_equal(first, other):
        raise ConformanceError("seeds 7 and 8 sampled the very same values: the seed is ignored.")
