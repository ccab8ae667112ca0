"""Circuits from PennyLane.

A QNode, a quantum function, a tape or a `qml.qnn.TorchLayer` is traced once, with symbols in the place of its
parameters; templates arrive by PennyLane's own decompositions.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..backends.forking import new_lock
from ..circuit.angles.angle import FUNCTIONS, Angle, input_, weight
from ..circuit.checks import MAX_OPERATIONS, MAX_SLOTS, check_choice, check_whole, shown
from ..circuit.circuit import Circuit
from ..errors import SpecError
from .common import Imported
from .pennylane_reading import Reader
from .pennylane_writing import library
from .symbols import Imaginary, Symbols, is_symbolic, symbols

__all__ = ["from_pennylane"]

_lock = new_lock(__name__, "_lock")


# -- from -------------------------------------------------------------------------------------------------------------


def from_pennylane(
    source: Any,
    weight_shapes: Mapping[str, Any] | None = None,
    *,
    weights: Mapping[str, Any] | None = None,
    inputs: str | None = None,
    n_features: int | None = None,
) -> Imported:
    """A circuit, and what it measures, from PennyLane.

    Args:
        source: A QNode, a quantum function, a tape, or a `qml.qnn.TorchLayer`, whose weights come along. The trainable
            parameters of a tape are weights, with their values.
        weight_shapes: Shape of every parameter that is a weight, by its name, as `TorchLayer` takes it. theta is all
            weights, flattened, in this order.
        weights: Trained weights by name, in the place of their shapes.
        inputs: Name of the parameter that takes the features; the one that is no weight by default.
        n_features: Features per sample; by default as many as the function uses.

    Raises:
        SpecError: the function cannot be traced, or has something that a circuit with parameter slots cannot say; the
            message names it, and where it stands.

    Example:
        >>> import pennylane as qml
        >>> def function(inputs, weights):
        ...     qml.AngleEmbedding(inputs, wires=range(2))
        ...     qml.BasicEntanglerLayers(weights, wires=range(2))
        ...     return qml.expval(qml.Z(0))
        >>> found = from_pennylane(function, {"weights": (1, 2)})
        >>> [str(op) for op in found.circuit.operations]
        ['rx(x0) 0', 'rx(x1) 1', 'rx(w0) 0', 'rx(w1) 1', 'cnot 0 1']
    """
    qml = library()
    if isinstance(source, qml.tape.QuantumScript):
        return _from_tape(qml, source)
    if hasattr(source, "qnode_weights") and hasattr(source, "qnode"):  # qml.qnn.TorchLayer
        weights = dict(source.qnode_weights) if weights is None else weights
        inputs, source = inputs or source.input_arg, source.qnode
    function = source.func if isinstance(source, qml.QNode) else source
    if not callable(function):
        raise SpecError(
            f"a QNode, a quantum function, a tape or a qml.qnn.TorchLayer is expected, received {shown(source)}."
        )
    arrays = None if weights is None else {name: _values(value) for name, value in weights.items()}
    shapes = {name: value.shape for name, value in arrays.items()} if arrays is not None else _shapes(weight_shapes)
    name = _input_name(function, shapes, inputs)
    reading = _Reading(qml, source, function, shapes, name)
    found = reading.at(n_features) if n_features is not None or name is None else reading.largest()
    theta = None if arrays is None else np.concatenate([np.zeros(0), *(a.ravel() for a in arrays.values())])
    shots = source.shots.total_shots if isinstance(source, qml.QNode) else None
    return found._replace(theta=theta, shots=shots)


class _TraceError(SpecError):
    """The function itself failed, after so many operations."""

    def __init__(self, operations: int, message: str) -> None:
        super().__init__(message)
        self.operations = operations


class _Reading:
    """One function, traced as often as its number of features must be guessed."""

    def __init__(
        self, qml: Any, source: Any, function: Callable[..., Any], shapes: dict[str, tuple[int, ...]],
        inputs: str | None,
    ) -> None:  # fmt: skip
        self.qml, self.source, self.function, self.shapes = qml, source, function, shapes
        device = source.device if isinstance(source, qml.QNode) else None
        self.inputs, self.wires, self.reached = inputs, list(getattr(device, "wires", None) or ()), -1
        self.readout = getattr(device, "readout_err", None)
        self.n_weights = sum(math.prod(shape) for shape in shapes.values())
        check_whole(self.n_weights, "the number of weights", 0, MAX_SLOTS)

    def at(self, n_features: int | None) -> Imported:
        """The circuit for so many features; as one sample (F,), or where the function wants it as a batch of one."""
        count = 0 if n_features is None else check_whole(n_features, "n_features", 0, MAX_SLOTS, "n_features")
        try:
            return self._once(count, ())
        except SpecError as error:
            if self.inputs is None:
                raise
            first = error
        try:
            return self._once(count, (1,))
        except SpecError as error:
            raise (error if _asks_for_a_batch(first) else first) from None

    def largest(self) -> Imported:
        """The circuit for as many features as the function takes and uses."""
        n = len(self.wires) or 8
        most = 1 << n if n <= 10 else 8 * n
        tried, furthest, reached = set(), None, -1
        for count in (most, *(k * n for k in range(8, 0, -1)), *range(8 * n, 0, -1)):
            if count in tried:
                continue
            tried.add(count)
            try:
                found = self.at(count)
            except SpecError as error:
                if self.reached > reached:
                    furthest, reached = error, self.reached
                continue
            if found.circuit.n_amplitudes:
                return found
            used = _used(found.circuit)
            if used == count == most:
                raise SpecError(
                    f"{_name(self.function)} takes any number of features in {self.inputs!r}: say how many, with "
                    "n_features=.",
                    argument="n_features",
                )
            return found if used == count else self.at(used)
        assert furthest is not None
        raise furthest

    def _once(self, count: int, lead: tuple[int, ...]) -> Imported:
        start, given = 0, {}
        for name, shape in self.shapes.items():
            size = math.prod(shape)
            given[name] = symbols([weight(start + k) for k in range(size)]).reshape(shape)
            start += size
        if self.inputs is not None:
            given[self.inputs] = symbols([input_(k) for k in range(count)]).reshape((*lead, count))
        reader = Reader(self.qml, self.wires, self.n_weights, count, self.readout)
        try:
            return reader.read(_traced(self.qml, self.source, self.function, given))
        except _TraceError as error:
            self.reached = error.operations
            raise
        except SpecError:
            self.reached = MAX_OPERATIONS + reader.number
            raise


def _asks_for_a_batch(error: SpecError) -> bool:
    return isinstance(error.__cause__, IndexError) or "broadcasting" in str(error)


def _used(circuit: Circuit) -> int:
    """One more than the last input that a gate takes."""
    return max((k + 1 for op in circuit.operations for a in op.params for kind, k in a.slots if kind == "x"), default=0)


def _traced(qml: Any, source: Any, function: Callable[..., Any], given: dict[str, Any]) -> Any:
    """The tape of a function for symbols."""
    import autoray  # type: ignore[import-untyped]

    for kind in (Angle, Imaginary):  # pennylane.math, of single ones
        autoray.register_backend(kind, "numpy")
    with _lock, _symbolic_embeddings(qml), qml.queuing.AnnotatedQueue() as queue:
        try:
            function(**given)
        except Exception as error:
            done = [item for item in queue.queue if isinstance(item, qml.operation.Operator)]
            after = f" after {len(done)} operations, the last one {done[-1].name}" if done else ""
            what = str(error) if isinstance(error, SpecError) else f"{type(error).__name__}: {error}."
            raise _TraceError(
                len(done),
                f"{_name(function)} cannot be traced{after}: {what} It is called with symbols in the place of its "
                f"parameters: what it computes from them is sums, products and {', '.join(FUNCTIONS)}, in NumPy or "
                "pennylane.math.",
            ) from error
    tape = qml.tape.QuantumScript.from_queue(queue)
    if program := getattr(source, "compile_pipeline", None):
        try:
            with _lock, _symbolic_embeddings(qml):
                tapes, _ = program((tape,))
        except Exception as error:
            raise SpecError(f"the transforms of {_name(function)} do not take symbols: {error}.") from error
        if len(tapes) != 1:
            raise SpecError(f"the transforms of {_name(function)} make {len(tapes)} circuits of it; one is expected.")
        tape = tapes[0]
    return tape


@contextmanager
def _symbolic_embeddings(qml: Any) -> Iterator[None]:
    """State preparations keep symbols as they are: they would look at values."""
    prepare, basis = qml.StatePrep._preprocess, qml.BasisState.__init__

    def preprocess(state: Any, wires: Any, pad_with: Any, normalize: bool, validate_norm: bool) -> Any:
        if not is_symbolic(state):
            return prepare(state, wires, pad_with, normalize, validate_norm)
        size, dimension = state.shape[-1], 1 << len(qml.wires.Wires(wires))
        if size > dimension or (size < dimension and pad_with is None):
            raise ValueError(f"{len(qml.wires.Wires(wires))} wires take {dimension} amplitudes, received {size}")
        if size < dimension and pad_with != 0:
            raise SpecError(f"pad_with={pad_with}: amplitudes are padded with 0 here. Pad the features themselves.")
        return state

    def initialise(self: Any, state: Any, wires: Any, **other: Any) -> None:
        state = np.stack(state).view(Symbols) if isinstance(state, list) and any(map(is_symbolic, state)) else state
        if not is_symbolic(state):
            basis(self, state, wires, **other)
        elif state.shape[-1:] != (len(qml.wires.Wires(wires)),):
            raise ValueError(f"{len(qml.wires.Wires(wires))} wires take as many bits, received shape {state.shape}")
        else:
            qml.operation.Operation.__init__(self, state.reshape(-1), wires=wires)

    qml.StatePrep._preprocess, qml.BasisState.__init__ = staticmethod(preprocess), initialise
    try:
        yield
    finally:
        qml.StatePrep._preprocess, qml.BasisState.__init__ = staticmethod(prepare), basis


def _from_tape(qml: Any, tape: Any) -> Imported:
    """A tape: its trainable gate angles are weights."""
    theta: list[float] = []
    found: list[Any] = []
    indices = []
    for index in tape.trainable_params:
        info = tape.par_info[index]
        value = info["op"].data[info["p_idx"]]
        fixed = isinstance(info["op"], qml.operation.StatePrepBase) or info["op"].name.endswith("QubitUnitary")
        if info["op_idx"] >= len(tape.operations) or fixed:
            continue
        values = _values(value)
        found.append(symbols([weight(len(theta) + k) for k in range(values.size)]).reshape(values.shape))
        theta += values.ravel().tolist()
        indices.append(index)
    bound = tape.bind_new_parameters(found, indices) if indices else tape
    imported = Reader(qml, [], len(theta), 0).read(bound)
    return imported._replace(theta=np.array(theta), shots=tape.shots.total_shots)


def _values(value: Any) -> np.ndarray:
    for method in ("detach", "cpu", "numpy"):
        value = getattr(value, method)() if hasattr(value, method) else value
    return np.asarray(value, np.float64)


def _shapes(weight_shapes: Mapping[str, Any] | None) -> dict[str, tuple[int, ...]]:
    """As `TorchLayer` reads them: 1 is a scalar."""
    if weight_shapes is not None and not isinstance(weight_shapes, Mapping):
        raise SpecError(
            f'weight_shapes is a mapping, such as {{"weights": (2, 4, 3)}}; received {shown(weight_shapes)}.',
            argument="weight_shapes",
        )
    shapes = {}
    for name, shape in (weight_shapes or {}).items():
        sizes = tuple(shape) if isinstance(shape, Iterable) else () if shape == 1 else (shape,)
        shapes[name] = tuple(check_whole(size, f"the shape of {name}", 0, MAX_SLOTS) for size in sizes)
    return shapes


def _input_name(function: Callable[..., Any], shapes: Mapping[str, Any], inputs: str | None) -> str | None:
    """The parameter that takes features."""
    parameters = inspect.signature(function).parameters
    usual = [p for p in parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(usual) == len(parameters):
        for name in shapes:
            check_choice(name, f"parameter of {_name(function)}", [p.name for p in usual], "weight_shapes")
    if inputs is not None:
        return check_choice(inputs, f"parameter of {_name(function)}", [p.name for p in usual], "inputs")
    rest = [p.name for p in usual if p.name not in shapes and (p.default is p.empty or p.name == "inputs")]
    if len(rest) > 1:
        raise SpecError(
            f"{_name(function)} has parameters {', '.join(rest)}: one takes the features, the others are weights. Give "
            f'their shapes, as in weight_shapes={{"{rest[-1]}": (…)}}, or say inputs="{rest[0]}".',
            argument="weight_shapes",
        )
    return rest[0] if rest else None


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)
