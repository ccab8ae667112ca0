"""Checks of engines for a framework's tensors: values, gradients by the framework, and by `apply_and_vjp`."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from ...circuit.circuit import Circuit
from ...circuit.measurements.measurement import Expectation, Measurement, Probabilities
from .. import reference
from ..compare import ConformanceError, same
from ..points import cotangents, generic, random_point
from ..subject import SLOPES, VALUES, NotDeclared, Subject, arrays, check, each
from .values import many_slots

__all__: list[str] = []


class _Torch:
    def __init__(self) -> None:
        self.library = importlib.import_module("torch")

    def tensor(self, array: np.ndarray, wanted: bool = False) -> Any:
        return self.library.tensor(array, requires_grad=wanted)

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, self.library.Tensor)

    def numpy(self, tensor: Any) -> np.ndarray:
        return np.asarray(tensor.detach().cpu())

    def slopes(
        self, function: Callable[[list[Any]], Any], leaves: list[Any], wanted: list[int], d: np.ndarray
    ) -> list[Any]:
        outputs = function(leaves)
        return list(self.library.autograd.grad(outputs, [leaves[k] for k in wanted], self.tensor(d), allow_unused=True))


class _TensorFlow:
    def __init__(self) -> None:
        self.library = importlib.import_module("tensorflow")

    def tensor(self, array: np.ndarray, wanted: bool = False) -> Any:
        return self.library.constant(array)

    def is_tensor(self, value: Any) -> bool:
        return bool(self.library.is_tensor(value))

    def numpy(self, tensor: Any) -> np.ndarray:
        return np.asarray(tensor)

    def slopes(
        self, function: Callable[[list[Any]], Any], leaves: list[Any], wanted: list[int], d: np.ndarray
    ) -> list[Any]:
        with self.library.GradientTape() as tape:
            for k in wanted:
                tape.watch(leaves[k])
            outputs = function(leaves)
        return list(tape.gradient(outputs, [leaves[k] for k in wanted], self.tensor(d)))


_FRAMEWORKS: dict[str, Callable[[], Any]] = {"torch": _Torch, "tensorflow": _TensorFlow}


def _framework(subject: Subject) -> Any:
    subject.need("framework", "it computes on NumPy arrays")
    name = subject.capabilities.framework
    if name not in _FRAMEWORKS:
        raise NotDeclared(f"the kit knows no framework {name!r}")
    if importlib.util.find_spec(name) is None:
        raise NotDeclared(f"{name} is not installed")
    return _FRAMEWORKS[name]()


_ZX = Expectation(("Z", "X"))


def _cases(subject: Subject) -> list[tuple[str, tuple[Circuit, Measurement, int, str]]]:
    fixed = Circuit(2)
    fixed.append("ry", (0,), fixed.inputs(1))
    cases: list[tuple[str, tuple[Circuit, Measurement, int, str]]] = [
        ("weights and inputs", (generic(2), _ZX, 3, "float64")),
        ("one row", (generic(2), _ZX, 1, "float64")),
        ("float32", (generic(2), _ZX, 3, "float32")),
        ("no weights", (fixed, _ZX, 3, "float64")),
        ("amplitudes, then angles", (generic(2, amplitudes=True), _ZX, 3, "float64")),
        ("probabilities", (generic(3), Probabilities(qubits=(2, 0)), 3, "float64")),
        ("many slots", (many_slots(), _ZX, 2, "float64")),
        ("300 rows", (generic(2), _ZX, 300, "float64")),
    ]
    cases += [(f"{n} qubits", (generic(n), _ZX, 2, "float64")) for n in subject.sizes(1, 5, 10)]
    return cases


@check("tensors: values", "T1")
def _values(subject: Subject) -> None:
    """Apply on tensors against the reference; tensors come back, of the dtype that went in."""
    framework = _framework(subject)

    def compare(what: str, case: tuple[Circuit, Measurement, int, str]) -> None:
        circuit, measured, rows, dtype = case
        theta, inputs = arrays(*random_point(circuit, rows), dtype)
        outputs = subject.compile(circuit, measured, dtype).raw.apply(framework.tensor(theta), framework.tensor(inputs))
        _tensor(framework, outputs, "apply", dtype)
        want = reference.outputs(circuit, measured, theta.astype(float), inputs.astype(float))
        same(framework.numpy(outputs), want, VALUES[dtype], f"apply: {what}")

    each(_cases(subject), compare)


def _tensor(framework: Any, value: Any, method: str, dtype: str) -> None:
    if not framework.is_tensor(value):
        raise ConformanceError(f"{method} returned {type(value).__name__}, expected a tensor.")
    if framework.numpy(value).dtype != dtype:
        raise ConformanceError(f"{method} of {dtype} tensors returned {framework.numpy(value).dtype}.")


@check("tensors: gradients", "T2")
def _gradients(subject: Subject) -> None:
    """The framework's gradients through apply, for theta, for inputs, and for both."""
    framework = _framework(subject)

    def compare(what: str, case: tuple[Circuit, Measurement, int, str]) -> None:
        circuit, measured, rows, dtype = case
        theta, inputs = arrays(*random_point(circuit, rows), dtype)
        compiled = subject.compile(circuit, measured, dtype)
        d = cotangents(rows, compiled.width)
        want = reference.slopes(circuit, measured, theta.astype(float), inputs.astype(float), d)
        for wanted in ([0], [1], [0, 1]):
            if any(not (theta, inputs)[k].size for k in wanted):
                continue
            leaves = [framework.tensor(a, k in wanted) for k, a in enumerate((theta, inputs))]
            got: list[Any] = [np.zeros_like(theta), np.zeros_like(inputs)]
            slopes = framework.slopes(lambda pair: compiled.raw.apply(*pair), leaves, wanted, d.astype(dtype))
            for k, slope in zip(wanted, slopes, strict=True):
                if slope is None:
                    raise ConformanceError(f"apply: {what}: no gradient comes back for {('theta', 'inputs')[k]}.")
                got[k] = framework.numpy(slope)
            got = list(compiled.slopes(tuple(got), theta, inputs, "apply"))
            for k in wanted:
                size = max(1.0, float(np.abs(want[k]).max(initial=0.0)) / 10)
                same(
                    got[k],
                    want[k],
                    SLOPES[dtype] * size,
                    f"gradient through apply for {('theta', 'inputs')[k]}: {what}",
                )

    each(_cases(subject), compare)


