"""A gate from outside: the cross-resonance rotation exp(-i angle ZX/2)."""

import numpy as np

from qstore_core import AxisRotation, Cnot, Gate, register_gate

ZX = np.kron(np.diag([1, -1]), [[0, 1], [1, 0]])
H = np.sqrt(0.5)


def matrix(angle):
    return np.cos(angle / 2) * np.eye(4) - 1j * np.sin(angle / 2) * ZX


# H on the second qubit takes X to Z; CNOT copies the parity of ZZ to it.
HADAMARD = AxisRotation(1, (H, 0.0, H), constant=np.pi)
STEPS = (HADAMARD, Cnot(0, 1), AxisRotation(1, (0.0, 0.0, 1.0), (1.0,)), Cnot(0, 1), HADAMARD)

register_gate(Gate("zx", 2, 1, matrix, STEPS, shift="two-term", help="exp(-i angle ZX/2).", symbol="zx"))
