"""Checks of what a backend computes: conventions, every gate, angles, start states, every measurement."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...circuit.circuit import Circuit
from ...circuit.gates.table import GATES
from ...circuit.measurements.measurement import Amplitudes, Expectation, Measurement, Pauli, Probabilities
from ...circuit.measurements.states import DensityMatrix, Entropy, Fidelity
from ...circuit.measurements.statistics import Covariance, Variance
from ..compare import same
from ..points import (
    BASES,
    CLASSES,
    OBSERVABLES,
    PROBABILITIES,
    generic,
    placements,
    random_circuit,
    random_point,
    ring,
    scramble,
    with_gate,
)
from ..reference import unit
from ..subject import SEED, Subject, arrays, check, each

__all__ = ["ANGLES", "EXPRESSIONS", "many_slots", "polynomial_circuit"]

_XYZ = Expectation(("X", "Y", "Z"))


@check("values: shapes", "V1", core=True)
def _shapes(subject: Subject) -> None:
    """(batch, outputs), real floats: one row and several, one output and several, with and without slots."""
    for n_qubits, measured in ((1, Expectation()), (3, Expectation(("Z", "X"))), (2, Probabilities())):
        circuit = generic(n_qubits)
        for batch in (1, 5):
            subject.expect(circuit, measured, random_point(circuit, batch), f"{n_qubits} qubit(s), {batch} row(s)")
    fixed, weighted, empty, unused = (Circuit(2) for _ in range(4))
    fixed.append("ry", (0,), (0.4,))
    weighted.append("ry", (1,), weighted.weights(1))
    unused.inputs(2), unused.weights(3)
    for circuit, what in (
        (fixed, "without slots"),
        (weighted, "without inputs"),
        (empty, "without gates"),
        (unused, "with slots that no gate uses"),
    ):
        for rows in (1, 3):
            point = np.linspace(0.3, 0.9, circuit.n_weights), np.zeros((rows, circuit.n_inputs))
            subject.expect(circuit, Expectation(("Z", "X")), point, f"a circuit {what}, {rows} row(s)")


@check("values: float32", "V2", core=True)
def _precision(subject: Subject) -> None:
    """float32 in, float32 precision out."""
    for circuit in (generic(3), random_circuit(3, 40, np.random.default_rng(SEED))):
        for measured in (_XYZ, Probabilities()):
            subject.expect(circuit, measured, random_point(circuit, 4), "dtype float32", dtype="float32")


def _closed_forms() -> list[tuple[str, Circuit, Measurement, np.ndarray, np.ndarray]]:
    """`(what, circuit, measurement, inputs, outputs)` from textbooks: the conventions, before anything is composed."""
    x = np.linspace(-3.0, 3.0, 7)[:, None]
    forms: list[tuple[str, Circuit, Measurement, np.ndarray, np.ndarray]] = []

    def form(
        what: str, n: int, gates: tuple[Any, ...], measured: Measurement, inputs: np.ndarray, want: np.ndarray
    ) -> None:
        c = Circuit(n)
        slots = c.inputs(inputs.shape[1])
        for name, qubits, *numbers in gates:
            c.append(name, qubits, [slots[k] for k in numbers])
        forms.append((what, c, measured, inputs, want))

    for gate, basis, want, formula in (
        ("ry", "Z", np.cos(x), "cos x"),
        ("ry", "X", np.sin(x), "sin x"),
        ("rx", "Z", np.cos(x), "cos x"),
        ("rx", "Y", -np.sin(x), "-sin x"),
    ):
        what = f"⟨{basis}⟩ after {gate.upper()}(x) is {formula}"
        form(what, 1, ((gate, (0,), 0),), Expectation((basis,)), x, want)
    for basis, want, formula in (("X", np.cos(x), "cos x"), ("Y", np.sin(x), "sin x")):
        what = f"⟨{basis}⟩ after H, RZ(x) is {formula}"
        form(what, 1, (("h", (0,)), ("rz", (0,), 0)), Expectation((basis,)), x, want)
    born = np.concatenate([np.cos(x / 2) ** 2, np.sin(x / 2) ** 2], axis=1)
    form("P(0), P(1) after RY(x) are cos²(x/2), sin²(x/2)", 1, (("ry", (0,), 0),), Probabilities(), x, born)
    bell = Expectation(observables=(Pauli("ZZ"), Pauli("XX"), Pauli("YY"), Pauli("ZI")))
    nothing = np.zeros((1, 0))
    what, gates = "⟨ZZ⟩, ⟨XX⟩, ⟨YY⟩, ⟨ZI⟩ of the Bell state", (("h", (0,)), ("cnot", (0, 1)))
    form(what, 2, gates, bell, nothing, np.array([[1.0, 1.0, -1.0, 0.0]]))
    what = "X on qubit 0 of 3 gives |100⟩, index 4"
    form(what, 3, (("x", (0,)),), Probabilities(), nothing, np.eye(8)[[0b100]])
    form("⟨Z⟩ after X on qubit 0", 3, (("x", (0,)),), Expectation(), nothing, np.array([[-1.0, 1.0, 1.0]]))
    what, gates = "X on 1, CNOT from 1 to 2 gives |011⟩", (("x", (1,)), ("cnot", (1, 2)))
    form(what, 3, gates, Probabilities(), nothing, np.eye(8)[[0b011]])
    return forms


@check("values: gates", "V3")
def _gates(subject: Subject) -> None:
    """Closed forms of the conventions; each gate of the table, on all choices of qubits, against its matrix."""
    for what, circuit, measured, inputs, want in _closed_forms():
        subject.expect(circuit, measured, ([], inputs), what, want=want)

    def compare(what: str, circuit: Circuit) -> None:
        subject.expect(circuit, _XYZ, random_point(circuit, 2), what)

    each(
        (
            (f"gate {name} on qubits {qubits}", with_gate(name, qubits, "xw"))
            for name in GATES
            for qubits in placements(name, 4 if GATES[name].n_qubits == 3 and subject.thorough else 3)
        ),
        compare,
    )


ANGLES = (
    9e-9,
    -1e-6,
    1e-4,
    -0.01,
    0.0,
    math.pi / 2,
    math.pi,
    -math.pi,
    3.6,
    -4.1,
    2 * math.pi,
    6.9,
    -8.0,
    13.1,
    -60.5,
    400.25,
    -12345.5,
)


@check("values: angle ranges", "V4")
def _angle_ranges(subject: Subject) -> None:
    """Every gate at small, large and negative angles, as inputs and as weights."""

    def compare(what: str, gate: tuple[str, str]) -> None:
        name, kind = gate
        n, count = GATES[name].n_qubits, GATES[name].n_params
        circuit = with_gate(name, tuple(reversed(range(n))), kind, n)
        turned = np.array([np.roll(ANGLES, -5 * k) for k in range(count)]).T
        if kind == "x":
            subject.expect(circuit, _XYZ, ([], turned), f"{what} at small, large and negative angles")
        for row in turned if kind == "w" else ():
            subject.expect(circuit, _XYZ, (row, np.zeros((1, 0))), f"{what} at the weights {row.tolist()}")

    each(((f"gate {name}", (name, kind)) for kind in "xw" for name, entry in GATES.items() if entry.n_params), compare)


EXPRESSIONS = {
    "2x + 0.3": lambda x, y, v, w: 2 * x + 0.3,
    "-x": lambda x, y, v, w: -x,
    "x·v": lambda x, y, v, w: x * v,
    "w - y": lambda x, y, v, w: w - y,
    "v/2 + x·y": lambda x, y, v, w: v * 0.5 + x * y,
    "x·x": lambda x, y, v, w: x * x,
    "v·v": lambda x, y, v, w: v * v,
    "0.2·x·x·x - 0.5": lambda x, y, v, w: 0.2 * x * x * x - 0.5,
    "v·w·x": lambda x, y, v, w: v * w * x,
    "(x + v)·(y - w)": lambda x, y, v, w: (x + v) * (y - w),
    "2·(π - x)·(π - y)": lambda x, y, v, w: 2 * (math.pi - x) * (math.pi - y),
    "0.5·v·v·x·x": lambda x, y, v, w: 0.5 * v * v * x * x,
}


def polynomial_circuit(expression: str, gate: str) -> Circuit:
    """A gate with an angle that is a polynomial, and one that uses its slots again."""
    c = Circuit(2)
    (x, y), (v, w) = c.inputs(2), c.weights(2)
    scramble(c, 0.4)
    c.append(gate, range(GATES[gate].n_qubits), [EXPRESSIONS[expression](x, y, v, w)])
    c.append("ry", (1,), (0.5 * x + w,))
    scramble(c, 1.2)
    return c


@check("values: angle polynomials", "V5")
def _angle_polynomials(subject: Subject) -> None:
    """Angles that are sums, products and powers of slots, and slots that several angles use."""

    def compare(what: str, circuit: Circuit) -> None:
        subject.expect(circuit, _XYZ, random_point(circuit, 3), what)

    each(
        ((f"{gate}({text})", polynomial_circuit(text, gate)) for text in EXPRESSIONS for gate in ("ry", "rz", "crx")),
        compare,
    )


def many_slots(n_qubits: int = 3, count: int = 13) -> Circuit:
    """More than ten weights and inputs, used in another order than they are numbered; some are not used."""
    c = Circuit(n_qubits)
    x, w = c.inputs(count), c.weights(count + 1)
    order = np.random.default_rng(SEED).permutation(count)
    for place, k in enumerate(order[:-1]):
        c.append(("ry", "rx", "rz")[place % 3], (place % n_qubits,), (x[k],))
        c.append(("rz", "ry", "rx")[place % 3], ((place + 1) % n_qubits,), (w[int(order[-1 - place])],))
        if place % 3 == 2:
            ring(c)
    return c


@check("values: long circuits", "V6")
def _long_circuits(subject: Subject) -> None:
    """Hundreds of gates; more than ten weights and inputs, in any order, some unused."""
    circuit = many_slots()
    subject.expect(circuit, _XYZ, random_point(circuit, 3), "13 inputs and 14 weights in scrambled order")
    for gates in (120, 500) if subject.thorough else (300,):
        circuit = random_circuit(2, gates, np.random.default_rng(gates))
        subject.expect(circuit, _XYZ, random_point(circuit, 2), f"a circuit of {gates} gates")


@check("values: amplitudes", "V7")
def _amplitudes(subject: Subject) -> None:
    """Rows of real amplitudes as the start state: basis states, signs, zeros; alone and before angles."""
    c = Circuit(2, amplitudes=True)
    row = np.array([[0.0, 0.0, 1.0, 0.0]])
    want = np.array([[-1.0, 1.0]])
    subject.expect(c, Expectation(), ([], row), "⟨Z⟩ per qubit of the amplitudes of |10⟩", want=want)
    c = Circuit(3, amplitudes=True)
    rows = unit(np.array([[1, -2, 3, -4, 5, -6, 7, -8], [0, 0, 0, -1, 0, 0, 0, 2], [1, 0, 0, 0, 0, 0, 0, 0.0]]))
    for measured, what in ((_XYZ, "⟨X⟩, ⟨Y⟩, ⟨Z⟩"), (Probabilities(), "probabilities")):
        subject.expect(c, measured, ([], rows), f"{what} of amplitudes without gates")
    c = generic(3, amplitudes=True)
    subject.expect(c, _XYZ, random_point(c, 4), "amplitudes, then angles")
    c = Circuit(3, amplitudes=True)
    for qubit, w in enumerate(c.weights(3)):
        c.append("ry", (qubit,), (w,))
    ring(c)
    subject.expect(c, _XYZ, random_point(c, 4), "amplitudes without angles")


def _measured(subject: Subject, measurements: dict[str, Measurement], text: str, *, sums: bool = False) -> None:
    circuit = generic(3)
    point = random_point(circuit, 3)

    def compare(what: str, measured: Measurement) -> None:
        got = subject.expect(circuit, measured, point, f"{text}{what}")
        if sums:
            same(got.sum(axis=1), np.ones(3), 1e-5, f"sum of {text}{what}")

    each(measurements.items(), compare)


@check("values: bases", "V8")
def _bases(subject: Subject) -> None:
    """Expectation values in each basis, in several, and of chosen qubits."""
    _measured(subject, BASES, "")
    c = Circuit(3)
    for qubit, x in enumerate(c.inputs(3)):
        c.append("ry", (qubit,), (x,))
    angles = np.array([[0.3, 1.1, 2.0]])
    want = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    text = "outputs are basis-major: ⟨Z⟩ of all qubits, then ⟨X⟩ of all"
    subject.expect(c, Expectation(("Z", "X")), ([], angles), text, want=want)


@check("values: observables", "V9")
def _observables(subject: Subject) -> None:
    """Pauli strings and sums of them: every letter, coefficients, identities, equal outputs."""
    _measured(subject, OBSERVABLES, "observables ")


@check("values: probabilities", "V10")
def _probabilities(subject: Subject) -> None:
    """Probabilities of all bitstrings, and of chosen qubits in their order."""
    _measured(subject, PROBABILITIES, "probabilities ", sums=True)


@check("values: classes", "V11")
def _classes(subject: Subject) -> None:
    """Probabilities of classes: index modulo n_classes, also of chosen qubits."""
    _measured(subject, CLASSES, "probabilities ", sums=True)


@check("values: batches", "V12", core=True)
def _batches(subject: Subject) -> None:
    """Batches from 1 to over 1000 rows, all rows different."""
    circuit, measured = generic(2), Expectation(("Z", "Y"))
    compiled = subject.compile(circuit, measured)
    sizes = [1, 2, 3, 4, 6, 7, 8, 9, 15, 17, 31, 32, 33, 63, 65, 100, 127, 128, 129, 200, 255, 257, 513, 1025]
    for rows in sizes + ([2049, 4097, 10000] if subject.thorough else []):
        point = random_point(circuit, rows, rows)
        subject.expect(circuit, measured, point, f"a batch of {rows} rows", compiled=compiled)
    theta, inputs = arrays(*random_point(circuit, 9))
    same_rows = np.repeat(inputs[:3], 3, axis=0)
    subject.expect(circuit, measured, (theta, same_rows), "a batch with equal rows", compiled=compiled)


_SAFE = ("ry", "rz", "rx", "cnot", "cz", "crx", "rzz", "h", "p", "swap")


@check("values: qubits", "V13")
def _qubits(subject: Subject) -> None:
    """Circuits of 1 to 12 qubits, of gates at random places, with every kind of measurement and start."""
    most = (13, 14, 15, 16) if subject.thorough else ()
    for n in subject.sizes(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, *most):
        rng = np.random.default_rng(n)
        letters = ["".join(rng.choice(list("XYZI"), n)) for _ in range(2)]
        strings = Expectation(observables=(Pauli("Z" * n), Pauli(letters[0]) - 0.5 * Pauli(letters[1])))
        kinds: list[tuple[str, Measurement, bool]] = [("bases X, Y, Z", _XYZ, False), ("observables", strings, False)]
        kinds += [("probabilities", Probabilities(), False)] if n <= 10 else []
        kinds += [("classes of the last qubits", Probabilities(qubits=tuple(range(n))[-3:][::-1], n_classes=2), True)]
        for what, measured, amplitudes in kinds:
            circuit = random_circuit(n, 2 * n + 8, rng, names=_SAFE, amplitudes=amplitudes)
            start = "amplitudes" if amplitudes else "|0…0⟩"
            subject.expect(circuit, measured, random_point(circuit, 2), f"{n} qubits from {start}, {what}")


@check("values: many observables", "V14")
def _many_observables(subject: Subject) -> None:
    """All Pauli strings of three qubits at once, squares of sums: what density matrices and variances come from."""
    circuit = generic(3)
    point, zz = random_point(circuit, 2), Pauli("ZZI") + 0.5 * Pauli("XIX") - 0.3 * Pauli("IYZ")
    kinds: dict[str, Measurement] = {
        "the density matrix of qubits 2, 0, 1": DensityMatrix((2, 0, 1)),
        "the entropy of qubits 0, 2": Entropy((0, 2)),
        "a variance": Variance((zz,)),
        "a covariance": Covariance(zz, Pauli("XII") + 2.0 * Pauli("IZY")),
        "the fidelity with a state": Fidelity(tuple(unit(np.array([[1, 2j, 0, -0.5, 1 + 1j, 0.3, -2, 0.1j]]))[0])),
    }

    def compare(what: str, measured: Measurement) -> None:
        longer, computed = measured.extend(circuit), measured.primitive(3)
        subject.expect(longer, computed, point, f"what {what} is computed from")

    each(kinds.items(), compare)


@check("values: states", "V15")
def _states(subject: Subject) -> None:
    """The amplitudes of the state, with the phase of every gate's matrix, also of whole turns."""
    subject.need("amplitudes", "it computes expectation values and probabilities")

    def compare(what: str, circuit: Circuit) -> None:
        subject.expect(circuit, Amplitudes(), random_point(circuit, 2), f"amplitudes after {what}")

    circuits = {f"gate {name}": with_gate(name, placed, "xw") for name in GATES for placed in [next(placements(name))]}
    turned = Circuit(2)
    for gate in ("rx", "ry", "rz"):
        turned.append(gate, (0,), (2 * math.pi,))
    turned.append("rz", (1,), (1.0,))
    start = generic(3, amplitudes=True)
    each([*circuits.items(), ("whole turns", turned), ("amplitudes as the start", start)], compare)
