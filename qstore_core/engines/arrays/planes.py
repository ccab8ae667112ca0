"""Complex numbers as pairs of real arrays: array engines for graphs that have no complex dtype.

`PlanesOps` puts these pairs, `Planes`, in the place of a framework's complex arrays, on top of its real functions. What
interprets a Plan is the same code: it never asks which numbers it has. Graphs that leave for other runtimes are made
with it, and those that inductor compiles; elsewhere complex arrays train faster (`python -m benchmarks planes`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...circuit.spec.encoding import SHORT
from ...errors import CapabilityError
from .ops import Array, Ops, frozen

__all__ = ["Planes", "PlanesOps"]


class Planes:
    """`real + i imag`; `imag` is None where it is zero, so that real circuits are computed once, not twice."""

    __slots__ = ("imag", "real")

    def __init__(self, real: Array, imag: Array | None = None) -> None:
        """Two real arrays of one shape."""
        self.real, self.imag = real, imag

    @property
    def shape(self) -> Any:
        """Of each plane."""
        return self.real.shape

    @property
    def dtype(self) -> Any:
        """Of each plane."""
        return self.real.dtype

    def map(self, function: Callable[[Array], Array]) -> Planes:
        """The same linear function of both planes."""
        return Planes(function(self.real), None if self.imag is None else function(self.imag))

    def __getitem__(self, key: Any) -> Planes:
        return self.map(lambda plane: plane[key])

    def __mul__(self, other: Any) -> Planes:
        if not isinstance(other, Planes):
            return self.map(lambda plane: plane * other)
        if self.imag is None:
            return other.map(lambda plane: self.real * plane)
        if other.imag is None:
            return self.map(lambda plane: plane * other.real)
        real = self.real * other.real - self.imag * other.imag
        return Planes(real, self.real * other.imag + self.imag * other.real)

    __rmul__ = __mul__

    def __add__(self, other: Planes) -> Planes:
        real = self.real + other.real
        if self.imag is None or other.imag is None:
            imag = self.imag if other.imag is None else other.imag
            # Of the shape that broadcasting gives. A graph that is traced with one row may meet more.
            fits = imag is None or (imag.shape == real.shape and imag.shape[0] != 1)
            return Planes(real, imag if fits else imag + 0.0 * real)
        return Planes(real, self.imag + other.imag)

    def __neg__(self) -> Planes:
        return self.map(lambda plane: -plane)

    def __sub__(self, other: Planes) -> Planes:
        return self + -other


class PlanesOps:
    """`Ops` whose complex arrays are `Planes` of the arrays of other `Ops`.

    Args:
        ops: Array functions of the planes.
        double: Whether long sums, and the cosines of many rotations, are computed in double precision. Small runtimes
            do not have it: there long sums are short sums of short sums.
        runtime: For which the graph is made, where that has neither complex numbers nor eigenvalues.
    """

    def __init__(self, ops: Ops, *, double: bool, runtime: str = "") -> None:
        """Start without kept constants."""
        self.ops, self._double, self._runtime = ops, double, runtime
        self._kept: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray | None]] = {}

    def __getattr__(self, name: str) -> Any:
        """What only real arrays meet."""
        return getattr(self.ops, name)

    def const(self, value: np.ndarray, like: Array) -> Array:
        """`value` in the precision of `like`."""
        like = like.real if isinstance(like, Planes) else like
        if value.dtype.kind != "c":
            return self.ops.const(value, like)
        parts = self._kept.get(id(value))
        if parts is None:
            parts = value, frozen(value.real.copy()), frozen(value.imag.copy()) if value.imag.any() else None
            if not value.flags.writeable:
                self._kept[id(value)] = parts  # `value` too, so that its id stays its own
        return Planes(self.ops.const(parts[1], like), None if parts[2] is None else self.ops.const(parts[2], like))

    def complex(self, real: Array, imag: Array | None) -> Planes:
        """Two planes."""
        return Planes(real, imag)

    def joined(self, x: Planes) -> Array:
        """The framework's complex array.

        Raises:
            CapabilityError: The runtime has none.
        """
        self._need("complex numbers")
        return self.ops.complex(x.real, x.imag)

    def eigvalsh(self, x: Planes) -> Array:
        """Real eigenvalues of Hermitian matrices."""
        self._need("eigenvalues of complex matrices")
        return self.ops.eigvalsh(self.ops.complex(x.real, x.imag))

    def _need(self, what: str) -> None:
        if self._runtime:
            raise CapabilityError(
                f"{self._runtime} has no {what}. Measure what takes none there: Expectation, Probabilities, Purity, "
                "Entropy(order=2); or write a SavedModel or a program of torch.export, which have them."
            )

    def conj(self, x: Planes) -> Planes:
        """The complex conjugate."""
        return Planes(x.real, None if x.imag is None else -x.imag)

    def real(self, x: Planes) -> Array:
        """The first plane."""
        return x.real

    def imag(self, x: Planes) -> Array:
        """The second plane."""
        return 0.0 * x.real if x.imag is None else x.imag

    def scale(self, state: Planes, factor: Array) -> Planes:
        """Complex times real."""
        return state * factor

    def wide(self, x: Array) -> Array:
        """In double precision, or itself."""
        return self.ops.wide(x) if self._double else x

    excess = None

    def narrow(self, x: Array, like: Array) -> Array:
        """In the precision of `like`."""
        if not self._double:
            return x
        if isinstance(x, Planes):
            return x.map(lambda plane: self.ops.narrow(plane, like.real))
        return self.ops.narrow(x, like)

    def sum(self, x: Array, axis: int | tuple[int, ...], keepdims: bool = False) -> Array:
        """Sum along one axis."""
        if isinstance(x, Planes):
            return x.map(lambda plane: self.sum(plane, axis, keepdims))
        if not self._double and isinstance(axis, int) and (place := axis % len(x.shape)):
            rows, *shape = x.shape
            while shape[place - 1] > SHORT and not shape[place - 1] % SHORT:
                shape[place - 1 : place] = [shape[place - 1] // SHORT, SHORT]
                x = self.ops.sum(self.ops.reshape(x, (-1 if rows is None else rows, *shape)), place + 1)
                del shape[place]
        return self.ops.sum(x, axis, keepdims)

    def matmul(self, a: Array, b: Array) -> Array:
        """Matrix product: all products of planes as blocks of one real product."""
        if not isinstance(a, Planes):
            return self.ops.matmul(a, b)
        ops, rows, columns = self.ops, a.shape[-2], b.shape[-1]
        left, right = a.real, b.real if b.imag is None else ops.concat((b.real, b.imag))
        if a.imag is None:
            out = ops.matmul(left, right)
            return Planes(out) if b.imag is None else Planes(out[..., :columns], out[..., columns:])
        if len(a.shape) == 2 == len(b.shape):  # rows of states, their number unknown
            out = ops.matmul(ops.stack((a.real, a.imag), 0), right)
            top, low = out[0], out[1]
        else:
            out = ops.matmul(ops.concat((a.real, a.imag), -2), right)
            top, low = out[..., :rows, :], out[..., rows:, :]
        if b.imag is None:
            return Planes(top, low)
        return Planes(top[..., :columns] - low[..., columns:], top[..., columns:] + low[..., :columns])

    def concat(self, arrays: Sequence[Array], axis: int = -1) -> Array:
        """Along an axis."""
        return self._joined(lambda planes: self.ops.concat(planes, axis), arrays)

    def stack(self, arrays: Sequence[Array], axis: int) -> Array:
        """Along a new axis."""
        return self._joined(lambda planes: self.ops.stack(planes, axis), arrays)

    def _joined(self, join: Callable[[list[Array]], Array], arrays: Sequence[Array]) -> Array:
        if not isinstance(arrays[0], Planes):
            return join(list(arrays))
        real = join([x.real for x in arrays])
        if all(x.imag is None for x in arrays):
            return Planes(real)
        return Planes(real, join([self.imag(x) for x in arrays]))


def _of_each(name: str) -> Callable[..., Array]:
    def apply(self: PlanesOps, x: Array, *arguments: Any) -> Array:
        function = getattr(self.ops, name)
        return x.map(lambda plane: function(plane, *arguments)) if isinstance(x, Planes) else function(x, *arguments)

    apply.__doc__ = f"`{name}` of each plane."
    return apply


for _name in ("take", "permute", "permute_back", "reshape", "swap_last"):
    setattr(PlanesOps, _name, _of_each(_name))
