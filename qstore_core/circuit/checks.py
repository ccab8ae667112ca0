"""Checks of what comes from outside, and the limits that are stated here and looked at first.

Arguments, saved configurations, JSON and messages pass these before anything is built from them, so that a wrong type,
a wrong size or a missing entry is a `SpecError` with the entry's name, and never work without end.
"""

from __future__ import annotations

import itertools
import json
import math
import reprlib
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np

from ..errors import ShapeError, SpecError, nearest

__all__ = [
    "MAX_DEGREE",
    "MAX_DEPTH",
    "MAX_NUMBER",
    "MAX_OPERATIONS",
    "MAX_QUBITS",
    "MAX_SHOTS",
    "MAX_SLOTS",
    "MAX_STEPS",
    "check_arrays",
    "check_choice",
    "check_finite_number",
    "check_flag",
    "check_items",
    "check_n_qubits",
    "check_operations",
    "check_pair",
    "check_whole",
    "parsed",
    "read_fields",
    "shown",
    "whole_number",
]

MAX_QUBITS = 2_048
MAX_OPERATIONS = 100_000  # gates of a circuit
MAX_STEPS = 1_000_000  # rotations and CNOTs that these gates are made of
MAX_DEPTH = 2_000  # levels of an ansatz
MAX_SLOTS = 1_000_000  # inputs, and weights, of a circuit
MAX_SHOTS = 100_000_000  # samples of one circuit
MAX_DEGREE = 32  # factors of one product of slots
MAX_NUMBER = 1e30  # magnitude of a coefficient: squares of it are finite in float64, itself in float32

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def shown(value: Any) -> str:
    """`repr(value)` for a message: never long, and it never fails.

    Example:
        >>> shown([1, 2, 3]), shown(10**5000)
        ('[1, 2, 3]', 'an int of 16610 bits')
    """
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"an int of {value.bit_length()} bits"
    try:
        return _short.repr(value)
    except Exception:  # noqa: BLE001 - a stranger's __repr__, or an int inside that Python refuses to print
        return f"an object of type {type(value).__name__}"


def whole_number(value: Any) -> int | None:
    """A Python or NumPy integer as an int; None for anything else, bools and floats among them."""
    return int(value) if isinstance(value, int | np.integer) and not isinstance(value, bool) else None


def check_whole(value: Any, what: str, least: int, most: int, argument: str | None = None) -> int:
    """`value` as an int from `least` to `most`.

    Example:
        >>> check_whole(10**9, "depth", 0, 2_000)
        Traceback (most recent call last):
        ...
        qstore_core.errors.SpecError: depth is at most 2000, received 1000000000.
    """
    number = whole_number(value)
    if number is None:
        raise SpecError(
            f"{what} is a whole number, received {type(value).__name__}: {shown(value)}.", argument=argument
        )
    if number < least:
        raise SpecError(f"{what} is a whole number of at least {least}, received {shown(value)}.", argument=argument)
    if number > most:
        raise SpecError(f"{what} is at most {most}, received {shown(value)}.", argument=argument)
    return number


def check_n_qubits(n_qubits: Any) -> int:
    """`n_qubits` as an int from 1 to `MAX_QUBITS`."""
    return check_whole(n_qubits, "n_qubits", 1, MAX_QUBITS, "n_qubits")


def check_operations(count: int, what: str) -> None:
    """Raise where a circuit would have more than `MAX_OPERATIONS` gates."""
    if count > MAX_OPERATIONS:
        raise SpecError(f"{what} would have {shown(count)} gates; a circuit has at most {MAX_OPERATIONS}.")


def check_flag(value: Any, what: str, argument: str | None = None) -> bool:
    """`value` as a bool: True or False, nothing that merely counts as one."""
    if not isinstance(value, bool | np.bool_):
        raise SpecError(f"{what} is True or False, received {shown(value)}.", argument=argument)
    return bool(value)


