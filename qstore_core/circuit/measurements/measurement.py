"""Measurements: what is read from the final state.

`Expectation` values are weighted sums of Pauli strings, `Probabilities` are sums over basis states: these two are what
engines and backends compute, and simulators that hold the state also its `Amplitudes`. Every other measurement says
from which of them it is computed (`primitive`), and how (`postprocess`). Each is a frozen value that knows its number
of outputs before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ...errors import CapabilityError, GradientError, SpecError
from ..checks import MAX_OPERATIONS, MAX_QUBITS, check_items, check_whole, shown, whole_number
from ..component import Component, Registry
from ..lowering.frame import Frame
from .observable import Observable, Pauli

if TYPE_CHECKING:
    from ..circuit import Circuit

__all__ = [
    "MEASUREMENTS",
    "Amplitudes",
    "BasisStates",
    "Expectation",
    "Measurement",
    "Observable",
    "Pauli",
    "PlanMeasurement",
    "Probabilities",
    "as_measurement",
    "as_qubits",
    "check_qubits",
    "register_measurement",
    "unregister_measurement",
]


@dataclass(frozen=True, slots=True)
class PlanMeasurement:
    """What is read, on the index as it stands at the end.

    Attributes:
        strings: Pauli strings `i**n_y X^x Z^z` as `(x, z, n_y)`, each once. Empty for probabilities.
        outputs: Per output the `(string number, coefficient)` pairs of its sum.
        masks: For probabilities: parity masks of the measured qubits, most significant first.
        n_classes: For probabilities: see `Probabilities`.
        frame: Number of the final frame in `Plan.frames`.
        amplitudes: How many amplitudes are read, 2**n_qubits; 0 for the others.
    """

    strings: tuple[tuple[int, int, int], ...]
    outputs: tuple[tuple[tuple[int, float], ...], ...]
    masks: tuple[int, ...]
    n_classes: int | None
    frame: int
    amplitudes: int = 0

    @property
    def n_outputs(self) -> int:
        """Outputs per sample."""
        if self.amplitudes:
            return 2 * self.amplitudes
        return len(self.outputs) if self.strings else (self.n_classes or 1 << len(self.masks))

    @property
    def is_diagonal(self) -> bool:
        """True where the probabilities of basis states are enough."""
        return all(x == 0 for x, _, _ in self.strings)


@dataclass(frozen=True)
class Measurement(Component):
    """Base of the measurements.

    Attributes:
        drawn: Whether outputs are samples, which `draw` takes from the values of `primitive`, on the host.

    One of a user derives from it: `primitive` says which expectation values or probabilities the circuit is run for,
    `postprocess` what becomes of them, in array functions that every framework has, and `postprocess_vjp` pulls
    cotangents back through that for the layers on NumPy arrays. Where outputs of a sample are no row of real numbers,
    `output_shape` and `output_dtype` say what they are; `extend` adds gates to what is run.

    Example:
        The correlation ⟨ZZ⟩ - ⟨ZI⟩⟨IZ⟩ of two qubits:

        >>> import numpy as np
        >>> import qstore_core
        >>> @qstore_core.register_measurement
        ... @dataclass(frozen=True)
        ... class Correlation(Measurement):
        ...     name = "example_correlation"
        ...     def n_outputs(self, n_qubits):
        ...         return 1
        ...     def primitive(self, n_qubits):
        ...         return Expectation(observables=(Pauli("ZZ"), Pauli("ZI"), Pauli("IZ")))
        ...     def postprocess(self, ops, values, resolution):
        ...         return values[..., :1] - values[..., 1:2] * values[..., 2:3]
        ...     def postprocess_vjp(self, values, cotangents, resolution):
        ...         c = cotangents
        ...         return np.concatenate([c, -c * values[..., 2:3], -c * values[..., 1:2]], axis=-1)
        >>> bell = qstore_core.Circuit(2)
        >>> w, = bell.weights(1)
        >>> bell.ry(w, 0); bell.cnot(0, 1)
        >>> layer = qstore_core.QuantumLayer(bell, Correlation(), init=lambda rng, size: [np.pi / 2])
        >>> layer(np.zeros((1, 0))).round(6)
        array([[1.]])
        >>> qstore_core.unregister_measurement("example_correlation")
    """

    drawn: ClassVar[bool] = False

    def n_outputs(self, n_qubits: int) -> int:
        """Outputs per sample."""
        raise NotImplementedError

    def output_shape(self, n_qubits: int) -> tuple[int, ...]:
        """Shape of the outputs of one sample; as many numbers as `n_outputs`."""
        return (self.n_outputs(n_qubits),)

    def output_dtype(self, dtype: str) -> str:
        """Dtype of the outputs where a layer's is `dtype`, one of the real ones."""
        return dtype

    def as_observables(self, n_qubits: int) -> tuple[Observable, ...]:
        """One observable per output, in order; of expectation values alone."""
        raise SpecError(f"{shown(self)} is no expectation of observables.")

    def primitive(self, n_qubits: int) -> Measurement:
        """What circuits are run for: an `Expectation`, `Probabilities` or `Amplitudes`."""
        raise NotImplementedError

    def extend(self, circuit: Circuit) -> Circuit:
        """The circuit that is run in the place of `circuit`, with the same slots: it may be longer."""
        return circuit

    def draw(self, values: np.ndarray, shots: int | None, rng: np.random.Generator) -> np.ndarray:
        """Outputs (B, O) from the values (B, P) of `primitive`, which are those of `shots` samples, or exact."""
        raise NotImplementedError

    def check(self, n_qubits: int) -> None:
        """Raise where it does not fit `n_qubits`."""
        self.primitive(n_qubits).check(n_qubits)

    def postprocess(self, ops: Any, values: Any, resolution: float) -> Any:
        """Outputs (B, O), or (B,) and `output_shape`, from the values (B, P) of `primitive`.

        Args:
            ops: Array functions of the framework, see `qstore_core.engines.arrays.ops`.
            values: An array of the framework.
            resolution: What lies below is rounding, or, where values are sampled, less than one sample: the dtype's
                epsilon, or 1 / shots.
        """
        return values

    def postprocess_vjp(self, values: np.ndarray, cotangents: np.ndarray, resolution: float) -> np.ndarray:
        """Cotangents of the outputs as cotangents (B, P) of the values, on NumPy arrays.

        Those of complex outputs are dL/dRe + i dL/dIm, as in PyTorch.
        """
        if type(self).postprocess is Measurement.postprocess:
            return cotangents
        raise GradientError(
            f"measurement {self.name or type(self).__name__!r} has no postprocess_vjp, which gradients on NumPy arrays "
            "need. Define it, or use the layer of a framework, which differentiates postprocess itself."
        )

    def lower(self, n_qubits: int, frame: Frame, number: int) -> PlanMeasurement:
        """What is read of a state whose index stands in `frame`, which is number `number` of its Plan."""
        raise SpecError(
            f"backends compute Expectation and Probabilities; {shown(self)} is computed from "
            f"{shown(self.primitive(n_qubits))}: compile that (`measurement.primitive(n_qubits)`)."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `as_measurement` takes it back."""
        return MEASUREMENTS.to_dict(self)


MEASUREMENTS: Registry[Measurement] = Registry("measurement", Measurement, ("n_outputs", "primitive"))


def register_measurement(cls: type[Measurement]) -> type[Measurement]:
    """Decorator: a measurement of yours, so that saved layers can name it. See `Measurement`."""
    return MEASUREMENTS.register(cls)


def unregister_measurement(name: str) -> None:
    """Remove what `register_measurement` added."""
    MEASUREMENTS.unregister(name)


@dataclass(frozen=True)
class Expectation(Measurement):
    """Expectation values of Pauli operators.

    Attributes:
        bases: Single-qubit bases, measured on every qubit in `qubits`; outputs are basis-major. Empty where
            `observables` is given.
        qubits: Qubits measured; None for all.
        observables: One output per observable instead of `bases`.
    """

    bases: tuple[str, ...] = ("Z",)
    qubits: tuple[int, ...] | None = None
    observables: tuple[Observable, ...] = ()
    name: ClassVar[str] = "expectation"

    def __post_init__(self) -> None:
        """Normalise and check."""
        given = (self.observables,) if isinstance(self.observables, Observable) else self.observables
        observables = check_items(given, "observables", MAX_OPERATIONS)
        if observables:
            if not all(isinstance(o, Observable) for o in observables):
                raise SpecError(f"observables are Pauli(...) and sums of them, received {shown(self.observables)}.")
            if self.qubits is not None:
                raise SpecError(
                    "observables say by their letters which qubits are measured: give qubits= or observables=, not "
                    "both.",
                    argument="qubits",
                )
            object.__setattr__(self, "bases", ())
            object.__setattr__(self, "observables", observables)
            return
        object.__setattr__(self, "observables", ())
        bases = (self.bases,) if isinstance(self.bases, str) else self.bases
        letters: tuple[str, ...] = ()
        if isinstance(bases, Iterable):
            letters = tuple(str(b).upper() for b in check_items(bases, "measurement_bases", 3, "measurement_bases"))
        if not letters or set(letters) - set("XYZ") or len(set(letters)) != len(letters):
            raise SpecError(
                f'measurement_bases is "Z" or a sequence of different bases such as ("Z", "X", "Y"), '
                f"received {shown(self.bases)}.",
                argument="measurement_bases",
            )
        object.__setattr__(self, "bases", letters)
        object.__setattr__(self, "qubits", as_qubits(self.qubits))

    def n_outputs(self, n_qubits: int) -> int:
        """Outputs per sample."""
        if self.observables:
            return len(self.observables)
        return len(self.bases) * (n_qubits if self.qubits is None else len(self.qubits))

    def as_observables(self, n_qubits: int) -> tuple[Observable, ...]:
        """One observable per output, in order."""
        if self.observables:
            return self.observables
        qubits = range(n_qubits) if self.qubits is None else self.qubits
        return tuple(Pauli("I" * q + basis + "I" * (n_qubits - q - 1)) for basis in self.bases for q in qubits)

    def primitive(self, n_qubits: int) -> Expectation:
        """This one."""
        return self

    def check(self, n_qubits: int) -> None:
        """Raise where it does not fit `n_qubits`."""
        for observable in self.observables:
            if observable.n_qubits != n_qubits:
                string = observable.terms[0][0]
                raise SpecError(
                    f"Pauli string {shown(string)} has {len(string)} letters, the circuit has {n_qubits} qubits. "
                    "Write one letter per qubit, I where nothing is measured."
                )
        check_qubits(self.qubits, n_qubits)

    def lower(self, n_qubits: int, frame: Frame, number: int) -> PlanMeasurement:
        """Pauli strings on the index as it stands."""
        strings: dict[tuple[int, int, int], int] = {}
        outputs = []
        for observable in self.as_observables(n_qubits):
            terms = []
            for letters, coefficient in observable.terms:
                x = z = n_y = 0
                for qubit, letter in enumerate(letters):
                    if letter in "XY":
                        x ^= frame.v[qubit]
                    if letter in "YZ":
                        z ^= frame.u[qubit]
                    n_y += letter == "Y"
                terms.append((strings.setdefault((x, z, n_y % 4), len(strings)), coefficient))
            outputs.append(tuple(terms))
        return PlanMeasurement(tuple(strings), tuple(outputs), (), None, number)

    def entries(self) -> dict[str, Any]:
        """The fields as JSON values."""
        qubits = None if self.qubits is None else list(self.qubits)
        observables = [[list(term) for term in o.terms] for o in self.observables]
        return {"bases": list(self.bases), "qubits": qubits, "observables": observables}

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any]) -> Self:
        """Inverse of `entries`."""
        observables = check_items(entries.get("observables", ()), "observables", MAX_OPERATIONS)
        bases = entries.get("bases", ())
        if observables and len(check_items(bases, "measurement_bases", 3, "measurement_bases")):
            raise SpecError("an expectation is saved with bases or with observables, received both.")
        if observables:
            return cls(qubits=entries.get("qubits"), observables=tuple(Observable(o) for o in observables))
        return cls(bases, entries.get("qubits"))


@dataclass(frozen=True)
class BasisStates(Measurement):
    """What `Probabilities` and `LogProbabilities` have in common."""

    qubits: tuple[int, ...] | None = None
    n_classes: int | None = None

    def __post_init__(self) -> None:
        """Normalise and check."""
        object.__setattr__(self, "qubits", as_qubits(self.qubits))
        if self.n_classes is not None:
            n_classes = check_whole(self.n_classes, "n_classes", 1, 1 << MAX_QUBITS, "n_classes")
            object.__setattr__(self, "n_classes", n_classes)

    def n_outputs(self, n_qubits: int) -> int:
        """Outputs per sample."""
        return self.n_classes or 1 << (n_qubits if self.qubits is None else len(self.qubits))

    def primitive(self, n_qubits: int) -> Probabilities:
        """The probabilities."""
        return Probabilities(self.qubits, self.n_classes)

    def check(self, n_qubits: int) -> None:
        """Raise where it does not fit `n_qubits`."""
        check_qubits(self.qubits, n_qubits)
        measured = n_qubits if self.qubits is None else len(self.qubits)
        if self.n_classes is not None and self.n_classes > 1 << measured:
            need = max(1, (self.n_classes - 1).bit_length())
            states = 1 << measured if measured <= 64 else f"2**{measured}"
            raise SpecError(
                f"{measured} qubit(s) have {states} basis states, too few for n_classes={shown(self.n_classes)}. "
                f"Use at least {need} qubits.",
                argument="n_classes",
            )


@dataclass(frozen=True)
class Probabilities(BasisStates):
    """Probabilities of basis states (Born rule); they sum to 1.

    Attributes:
        qubits: Qubits measured, most significant first; None for all. The others are traced out.
        n_classes: Sum the probabilities of all bitstrings with equal index modulo `n_classes`; None for one output
            per bitstring.
    """

    name: ClassVar[str] = "probabilities"

    def primitive(self, n_qubits: int) -> Probabilities:
        """This one."""
        return self

    def lower(self, n_qubits: int, frame: Frame, number: int) -> PlanMeasurement:
        """Parities of the index as it stands."""
        qubits = range(n_qubits) if self.qubits is None else self.qubits
        return PlanMeasurement((), (), tuple(frame.u[q] for q in qubits), self.n_classes, number)


@dataclass(frozen=True)
class Amplitudes(Measurement):
    """The final state as real numbers: real parts of all amplitudes, then imaginary parts; its phase is the gates'.

    What simulators that hold the state compute for `State`, see `Capabilities.amplitudes`.
    """

    name: ClassVar[str] = "amplitudes"

    def n_outputs(self, n_qubits: int) -> int:
        """Twice the number of basis states."""
        return 2 << n_qubits

    def primitive(self, n_qubits: int) -> Amplitudes:
        """This one."""
        return self

    def as_observables(self, n_qubits: int) -> tuple[Observable, ...]:
        """None: what asks for them does not hold the state."""
        raise CapabilityError(
            'Amplitudes are computed by simulators that hold the state: backend="statevector", "torch", "jax" or '
            '"tensorflow", without noise and shots.'
        )

    def check(self, n_qubits: int) -> None:
        """It fits any number."""

    def lower(self, n_qubits: int, frame: Frame, number: int) -> PlanMeasurement:
        """All amplitudes, in the final frame."""
        return PlanMeasurement((), (), (), None, number, 1 << n_qubits)


MEASUREMENTS.add(Expectation, Probabilities, Amplitudes)


def as_qubits(qubits: Any) -> tuple[int, ...] | None:
    """Measured qubits as whole numbers; None for all."""
    if qubits is None:
        return None
    items = check_items(qubits, "measured qubits", MAX_QUBITS, "qubits")
    numbers = tuple(q for q in map(whole_number, items) if q is not None)
    if len(numbers) != len(items):
        raise SpecError(f"measured qubits are whole numbers, received {shown(qubits)}.", argument="qubits")
    return numbers


def check_qubits(qubits: tuple[int, ...] | None, n_qubits: int) -> None:
    """Raise where they do not exist, or are not different."""
    if qubits is not None and (
        not qubits or len(set(qubits)) != len(qubits) or not all(0 <= q < n_qubits for q in qubits)
    ):
        raise SpecError(
            f"measured qubits must be different and from 0 to {n_qubits - 1}, received {shown(qubits)}.",
            argument="qubits",
        )


def as_measurement(value: Any) -> Measurement:
    """A measurement as an object or in its saved form, or observables as an `Expectation` of them."""
    if isinstance(value, Measurement):
        return value
    if isinstance(value, Observable):
        return Expectation(observables=(value,))
    if isinstance(value, Mapping):
        return MEASUREMENTS.from_dict(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        items = check_items(value, "a measurement", MAX_OPERATIONS, "measurement")
        if items and all(isinstance(item, Observable) for item in items):
            return Expectation(observables=items)
    raise SpecError(
        f"a measurement is Expectation(...), Probabilities(...), or Pauli observables; received {shown(value)}.",
        argument="measurement",
    )
