"""Checks of what a backend computes: shapes, conventions, every gate, every measurement, batches."""

from __future__ import annotations

import math

import numpy as np

from ..backends.contract import contract_problems
from ..circuit.circuit import Circuit
from ..circuit.gates import GATES
from ..circuit.measurement import Expectation, Observable, Pauli, Probabilities
from ..errors import CapabilityError
from ..layers.numpy import QuantumFeatureExtractor
from . import reference
from .subject import SEED, ConformanceError, NotDeclared, Subject, arrays, check, same, shaped

__all__ = ["random_point", "rotations", "unit"]


def rotations(n_qubits: int, *, amplitudes: bool = False, depth: int = 1) -> Circuit:
    """RY(input) on each qubit, then levels of RY, RZ(weight) and a ring of CNOTs."""
    c = Circuit(n_qubits, amplitudes=amplitudes)
    if not amplitudes:
        for qubit, x in enumerate(c.inputs(n_qubits)):
            c.append("ry", (qubit,), (x,))
    for _ in range(depth):
        slots = c.weights(2 * n_qubits)
        for qubit in range(n_qubits):
            c.append("ry", (qubit,), (slots[2 * qubit],))
            c.append("rz", (qubit,), (slots[2 * qubit + 1],))
        for qubit in range(n_qubits - 1):
            c.append("cnot", (qubit, qubit + 1))
    return c


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_point(circuit: Circuit, batch: int, seed: int = SEED) -> tuple[np.ndarray, np.ndarray]:
    """Random theta (W,) and inputs (batch, I)."""
    rng = np.random.default_rng(seed)
    theta = rng.uniform(-math.pi, math.pi, circuit.n_weights)
    angles = rng.uniform(-math.pi, math.pi, (batch, circuit.n_inputs))
    if not circuit.n_amplitudes:
        return theta, angles
    return theta, np.concatenate([unit(rng.normal(size=(batch, circuit.n_amplitudes))), angles], axis=1)


@check("contract", core=True)
def _contract(subject: Subject) -> None:
    """It is a Backend; executables have the methods that its capabilities declare."""
    backend = subject.backend
    problems = contract_problems(backend)
    named = subject.given.partition(":")[0] if isinstance(subject.given, str) else ""
    if named and not problems and backend.name.partition(":")[0] != named:
        problems.append(f"it calls itself {backend.name!r}, but is installed as {named!r}")
    declared = subject.capabilities
    if not declared.exact and not declared.shots:
        problems.append("capabilities declare neither exact values nor shots")
    executable = subject.compile(rotations(1), Expectation())
    if not callable(getattr(executable, "forward", None)):
        problems.append(f"compile returned {type(executable).__name__} without forward")
    if declared.vjp and not (hasattr(executable, "vjp") or hasattr(executable, "value_and_vjp")):
        problems.append("capabilities.vjp is declared, but executables have neither vjp nor value_and_vjp")
    if declared.framework is not None and not hasattr(executable, "apply"):
        problems.append(f"capabilities.framework is {declared.framework!r}, but executables have no apply")
    if problems:
        raise ConformanceError("; ".join(problems) + ".")


@check("output shape", core=True)
def _output_shape(subject: Subject) -> None:
    """(batch, outputs), real floats; also without inputs, without weights, for one row and one output."""
    for n_qubits, measurement in ((1, Expectation()), (3, Expectation(("Z", "X"))), (2, Probabilities())):
        circuit = rotations(n_qubits)
        for batch in (1, 5):
            subject.forward(circuit, measurement, *random_point(circuit, batch))
    fixed = Circuit(2)
    fixed.append("ry", (0,), (0.4,))
    subject.expect(fixed, Expectation(), [], np.zeros((3, 0)), "a circuit without inputs and weights, 3 rows")
    weighted = Circuit(2)
    weighted.append("ry", (1,), weighted.weights(1))
    subject.expect(weighted, Expectation(), [0.7], np.zeros((4, 0)), "a circuit without inputs, 4 rows")


@check("dtypes", core=True)
def _dtypes(subject: Subject) -> None:
    """float32 and float64; float64 is accurate to 1e-6."""
    circuit = rotations(2)
    for dtype in ("float32", "float64"):
        subject.expect(circuit, Expectation(("Z", "X")), *random_point(circuit, 3), f"dtype {dtype}", dtype=dtype)


