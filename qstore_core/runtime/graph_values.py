"""What a node of a framework's graph runs on the host: rows that calls on arrays refuse give NaN.

An error inside a graph would end training before a callback that looks for NaN sees the loss, and engines in a
framework's operations cannot raise: so both give NaN in graphs.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from .program import LayerProgram, VjpFn

__all__ = ["forward_or_nan", "value_and_vjp_or_nan"]


def forward_or_nan(program: LayerProgram, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """`theta` (W,), `x` (B, F) → (B, O)."""
    try:
        return program.forward(theta, x)
    except InputError:
        good, y = _good_rows(program, theta, x)
    if good.any():
        y[good] = program.forward(theta, x[good])
    return y


def value_and_vjp_or_nan(
    program: LayerProgram, theta: np.ndarray, x: np.ndarray, *, wrt_theta: bool = True, wrt_inputs: bool = True
) -> tuple[np.ndarray, VjpFn]:
    """Outputs, and `vjp_fn` as of `LayerProgram.value_and_vjp`; a refused row makes the gradient of theta NaN."""
    wanted = {"wrt_theta": wrt_theta, "wrt_inputs": wrt_inputs and not program.no_input_gradient}
    try:
        return program.value_and_vjp(theta, x, **wanted)
    except InputError:
        good, y = _good_rows(program, theta, x)
    if good.any():
        y[good], vjp_of_good = program.value_and_vjp(theta, x[good], **wanted)

    def vjp_fn(cotangents: np.ndarray, *less: bool) -> tuple[np.ndarray | None, np.ndarray | None]:
        if not wanted["wrt_inputs"]:
            return np.full_like(theta, np.nan), None
        d_x = np.full_like(x, np.nan)
        if good.any() and (not less or less[1]):
            d_x[good] = vjp_of_good(cotangents[good], *less)[1]
        return np.full_like(theta, np.nan), d_x

    return y, vjp_fn


def _good_rows(program: LayerProgram, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are not refused, inside the handling of a refusal; and outputs, NaN so far."""
    good = program.valid_rows(theta, x)
    if good.all():
        raise
    return good, np.full((len(x), program.spec.output_dim), np.nan, x.dtype)
