"""What array engines share: the functions that a framework supplies, and index tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from ...circuit.lowering.frame import Frame
from ...circuit.lowering.plan import Diagonal, Plan
from ...circuit.spec.encoding import SHORT
from ...errors import SpecError

__all__ = [
    "Array",
    "Ops",
    "Scatter",
    "Signs",
    "change_of_frame",
    "check_slots",
    "frozen",
    "inverse_index",
    "linear_index",
]

Array = Any


class Ops(Protocol):
    """Array functions that a framework supplies. `const` turns a NumPy constant into an array beside `like`."""

    def here(self) -> Ops: ...  # itself, or the real-valued functions (`planes`) where the graph being made needs them
    def holds(self, x: Array) -> tuple[bool, bool]: ...  # is it in this host's memory; does autograd keep steps
    def const(self, value: np.ndarray, like: Array) -> Array: ...
    def take(self, x: Array, index: np.ndarray, axis: int) -> Array: ...
    def stack(self, arrays: Sequence[Array], axis: int) -> Array: ...
    def scale(self, state: Array, factor: Array) -> Array: ...
    def scatter_last(self, x: Array, scatter: Scatter) -> Array: ...
    def permute_back(self, x: Array, index: np.ndarray) -> Array: ...
    def permute(self, x: Array, index: np.ndarray) -> Array: ...
    def concat(self, arrays: Sequence[Array], axis: int = -1) -> Array: ...
    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array: ...
    def matmul(self, a: Array, b: Array) -> Array: ...
    def swap_last(self, x: Array) -> Array: ...
    def cos(self, x: Array) -> Array: ...
    def sin(self, x: Array) -> Array: ...
    def complex(self, real: Array, imag: Array | None) -> Array: ...
    def conj(self, x: Array) -> Array: ...
    def real(self, x: Array) -> Array: ...
    def imag(self, x: Array) -> Array: ...
    def sum(self, x: Array, axis: int | tuple[int, ...], keepdims: bool = False) -> Array: ...
    def sqrt(self, x: Array) -> Array: ...
    def round(self, x: Array) -> Array: ...  # to whole numbers; its derivative is 0
    def function(self, name: str, x: Array) -> Array: ...  # one of `circuit.angles.angle.FUNCTIONS`
    def log(self, x: Array) -> Array: ...
    def maximum(self, x: Array, least: float) -> Array: ...
    def minimum(self, x: Array, most: float) -> Array: ...
    def eigvalsh(self, x: Array) -> Array: ...
    def max_abs(self, x: Array) -> Array: ...
    def wide(self, x: Array) -> Array: ...  # float64
    @property
    def excess(self) -> Callable[[Array, int], Array] | None: ...  # see `ArrayProgram.drift`
    def narrow(self, x: Array, like: Array) -> Array: ...  # to the precision of `like`, which may be the wider one
    def without_subnormals(self, x: Array) -> Array: ...  # zeros in their place; the derivative of x
    def smallest_normal(self, x: Array) -> float: ...
    def is_below(self, x: Array, limit: float) -> Array: ...  # 1.0 where it is
    def pad_last(self, x: Array, width: int) -> Array: ...
    def zero_column(self, x: Array) -> Array: ...


def frozen(value: np.ndarray) -> np.ndarray:
    """Read-only: the mark of a constant that lives as long as its program, so that `Ops.const` may keep a copy."""
    value.setflags(write=False)
    return value


class Signs:
    """`(-1)**parity(p & mask)` of all basis states p, for several masks at once.

    A sign is that of the low bits times that of the high bits: two small tables take the place of one with a column of
    2**n_qubits entries for each mask.
    """

    def __init__(self, masks: Sequence[int], n_qubits: int, factor: float = 1.0) -> None:
        """The tables; every sign is multiplied by `factor`."""
        n_low = min(n_qubits, SHORT.bit_length() - 1)
        self.count, self.size, self.n_low = len(masks), 1 << n_qubits, 1 << n_low
        low = [mask & (self.n_low - 1) for mask in masks]
        self.low = frozen(factor * _signs(low, self.n_low))  # (low, masks)
        self.low_rows = frozen(np.ascontiguousarray(self.low.T))
        self.high = None if n_low == n_qubits else frozen(_signs([m >> n_low for m in masks], self.size // self.n_low))

    def sums(self, ops: Ops, x: Array) -> Array:
        """`x` (B, 2**n) → (B, masks): sums with the signs of each mask."""
        if self.high is None:
            return ops.matmul(x, ops.const(self.low, x))
        sums = ops.matmul(ops.reshape(x, (-1, self.n_low)), ops.const(self.low, x))
        wide = ops.wide(ops.reshape(sums, (-1, self.size // self.n_low, self.count)))
        return ops.narrow(ops.sum(wide * ops.const(self.high, wide), -2), x)

    def column(self, weights: np.ndarray) -> np.ndarray:
        """Per basis state the weighted sum of the signs, (2**n,)."""
        if self.high is None:
            return self.low @ weights
        return ((self.high * weights) @ self.low_rows).ravel()

    def spread(self, ops: Ops, values: Array) -> Array:
        """`values` (B, masks) → (B, 2**n): per basis state the sum of the values with its signs."""
        if self.high is None:
            return ops.matmul(values, ops.const(self.low_rows, values))
        values = ops.reshape(values, (-1, 1, self.count)) * ops.const(self.high, values)
        rows = ops.reshape(values, (-1, self.count))
        return ops.reshape(ops.matmul(rows, ops.const(self.low_rows, rows)), (-1, self.size))


def _signs(masks: Sequence[int], size: int) -> np.ndarray:
    """(size, masks)."""
    p = np.arange(size, dtype=np.uint64)[:, None]
    return 1.0 - 2.0 * (np.bitwise_count(p & np.array(masks, dtype=np.uint64)) & 1)


class Scatter:
    """Where columns are added up: column k goes to `index[k]` of `width`; those that go to `width` are dropped.

    Attributes:
        sources: (width · m): the columns that arrive at each place, padded with one past the last column; None where
            places receive so different numbers of columns that this would be long.
        most: m, the most columns that arrive at one place.
    """

    def __init__(self, index: np.ndarray, width: int) -> None:
        """Sort the columns by where they go."""
        self.index, self.width = frozen(index), width
        kept = np.flatnonzero(index < width)
        order = kept[np.argsort(index[kept], kind="stable")]
        counts = np.bincount(index[kept], minlength=width)
        self.most = int(counts.max(initial=0))
        self.sources: np.ndarray | None = None
        if width * self.most <= 4 * len(index) + 1024:
            rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
            sources = np.full((width, self.most), len(index))
            sources[index[order], rank] = order
            self.sources = frozen(sources.ravel())


def check_slots(plan: Plan) -> None:
    """Refuse weights and inputs that the circuit does not have: an engine would read beside its arrays."""
    counts = {"w": plan.n_weights, "x": plan.n_inputs}
    for step in plan.steps:
        for _, angle in step.terms if isinstance(step, Diagonal) else step.factors:
            for kind, index in angle.slots:
                if not 0 <= index < counts[kind]:
                    raise SpecError(
                        f"an angle uses {'weight' if kind == 'w' else 'input'} {index} of a circuit that has "
                        f"{counts[kind]}. Use the slots that circuit.weights(k) and circuit.inputs(k) return."
                    )


def inverse_index(index: np.ndarray) -> np.ndarray:
    """The inverse permutation."""
    inverse = np.empty_like(index)
    inverse[index] = np.arange(len(index))
    return inverse


def linear_index(columns: Sequence[int], n_qubits: int) -> np.ndarray:
    """Images of all indices under the linear map that sends bit q (most significant first) to `columns[q]`."""
    index = np.zeros(1, dtype=np.int64)
    for column in columns:
        index = np.stack([index, index ^ column], axis=1).ravel()
    return index


def change_of_frame(old: Frame, new: Frame, n_qubits: int) -> np.ndarray:
    """`state_new[l] = state_old[index[l]]`."""
    columns = []
    for v in new.v:  # physical image of the new basis vector, then its logical coordinates in the old frame
        bits = [((v & u).bit_count() & 1) << (n_qubits - 1 - q) for q, u in enumerate(old.u)]
        columns.append(sum(bits))
    return frozen(linear_index(columns, n_qubits))