@check("closed forms", core=True)
def _closed_forms(subject: Subject) -> None:
    """RY, RX, RZ: cosines and sines; the Bell state; Born's rule."""
    x = np.linspace(-3.0, 3.0, 7)[:, None]
    for gate, basis, want, formula in (
        ("ry", "Z", np.cos(x), "cos x"),
        ("ry", "X", np.sin(x), "sin x"),
        ("rx", "Z", np.cos(x), "cos x"),
        ("rx", "Y", -np.sin(x), "-sin x"),
    ):
        c = Circuit(1)
        c.append(gate, (0,), c.inputs(1))
        subject.expect(c, Expectation((basis,)), [], x, f"⟨{basis}⟩ after {gate.upper()}(x) is {formula}", want=want)
    for basis, want, formula in (("X", np.cos(x), "cos x"), ("Y", np.sin(x), "sin x")):
        c = Circuit(1)
        c.append("h", (0,))
        c.append("rz", (0,), c.inputs(1))
        subject.expect(c, Expectation((basis,)), [], x, f"⟨{basis}⟩ after H, RZ(x) is {formula}", want=want)
    c = Circuit(1)
    c.append("ry", (0,), c.inputs(1))
    born = np.concatenate([np.cos(x / 2) ** 2, np.sin(x / 2) ** 2], axis=1)
    subject.expect(c, Probabilities(), [], x, "P(0), P(1) after RY(x) are cos²(x/2), sin²(x/2)", want=born)
    bell = Circuit(2)
    bell.append("h", (0,))
    bell.append("cnot", (0, 1))
    measured = Expectation(observables=(Pauli("ZZ"), Pauli("XX"), Pauli("YY"), Pauli("ZI")))
    want = np.array([[1.0, 1.0, -1.0, 0.0]])
    subject.expect(bell, measured, [], np.zeros((1, 0)), "⟨ZZ⟩, ⟨XX⟩, ⟨YY⟩, ⟨ZI⟩ of the Bell state", want=want)


@check("qubit order", core=True)
def _qubit_order(subject: Subject) -> None:
    """Qubit 0 is the most significant bit of the index and the first output; controls come first."""
    c = Circuit(3)
    c.append("x", (0,))
    want = np.eye(8)[[0b100]]
    subject.expect(c, Probabilities(), [], np.zeros((1, 0)), "X on qubit 0 of 3 gives |100⟩, index 4", want=want)
    subject.expect(
        c,
        Expectation(),
        [],
        np.zeros((1, 0)),
        "⟨Z⟩ per qubit after X on qubit 0",
        want=np.array([[-1.0, 1.0, 1.0]]),
    )
    c = Circuit(3)
    c.append("x", (1,))
    c.append("cnot", (1, 2))
    want = np.eye(8)[[0b011]]
    subject.expect(c, Probabilities(), [], np.zeros((1, 0)), "X on 1, CNOT from 1 to 2 gives |011⟩", want=want)
    c = Circuit(2, amplitudes=True)
    row = np.array([[0.0, 0.0, 1.0, 0.0]])
    subject.expect(c, Expectation(), [], row, "⟨Z⟩ per qubit of the amplitudes of |10⟩", want=np.array([[-1.0, 1.0]]))
    c = Circuit(3)
    for qubit, x in enumerate(c.inputs(3)):
        c.append("ry", (qubit,), (x,))
    angles = np.array([[0.3, 1.1, 2.0]])
    bases = Expectation(("Z", "X"))
    want = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    subject.expect(c, bases, [], angles, "outputs are basis-major: ⟨Z⟩ of all qubits, then ⟨X⟩ of all", want=want)


@check("every gate")
def _every_gate(subject: Subject) -> None:
    """Each gate of the table against its matrix, on a state that shows every phase."""
    bases = Expectation(("X", "Y", "Z"))
    refused = []
    for name, entry in GATES.items():
        n = entry.n_qubits
        c = Circuit(n)
        for qubit in range(n):
            c.append("rot", (qubit,), (0.3 + qubit, 1.1 - 0.2 * qubit, 0.7 * qubit))
        for qubit in range(n - 1):
            c.append("cnot", (qubit, qubit + 1))
        c.append(name, range(n), c.inputs(entry.n_params))
        for qubit in range(n):
            c.append("rot", (qubit,), (0.5, 0.9 + qubit, 0.1))
        _, inputs = random_point(c, 2)
        try:
            subject.expect(c, bases, [], inputs, f"gate {name}")
        except CapabilityError:
            refused.append(name)
    if refused:
        raise NotDeclared(f"all others are right; refused with a CapabilityError: {', '.join(refused)}")


@check("circuits")
def _circuits(subject: Subject) -> None:
    """Random circuits against a dense reference."""
    rng = np.random.default_rng(SEED)
    names = [name for name, entry in GATES.items() if entry.n_qubits <= 2]
    for number in range(6):
        n = 1 + number % 4
        c = Circuit(n)
        slots = [*c.inputs(3), *c.weights(3)]
        for name in rng.choice(names, 12):
            entry = GATES[str(name)]
            if entry.n_qubits <= n:
                params = [slots[k] for k in rng.integers(0, len(slots), entry.n_params)]
                c.append(entry.name, [int(q) for q in rng.permutation(n)[: entry.n_qubits]], params)
        subject.expect(c, Expectation(("Z", "X", "Y")), *random_point(c, 3, number), f"random circuit {number}")


