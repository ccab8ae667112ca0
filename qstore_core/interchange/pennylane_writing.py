"""Circuits and layers to PennyLane, as quantum functions and QNodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..circuit.angles.angle import FUNCTIONS, Angle
from ..circuit.checks import shown
from ..circuit.circuit import Circuit
from ..circuit.measurements.measurement import Expectation, Measurement
from ..circuit.measurements.states import DensityMatrix, Entropy, Purity, State
from ..circuit.measurements.statistics import Variance
from ..circuit.noise.channels import Channel
from ..errors import BackendUnavailableError, SpecError
from .common import as_observables, within

__all__ = ["library", "to_pennylane", "to_qnode"]

_THEIRS = {
    "id": "Identity", "x": "PauliX", "y": "PauliY", "z": "PauliZ", "h": "Hadamard", "s": "S", "t": "T", "sx": "SX",
    "rx": "RX", "ry": "RY", "rz": "RZ", "p": "PhaseShift", "rot": "Rot", "u3": "U3", "cnot": "CNOT", "cy": "CY",
    "cz": "CZ", "ch": "CH", "swap": "SWAP", "iswap": "ISWAP", "cp": "ControlledPhaseShift", "crx": "CRX", "cry": "CRY",
    "crz": "CRZ", "rxx": "IsingXX", "ryy": "IsingYY", "rzz": "IsingZZ", "ccx": "Toffoli", "ccz": "CCZ",
    "cswap": "CSWAP",
}  # fmt: skip
_ADJOINTS = {"sdg": "S", "tdg": "T"}


def to_pennylane(circuit: Circuit) -> Callable[[Any, Any], None]:
    """A quantum function of `inputs` (…, F) and `weights` (W,), which queues the gates of a circuit.

    Example:
        >>> import pennylane as qml
        >>> c = Circuit(2)
        >>> c.ry(2 * c.weights(1)[0], 0); c.cnot(0, 1)
        >>> print(qml.draw(to_pennylane(c))([], [0.5]))
        0: ──RY(1.00)─╭●─┤
        1: ───────────╰X─┤
    """
    qml = library()
    operations = [step for op in circuit.operations for step in _known(op)]
    width, n_qubits = circuit.n_amplitudes, circuit.n_qubits

    def function(inputs: Any, weights: Any) -> None:
        if width:
            qml.AmplitudeEmbedding(inputs[..., :width], wires=range(n_qubits), normalize=True, pad_with=0.0)
        for name, qubits, params in operations:
            _queue(qml, name, qubits, [_evaluated(qml, angle, inputs, weights, width) for angle in params])

    return function


def to_qnode(circuit: Circuit, measurement: Measurement, device: Any = None, shots: int | None = None) -> Any:
    """A QNode of `inputs` and `weights`, which `qml.qnn.TorchLayer(qnode, {"weights": (W,)})` takes.

    Args:
        circuit: What it runs.
        measurement: What it returns.
        device: A PennyLane device; `default.qubit` by default, `default.mixed` for circuits with channels.
        shots: Samples.

    Raises:
        SpecError: PennyLane has no such measurement.
    """
    qml = library()
    queue, n = to_pennylane(circuit), circuit.n_qubits
    if isinstance(measurement, State) and not all(_is_known(op) for op in circuit.operations):
        raise SpecError("a state has a phase, which PennyLane's gates do not give this circuit: measure DensityMatrix.")
    measured = _measured(qml, measurement, n)

    def function(inputs: Any, weights: Any) -> Any:
        queue(inputs, weights)
        found = [make() for make in measured]
        return found if len(found) > 1 else found[0]

    if device is None:
        device = qml.device("default.mixed" if circuit.noisy else "default.qubit", wires=n)
    return qml.QNode(function, device, shots=shots)


def _known(op: Any) -> Iterator[tuple[Any, tuple[int, ...], tuple[Angle, ...]]]:
    if op.channel is not None and not op.channel.is_readout:
        return iter([(op.channel, op.qubits, ())])
    return within(op, (op.gate,) if _is_known(op) else ())


def _is_known(op: Any) -> bool:
    name = op.gate
    while name.startswith("controlled_"):
        name = name.split("_", 2)[2]
    return name in _THEIRS or name in _ADJOINTS or name.startswith("pauli_rot_")


def _queue(qml: Any, name: Any, qubits: Sequence[int], params: Sequence[Any]) -> Any:
    if isinstance(name, Channel):
        return qml.QubitChannel(list(name.operators), wires=list(qubits))
    if name.startswith("controlled_"):
        _, values, base = name.split("_", 2)
        k = len(values)
        inner = _made(qml, base, qubits[k:], params)
        return qml.ctrl(inner, control=list(qubits[:k]), control_values=[int(bit) for bit in values])
    return _made(qml, name, qubits, params)


def _made(qml: Any, name: str, qubits: Sequence[int], params: Sequence[Any]) -> Any:
    if name.startswith("controlled_"):
        return _queue(qml, name, qubits, params)
    if name.startswith("pauli_rot_"):
        return qml.PauliRot(*params, name.removeprefix("pauli_rot_").upper(), wires=list(qubits))
    if name in _ADJOINTS:
        return qml.adjoint(getattr(qml, _ADJOINTS[name])(wires=list(qubits)))
    return getattr(qml, _THEIRS[name])(*params, wires=list(qubits))


def _evaluated(qml: Any, angle: Angle, inputs: Any, weights: Any, width: int) -> Any:
    """An angle, in whatever arrays its parameters are."""
    total: Any = angle.constant
    for monomial, coefficient in angle.terms:
        term: Any = coefficient
        for kind, index in monomial:
            if kind in FUNCTIONS:
                value = _evaluated(qml, Angle(index), inputs, weights, width)
                value = 1.0 / value if kind == "reciprocal" else getattr(qml.math, kind)(value)
            else:
                value = weights[index] if kind == "w" else inputs[..., width + index]
            term = term * value
        total = total + term if monomial else total
    return total


def _measured(qml: Any, measurement: Measurement, n_qubits: int) -> list[Callable[[], Any]]:
    """What makes each of PennyLane's measurements; called in the function, where they are queued."""
    if measurement.name == "probabilities" and measurement.n_classes is None:  # type: ignore[attr-defined]
        wires = measurement.qubits  # type: ignore[attr-defined]
        return [lambda: qml.probs(wires=list(range(n_qubits) if wires is None else wires))]
    if isinstance(measurement, State):
        return [qml.state]
    if isinstance(measurement, DensityMatrix | Purity | Entropy):
        wires = list(range(n_qubits) if measurement.qubits is None else measurement.qubits)
        if isinstance(measurement, DensityMatrix):
            return [lambda: qml.density_matrix(wires)]
        if isinstance(measurement, Purity):
            return [lambda: qml.purity(wires)]
        if measurement.order == 1:
            base = measurement.base
            return [lambda: qml.vn_entropy(wires, log_base=base)]
    if isinstance(measurement, Variance):
        return [_of_observable(qml, qml.var, o) for o in measurement.observables]
    if not isinstance(measurement, Expectation) and measurement.name != "probabilities":
        raise SpecError(f"PennyLane has no measurement for {shown(measurement)}.", argument="measurement")
    return [_of_observable(qml, qml.expval, observable) for observable in as_observables(measurement, n_qubits)]


def _of_observable(qml: Any, measure: Callable[..., Any], observable: Any) -> Callable[[], Any]:
    words = [
        (qml.pauli.PauliWord({q: letter for q, letter in enumerate(string) if letter != "I"}), coefficient)
        for string, coefficient in observable.terms
    ]
    if len(words) == 1 and words[0][1] == 1.0 and len(words[0][0]):
        return lambda: measure(words[0][0].operation())
    return lambda: measure(qml.pauli.PauliSentence(dict(words)).operation(wire_order=range(observable.n_qubits)))


def library() -> Any:
    """PennyLane, imported."""
    try:
        import pennylane
    except ImportError as error:
        raise BackendUnavailableError(
            f'PennyLane cannot be imported: {error}. Install it with: pip install "qstore[pennylane]"',
            name="pennylane",
        ) from error
    return pennylane


Circuit.to_pennylane = to_pennylane  # type: ignore[attr-defined]
