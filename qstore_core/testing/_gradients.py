"""Checks of gradients: each against two other methods that share no code with it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from ..circuit.circuit import Circuit
from ..circuit.measurement import Expectation, Measurement
from ..layers.numpy import QuantumFeatureExtractor
from ..runtime.gradients import ParameterShift, unshared
from . import reference
from ._values import random_point, rotations, unit
from .subject import SEED, SIGMAS, ConformanceError, NotDeclared, Subject, arrays, check, same

__all__ = ["differences"]

_STEP = 0.02
_SHIFT_TOLERANCE = 1e-5
_DIFFERENCE_TOLERANCE = 1e-4
_COMPUTED_BY_CORE = "qstore computes gradients with the parameter-shift rule"


def differences(function: Callable[[np.ndarray], np.ndarray], point: np.ndarray) -> np.ndarray:
    """Five-point central differences of a scalar function of a vector; error about 1e-8 for trigonometric ones."""
    out = np.zeros(len(point))
    for k in range(len(point)):
        bump = np.zeros(len(point))
        bump[k] = _STEP
        near = function(point + bump) - function(point - bump)
        far = function(point + 2 * bump) - function(point - 2 * bump)
        out[k] = (8 * near - far) / (12 * _STEP)
    return out


def _pull(executable: Any, theta: np.ndarray, inputs: np.ndarray, cotangents: np.ndarray) -> Any:
    if hasattr(executable, "vjp"):
        return executable.vjp(theta, inputs, cotangents)
    return executable.value_and_vjp(theta, inputs)[1](cotangents)


def _cotangents(rows: int, outputs: int) -> np.ndarray:
    return np.random.default_rng(SEED + 1).normal(size=(rows, outputs))


def _circuit() -> Circuit:
    c = rotations(3)
    (w,) = c.weights(1)
    c.append("crx", (0, 2), (w,))
    c.append("ry", (1,), (w * 0.5,))
    return c


def _against_both(subject: Subject, circuit: Circuit, measured: Measurement, which: int, what: str) -> None:
    theta, inputs = arrays(*random_point(circuit, 3), "float64")
    executable = subject.compile(circuit, measured)
    cotangents = _cotangents(3, measured.n_outputs(circuit.n_qubits))
    got = np.asarray(_pull(executable, theta, inputs, cotangents)[which])
    rule = ParameterShift(circuit, subject.compile(unshared(circuit), measured).forward)
    want = rule.vjp(theta, inputs, cotangents)[which]
    assert want is not None
    same(got, want, _SHIFT_TOLERANCE, f"vjp for {what}, against the parameter-shift rule")

    def loss(values: np.ndarray) -> np.ndarray:
        point = (values, inputs) if which == 0 else (theta, values.reshape(inputs.shape))
        return (executable.forward(*arrays(*point, "float64")) * cotangents).sum()

    slopes = differences(loss, (theta, inputs)[which].reshape(-1)).reshape(got.shape)
    same(got, slopes, _DIFFERENCE_TOLERANCE, f"vjp for {what}, against finite differences")


@check("gradient: weights")
def _gradient_of_weights(subject: Subject) -> None:
    """The vjp for theta against the parameter-shift rule and finite differences, both of forward."""
    subject.need("vjp", _COMPUTED_BY_CORE)
    _against_both(subject, _circuit(), Expectation(("Z", "X")), 0, "theta")


@check("gradient: inputs")
def _gradient_of_inputs(subject: Subject) -> None:
    """The vjp for angle inputs against the parameter-shift rule and finite differences."""
    subject.need("vjp", _COMPUTED_BY_CORE)
    _against_both(subject, _circuit(), Expectation(("Z", "X")), 1, "inputs")


@check("gradient: amplitudes")
def _gradient_of_amplitudes(subject: Subject) -> None:
    """The vjp for amplitude inputs, along the sphere, against finite differences of normalised rows."""
    subject.need("vjp", "amplitude inputs have no gradient on this backend")
    circuit, measured = rotations(2, amplitudes=True), Expectation(("Z", "X"))
    theta, inputs = arrays(*random_point(circuit, 2), "float64")
    executable = subject.compile(circuit, measured)
    cotangents = _cotangents(2, 4)
    got = np.asarray(_pull(executable, theta, inputs, cotangents)[1])
    if got.shape != inputs.shape:
        raise ConformanceError(f"vjp for amplitudes has shape {got.shape}, expected {inputs.shape}.")
    got = got - (got * inputs).sum(axis=1, keepdims=True) * inputs

    def loss(values: np.ndarray) -> np.ndarray:
        rows = np.ascontiguousarray(unit(values.reshape(inputs.shape)))
        return (executable.forward(theta, rows) * cotangents).sum()

    slopes = differences(loss, inputs.reshape(-1)).reshape(inputs.shape)
    same(got, slopes, _DIFFERENCE_TOLERANCE, "vjp for amplitudes, along the sphere, against finite differences")


@check("gradient: shapes")
def _gradient_shapes(subject: Subject) -> None:
    """The vjp without weights or inputs, of one row, in float32; it is linear, and its outputs are forward's."""
    subject.need("vjp", _COMPUTED_BY_CORE)
    plain = Circuit(2)
    plain.append("ry", (0,), plain.inputs(1))
    weighted = Circuit(2)
    weighted.append("ry", (1,), weighted.weights(1))
    for circuit in (plain, weighted, rotations(2)):
        for dtype in ("float32", "float64"):
            theta, inputs = arrays(*random_point(circuit, 1), dtype)
            executable = subject.compile(circuit, Expectation(), dtype)
            for d, like, what in zip(
                _pull(executable, theta, inputs, np.ones((1, 2), dtype)),
                (theta, inputs),
                ("theta", "inputs"),
                strict=True,
            ):
                if np.shape(d) != like.shape:
                    raise ConformanceError(f"vjp for {what} has shape {np.shape(d)}, expected {like.shape}.")
    circuit = rotations(2)
    theta, inputs = arrays(*random_point(circuit, 3), "float64")
    executable = subject.compile(circuit, Expectation())
    a, b = _cotangents(3, 2), np.ones((3, 2))
    parts = [np.asarray(_pull(executable, theta, inputs, c)[1]) for c in (a, b, 2 * a - b)]
    same(parts[2], 2 * parts[0] - parts[1], 1e-6, "vjp of 2a - b, against 2·vjp(a) - vjp(b)")
    if hasattr(executable, "value_and_vjp"):
        outputs, pullback = executable.value_and_vjp(theta, inputs)
        same(outputs, executable.forward(theta, inputs), 1e-6, "outputs of value_and_vjp, against forward")
        same(pullback(a)[1], parts[0], 1e-6, "the pullback of value_and_vjp, against vjp")
        same(pullback(b)[1], parts[1], 1e-6, "the pullback of value_and_vjp, called again")