def check_finite_number(value: Any, what: str) -> float:
    """A real number of magnitude up to `MAX_NUMBER`, as a float."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise SpecError(f"{what} is a real number, received {type(value).__name__}: {shown(value)}.")
    try:
        number = float(value)
    except (OverflowError, ValueError, TypeError):
        number = math.inf
    if not abs(number) <= MAX_NUMBER:
        raise SpecError(f"{what} must be finite, of magnitude up to {MAX_NUMBER:g}; received {shown(value)}.")
    return number


def check_items(value: Any, what: str, most: int, argument: str | None = None) -> tuple[Any, ...]:
    """The items of a sequence, of which no more than `most` are looked at; text and mappings are none."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise SpecError(f"{what}: expected a sequence, received {shown(value)}.", argument=argument)
    try:
        items = tuple(itertools.islice(value, most + 1))
    except Exception as error:
        raise SpecError(f"{what}: {shown(value)} cannot be iterated: {error}", argument=argument) from error
    if len(items) > most:
        raise SpecError(f"{what}: at most {most} entries, received more.", argument=argument)
    return items


def parsed(text: str, what: str) -> Any:
    """The value of a JSON text: numbers of thousands of digits and lists in thousands of lists are none.

    Example:
        >>> parsed("[" * 10_000, "the form")
        Traceback (most recent call last):
        ...
        qstore_core.errors.SpecError: the form is not JSON that can be read: it is nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise SpecError(f"{what} is not JSON that can be read: it is nested too deep.") from None
    except ValueError as error:
        raise SpecError(f"{what} is not JSON that can be read: {error}.") from None


def check_arrays(theta: Any, inputs: Any, n_weights: int, n_inputs: int) -> None:
    """Raise `ShapeError` where arrays of any framework are not theta (W,) and inputs (B, I), as far as is known.

    Example:
        >>> check_arrays(np.zeros(9), np.zeros((1, 2)), 4, 2)
        Traceback (most recent call last):
        ...
        qstore_core.errors.ShapeError: this circuit takes theta of shape (4,), received (9,).
    """
    for what, array, shape in (("theta", theta, (n_weights,)), ("inputs", inputs, (None, n_inputs))):
        received = tuple(array.shape)
        if len(received) == len(shape) and (not isinstance(received[-1], int) or received[-1] == shape[-1]):
            continue
        expected = str(shape).replace("None", "batch")
        raise ShapeError(
            f"this circuit takes {what} of shape {expected}, received {received}.", expected=shape, received=received
        )


def check_pair(value: Any, what: str, form: str) -> tuple[Any, Any]:
    """The two items of a sequence; `form` is how they are written."""
    items = check_items(value, what, 2)
    if len(items) != 2:
        raise SpecError(f"{what} is {form}, received {shown(value)}.")
    return items[0], items[1]


def check_choice(value: Any, what: str, choices: Iterable[str], argument: str | None = None) -> str:
    """`value` as one of `choices`."""
    known = list(choices)
    if isinstance(value, str) and value in known:
        return value
    near = nearest(value, known) if isinstance(value, str) and len(value) <= 80 else ""
    raise SpecError(f"no {what} {shown(value)}. Known: {', '.join(known)}.{near}", argument=argument)


def read_fields(
    data: Any, what: str, required: Iterable[str], optional: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The entries of a saved form: all required ones, no unknown ones, defaults for optional ones.

    Example:
        >>> read_fields({"n_qubit": 2}, "a circuit", ["n_qubits"])
        Traceback (most recent call last):
        ...
        qstore_core.errors.SpecError: a circuit has no entry 'n_qubit'. Known: n_qubits. Did you mean 'n_qubits'?
    """
    if not isinstance(data, Mapping):
        raise SpecError(f"{what} is saved as a mapping, received {type(data).__name__}: {shown(data)}.")
    names = [*required]
    defaults = dict(optional or {})
    known = [*names, *defaults]
    for key in itertools.islice(data, len(known) + 1):
        if not isinstance(key, str) or key not in known:
            near = nearest(key, known) if isinstance(key, str) and len(key) <= 80 else ""
            raise SpecError(f"{what} has no entry {shown(key)}. Known: {', '.join(known)}.{near}")
    missing = [name for name in names if name not in data]
    if missing:
        raise SpecError(f"{what} is saved with {', '.join(map(repr, missing))}, which is missing here.")
    return {name: data[name] if name in data else defaults[name] for name in known}
