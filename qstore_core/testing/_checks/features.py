"""Checks of engines that take features as they are: amplitudes that still have to be normalised and padded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ...circuit.circuit import Circuit
from ...circuit.measurements.measurement import Expectation
from ...errors import InputError
from .. import reference
from ..compare import ConformanceError, same
from ..points import cotangents, generic, random_point
from ..subject import SLOPES, VALUES, Subject, arrays, check

__all__: list[str] = []

_ZX = Expectation(("Z", "X"))


@check("features", "B8")
def _features(subject: Subject) -> None:
    """Rows of any length and norm, short ones, rows of zeros; values that are not finite raise an InputError."""
    subject.need("features", "qstore normalises amplitudes")
    for circuit in (generic(2, amplitudes=True), _weighted()):
        theta, rows = arrays(*random_point(circuit, 4))
        angles = rows[:, circuit.n_amplitudes :]
        compiled = subject.compile(circuit, _ZX)
        raw = np.random.default_rng(3).normal(size=(4, circuit.n_amplitudes)) * np.array([[1.0], [30.0], [1e-3], [1.0]])
        raw[3] = 0.0
        for columns in (circuit.n_amplitudes, circuit.n_amplitudes - 1, 1):
            features = np.ascontiguousarray(np.concatenate([raw[:, :columns], angles], axis=1))
            text = f"{columns} raw amplitudes for {circuit.n_qubits} qubits, the last row of zeros"
            start, norms = _start(raw[:, :columns], circuit.n_amplitudes)
            encoded = np.ascontiguousarray(np.concatenate([start, angles], axis=1))
            outputs = reference.outputs(circuit, _ZX, theta, encoded)
            same(compiled.forward(theta, features), outputs, VALUES["float64"], text)
            for shots in subject.both_ways(20_000)[1:]:
                sampled = subject.compile(circuit, _ZX, shots=shots).forward(theta, features)
                same(sampled, outputs, subject.tolerance(circuit, _ZX, theta, encoded, shots=shots), f"{text}, sampled")
            if not subject.capabilities.vjp:
                continue
            d = cotangents(4, compiled.width)
            want_theta, want = reference.slopes(circuit, _ZX, theta, encoded, d)
            d_start = want[:, :columns] / np.where(norms == 0, 1.0, norms) * (norms > 0)
            got_theta, got = (np.asarray(part) for part in _vjp(compiled.raw, theta, features, d))
            same(got_theta, want_theta, SLOPES["float64"], f"gradient for theta: {text}")
            scale = np.maximum(1.0, np.abs(d_start).max(axis=1, keepdims=True))
            same(got[:, :columns], d_start, SLOPES["float64"] * scale, f"gradient for features: {text}")
            same(got[:, columns:], want[:, circuit.n_amplitudes :], SLOPES["float64"], f"gradient for angles: {text}")
        for place, bad in ((0, np.nan), (-1, np.inf)):
            spoiled = rows.copy()
            spoiled[1, place] = bad
            _refused(partial(compiled.forward, theta, spoiled), f"features with {bad}")
        spoiled = theta.copy()
        spoiled[0] = np.nan
        _refused(partial(compiled.forward, spoiled, rows), "theta with nan")


def _weighted() -> Circuit:
    c = Circuit(3, amplitudes=True)
    for qubit, w in enumerate(c.weights(3)):
        c.append("ry", (qubit,), (w,))
    return c


def _start(raw: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows (B, width) and the norms (B, 1) of what they are made of."""
    norms = np.linalg.norm(raw, axis=1, keepdims=True)
    start = np.zeros((len(raw), width))
    start[:, : raw.shape[1]] = raw / np.where(norms == 0, 1.0, norms)
    start[norms[:, 0] == 0, 0] = 1.0
    return start, norms


def _vjp(raw: Any, theta: np.ndarray, features: np.ndarray, d: np.ndarray) -> Any:
    return raw.vjp(theta, features, d) if hasattr(raw, "vjp") else raw.value_and_vjp(theta, features)[1](d)


def _refused(call: Callable[[], Any], what: str) -> None:
    try:
        call()
    except InputError:
        return
    except Exception as error:
        raise ConformanceError(f"{what}: raised {type(error).__name__}: {error}; expected InputError.") from error
    raise ConformanceError(f"{what}: nothing was raised, expected InputError.")