@check("gradient: layer")
def _gradient_of_a_layer(subject: Subject) -> None:
    """A layer's gradients, by whatever method it chooses, against finite differences of the reference."""
    layer = QuantumFeatureExtractor(
        2,
        depth=1,
        encoding="angle",
        backend=subject.backend,
        shots=subject.shots,
        fallback=None,
        init="normal",
        seed=SEED,
    )
    spec = layer.spec
    assert spec.measurement is not None
    measured = spec.measurement
    x = np.random.default_rng(SEED).uniform(-1, 1, (3, 2))
    cotangents = _cotangents(3, 2)
    got = layer.vjp(x, cotangents)

    def loss(values: np.ndarray) -> np.ndarray:
        theta, rows = values[: spec.n_weights], values[spec.n_weights :].reshape(x.shape)
        return (reference.outputs(spec.circuit, measured, theta, rows) * cotangents).sum()

    want = differences(loss, np.concatenate([layer.theta, x.reshape(-1)]))
    tolerance = _DIFFERENCE_TOLERANCE
    if subject.shots is not None:  # two-term rule: each row's circuits contribute (Σ|cotangent|)²/2 shots
        tolerance += SIGMAS * float(np.sqrt((np.abs(cotangents).sum(axis=1) ** 2).sum() / (2 * subject.shots)))
    same(got[0], want[: spec.n_weights], tolerance, "a layer's gradient for theta")
    same(got[1], want[spec.n_weights :].reshape(x.shape), tolerance, "a layer's gradient for inputs")


@check("framework tensors")
def _framework_tensors(subject: Subject) -> None:
    """On the framework's tensors, apply gives forward's values, and the framework's gradients are vjp's."""
    subject.need("framework", "it computes on NumPy arrays")
    framework = subject.capabilities.framework
    if importlib.util.find_spec(framework) is None:
        raise NotDeclared(f"{framework} is not installed")
    library: Any = importlib.import_module(framework)
    circuit, measured = rotations(2), Expectation()
    theta, inputs = arrays(*random_point(circuit, 3), "float64")
    executable = subject.compile(circuit, measured)
    cotangents = _cotangents(3, 2)
    if framework == "torch":
        leaves = [library.tensor(a, requires_grad=True) for a in (theta, inputs)]
        outputs = executable.apply(*leaves)
        gradients = library.autograd.grad(outputs, leaves, library.tensor(cotangents))
        outputs = outputs.detach()
    else:
        leaves = [library.Variable(theta), library.Variable(inputs)]
        with library.GradientTape() as tape:
            outputs = executable.apply(*leaves)
        gradients = tape.gradient(outputs, leaves, library.constant(cotangents))
    same(np.asarray(outputs), executable.forward(theta, inputs), 1e-9, "apply on tensors, against forward")
    slopes = _pull(executable, theta, inputs, cotangents)
    for mine, other, what in zip(gradients, slopes, ("theta", "inputs"), strict=True):
        same(np.asarray(mine), other, 1e-9, f"the framework's gradient for {what}, against vjp")
