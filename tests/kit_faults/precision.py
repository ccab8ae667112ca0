"""Faults of size and precision."""

from __future__ import annotations

import math

import numpy as np

from .backend import QulacsExecutable as E
from .faults import faulty
from .structure import outputs

KIND = "size and precision"


def measured(change):
    """Exact outputs of one sample, changed: `change(self, values)`."""
    return {"measure": lambda self, state: change(self, np.array(E.measure(self, state), float))}


def angles(change):
    """Gate angles, changed one by one."""
    return {"angles": lambda self, op, theta, x: [change(a, op) for a in E.angles(self, op, theta, x)]}


def from_qubits(n):
    return measured(lambda self, y: y * (1 - 2 * (self.n >= n)))


def from_rows(test):
    """Wrong rows where `test(k, rows)` says so."""

    def exact(self, theta, inputs):
        y = np.array(E.exact(self, theta, inputs), float)
        wrong = np.array([test(k, len(inputs)) for k in range(len(inputs))])
        return np.where(wrong[:, None], 0.0, y)

    return {"exact": exact}


faulty(KIND, "wrong from 5 qubits on", "values: qubits", **from_qubits(5))
faulty(KIND, "wrong from 9 qubits on", "values: qubits", **from_qubits(9))
faulty(KIND, "wrong from 12 qubits on", "values: qubits", **from_qubits(12))
faulty(
    KIND,
    "wrong on exactly 7 qubits",
    "values: qubits",
    only=True,
    exact=lambda self, theta, inputs: np.array(E.exact(self, theta, inputs)) * (0.5 if self.n == 7 else 1.0),
)
faulty(
    KIND,
    "gates between far qubits left out",
    "values: qubits",
    gates=lambda self, theta, row: [g for g in E.gates(self, theta, row) if max(g[0].qubits) - min(g[0].qubits) < 5],
)
faulty(KIND, "rows past 128 are 0", "values: batches", **from_rows(lambda k, rows: k >= 128))
faulty(KIND, "rows past 1000 are 0", "values: batches", **from_rows(lambda k, rows: k >= 1000))
faulty(
    KIND,
    "the last row of odd batches",
    "values: batches",
    **from_rows(lambda k, rows: rows > 5 and rows % 2 == 1 and k == rows - 1),
)
faulty(
    KIND,
    "the last row of a batch of 2**k + 1",
    "values: batches",
    **from_rows(lambda k, rows: k > 16 and k & (k - 1) == 0 and k == rows - 1),
)
faulty(
    KIND,
    "a batch of 257 rows in the wrong order",
    "values: batches",
    only=True,
    exact=lambda self, theta, inputs: E.exact(self, theta, inputs)[
        :: -1 if len(inputs) == 257 and self.shots is None and self.width == 4 else 1
    ],
)
faulty(KIND, "float32 where float64 was asked for", "values: gates", **measured(lambda self, y: y.astype(np.float32)))
faulty(
    KIND,
    "float32 state",
    "values: gates",
    evolve=lambda self, theta, row: rounded(E.evolve(self, theta, row)),
)


def rounded(state):
    state.load(state.get_vector().astype(np.complex64).astype(complex))
    return state


faulty(
    KIND,
    "half precision for float32",
    "values: float32",
    **measured(lambda self, y: y.astype(np.float16) if self.dtype == np.float32 else y),
)
faulty(
    KIND,
    "three digits for float32",
    "values: float32",
    only=True,
    **outputs(lambda self, y: y.round(3) if self.dtype == np.float32 and self.n == 3 else y),
)
faulty(KIND, "angles in float32", "values: gates", **angles(lambda a, op: float(np.float32(a))))
faulty(KIND, "small angles taken as 0", "values: angle ranges", **angles(lambda a, op: 0.0 if abs(a) < 1e-3 else a))
faulty(
    KIND,
    "angles below 1e-8 taken as 0",
    "values: angle ranges",
    only=True,
    **angles(lambda a, op: 0.0 if abs(a) < 1e-8 else a),
)
faulty(
    KIND,
    "angles clipped at a turn",
    "values: angle ranges",
    **angles(lambda a, op: max(-2 * math.pi, min(2 * math.pi, a))),
)
faulty(KIND, "angles clipped at π", "values: angle ranges", **angles(lambda a, op: max(-math.pi, min(math.pi, a))))
faulty(KIND, "angles clipped at 100", "values: angle ranges", **angles(lambda a, op: max(-100.0, min(100.0, a))))
faulty(
    KIND,
    "controlled rotations of a turn taken as none",
    "values: angle ranges",
    **angles(lambda a, op: math.remainder(a, 2 * math.pi)),
)
faulty(KIND, "signs of angles lost", "values: gates", **angles(lambda a, op: abs(a)))
faulty(KIND, "angles rounded to six digits", "values: gates", **angles(lambda a, op: round(a, 6)))
faulty(
    KIND,
    "angles beyond ten turns are 0",
    "values: angle ranges",
    only=False,
    **angles(lambda a, op: 0.0 if abs(a) > 20 * math.pi else a),
)
faulty(
    KIND,
    "an angle of exactly a quarter turn is a Clifford of the other sign",
    "values: angle ranges",
    **angles(lambda a, op: -a if a == math.pi / 2 else a),
)
