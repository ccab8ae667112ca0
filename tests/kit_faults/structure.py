"""Faults of structure: gates and their qubits, measurements, start states, slots, what is declared and refused."""

from __future__ import annotations

import numpy as np

from qstore_core import Pauli
from qstore_core.circuit.gates.table import GATES

from .backend import QulacsBackend
from .backend import QulacsExecutable as E
from .faults import faulty, in_values

KIND = "structure"


def matrices(change):
    """The matrix of a gate, changed: `change(op, angles) → matrix`, or None where it is right."""

    def matrix(self, op, angles):
        changed = change(op, angles)
        return E.matrix(self, op, angles) if changed is None else changed

    return {"matrix": matrix}


def instead(name, other, sign=1):
    """Another gate's matrix in place of one's own."""
    return matrices(lambda op, angles: GATES[other].matrix(*(sign * a for a in angles)) if op.gate == name else None)


def permuted(name, order):
    """The angles of a gate in another order."""
    return matrices(lambda op, angles: GATES[name].matrix(*(angles[k] for k in order)) if op.gate == name else None)


def on_qubits(change):
    """The qubits of a gate, changed: `change(qubits, n)`."""
    return {"targets": lambda self, qubits: E.targets(self, change(tuple(qubits), self.n))}


def operations(change):
    """The operations of a circuit, changed."""

    def __init__(self, circuit, measurement, dtype, shots):  # noqa: N807
        E.__init__(self, circuit, measurement, dtype, shots)
        self.operations = tuple(change(self.operations, circuit))

    return {"__init__": __init__}


faulty(KIND, "qubits in reverse order", "values: gates", **on_qubits(lambda q, n: tuple(n - 1 - k for k in q)))
faulty(
    KIND,
    "gates of three qubits ignore the order of qubits",
    "values: gates",
    only=True,
    **on_qubits(lambda q, n: tuple(sorted(q)) if len(q) == 3 else q),
)
faulty(KIND, "control and target exchanged", "values: gates", **on_qubits(lambda q, n: q[::-1] if len(q) == 2 else q))
faulty(
    KIND,
    "controls last in gates of three",
    "values: gates",
    **on_qubits(lambda q, n: q[1:] + q[:1] if len(q) == 3 else q),
)
faulty(
    KIND,
    "two-qubit gates on neighbours only",
    "values: gates",
    **on_qubits(lambda q, n: (q[0], q[0] + 1) if len(q) == 2 and q[1] == q[0] + 2 else q),
)
faulty(KIND, "RX turns the other way", "values: gates", **instead("rx", "rx", -1))
faulty(KIND, "sdg is s", "values: gates", **instead("sdg", "s"))
faulty(KIND, "t is tdg", "values: gates", **instead("t", "tdg"))
faulty(
    KIND,
    "sx is its inverse",
    "values: gates",
    **matrices(lambda op, a: GATES["sx"].matrix().conj().T if op.gate == "sx" else None),
)
faulty(KIND, "cp is crz", "values: gates", **instead("cp", "crz"))
faulty(KIND, "ch is cnot", "values: gates", **instead("ch", "cnot"))
faulty(KIND, "iswap is swap", "values: gates", **instead("iswap", "swap"))
faulty(
    KIND,
    "iswap with phase -i",
    "values: gates",
    **matrices(lambda op, a: GATES["iswap"].matrix().conj() if op.gate == "iswap" else None),
)
faulty(KIND, "angles of u3 in another order", "values: gates", **permuted("u3", (2, 0, 1)))
faulty(KIND, "angles of rot in reverse order", "values: gates", **permuted("rot", (2, 1, 0)))
faulty(
    KIND,
    "controls on 0",
    "values: gates",
    **matrices(lambda op, a: GATES["cnot"].matrix()[::-1, ::-1].copy() if op.gate == "cy" else None),
)
faulty(
    KIND,
    "cz with the phase on |10⟩",
    "values: gates",
    **matrices(lambda op, a: np.diag([1, 1, -1, 1]) if op.gate == "cz" else None),
)
faulty(
    KIND,
    "unknown gates skipped",
    "gates: unknown",
    only=True,
    **operations(lambda ops, circuit: [op for op in ops if not op.gate.startswith("kit_")]),
)
faulty(
    KIND,
    "unknown gates replaced by the first one",
    "gates: unknown",
    only=True,
    **matrices(lambda op, angles: np.eye(1 << len(op.qubits)) if op.gate.startswith("kit_") else None),
)


def unknown_is_a_key_error(self, circuit):
    QulacsBackend.check(self, circuit)
    for op in circuit.operations:
        if op.gate.startswith("kit_"):
            raise KeyError(op.gate)


faulty(KIND, "unknown gates are a KeyError", "gates: unknown", only=True, backend={"check": unknown_is_a_key_error})
faulty(KIND, "gates past the hundredth left out", "values: long circuits", **operations(lambda ops, circuit: ops[:100]))
faulty(
    KIND,
    "only the last 256 gates",
    "values: long circuits",
    only=True,
    **operations(lambda ops, circuit: ops[-256:]),
)
faulty(
    KIND,
    "gates sorted by qubit",
    "values: gates",
    **operations(lambda ops, circuit: sorted(ops, key=lambda op: op.qubits[0])),
)


