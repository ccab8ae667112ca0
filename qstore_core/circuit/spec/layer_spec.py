"""`LayerSpec`: a layer's physics as a value, with every shape known before anything runs.

The functions `feature_extractor`, `pooling`, `readout`, `custom` and `encoder` make the specs of the layers.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from ...errors import PaddingWarning, ShapeError, SpecError, warn
from ..checks import (
    MAX_DEPTH,
    MAX_SLOTS,
    check_choice,
    check_flag,
    check_n_qubits,
    check_operations,
    check_whole,
    read_fields,
    shown,
    whole_number,
)
from ..circuit import Circuit
from ..measurements.measurement import Expectation, Measurement, Probabilities, as_measurement
from ..measurements.statistics import LogProbabilities
from .ansatz import ANSATZE, Ansatz, as_ansatz, entangling_pairs
from .assembly import assembled
from .encoding import ENCODINGS, Amplitude, AngleEncoding, Encoding, as_encoding

__all__ = [
    "LayerSpec",
    "custom",
    "encoder",
    "feature_extractor",
    "pooling",
    "readout",
]

_POOLING_MODES = ("measurement", "partial_trace")
_KINDS = ("QuantumEncoder", "QuantumFeatureExtractor", "QuantumPooling", "QuantumReadout", "QuantumLayer")


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
        features: Features per sample where they were said, and are checked; None for what the encoding takes.
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

    features: int | None = None

    def __post_init__(self) -> None:
        """Check every field, sizes first; nothing is built here.

        Raises:
            SpecError: a field is of a wrong type, out of range, or does not fit the others.
        """
        check_choice(self.kind, "kind of layer", _KINDS, "kind")
        n = check_n_qubits(self.n_qubits)
        depth = check_whole(self.depth, "depth", 0, MAX_DEPTH, "depth")
        for field, value in (("n_qubits", n), ("depth", depth)):
            object.__setattr__(self, field, value)
        object.__setattr__(self, "reuploading", check_flag(self.reuploading, "reuploading", "reuploading"))
        for field, base, optional in (
            ("encoding", Encoding, False),
            ("ansatz", Ansatz, True),
            ("measurement", Measurement, True),
            ("user_circuit", Circuit, True),
        ):
            value = getattr(self, field)
            if not (isinstance(value, base) or (optional and value is None)):
                raise SpecError(f"{field} is no {base.__name__}, received {shown(value)}.", argument=field)
        if self.measurement is not None:
            self.measurement.check(n)
            if type(self.measurement).extend is not Measurement.extend and self.kind != "QuantumLayer":
                raise SpecError(
                    f"{type(self.measurement).__name__} is measured by QuantumLayer.", argument="measurement"
                )
        if (self.ansatz is None) != (self.kind in ("QuantumEncoder", "QuantumLayer")):
            raise SpecError(f"{self.kind} has {'an' if self.ansatz is None else 'no'} ansatz.", argument="ansatz")
        if (self.measurement is None) != (self.kind == "QuantumEncoder"):
            raise SpecError(
                f"{self.kind} has {'a' if self.measurement is None else 'no'} measurement.", argument="measurement"
            )
        self._check_circuit(n, depth)
        self._check_pooling(n)
        self._check_n_features()

    def _check_circuit(self, n: int, depth: int) -> None:
        if (self.user_circuit is not None) != (self.kind == "QuantumLayer"):
            raise SpecError(f"{self.kind}: a circuit of the user belongs to QuantumLayer.", argument="user_circuit")
        if self.ansatz is None:
            circuit = self.user_circuit
            amplitudes = circuit is None or circuit.n_amplitudes > 0
            if circuit is not None and circuit.n_qubits != n:
                raise SpecError(f"n_qubits is {n}, the circuit has {circuit.n_qubits} qubits.", argument="n_qubits")
            if depth or self.reuploading or self.encoding != (Amplitude() if amplitudes else AngleEncoding()):
                raise SpecError(f"{self.kind} has no depth, reuploading or encoding of its own.")
            return
        if self.reuploading and self.encoding.is_amplitude:
            raise SpecError(
                'reuploading=True repeats the encoding gates before every level; encoding="amplitude" has none. '
                'Use encoding="angle", "iqp" or "zz".',
                argument="reuploading",
            )
        self.encoding.n_features(n)  # its qubits exist
        encodings = depth if self.reuploading and depth else 1
        per_level = max(self.ansatz.operations_per_level(n), 1)
        count = depth * per_level + encodings * self.encoding.n_operations(n)
        check_operations(count, f"{n} qubits at depth {depth}")
        weights = whole_number(self.ansatz.n_weights(n, depth))
        if weights is None or not 0 <= weights <= MAX_SLOTS:
            raise SpecError(f"{shown(self.ansatz)} has {shown(weights)} weights; 0 to {MAX_SLOTS} are expected.")
        pairs = getattr(self.ansatz, "entanglement", "")
        if isinstance(pairs, tuple):  # patterns fit any number of qubits
            entangling_pairs(pairs, n)

    def _check_pooling(self, n: int) -> None:
        if self.kind != "QuantumPooling":
            if whole_number(self.pool_size) != 0 or not isinstance(self.pool_mode, str) or self.pool_mode:
                raise SpecError(f"{self.kind} has no pool_size or pool_mode.", argument="pool_size")
            return
        size = whole_number(self.pool_size) or 0
        if size < 1 or n % size:
            divisors = ", ".join(str(d) for d in range(1, n + 1) if n % d == 0)
            raise SpecError(
                f"pool_size must divide n_qubits={n}; received {shown(self.pool_size)}. Possible: {divisors}.",
                argument="pool_size",
            )
        object.__setattr__(self, "pool_size", size)
        check_choice(self.pool_mode, "pooling mode", _POOLING_MODES, "mode")
        kept = tuple(range(0, n, size))
        if getattr(self.measurement, "qubits", kept) != kept:
            raise SpecError(f"pooling of {n} qubits by {size} measures qubits {shown(kept)}.", argument="measurement")

    def _check_n_features(self) -> None:
        if self.features is None:
            return
        most = self._most_features
        features = check_whole(self.features, "n_features", 1, 1 << 62, "n_features")
        if features > most or (features < most and not self._may_pad):
            if self._may_pad:
                need = (features - 1).bit_length()
                wanted = (
                    f"at most {shown(most)} features: use n_qubits={need}, or a Dense/Linear layer to {shown(most)}"
                )
            else:
                wanted = f"{most} features"
            raise SpecError(
                f"{self.kind} with {self.encoding.name} encoding on {self.n_qubits} qubits takes {wanted}; received "
                f"n_features={features}.",
                argument="n_features",
            )
        object.__setattr__(self, "features", features)

    @property
    def circuit(self) -> Circuit:
        """The layer's circuit."""
        return self.user_circuit if self.user_circuit is not None else assembled(self)

    @property
    def n_weights(self) -> int:
        """Length of theta."""
        return 0 if self.measurement is None else self.circuit.n_weights

    @property
    def n_features(self) -> int:
        """Features per sample; where they were not said, the most there may be for amplitude encoding."""
        return self._most_features if self.features is None else self.features

    @property
    def _most_features(self) -> int:
        if self.user_circuit is not None:
            return self.user_circuit.n_amplitudes + self.user_circuit.n_inputs
        return self.encoding.n_features(self.n_qubits)

    @cached_property
    def primitive(self) -> LayerSpec:
        """The same layer up to what backends compute; `measurement.postprocess` makes the rest of its values."""
        if self.measurement is None or self.measurement.drawn:
            return self
        primitive = self.measurement.primitive(self.n_qubits)
        if (
            self.user_circuit is not None
            and (circuit := self.measurement.extend(self.user_circuit)) != self.user_circuit
        ):
            return custom(circuit, primitive, n_features=self.features)
        return self if primitive == self.measurement else dataclasses.replace(self, measurement=primitive)

    @property
    def computed(self) -> Measurement | None:
        """What a backend is asked for: the measurement, or of samples what they are drawn from."""
        drawn = self.measurement is not None and self.measurement.drawn
        return self.measurement.primitive(self.n_qubits) if drawn and self.measurement else self.measurement

    @property
    def postprocesses(self) -> bool:
        """Whether outputs are more than the values that backends compute."""
        return self.measurement is not None and type(self.measurement).postprocess is not Measurement.postprocess

    @property
    def portable(self) -> LayerSpec:
        """The same layer in words of ours alone: with its circuit in place of an encoding or ansatz of a user."""
        if ENCODINGS.is_own(self.encoding) and (self.ansatz is None or ANSATZE.is_own(self.ansatz)):
            return self
        assert self.measurement is not None
        return custom(self.circuit, self.measurement, n_features=self.features)

    @cached_property
    def fingerprint(self) -> str:
        """What the layer computes, as 64 hexadecimal digits: equal circuits and measurements have equal ones.

        It is the same in every process and framework, and does not depend on how the circuit was described: a
        checkpoint with another fingerprint holds the weights of another circuit.

        Example:
            >>> one, same = feature_extractor(2, entanglement="full"), feature_extractor(2, entanglement=[(0, 1)])
            >>> one.fingerprint == same.fingerprint != feature_extractor(2, entanglement="none").fingerprint
            True
        """
        run = self.circuit if self.measurement is None else self.primitive.circuit
        circuit = {key: value for key, value in run.to_dict().items() if key != "gates_from"}
        content: list[Any] = [circuit, self.encoding.differentiable]
        if self.measurement is not None:
            read: Any = self.measurement.primitive(self.n_qubits)
            if isinstance(read, Expectation):
                strings = [sorted(term for term in o.terms if term[1]) for o in read.observables]
                content += [list(read.bases), read.qubits, strings]
            elif isinstance(read, Probabilities):
                content += [read.qubits, read.n_classes]
            else:
                content += [read.name]
            content += [] if read == self.measurement else [repr(self.measurement)]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        import hashlib  # takes milliseconds

        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def output_dim(self) -> int:
        """Outputs per sample."""
        return 1 << self.n_qubits if self.measurement is None else self.measurement.n_outputs(self.n_qubits)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of the outputs of one sample."""
        return (self.output_dim,) if self.measurement is None else self.measurement.output_shape(self.n_qubits)

    @property
    def pads(self) -> bool:
        """True where fewer features than `n_features` are accepted."""
        return self.features is None and self._may_pad

    @property
    def _may_pad(self) -> bool:
        return self.encoding.is_amplitude and (self.user_circuit is None or not self.user_circuit.n_inputs)

    def check_features(self, shape: tuple[int | None, ...]) -> None:
        """Raise `ShapeError` where inputs of this shape do not fit; None stands for an unknown size."""
        if not shape:
            raise ShapeError(f"{self.kind} takes inputs of shape (batch, features), received a scalar. Add two axes.")
        have, want = shape[-1], self.n_features
        if have is None or have == want:
            return
        if self.pads and 1 <= have < want:
            if 2 * have < want:
                _warn_of_padding(self.kind, self.n_qubits, have)
            return
        if self.features is not None:
            raise ShapeError(
                f"{self.kind} was given n_features={want}, received inputs of shape {tuple(shape)}. Is a Flatten "
                "missing before it?",
                expected=want,
                received=have,
            )
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
        return (*input_shape[:-1], *self.sample_shape)

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `from_dict` is its inverse."""
        return {
            "kind": self.kind,
            "n_qubits": self.n_qubits,
            "depth": self.depth,
            "encoding": self.encoding.to_dict(),
            "ansatz": None if self.ansatz is None else self.ansatz.to_dict(),
            "measurement": None if self.measurement is None else self.measurement.to_dict(),
            "reuploading": self.reuploading,
            "pool_size": self.pool_size,
            "pool_mode": self.pool_mode,
            "user_circuit": None if self.user_circuit is None else self.user_circuit.to_dict(),
            "features": self.features,
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> LayerSpec:
        """Inverse of `to_dict`.

        Raises:
            SpecError: `data` is not the form that `to_dict` gives; nothing is built from it then.

        Example:
            >>> spec = readout(4, n_classes=10)
            >>> LayerSpec.from_dict(spec.to_dict()) == spec
            True
        """
        optional = {"reuploading": False, "pool_size": 0, "pool_mode": "", "user_circuit": None, "features": None}
        required = ("kind", "n_qubits", "depth", "encoding", "ansatz", "measurement")
        fields = read_fields(data, "a layer's spec", required, optional)
        for name, made in (("encoding", as_encoding), ("ansatz", as_ansatz), ("measurement", as_measurement)):
            if fields[name] is not None or name == "encoding":
                fields[name] = made(fields[name])
        if fields["user_circuit"] is not None:
            fields["user_circuit"] = Circuit.from_dict(fields["user_circuit"])
            hash(fields["user_circuit"])  # freezes it
        return LayerSpec(**fields)


@lru_cache(maxsize=4096)
def _warn_of_padding(kind: str, n_qubits: int, features: int) -> None:
    enough = max(1, (features - 1).bit_length())
    text = (
        f"{kind}: {features} features fill less than half of the amplitudes of {n_qubits} qubits, 2**{n_qubits}; the "
        f"rest are 0 whatever the data. Is a Flatten missing before it? {enough} qubit(s) hold as many; "
        f"n_features={features} says that it is meant."
    )
    warn(PaddingWarning(text))


# -- specs of the layers ----------------------------------------------------------------------------------------------


def encoder(n_qubits: int, *, n_features: int | None = None) -> LayerSpec:
    """Features → unit vectors of 2**n_qubits amplitudes; no weights."""
    return LayerSpec("QuantumEncoder", n_qubits, 0, Amplitude(), None, None, features=n_features)


def feature_extractor(
    n_qubits: int,
    depth: int = 2,
    *,
    encoding: Any = "amplitude",
    ansatz: Any = "hardware_efficient",
    entanglement: Any = None,
    measurement_bases: Any = "Z",
    reuploading: bool = False,
    n_features: int | None = None,
) -> LayerSpec:
    """Encode, `depth` ansatz levels, expectation of each qubit in each basis."""
    parts = as_encoding(encoding), as_ansatz(ansatz, entanglement), Expectation(measurement_bases)
    return LayerSpec("QuantumFeatureExtractor", n_qubits, depth, *parts, reuploading, features=n_features)


def pooling(
    n_qubits: int,
    pool_size: int = 2,
    *,
    mode: str = "measurement",
    depth: int = 1,
    encoding: Any = "amplitude",
    ansatz: Any = "hardware_efficient",
    entanglement: Any = None,
    measurement_bases: Any = "Z",
    reuploading: bool = False,
    n_features: int | None = None,
) -> LayerSpec:
    """Encode, ansatz, then keep the first qubit of each group of `pool_size`.

    With mode "measurement" each other qubit of the group rotates the kept one by RZ, RY, RZ where it is |1⟩ (deferred
    measurement); with "partial_trace" it is only traced out.

    Source:
        Cong, Choi & Lukin, arXiv:1810.03787.
    """
    n, size = check_n_qubits(n_qubits), whole_number(pool_size) or 0
    kept = tuple(range(0, n, size)) if size >= 1 else None
    parts = as_encoding(encoding), as_ansatz(ansatz, entanglement), Expectation(measurement_bases, kept)
    check_choice(mode, "pooling mode", _POOLING_MODES, "mode")
    return LayerSpec("QuantumPooling", n, depth, *parts, reuploading, pool_size, mode, features=n_features)


def readout(
    n_qubits: int,
    n_classes: int | None = None,
    *,
    depth: int = 1,
    log: bool = False,
    encoding: Any = "amplitude",
    ansatz: Any = "hardware_efficient",
    entanglement: Any = None,
    measurement_bases: Any = "Z",
    reuploading: bool = False,
    n_features: int | None = None,
) -> LayerSpec:
    """Encode, ansatz, then class probabilities (bitstring index modulo `n_classes`), or ⟨Z⟩ per qubit for None."""
    expectation = Expectation(measurement_bases)
    measured: Measurement = expectation
    if n_classes is not None:
        if expectation.bases != ("Z",):
            raise SpecError(
                f"class probabilities are those of bits: measurement_bases={shown(measurement_bases)} means nothing "
                "with n_classes. Leave it out, or n_classes for expectation values in these bases.",
                argument="measurement_bases",
            )
        if n_classes == 1:
            raise SpecError(
                "the probability of n_classes=1 is 1, whatever theta and features are: there is nothing to train. Use "
                "n_classes=2, or leave it out for an expectation value.",
                argument="n_classes",
            )
        measured = (
            LogProbabilities(None, n_classes) if check_flag(log, "log", "log") else Probabilities(None, n_classes)
        )
    elif check_flag(log, "log", "log"):
        raise SpecError(
            "log=True gives the logarithms of class probabilities: it needs n_classes. Expectation values may be "
            "negative.",
            argument="log",
        )
    parts = as_encoding(encoding), as_ansatz(ansatz, entanglement), measured
    return LayerSpec("QuantumReadout", n_qubits, depth, *parts, reuploading, features=n_features)


def custom(circuit: Any, measurement: Any, *, n_features: int | None = None) -> LayerSpec:
    """The spec of a user-built circuit."""
    if isinstance(circuit, Mapping):  # the form in a saved configuration
        circuit = Circuit.from_dict(circuit)
    if not isinstance(circuit, Circuit):
        raise SpecError(
            f"QuantumLayer takes a qstore_core.Circuit, received {type(circuit).__name__}.",
            argument="circuit",
        )
    measured = as_measurement(measurement)
    measured.check(circuit.n_qubits)
    hash(circuit)  # freezes it
    encoding: Encoding = Amplitude() if circuit.n_amplitudes else AngleEncoding()
    return LayerSpec(
        "QuantumLayer", circuit.n_qubits, 0, encoding, None, measured, user_circuit=circuit, features=n_features
    )