@check("angles")
def _angles(subject: Subject) -> None:
    """Angles that are polynomials of slots: sums, products, constants, a slot used twice."""
    c = Circuit(2)
    (x, y), (v, w) = c.inputs(2), c.weights(2)
    for name, qubit, angle in (
        ("ry", 0, 2 * x + 0.3),
        ("rx", 1, x * v),
        ("rz", 0, w - y),
        ("ry", 1, v * 0.5 + x * y),
    ):
        c.append(name, (qubit,), (angle,))
    c.append("cnot", (0, 1))
    subject.expect(c, Expectation(("Z", "Y")), *random_point(c, 4), "angles 2x + 0.3, x·v, w - y, v/2 + x·y")


@check("amplitudes")
def _amplitudes(subject: Subject) -> None:
    """Unit rows of real amplitudes as the start state, alone and before angles."""
    c = rotations(3, amplitudes=True)
    subject.expect(c, Expectation(("Z", "X")), *random_point(c, 4), "amplitude inputs")
    c = Circuit(2, amplitudes=True)
    c.append("ry", (1,), c.inputs(1))
    c.append("cnot", (1, 0))
    subject.expect(c, Expectation(("Z", "X")), *random_point(c, 3), "amplitude inputs, then angle inputs")


@check("observables")
def _observables(subject: Subject) -> None:
    """Sums of Pauli strings with coefficients; bases on chosen qubits."""
    c = rotations(3)
    point = random_point(c, 3)
    measured: tuple[Observable, ...] = (
        Pauli("ZZI"),
        0.5 * Pauli("XYZ") - 2.0 * Pauli("IZI"),
        Pauli("YIX") + Pauli("III"),
    )
    subject.expect(c, Expectation(observables=measured), *point, "observables ZZI, 0.5·XYZ - 2·IZI, YIX + III")
    subject.expect(c, Expectation(("Y", "Z"), qubits=(2, 0)), *point, "bases Y, Z on qubits 2, 0")


@check("probabilities")
def _probabilities(subject: Subject) -> None:
    """Probabilities of all bitstrings, of chosen qubits in their order, and of classes; they sum to 1."""
    c = rotations(3)
    point = random_point(c, 3)
    for measured, what in (
        (Probabilities(), "of all bitstrings"),
        (Probabilities(qubits=(2, 0)), "of qubits 2, 0, in this order"),
        (Probabilities(n_classes=3), "of 3 classes: index modulo 3"),
        (Probabilities(qubits=(1,)), "of qubit 1"),
    ):
        got = subject.expect(c, measured, *point, f"probabilities {what}")
        same(got.sum(axis=1), np.ones(3), 1e-5, f"sum of probabilities {what}")


@check("batch = loop", core=True)
def _batch_is_loop(subject: Subject) -> None:
    """Every row of a batch has the value that it has alone."""
    circuit, measured = rotations(2), Expectation(("Z", "X"))
    theta, inputs = arrays(*random_point(circuit, 19), "float64")
    executable = subject.compile(circuit, measured)
    got = shaped(executable.forward(theta, inputs), len(inputs), 4)
    if subject.shots is not None:
        want, tolerance = (
            reference.outputs(circuit, measured, theta, inputs),
            subject.tolerance(circuit, measured),
        )
    else:
        want = np.concatenate([executable.forward(theta, inputs[k : k + 1]) for k in range(len(inputs))])
        tolerance = np.full(4, 1e-9)
    same(got, want, tolerance, "19 rows at once, against one by one")


@check("empty batch")
def _empty_batch(subject: Subject) -> None:
    """A layer on this backend takes no rows and further leading dimensions."""
    layer = QuantumFeatureExtractor(2, depth=1, encoding="angle", backend=subject.backend, shots=subject.shots)
    for shape in ((0, 2), (2, 3, 2)):
        out = layer(np.zeros(shape, np.float32))
        if out.shape != shape or out.dtype != np.float32:
            raise ConformanceError(
                f"inputs {shape} float32 gave outputs {out.shape} {out.dtype}, expected {shape} float32."
            )


@check("arguments")
def _arguments_untouched(subject: Subject) -> None:
    """No call of forward writes to its arguments, and its result is not written to by the next call."""
    circuit = rotations(2, amplitudes=True)
    theta, inputs = arrays(*random_point(circuit, 3), "float64")
    kept = theta.copy(), inputs.copy()
    executable = subject.compile(circuit, Expectation())
    first = np.asarray(executable.forward(theta, inputs))
    before = first.copy()
    executable.forward(theta + 1.0, inputs[:, ::-1].copy())
    if not (np.array_equal(theta, kept[0]) and np.array_equal(inputs, kept[1])):
        raise ConformanceError("forward changed its arguments in place.")
    if not np.array_equal(first, before):
        raise ConformanceError("the second call of forward changed the result of the first: it reuses its buffer.")