@check("tensors: apply_and_vjp", "T3")
def _apply_and_vjp(subject: Subject) -> None:
    """apply_and_vjp on tensors: outputs, and gradients by its vjp_fn, which may be called again."""
    framework = _framework(subject)

    def compare(what: str, case: tuple[Circuit, Measurement, int, str]) -> None:
        circuit, measured, rows, dtype = case
        theta, inputs = arrays(*random_point(circuit, rows), dtype)
        compiled = subject.compile(circuit, measured, dtype)
        if not hasattr(compiled.raw, "apply_and_vjp"):
            raise ConformanceError("capabilities.framework is declared, but executables have no apply_and_vjp.")
        outputs, vjp_fn = compiled.raw.apply_and_vjp(framework.tensor(theta), framework.tensor(inputs))
        _tensor(framework, outputs, "apply_and_vjp", dtype)
        want = reference.outputs(circuit, measured, theta.astype(float), inputs.astype(float))
        same(framework.numpy(outputs), want, VALUES[dtype], f"apply_and_vjp: {what}")
        for number in (1, 2):
            d = cotangents(rows, compiled.width, number)
            slopes = vjp_fn(framework.tensor(d.astype(dtype)))
            got = compiled.slopes(tuple(framework.numpy(s) for s in slopes), theta, inputs, "vjp_fn of apply_and_vjp")
            expected = reference.slopes(circuit, measured, theta.astype(float), inputs.astype(float), d)
            for k, name in enumerate(("theta", "inputs")):
                size = max(1.0, float(np.abs(expected[k]).max(initial=0.0)) / 10)
                text = f"vjp_fn of apply_and_vjp, call {number}, gradient for {name}: {what}"
                same(got[k], expected[k], SLOPES[dtype] * size, text)

    each(_cases(subject), compare)
