"""Checks of gradients: each gate, expression, measurement and input kind by itself, against differences of values.

The reference differentiates its own values, not the backend's: a wrong value fails the checks of values.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...circuit.circuit import Circuit
from ...circuit.gates.table import GATES
from ...circuit.measurements.measurement import Amplitudes, Expectation, Measurement, Pauli, Probabilities
from .. import reference
from ..compare import same
from ..points import (
    BASES,
    CLASSES,
    OBSERVABLES,
    PROBABILITIES,
    cotangents,
    generic,
    placements,
    random_circuit,
    random_point,
    ring,
    with_gate,
)
from ..subject import SLOPES, Compiled, NotDeclared, Subject, arrays, check, each
from .values import ANGLES, EXPRESSIONS, many_slots, polynomial_circuit

__all__: list[str] = []

_XYZ = Expectation(("X", "Y", "Z"))
_ZX = Expectation(("Z", "X"))
_SAFE = ("ry", "rz", "rx", "cnot", "cz", "crx", "rzz", "h", "p", "swap")


def _need(subject: Subject) -> None:
    subject.need("vjp", "qstore computes gradients with the parameter-shift rule")


def _compare(
    subject: Subject,
    circuit: Circuit,
    measured: Measurement,
    point: tuple[np.ndarray, np.ndarray],
    what: str,
    *,
    wrt: Iterable[int] = (0, 1),
    dtype: str = "float64",
    compiled: Compiled | None = None,
    d: np.ndarray | None = None,
) -> None:
    """The vjp for theta (0) and inputs (1) against differences of the reference."""
    theta, inputs = arrays(*point, dtype)
    compiled = subject.compile(circuit, measured, dtype) if compiled is None else compiled
    d = cotangents(len(inputs), compiled.width) if d is None else d
    want = reference.slopes(circuit, measured, theta.astype(float), inputs.astype(float), d)
    got = compiled.vjp(theta, inputs, np.ascontiguousarray(d, dtype))
    for k in wrt:
        size = max(1.0, float(np.abs(want[k]).max(initial=0.0)) / 10)
        same(got[k], want[k], SLOPES[dtype] * size, f"gradient for {('theta', 'inputs')[k]}: {what}")


def _gates(subject: Subject, slots: str, which: int) -> None:
    _need(subject)

    def compare(what: str, circuit: Circuit) -> None:
        compiled = subject.compile(circuit, _XYZ)
        points, text = [random_point(circuit, 2)], what
        count = circuit.n_inputs + circuit.n_weights
        if circuit.n_qubits < 3:  # where rules have their corners
            text = f"{what} at {'small, large and negative angles' if which else 'the angles {}'}"
            turned = np.array([np.roll(ANGLES, -5 * k) for k in range(count)]).T
            points += [(np.zeros(0), turned)] if which else [(row, np.zeros((1, 0))) for row in turned]
        for point in points:
            said = what if point is points[0] else text.format(point[0].tolist())
            _compare(subject, circuit, _XYZ, point, said, wrt=(which,), compiled=compiled)

    each(
        (
            (f"gate {name} on qubits {qubits}", with_gate(name, qubits, slots, n))
            for name, entry in GATES.items()
            for n in (entry.n_qubits, 3)
            for qubits in placements(name, n)
            if entry.n_params
        ),
        compare,
    )


@check("gradient: weights", "G1")
def _weights(subject: Subject) -> None:
    """The gradient of each gate, on all choices of qubits, whose angles are weights."""
    _gates(subject, "w", 0)


@check("gradient: inputs", "G2")
def _inputs(subject: Subject) -> None:
    """The gradient of each gate, on all choices of qubits, whose angles are inputs."""
    _gates(subject, "x", 1)


@check("gradient: angle polynomials", "G3")
def _polynomials(subject: Subject) -> None:
    """The gradient for slots of angles that are sums, products and powers, and for slots that are used again."""
    _need(subject)

    def compare(what: str, circuit: Circuit) -> None:
        _compare(subject, circuit, _ZX, random_point(circuit, 2), what)

    each(
        ((f"{gate}({text})", polynomial_circuit(text, gate)) for text in EXPRESSIONS for gate in ("ry", "crx")), compare
    )


@check("gradient: measurements", "G4")
def _measurements(subject: Subject) -> None:
    """The gradient of every kind of measurement; of single outputs; linear in the cotangents."""
    _need(subject)
    circuit = generic(3)
    point = arrays(*random_point(circuit, 2))
    names = {"": BASES, "observables ": OBSERVABLES, "probabilities ": PROBABILITIES | CLASSES}
    each(
        ((f"{text}{what}", measured) for text, kinds in names.items() for what, measured in kinds.items()),
        lambda what, measured: _compare(subject, circuit, measured, point, what),
    )
    compiled = subject.compile(circuit, _ZX)
    for output in range(compiled.width):
        d = np.zeros((2, compiled.width))
        d[1, output] = 1.0
        _compare(subject, circuit, _ZX, point, f"row 1, output {output} alone", compiled=compiled, d=d)
    _compare(subject, circuit, _ZX, point, "cotangents of 0", compiled=compiled, d=np.zeros((2, compiled.width)))
    large = 1e4 * cotangents(2, compiled.width)
    _compare(subject, circuit, _ZX, point, "cotangents of 10⁴", compiled=compiled, d=large)


@check("gradient: amplitudes", "G5")
def _amplitudes(subject: Subject) -> None:
    """The gradient for amplitudes, along the sphere, for every kind of measurement."""
    _need(subject)
    c = Circuit(3, amplitudes=True)
    for qubit, w in enumerate(c.weights(3)):
        c.append("ry", (qubit,), (w,))
        c.append("rx", (qubit,), (0.3 + qubit,))
    ring(c)
    kinds: dict[str, Measurement] = {
        "bases X, Y, Z": _XYZ,
        "observables XYZ - 2·IZI": Expectation(observables=(Pauli("XYZ") - 2.0 * Pauli("IZI"),)),
        "probabilities": Probabilities(),
        "3 classes": Probabilities(n_classes=3),
    }
    each(
        kinds.items(), lambda what, measured: _compare(subject, c, measured, random_point(c, 3), f"amplitudes, {what}")
    )
    bare = Circuit(2, amplitudes=True)
    _compare(subject, bare, _XYZ, random_point(bare, 3), "amplitudes without gates")


@check("gradient: angles after amplitudes", "G6")
def _angles_after_amplitudes(subject: Subject) -> None:
    """Amplitudes and angles as inputs: each has its gradient in its own columns."""
    _need(subject)
    circuit = generic(2, amplitudes=True)
    for measured in (_ZX, Probabilities()):
        _compare(subject, circuit, measured, random_point(circuit, 3), "amplitudes, then angles")


@check("gradient: shapes", "G7")
def _shapes(subject: Subject) -> None:
    """The vjp without weights, without inputs, without both; of one row; in float32."""
    _need(subject)
    plain, weighted, empty = Circuit(2), Circuit(2), Circuit(2)
    plain.append("ry", (0,), plain.inputs(1))
    weighted.append("ry", (1,), weighted.weights(1))
    empty.append("h", (0,))
    for dtype in ("float64", "float32"):
        for circuit, what in (
            (plain, "no weights"),
            (weighted, "no inputs"),
            (empty, "no slots"),
            (generic(3), "weights and inputs"),
            (generic(2, amplitudes=True), "amplitudes"),
        ):
            for rows in (1, 3):
                text = f"a circuit with {what}, {rows} row(s), {dtype}"
                _compare(subject, circuit, _ZX, random_point(circuit, rows), text, dtype=dtype)


@check("gradient: batches", "G8")
def _batches(subject: Subject) -> None:
    """The vjp of batches from 1 to over 500 rows."""
    _need(subject)
    circuit = generic(2)
    compiled = subject.compile(circuit, _ZX)
    sizes = [1, 2, 3, 5, 8, 16, 17, 33, 64, 100, 129, 257, 513]
    for rows in sizes + ([1025, 2049] if subject.thorough else []):
        point = random_point(circuit, rows, rows)
        _compare(subject, circuit, _ZX, point, f"a batch of {rows} rows", compiled=compiled)


@check("gradient: qubits", "G9")
def _qubits(subject: Subject) -> None:
    """The vjp on 1 to 12 qubits, of long circuits, and with more than ten slots of each kind."""
    _need(subject)
    circuit = many_slots()
    _compare(subject, circuit, _ZX, random_point(circuit, 2), "13 inputs and 14 weights in scrambled order")
    circuit = random_circuit(2, 150, np.random.default_rng(1), slots=2)
    theta, inputs = random_point(circuit, 1)
    _compare(subject, circuit, _ZX, (0.1 * theta, 0.1 * inputs), "a circuit of 150 gates")
    for n in subject.sizes(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, *((13, 14) if subject.thorough else ())):
        rng = np.random.default_rng(n)
        circuit = random_circuit(n, 2 * n + 8, rng, names=_SAFE)
        measured: Measurement = _XYZ if n % 2 else Probabilities(n_classes=2)
        _compare(subject, circuit, measured, random_point(circuit, 1), f"{n} qubits")
        if n <= 6:
            circuit = random_circuit(n, n + 6, rng, names=_SAFE, amplitudes=True, slots=1)
            _compare(subject, circuit, _ZX, random_point(circuit, 1), f"{n} qubits from amplitudes")


@check("gradient: nothing kept", "G10")
def _nothing_kept(subject: Subject) -> None:
    """Many vjps of one executable, with new arrays and with the same ones; results stay as they are."""
    _need(subject)
    circuit = generic(2)
    compiled = subject.compile(circuit, _ZX)
    theta, inputs = arrays(*random_point(circuit, 3))
    d = cotangents(3, 4)
    first = compiled.vjp(theta, inputs, d)
    before = [part.copy() for part in first]
    for number in range(18):
        new = arrays(*random_point(circuit, 3 - (number % 3 == 2), number))
        new_d = cotangents(len(new[1]), 4, number)
        if number % 2 or len(new_d) < 3:
            point, new_d = new, new_d
        else:
            theta[:], inputs[:], d[:] = *new, new_d
            point, new_d = (theta, inputs), d
        _compare(subject, circuit, _ZX, point, f"vjp number {number + 2} of one executable", compiled=compiled, d=new_d)
        if number % 5 == 0:
            compiled.forward(*arrays(*random_point(circuit, 3, 77)))
    for got, want, what in zip(first, before, ("theta", "inputs"), strict=True):
        same(got, want, 0.0, f"the gradient for {what} of a first call, after others (is a buffer used again?)")


@check("gradient: value_and_vjp", "G13")
def _value_and_vjp(subject: Subject) -> None:
    """Outputs are forward's; vjp_fn gives vjp's gradients, more than once and after other calls."""
    _need(subject)
    for circuit in (generic(2), generic(2, amplitudes=True)):
        compiled = subject.compile(circuit, _ZX)
        if not hasattr(compiled.raw, "value_and_vjp"):
            raise NotDeclared("executables have no value_and_vjp")
        theta, inputs = arrays(*random_point(circuit, 3))
        kept = theta, inputs
        outputs, vjp_fn = compiled.value_and_vjp(theta, inputs)
        same(outputs, reference.outputs(circuit, _ZX, *kept), 1e-9, "outputs of value_and_vjp")
        before = outputs.copy()
        a, b = cotangents(3, 4), cotangents(3, 4, 9)
        later = compiled.value_and_vjp(*arrays(*random_point(circuit, 5, 3)))[1]
        compiled.forward(*arrays(*random_point(circuit, 3, 4)))
        for d, text in ((a, "once"), (b, "again, with other cotangents"), (a, "a third time")):
            want, got = reference.slopes(circuit, _ZX, *kept, d), vjp_fn(d)
            for k, what in enumerate(("theta", "inputs")):
                text_k = f"vjp_fn called {text}, after other calls: gradient"
                same(got[k], want[k], SLOPES["float64"], f"{text_k} for {what}")
            if d is a:
                later(cotangents(5, 4))
        same(outputs, before, 0.0, "outputs of value_and_vjp, after other calls (is a buffer used again?)")
        single = subject.compile(circuit, _ZX, "float32")
        point = arrays(*kept, "float32")
        outputs, vjp_fn = single.value_and_vjp(*point)
        same(outputs, reference.outputs(circuit, _ZX, *kept), 1e-5, "outputs of value_and_vjp, float32")
        got = vjp_fn(a.astype("float32"))
        same(got[0], reference.slopes(circuit, _ZX, *kept, a)[0], 1e-4, "gradient for theta of vjp_fn, float32")


@check("gradient: states", "G15")
def _states(subject: Subject) -> None:
    """The gradients of amplitudes, real and imaginary parts, for weights, inputs and start states."""
    _need(subject)
    subject.need("amplitudes", "it computes expectation values and probabilities")

    def compare(what: str, circuit: Circuit) -> None:
        _compare(subject, circuit, Amplitudes(), random_point(circuit, 2), f"amplitudes after {what}")

    names = ("rx", "rz", "p", "u3", "crx", "rzz")
    circuits = [(f"gate {name}", with_gate(name, next(placements(name)), "xw")) for name in names]
    each([*circuits, ("amplitudes and angles", generic(2, amplitudes=True))], compare)
