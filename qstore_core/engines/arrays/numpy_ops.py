"""`Ops` for NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .ops import Scatter, inverse_index

__all__ = ["NumpyOps"]

_COMPLEX: dict[Any, Any] = {np.dtype(np.float32): np.dtype(np.complex64), np.dtype(np.float64): np.dtype(np.complex128)}
_LEAST: dict[Any, float] = {dtype: float(np.finfo(dtype).smallest_normal) for dtype in _COMPLEX}


class NumpyOps:
    """`Ops` for NumPy."""

    def __init__(self) -> None:
        """Start without kept constants."""
        self._kept: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]] = {}

    def here(self) -> NumpyOps:
        """Itself."""
        return self

    def holds(self, x: np.ndarray) -> tuple[bool, bool]:
        """In the host's memory; nothing is recorded."""
        return True, False

    def const(self, value: np.ndarray, like: np.ndarray) -> np.ndarray:
        """`value` in the precision of `like`; read-only values are converted once."""
        double = like.dtype in (np.float64, np.complex128)
        kind = ("D" if double else "F") if value.dtype.kind == "c" else ("d" if double else "f")
        if value.flags.writeable:
            return value.astype(kind, copy=False)
        key = (id(value), kind)
        if key not in self._kept:
            self._kept[key] = (
                value,
                value.astype(kind, copy=False),
            )  # `value` too, so that its id stays its own
        return self._kept[key][1]

    # Methods of arrays, where there are some: NumPy's functions take longer than a small circuit's arithmetic.
    def take(self, x: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray:
        """Take along an axis."""
        return x.take(index, axis)

    def reshape(self, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The same numbers in another shape."""
        return x.reshape(shape)

    matmul: Any = staticmethod(np.matmul)
    cos: Any = staticmethod(np.cos)
    sin: Any = staticmethod(np.sin)
    conj: Any = staticmethod(np.conj)
    log: Any = staticmethod(np.log)
    maximum: Any = staticmethod(np.maximum)
    minimum: Any = staticmethod(np.minimum)
    eigvalsh: Any = staticmethod(np.linalg.eigvalsh)

    def sum(self, x: np.ndarray, axis: int | tuple[int, ...], keepdims: bool = False) -> np.ndarray:
        """Sum along one axis."""
        out: np.ndarray = np.add.reduce(x, axis=axis, keepdims=keepdims)  # type: ignore[call-overload]
        return out

    def permute(self, x: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Take along the last axis."""
        return x.take(index, -1)

    def permute_back(self, x: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Take by the inverse permutation."""
        key = (id(index), "inverse")
        if key not in self._kept:
            self._kept[key] = (index, inverse_index(index))
        return x.take(self._kept[key][1], -1)

    def scatter_last(self, x: np.ndarray, scatter: Scatter) -> np.ndarray:
        """Add columns of x up where `scatter` says."""
        if x.ndim == 1:
            return np.bincount(scatter.index, x, scatter.width + 1)[:-1].astype(x.dtype, copy=False)
        out = np.zeros((*x.shape[:-1], scatter.width + 1), x.dtype)
        np.add.at(out.T, scatter.index, x.T)
        return out[..., :-1]

    stack: Any = staticmethod(np.stack)

    def scale(self, state: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """Complex times real."""
        return state * factor

    def concat(self, arrays: Sequence[np.ndarray], axis: int = -1) -> np.ndarray:
        """Along an axis."""
        return np.concatenate(arrays, axis=axis)

    def swap_last(self, x: np.ndarray) -> np.ndarray:
        """Exchange the last two axes."""
        return x.swapaxes(-1, -2)

    def complex(self, real: np.ndarray, imag: np.ndarray | None) -> np.ndarray:
        """A complex array."""
        out = np.empty(real.shape, _COMPLEX[real.dtype])
        out.real = real
        out.imag = 0.0 if imag is None else imag
        return out

    def real(self, x: np.ndarray) -> np.ndarray:
        """Real part."""
        return x.real

    def imag(self, x: np.ndarray) -> np.ndarray:
        """Imaginary part."""
        return x.imag

    def zero_column(self, x: np.ndarray) -> np.ndarray:
        """(rows of x, 1) of zeros."""
        return np.zeros((x.shape[0], 1), dtype=x.dtype)

    sqrt: Any = staticmethod(np.sqrt)
    round: Any = staticmethod(np.rint)

    def function(self, name: str, x: np.ndarray) -> np.ndarray:
        """One of `FUNCTIONS`."""
        out: np.ndarray = getattr(np, name)(x)
        return out

    def max_abs(self, x: np.ndarray) -> np.ndarray:
        """Largest magnitude of each row, (rows, 1)."""
        out: np.ndarray = np.maximum.reduce(np.abs(x), axis=-1, keepdims=True)
        return out

    def is_below(self, x: np.ndarray, limit: float) -> np.ndarray:
        """1.0 where x is below."""
        return (x < limit).astype(x.dtype)

    def without_subnormals(self, x: np.ndarray) -> np.ndarray:
        """x, and zero where its magnitude is below the smallest normal number; the derivative is that of x."""
        return x * (~(np.abs(x) < _LEAST[x.dtype]))

    def smallest_normal(self, x: np.ndarray) -> float:
        """Of the precision of x."""
        return _LEAST[x.dtype]

    def wide(self, x: np.ndarray) -> np.ndarray:
        """In double precision."""
        return x.astype(np.float64, copy=False)

    excess = None  # there is double precision

    def narrow(self, x: np.ndarray, like: np.ndarray) -> np.ndarray:
        """In the precision of `like`."""
        return x.astype(like.dtype, copy=False)

    def pad_last(self, x: np.ndarray, width: int) -> np.ndarray:
        """Zeros up to `width` columns."""
        if x.shape[-1] == width:
            return x
        out = np.zeros((*x.shape[:-1], width), x.dtype)
        out[..., : x.shape[-1]] = x
        return out
