"""Comparison of what a backend returned with what it should have returned, and a guess at the mistake."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["ConformanceError", "same", "shaped"]


class ConformanceError(AssertionError):
    """A backend does not do what the contract says; the message tells what it did instead."""


def shaped(outputs: Any, rows: int, width: int, method: str = "forward") -> np.ndarray:
    """Outputs as an array, which must have the promised shape."""
    try:
        array = np.asarray(outputs)
    except ValueError as error:  # rows of different lengths
        raise ConformanceError(f"{method} returned {type(outputs).__name__} that is no array: {error}") from error
    if array.shape != (rows, width):
        hint = " It is transposed: samples come first." if array.shape == (width, rows) else ""
        raise ConformanceError(
            f"wrong shape: {method} returned {array.shape}, expected (batch, outputs) = {(rows, width)}.{hint}"
        )
    if array.dtype.kind != "f":
        raise ConformanceError(f"wrong dtype: {method} returned {array.dtype}, expected real floats.")
    return array


def same(got: Any, want: Any, tolerance: Any, what: str, *, bits: bool = False) -> None:
    """Raise `ConformanceError`, with a guess at the cause, where `got` differs from `want`.

    Args:
        got: Received, (…, O) or (W,).
        want: Expected, of the same shape.
        tolerance: Scalar, or an array that broadcasts.
        what: What was computed, for the message.
        bits: Outputs are probabilities of bitstrings.
    """
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        raise ConformanceError(f"{what}: wrong shape {got.shape}, expected {want.shape}.")
    if not got.size:
        return
    limit = np.broadcast_to(tolerance, got.shape)
    if not np.isfinite(got).all():
        place = tuple(int(k) for k in np.argwhere(~np.isfinite(got))[0])
        raise ConformanceError(f"{what}: received {got[place]}, expected {want[place]:.6g} at {_place(place)}.")
    error = np.abs(got - want)
    if (error <= limit).all():
        return
    place = tuple(int(k) for k in np.unravel_index(np.argmax(error - limit), error.shape))
    digits = 6 if error[place] > 1e-5 * abs(want[place]) else 12
    raise ConformanceError(
        f"{what}: received {got[place]:.{digits}g}, expected {want[place]:.{digits}g} at {_place(place)} "
        f"(tolerance {limit[place]:.2g}).{_guess(got, want, limit, bits)}"
    )


def _place(place: Sequence[int]) -> str:
    return f"row {place[0]}, output {place[1]}" if len(place) == 2 else f"index {', '.join(map(str, place))}"


def _guess(got: np.ndarray, want: np.ndarray, limit: np.ndarray, bits: bool) -> str:
    """Which usual mistake would explain all values at once."""

    def explains(candidate: np.ndarray) -> bool:
        return candidate.shape == want.shape and bool((np.abs(candidate - want) <= limit).all())

    if not got.any():
        return " All values are zero."
    width = got.shape[-1]
    if bits and width & (width - 1) == 0 and width > 2:
        n = width.bit_length() - 1
        reverse = [int(format(k, f"0{n}b")[::-1], 2) for k in range(width)]
        if explains(got[..., reverse]):
            return " The qubit order is reversed: qubit 0 must be the most significant bit of the index."
    if explains(-got):
        return " The sign is wrong."
    for factor in (2.0, 0.5):
        if explains(got * factor):
            return f" It is {'half' if factor == 2.0 else 'twice'} of what is expected."
    if width > 1 and explains(got[..., ::-1]):
        return " The order is reversed: is qubit 0 the least significant bit there?"
    if got.ndim == 2 and 1 < len(got) <= 64:
        nearest = [int(np.abs(want - row).max(axis=1).argmin()) for row in got]
        if sorted(nearest) != list(range(len(got))) or nearest == list(range(len(got))):
            return ""
        if explains(got[np.argsort(nearest)]):
            return f" The rows of the batch are mixed up: they came in the order {nearest}."
    return ""
