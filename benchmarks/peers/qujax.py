"""qujax: jit of vmap of the state function and one expectation function per qubit."""

from __future__ import annotations

from typing import Any

from ..problem import Problem
from . import Library, Running, _jax, only_z


def layer(problem: Problem) -> Running:
    """The circuit as lists of gates, qubits and slots."""
    import jax
    import qujax
    from jax import numpy as jnp

    only_z(problem)
    n = problem.n_qubits
    gates: list[str] = []
    qubits: list[list[int]] = []
    slots: list[list[int]] = []
    for level in range(problem.depth):
        for q in range(n):
            for k, gate in enumerate(("Ry", "Rz")):
                gates.append(gate)
                qubits.append([q])
                slots.append([2 * (level * n + q) + k])
        for pair in problem.pairs():
            gates.append("CX")
            qubits.append(list(pair))
            slots.append([])
    state = qujax.get_params_to_statetensor_func(gates, qubits, slots, n)
    read = [qujax.get_statetensor_to_expectation_func([["Z"]], [[q]], [1.0]) for q in range(n)]

    def one(theta: Any, x: Any) -> Any:
        start = (x / jnp.linalg.norm(x)).astype(jnp.complex64).reshape((2,) * n)
        final = state(theta.ravel() / jnp.pi, start)  # qujax counts angles in units of π
        return jnp.stack([expectation(final) for expectation in read])

    return _jax.running(jax.vmap(one, in_axes=(None, 0)), problem)


LIBRARIES = (Library("qujax", "qujax", layer, "qujax", ("jax", "qujax"), "jit of vmap, complex64"),)