def text_order(self, op, theta, x):
    def sort(values):
        return values[np.argsort([str(k) for k in range(len(values))])] if len(values) > 10 else values

    return [angle.value(sort(theta), sort(x)) for angle in op.params]


faulty(KIND, "more than ten slots sorted as text", "values: long circuits", angles=text_order)


def terms(change):
    """Angles from changed terms: `change(terms)`."""

    def angles(self, op, theta, x):
        values = {"w": theta, "x": x}
        return [sum(c * np.prod([values[k][i] for k, i in m]) for m, c in change(angle.terms)) for angle in op.params]

    return {"angles": angles}


faulty(
    KIND, "x·x taken as x", "values: angle polynomials", **terms(lambda t: [(tuple(dict.fromkeys(m)), c) for m, c in t])
)
faulty(
    KIND, "only the first slot of a product", "values: angle polynomials", **terms(lambda t: [(m[:1], c) for m, c in t])
)
faulty(
    KIND,
    "constants of angles left out",
    "values: angle polynomials",
    **terms(lambda t: [(m, c) for m, c in t if m or len(t) == 1]),
)
faulty(
    KIND,
    "coefficients of angles left out",
    "values: angle polynomials",
    **terms(lambda t: [(m, 1.0 if m else c) for m, c in t]),
)
faulty(KIND, "only one term of an angle", "values: angle polynomials", **terms(lambda t: t[-1:]))
faulty(
    KIND, "products of more than two slots", "values: angle polynomials", **terms(lambda t: [(m[:2], c) for m, c in t])
)

faulty(
    KIND,
    "products of three slots taken as two, in values",
    "values: angle polynomials",
    only=True,
    **in_values(**terms(lambda t: [(m[:2], c) for m, c in t])),
)

# -- start states


def start(change):
    """The row that the start state is loaded from, changed."""
    return {"start": lambda self, row: E.start(self, change(self, row) if self.start_width else row)}


def reversed_bits(self, row):
    order = [int(f"{k:0{self.n}b}"[::-1], 2) for k in range(1 << self.n)]
    return row[: self.start_width][order]


faulty(KIND, "signs of amplitudes lost", "values: amplitudes", **start(lambda self, row: np.abs(row)))
faulty(KIND, "amplitudes in the order of another library", "values: amplitudes", **start(reversed_bits))
faulty(
    KIND,
    "squares of amplitudes",
    "values: amplitudes",
    **start(lambda self, row: row[: self.start_width] ** 2 / np.linalg.norm(row[: self.start_width] ** 2)),
)
faulty(
    KIND,
    "amplitudes taken from the last columns",
    "values: amplitudes",
    **start(lambda self, row: row[-self.start_width :]),
)
faulty(
    KIND,
    "zeros among amplitudes filled",
    "values: amplitudes",
    only=True,
    **start(lambda self, row: np.where(row == 0, 0.1, row)),
)

# -- measurements


def strings(change):
    """The observables of a measurement, changed: one tuple of terms per output."""
    return {"strings": lambda self: tuple(tuple(t) for t in change(self, list(E.strings(self))))}


def letters(change):
    return strings(lambda self, outputs: [[(change(s), c) for s, c in t] for t in outputs])


def by_qubit(self, outputs):
    bases = self.measurement.bases
    count = len(outputs) // max(1, len(bases))
    return outputs if not bases else [outputs[b * count + q] for q in range(count) for b in range(len(bases))]


def sorted_qubits(self, outputs):
    m = self.measurement
    if not m.bases or m.qubits is None:
        return outputs
    return [Pauli("I" * q + b + "I" * (self.n - q - 1)).terms for b in m.bases for q in sorted(m.qubits)]


def sorted_bases(self, outputs):
    bases = self.measurement.bases
    count = len(outputs) // max(1, len(bases))
    order = sorted(range(len(bases)), key=lambda b: bases[b])
    return outputs if not bases else [outputs[b * count + q] for b in order for q in range(count)]


