"""`LayerSpec`: a layer's physics as a value, with every shape known before anything runs.

The functions `feature_extractor`, `pooling`, `readout`, `custom` and `encoder` make the specs of the layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import ShapeError, SpecError, nearest
from .ansatz import Ansatz, as_ansatz, as_entanglement, entangling_pairs
from .circuit import Circuit, check_n_qubits, whole_number
from .encoding import Amplitude, AngleEncoding, Encoding, as_encoding
from .measurement import Expectation, Measurement, Observable, Probabilities, as_measurement

__all__ = [
    "LayerSpec",
    "custom",
    "encoder",
    "feature_extractor",
    "measurement_from_dict",
    "measurement_to_dict",
    "pooling",
    "readout",
    "value_to_dict",
]

_POOLING_MODES = ("measurement", "partial_trace")


@dataclass(frozen=True)
class LayerSpec:
    """What a layer computes. Frozen, hashable; `to_dict` and `from_dict` make the JSON round trip.

    Attributes:
        kind: Name of the layer's class.
        n_qubits: Number of qubits.
        depth: Ansatz levels.
        encoding: How features enter.
        ansatz: The trainable part; None for `QuantumEncoder` and user-built circuits.
        measurement: What is read; None for `QuantumEncoder`, which returns the amplitudes.
        reuploading: Encode again before every level.
        pool_size: Qubits per group of `QuantumPooling`; 0 elsewhere.
        pool_mode: "measurement" or "partial_trace"; "" elsewhere.
        user_circuit: The circuit of a `QuantumLayer`.
    """

    kind: str
    n_qubits: int
    depth: int
    encoding: Encoding
    ansatz: Ansatz | None
    measurement: Measurement | None
    reuploading: bool = False
    pool_size: int = 0
    pool_mode: str = ""
    user_circuit: Circuit | None = None

    @property
    def circuit(self) -> Circuit:
        """The layer's circuit."""
        return self.user_circuit if self.user_circuit is not None else _build(self)

    @property
    def n_weights(self) -> int:
        """Length of theta."""
        return 0 if self.measurement is None else self.circuit.n_weights

    @property
    def n_features(self) -> int:
        """Features per sample; the most there may be for amplitude encoding."""
        if self.user_circuit is not None:
            return self.user_circuit.n_amplitudes + self.user_circuit.n_inputs
        return self.encoding.n_features(self.n_qubits)

    @property
    def output_dim(self) -> int:
        """Outputs per sample."""
        return 1 << self.n_qubits if self.measurement is None else self.measurement.n_outputs(self.n_qubits)

    @property
    def pads(self) -> bool:
        """True where fewer features than `n_features` are accepted."""
        return self.encoding.is_amplitude and (self.user_circuit is None or not self.user_circuit.n_inputs)

    def check_features(self, shape: tuple[int | None, ...]) -> None:
        """Raise `ShapeError` where inputs of this shape do not fit; None stands for an unknown size."""
        if not shape:
            raise ShapeError(f"{self.kind} takes inputs of shape (batch, features), received a scalar. Add two axes.")
        have, want = shape[-1], self.n_features
        if have is None or have == want or (self.pads and 1 <= have < want):
            return
        if self.encoding.is_amplitude and self.user_circuit is None:
            if have == 0:
                advice = "Give it at least one feature."
            else:
                need = (have - 1).bit_length()
                advice = f"Put a Dense/Linear layer to {want} before it, or use n_qubits={need}."
            raise ShapeError(
                f"amplitude encoding on {self.n_qubits} qubits takes at most {want} features, "
                f"received inputs of shape {tuple(shape)}. {advice}",
                expected=want,
                received=have,
            )
        raise ShapeError(
            f"{self.kind} with {self.encoding.name} encoding on {self.n_qubits} qubits takes {want} features, received "
            f"inputs of shape {tuple(shape)}. Put a Dense/Linear layer to {want} before it.",
            expected=want,
            received=have,
        )

    def output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the outputs for inputs of `input_shape`.

        Example:
            >>> feature_extractor(3, measurement_bases=("Z", "X")).output_shape((None, 8))
            (None, 6)
        """
        self.check_features(tuple(input_shape))
        return (*input_shape[:-1], self.output_dim)

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `from_dict` is its inverse."""
        return {
            "kind": self.kind,
            "n_qubits": self.n_qubits,
            "depth": self.depth,
            "encoding": value_to_dict(self.encoding),
            "ansatz": value_to_dict(self.ansatz),
            "measurement": measurement_to_dict(self.measurement),
            "reuploading": self.reuploading,
            "pool_size": self.pool_size,
            "pool_mode": self.pool_mode,
            "user_circuit": None if self.user_circuit is None else self.user_circuit.to_dict(),
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> LayerSpec:
        """Inverse of `to_dict`.

        Example:
            >>> spec = readout(4, n_classes=10)
            >>> LayerSpec.from_dict(spec.to_dict()) == spec
            True
        """
        circuit = data.get("user_circuit")
        return LayerSpec(
            kind=data["kind"],
            n_qubits=data["n_qubits"],
            depth=data["depth"],
            encoding=as_encoding(data["encoding"]),
            ansatz=None if data["ansatz"] is None else as_ansatz(data["ansatz"]),
            measurement=measurement_from_dict(data["measurement"]),
            reuploading=data["reuploading"],
            pool_size=data["pool_size"],
            pool_mode=data["pool_mode"],
            user_circuit=None if circuit is None else Circuit.from_dict(circuit),
        )


# -- specs of the layers ----------------------------------------------------------------------------------------------


def encoder(n_qubits: int) -> LayerSpec:
    """Features → unit vectors of 2**n_qubits amplitudes; no weights."""
    return LayerSpec("QuantumEncoder", check_n_qubits(n_qubits), 0, Amplitude(), None, None)


def feature_extractor(
    n_qubits: int,
    depth: int = 2,
    *,
    encoding: Any = "amplitude",
    ansatz: Any = "hardware_efficient",
    entanglement: Any = "full",
    measurement_bases: Any = "Z",
    reuploading: bool = False,
) -> LayerSpec:
    """Encode, `depth` ansatz levels, expectation of each qubit in each basis."""
    return _layer(
        "QuantumFeatureExtractor",
        n_qubits,
        depth,
        encoding,
        ansatz,
        entanglement,
        Expectation(measurement_bases),
        reuploading,
    )


def pooling(
    n_qubits: int,
    pool_size: int = 2,
    *,
    mode: str = "measurement",
    depth: int = 1,
    encoding: Any = "amplitude",
    ansatz: Any = "hardware_efficient",
    entanglement: Any = "full",
    measurement_bases: Any = "Z",
    reuploading: bool = False,
) -> LayerSpec:
    """Encode, ansatz, then keep the first qubit of each group of `pool_size`.

    With mode "measurement" each other qubit of the group turns the kept one by RZ, RY, RZ where it is |1⟩ (deferred
    measurement); with "partial_trace" it is only traced out.

    Source:
        Cong, Choi & Lukin, arXiv:1810.03787.
    """
    n = check_n_qubits(n_qubits)
    size = whole_number(pool_size) or 0
    if size < 1 or n % size:
        divisors = ", ".join(str(d) for d in range(1, n + 1) if n % d == 0) if n <= 4096 else "the divisors"
        raise SpecError(
            f"pool_size must divide n_qubits={n}; received {pool_size!r}. Possible: {divisors}.",
            argument="pool_size",
        )
    if mode not in _POOLING_MODES:
        raise SpecError(
            f"no pooling mode {mode!r}. Known: {', '.join(_POOLING_MODES)}.{nearest(str(mode), _POOLING_MODES)}",
            argument="mode",
        )
    measured = Expectation(measurement_bases, qubits=tuple(range(0, n, size)))
    spec = _layer("QuantumPooling", n, depth, encoding, ansatz, entanglement, measured, reuploading)
    return dataclasses.replace(spec, pool_size=size, pool_mode=mode)


def readout(
    n_qubits: int,
    n_classes: int | None = None,
    *,
    depth: int = 1,
    encoding: Any = "amplitude",
    ansatz: Any = "hardware_efficient",
    entanglement: Any = "full",
    measurement_bases: Any = "Z",
    reuploading: bool = False,
) -> LayerSpec:
    """Encode, ansatz, then class probabilities (bitstring index modulo `n_classes`), or ⟨Z⟩ per qubit for None."""
    measured = Expectation(measurement_bases) if n_classes is None else Probabilities(n_classes=n_classes)
    return _layer("QuantumReadout", n_qubits, depth, encoding, ansatz, entanglement, measured, reuploading)


def custom(circuit: Any, measurement: Any) -> LayerSpec:
    """The spec of a user-built circuit."""
    if isinstance(circuit, Mapping):  # the form in a saved configuration
        circuit = Circuit.from_dict(dict(circuit))
    if not isinstance(circuit, Circuit):
        raise SpecError(
            f"QuantumLayer takes a qstore_core.Circuit, received {type(circuit).__name__}.",
            argument="circuit",
        )
    measured = measurement_from_dict(measurement) if isinstance(measurement, Mapping) else as_measurement(measurement)
    assert measured is not None
    measured.check(circuit.n_qubits)
    hash(circuit)  # freezes it
    encoding = Amplitude() if circuit.n_amplitudes else AngleEncoding()
    return LayerSpec("QuantumLayer", circuit.n_qubits, 0, encoding, None, measured, user_circuit=circuit)


def _layer(
    kind: str,
    n_qubits: int,
    depth: int,
    encoding: Any,
    ansatz: Any,
    entanglement: Any,
    measurement: Measurement,
    reuploading: bool,
) -> LayerSpec:
    n = check_n_qubits(n_qubits)
    levels = whole_number(depth)
    if levels is None or levels < 0:
        raise SpecError(f"depth is a whole number of at least 0, received {depth!r}.", argument="depth")
    coded = as_encoding(encoding)
    if reuploading and coded.is_amplitude:
        raise SpecError(
            'reuploading=True repeats the encoding gates before every level; encoding="amplitude" has none. '
            'Use encoding="angle", "iqp" or "zz".',
            argument="reuploading",
        )
    measurement.check(n)
    shape = as_ansatz(ansatz, as_entanglement(entanglement))
    pairs = getattr(shape, "entanglement", "")
    if not isinstance(pairs, str):  # patterns fit any number of qubits
        entangling_pairs(pairs, n)
    return LayerSpec(kind, n, levels, coded, shape, measurement, bool(reuploading))


@lru_cache(maxsize=256)
def _build(spec: LayerSpec) -> Circuit:
    """The circuit of a spec."""
    n = spec.n_qubits
    circuit = Circuit(n, amplitudes=spec.encoding.is_amplitude)
    if spec.ansatz is None:
        hash(circuit)
        return circuit
    x = () if spec.encoding.is_amplitude else circuit.inputs(n)
    w = circuit.weights(spec.ansatz.n_weights(n, spec.depth))
    step = spec.ansatz.weights_per_level(n)
    if not spec.reuploading or spec.depth == 0:
        spec.encoding.append(circuit, x)
    for level in range(spec.depth):
        if spec.reuploading:
            spec.encoding.append(circuit, x)
        spec.ansatz.append_level(circuit, w[level * step : (level + 1) * step], level)
    spec.ansatz.append_final(circuit, w[spec.depth * step :])
    if spec.pool_mode == "measurement":
        for kept in range(0, n, spec.pool_size):
            for measured in range(kept + 1, kept + spec.pool_size):
                first, middle, last = circuit.weights(3)
                circuit.append("crz", (measured, kept), (first,))
                circuit.append("cry", (measured, kept), (middle,))
                circuit.append("crz", (measured, kept), (last,))
    hash(circuit)
    return circuit


# -- JSON forms -------------------------------------------------------------------------------------------------------


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def _lists(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_lists(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def value_to_dict(value: Encoding | Ansatz | None) -> dict[str, Any] | None:
    """JSON form of an encoding or ansatz; `as_encoding` and `as_ansatz` take it back."""
    if value is None:
        return None
    fields = {f.name: _lists(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return {"name": value.name, **fields}


def measurement_to_dict(value: Measurement | None) -> dict[str, Any] | None:
    """JSON form of a measurement; `measurement_from_dict` is its inverse."""
    if value is None:
        return None
    if isinstance(value, Probabilities):
        return {"name": "probabilities", "qubits": _lists(value.qubits), "n_classes": value.n_classes}
    observables = [_lists(o.terms) for o in value.observables]
    return {
        "name": "expectation",
        "bases": list(value.bases),
        "qubits": _lists(value.qubits),
        "observables": observables,
    }


def measurement_from_dict(data: Mapping[str, Any] | None) -> Measurement | None:
    """A measurement from its JSON form."""
    if data is None:
        return None
    if data["name"] == "probabilities":
        return Probabilities(_tuples(data["qubits"]), data["n_classes"])
    observables = tuple(Observable(_tuples(o)) for o in data["observables"])
    return Expectation(_tuples(data["bases"]) or ("Z",), _tuples(data["qubits"]), observables)
