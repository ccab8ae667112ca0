"""Arrays of `Angle`s that stand for numbers while somebody else's function is traced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..circuit.angles.angle import Angle, as_angle
from ..errors import SpecError

__all__ = ["Imaginary", "Symbols", "is_symbolic", "single", "symbols"]

# PyTorch's names of elementwise functions → NumPy's.
_ELEMENTWISE = {
    "mul": "multiply", "add": "add", "sub": "subtract", "subtract": "subtract", "div": "divide", "divide": "divide",
    "true_divide": "divide", "truediv": "divide", "multiply": "multiply", "neg": "negative", "negative": "negative",
    "pow": "power", "square": "square", "sin": "sin", "cos": "cos", "exp": "exp", "sqrt": "sqrt", "asin": "arcsin",
    "reciprocal": "reciprocal", "tan": "tan", "tanh": "tanh", "log": "log",
    "acos": "arccos", "atan": "arctan", "arcsin": "arcsin", "arccos": "arccos", "arctan": "arctan",
}  # fmt: skip
_JOINING = {"cat": "concatenate", "concat": "concatenate", "concatenate": "concatenate", "stack": "stack"}
_SHAPING = {"reshape": "reshape", "ravel": "ravel", "flatten": "ravel", "squeeze": "squeeze", "hstack": "hstack"}


class Symbols(np.ndarray):
    """An array of `Angle`s: NumPy's functions take it, PennyLane's do, and the usual ones of PyTorch.

    Its items are arrays too, of no axes, as those of tensors are.
    """

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return found if isinstance(found, np.ndarray) else symbols(found)

    def __iter__(self) -> Iterator[Any]:
        return (self[k] for k in range(len(self)))

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        return np.asarray(array).view(Symbols) if np.asarray(array).dtype == object else array

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        out = super().__array_function__(func, types, args, kwargs)
        return out.view(Symbols) if type(out) is np.ndarray and out.dtype == object else out

    def __mul__(self, other: Any) -> Any:
        if not isinstance(other, complex):
            return super().__mul__(other)
        if other.real and other.imag:
            raise TypeError(f"a parameter times {other:g} is neither real nor imaginary")
        return Imaginary(self * other.imag) if other.imag else self * other.real

    __rmul__ = __mul__

    def __float__(self) -> float:
        raise TypeError("a parameter has no value while the function is read")

    def __bool__(self) -> bool:
        raise TypeError("a parameter has no value that could be asked for while the function is read")

    __int__ = __index__ = __float__  # type: ignore[assignment]

    def numel(self) -> int:
        """PyTorch's name for the number of items."""
        return self.size

    def dim(self) -> int:
        """PyTorch's name for the number of axes."""
        return self.ndim

    def unsqueeze(self, dim: int) -> Any:
        """PyTorch's name for one more axis."""
        return np.expand_dims(self, dim)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """PyTorch's functions, where NumPy has the same."""
        name, given = func.__name__.strip("_"), dict(kwargs or {})
        if "dim" in given:
            given["axis"] = given.pop("dim")
        swapped = name in ("rsub", "rmul", "radd", "rdiv", "rtruediv")
        name = name[1:] if swapped else name
        plain = [_plain(argument) for argument in args]
        if name in _ELEMENTWISE:
            return getattr(np, _ELEMENTWISE[name])(*(reversed(plain) if swapped else plain), **given)
        if name in _JOINING:
            return getattr(np, _JOINING[name])(*plain, **given)
        if name in _SHAPING:
            return getattr(np, _SHAPING[name])(*plain, **given)
        raise TypeError(f"torch.{name} of a parameter. Use functions of NumPy or of pennylane.math")


class Imaginary:
    """Symbols times i, as in the exponents of evolutions; with numbers they multiply, and nothing else."""

    __array_ufunc__ = None
    shape: tuple[int, ...] = ()
    ndim = 0

    def __init__(self, imag: Symbols) -> None:
        self.imag, self.real = imag, 0.0

    def __mul__(self, other: Any) -> Any:
        number = complex(other)
        if number.real and number.imag:
            raise TypeError(f"a parameter times {number:g} is neither real nor imaginary")
        return self.imag * -number.imag if number.imag else Imaginary(self.imag * number.real)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return self * (1 / complex(other))

    def __neg__(self) -> Any:
        return self * -1


def symbols(values: Any) -> Symbols:
    """Angles as an array."""
    array = np.empty(np.shape(values) if not isinstance(values, Angle) else (), object)
    array[...] = values
    return array.view(Symbols)


def is_symbolic(value: Any) -> bool:
    """True for arrays with angles that are not constant."""
    return (isinstance(value, np.ndarray) and value.dtype == object) or isinstance(value, Angle | Imaginary)


def single(value: Any) -> Angle:
    """One gate angle, from what a library holds.

    Raises:
        SpecError: it is several numbers, or none.
    """
    if isinstance(value, Angle):
        return value
    if isinstance(value, Imaginary):
        raise SpecError("an imaginary angle: angles are real.")
    array = np.asarray(_plain(value))
    if array.size != 1:
        raise SpecError(f"{array.size} angles in one gate: parameter broadcasting is what the layer's batch is for.")
    item = array.reshape(()).item() if array.dtype != object else array.reshape(-1).tolist()[0]
    if isinstance(item, complex):
        raise SpecError(f"an angle of {item}: angles are real.")
    return as_angle(item)


def _plain(value: Any) -> Any:
    """Tensors as arrays; items of sequences as well."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    for method in ("detach", "cpu", "numpy"):
        value = getattr(value, method)() if hasattr(value, method) else value
    return value
