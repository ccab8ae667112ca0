"""What a node of a framework's graph runs on the host: rows that calls on arrays refuse give NaN.

An error inside a graph would end training before a callback that looks for NaN sees the loss, and engines in a
framework's operations cannot raise: so both give NaN in graphs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from .program import LayerProgram

__all__ = ["forward_or_nan", "value_and_vjp_or_nan"]


def forward_or_nan(program: LayerProgram, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """`theta` (W,), `x` (B, F) → (B, O)."""
    try:
        return program.forward(theta, x)
    except InputError:
        return value_and_vjp_or_nan(program, theta, x)[0]


def value_and_vjp_or_nan(program: LayerProgram, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Outputs, and `vjp_fn` as of `LayerProgram.value_and_vjp`; a refused row makes the gradient of theta NaN."""
    inputs = not program.no_input_gradient
    try:
        return program.value_and_vjp(theta, x, wrt_inputs=inputs)
    except InputError:
        good = program.valid_rows(theta, x)
        if good.all():
            raise
    y, d_x = np.full((len(x), program.spec.output_dim), np.nan, x.dtype), np.full_like(x, np.nan)
    if good.any():
        y[good], vjp_fn = program.value_and_vjp(theta, x[good], wrt_inputs=inputs)

    def vjp(cotangents: np.ndarray, *less: bool) -> tuple[np.ndarray, np.ndarray | None]:
        if good.any() and inputs:
            d_x[good] = vjp_fn(cotangents[good])[1]
        return np.full_like(theta, np.nan), d_x if inputs else None

    return y, vjp
