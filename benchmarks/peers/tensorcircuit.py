"""TensorCircuit-NG on JAX: jit of vmap of a circuit with `inputs`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ..problem import Problem
from . import Library, Running, _jax, only_z


def layer(contractor: str | None, by_probability: bool) -> Callable[[Problem], Running]:
    """By default as in its documentation; `by_probability` reads all ⟨Z⟩ from one vector of probabilities."""

    def build(problem: Problem) -> Running:
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # products of complex numbers have TF32's three digits without it
        import tensorcircuit as tc

        only_z(problem)
        n = problem.n_qubits
        backend = tc.set_backend("jax")
        tc.set_dtype("complex64")
        if contractor is not None:
            tc.set_contractor(contractor)
        bits = (np.arange(1 << n)[:, None] >> np.arange(n)[::-1]) & 1
        signs = (1 - 2 * bits).astype(np.float32)

        def one(theta: Any, x: Any) -> Any:
            state = backend.cast(x / backend.norm(x), "complex64")
            c = tc.Circuit(n, inputs=state)
            for level in range(problem.depth):
                for q in range(n):
                    c.ry(q, theta=theta[level, q, 0])
                    c.rz(q, theta=theta[level, q, 1])
                for pair in problem.pairs():
                    c.cnot(*pair)
            if by_probability:
                return backend.real(c.probability()) @ signs
            return backend.real(backend.stack([c.expectation_ps(z=[q]) for q in range(n)]))

        return _jax.running(backend.vmap(one, vectorized_argnums=1), problem)

    return build


_PLAIN = 'the same with `set_contractor("plain")` and ⟨Z⟩ from `probability()`, up to 12 qubits'
_DEFAULT = "TensorCircuit-NG, JAX backend, jit of vmap, complex64, `expectation_ps` per qubit"
LIBRARIES = tuple(
    Library(
        prefix + name,
        label,
        layer(*options),
        "tensorcircuit-ng",
        ("jax", "tensorcircuit"),
        note,
        device=device,
        qubits=range(most + 1),
    )
    for prefix, device in (("", "cpu"), ("gpu-", "cuda"))
    for name, label, options, note, most in (
        ("tensorcircuit", "TensorCircuit", (None, False), _DEFAULT, 99),
        ("tensorcircuit-plain", "TC plain", ("plain", True), _PLAIN, 12),
    )
)