faulty(KIND, "Y measured as X", "values: bases", **letters(lambda s: s.replace("Y", "X")))
faulty(KIND, "outputs in the order of qubits", "values: bases", **strings(by_qubit))
faulty(KIND, "chosen qubits sorted", "values: bases", **strings(sorted_qubits))
faulty(KIND, "bases sorted", "values: bases", **strings(sorted_bases))
faulty(
    KIND,
    "coefficients of observables ignored",
    "values: observables",
    **strings(lambda self, o: [[(s, 1.0) for s, _ in t] for t in o]),
)
faulty(
    KIND,
    "coefficients without their sign",
    "values: observables",
    **strings(lambda self, o: [[(s, abs(c)) for s, c in t] for t in o]),
)
faulty(
    KIND,
    "identity worth 0",
    "values: observables",
    pauli=lambda self, s, state: 0.0 if set(s) == {"I"} else E.pauli(self, s, state),
)
faulty(
    KIND, "only the first term of an observable", "values: observables", **strings(lambda self, o: [t[:1] for t in o])
)
faulty(
    KIND,
    "wrong sign for three Y",
    "values: observables",
    pauli=lambda self, s, state: E.pauli(self, s, state) * (-1 if s == "YYY" else 1),
)
faulty(
    KIND,
    "equal outputs computed once",
    "values: observables",
    **strings(lambda self, o: [t if t not in o[:k] else [(s, 0.0) for s, _ in t] for k, t in enumerate(o)]),
)
faulty(
    KIND,
    "outputs past the tenth are 0",
    "values: observables",
    measure=lambda self, state: (
        np.array(E.measure(self, state))
        * ((np.arange(self.width) < 10) | self.is_born | (self.width % 3 != 0) | (not self.measurement.observables))
    ),
)


def classes(change):
    return {"classes": lambda self: change(self, E.classes(self))}


def with_qubits(self, index):
    if self.measurement.n_classes is None or self.measurement.qubits is None:
        return index
    return np.arange(1 << self.n) % self.measurement.n_classes


def high_bits(self, index):
    m = self.measurement
    if m.n_classes is None:
        return index
    whole = type(self)(self.circuit, type(m)(m.qubits), "float64", None)
    return E.classes(whole) * m.n_classes // (1 << (self.n if m.qubits is None else len(m.qubits)))


def sorted_kept(self, index):
    m = self.measurement
    if m.qubits is None:
        return index
    return E.classes(type(self)(self.circuit, type(m)(tuple(sorted(m.qubits)), m.n_classes), "float64", None))


faulty(KIND, "qubits and n_classes together", "values: classes", **classes(with_qubits))
faulty(KIND, "classes by the high bits", "values: classes", **classes(high_bits))
faulty(KIND, "qubits of probabilities sorted", "values: probabilities", **classes(sorted_kept))
faulty(
    KIND,
    "the first qubit least significant",
    "values: probabilities",
    **classes(
        lambda self, index: (
            np.array([int(f"{k:0{self.n}b}"[::-1], 2) for k in range(1 << self.n)])[index]
            if self.measurement.qubits is None and self.measurement.n_classes is None
            else index
        )
    ),
)
faulty(
    KIND,
    "probabilities not normalised",
    "values: probabilities",
    probabilities=lambda self, state: E.probabilities(self, state) * (1 + 1e-6),
)

faulty(
    KIND,
    "chosen qubits of three sorted, in values",
    "values: bases",
    only=True,
    **in_values(**strings(lambda self, o: sorted_qubits(self, o) if self.n == 3 else o)),
)
faulty(
    KIND,
    "wrong sign for three Y in a few strings, in values",
    "values: observables",
    only=True,
    **in_values(
        pauli=lambda self, s, state: (
            E.pauli(self, s, state) * (-1 if s == "YYY" and sum(map(len, self.observables)) < 32 else 1)
        )
    ),
)
faulty(
    KIND,
    "qubits of probabilities of three sorted, in values",
    "values: probabilities",
    only=True,
    **in_values(
        **classes(lambda self, i: sorted_kept(self, i) if self.n == 3 and not self.measurement.n_classes else i)
    ),
)
faulty(
    KIND,
    "qubits and three classes together, in values",
    "values: classes",
    only=True,
    **in_values(**classes(lambda self, i: with_qubits(self, i) if self.measurement.n_classes == 3 else i)),
)

# -- shapes


def outputs(change):
    """Outputs of forward and value_and_vjp, changed: `change(self, outputs)`."""

    def forward(self, theta, inputs, *, seed=None):
        return change(self, E.forward(self, theta, inputs, seed=seed))

    return {"forward": forward}


faulty(KIND, "one output without its axis", "values: shapes", **outputs(lambda s, y: y[:, 0] if s.width == 1 else y))
faulty(KIND, "one row without its axis", "values: shapes", **outputs(lambda s, y: y[0] if len(y) == 1 else y))
faulty(
    KIND,
    "without inputs a single row",
    "values: shapes",
    only=True,
    **outputs(lambda s, y: y[:1] if s.shots is None and not (s.circuit.n_inputs or s.start_width) and s.n == 2 else y),
)
faulty(KIND, "complex outputs", "values: shapes", **outputs(lambda s, y: y.astype(complex)))
faulty(KIND, "outputs as text", "values: shapes", **outputs(lambda s, y: y.astype(str)))
faulty(KIND, "transposed", "values: shapes", **outputs(lambda s, y: y.T))
faulty(KIND, "an output too many", "values: shapes", **outputs(lambda s, y: np.concatenate([y, y[:, :1]], axis=1)))
faulty(KIND, "rows mixed up", "values: batches", **outputs(lambda s, y: np.roll(y, 1, axis=0)))
faulty(KIND, "the first row for all", "values: batches", **outputs(lambda s, y: np.repeat(y[:1], len(y), axis=0)))
