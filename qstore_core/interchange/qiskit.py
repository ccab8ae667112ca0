"""Circuits from and to Qiskit, and the networks of qiskit-machine-learning.

Qiskit counts qubits from the least significant bit: qubit q is qubit q here too, while bitstrings, matrices and Pauli
labels read the other way round; they are turned at this border.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..circuit.angles.angle import FUNCTIONS, Angle
from ..circuit.checks import MAX_OPERATIONS, check_choice, check_items, shown
from ..circuit.circuit import Circuit
from ..circuit.measurements.measurement import Expectation, Measurement, Probabilities
from ..errors import BackendUnavailableError, SpecError
from .common import Imported, within
from .qiskit_reading import KNOWN, THEIRS, Reader

__all__ = ["QiskitLayer", "from_qiskit", "layer_to_qiskit", "library", "measure", "to_qiskit", "written"]


class QiskitLayer(NamedTuple):
    """A layer in the terms of qiskit-machine-learning.

    `EstimatorQNN(circuit=…, observables=…, input_params=…, weight_params=…)` takes the first four. Where the layer
    gives probabilities, `observables` is None, the circuit ends in measurements, and `SamplerQNN` takes the last two
    as well.
    """

    circuit: Any
    observables: list[Any] | None
    input_params: list[Any]
    weight_params: list[Any]
    interpret: Callable[[int], int] | None = None
    output_shape: int | None = None


# -- from -------------------------------------------------------------------------------------------------------------


def from_qiskit(
    source: Any,
    observables: Any = None,
    input_params: Iterable[Any] | None = None,
    weight_params: Iterable[Any] | None = None,
    *,
    interpret: Callable[[int], Any] | None = None,
    output_shape: int | tuple[int, ...] | None = None,
) -> Imported:
    """A circuit, and what it measures, from Qiskit.

    Args:
        source: A `QuantumCircuit`; or an `EstimatorQNN` or `SamplerQNN` of qiskit-machine-learning, or what is around
            one with its weights (`TorchConnector`, a fitted `NeuralNetworkClassifier`): all else is known then.
        observables: `SparsePauliOp`, `Pauli`, `Operator`, a label such as "IIZ", or several of them: one output each.
            Without, a circuit that ends in measurements gives the probabilities of their results.
        input_params: Parameters that take the features, in this order: parameters, vectors, or names of either.
        weight_params: Parameters that are weights; without, all others, in Qiskit's order.
        interpret: As in `SamplerQNN`: the output that a measured integer belongs to.
        output_shape: How many outputs `interpret` has.

    Raises:
        SpecError: what cannot be said is named, with its position in the circuit.

    Example:
        >>> from qiskit.circuit import Parameter, QuantumCircuit
        >>> theta, x = Parameter("theta"), Parameter("x")
        >>> program = QuantumCircuit(2)
        >>> _ = program.ry(2 * x, 0), program.rzz(theta * x, 0, 1)
        >>> found = from_qiskit(program, "IZ", input_params=[x])
        >>> [str(op) for op in found.circuit.operations], str(found.measurement.observables[0])
        (['ry(2*x0) 0', 'rzz(w0*x0) 0 1'], 'ZI')
    """
    qiskit, theta = library(), None
    if hasattr(source, "neural_network"):
        theta = _weights_of(qiskit, source)
        source = source.neural_network
    if hasattr(source, "weight_params") and hasattr(source, "circuit"):  # EstimatorQNN, SamplerQNN
        observables = getattr(source, "observables", observables)
        input_params, weight_params = source.input_params, source.weight_params
        if hasattr(source, "interpret"):
            interpret, output_shape = source.interpret, source.output_shape
        source = source.circuit
        if output_shape is not None and not source.clbits:
            source = source.copy()
            source.measure_all()
    if not isinstance(source, qiskit.QuantumCircuit):
        raise SpecError(
            f"a QuantumCircuit, EstimatorQNN, SamplerQNN or TorchConnector is expected, received {shown(source)}."
        )
    reader = Reader(source, *_parameters(source, input_params, weight_params))
    if observables is not None:
        return Imported(reader.circuit, reader.expectation(observables), theta)
    return Imported(reader.circuit, reader.probabilities(interpret, output_shape), theta)


def _weights_of(qiskit: Any, source: Any) -> np.ndarray | None:
    """Of a TorchConnector or a fitted model; None where there are none yet."""
    try:
        weights = source.weight if hasattr(source, "weight") else source.weights
    except qiskit.exceptions.QiskitError:  # not fitted yet
        return None
    for method in ("detach", "cpu", "numpy"):
        weights = getattr(weights, method)() if hasattr(weights, method) else weights
    return np.asarray(weights, np.float64).ravel()


def _parameters(program: Any, inputs: Iterable[Any] | None, weights: Iterable[Any] | None) -> tuple[list[Any], ...]:
    """Input and weight parameters, in order."""
    own = list(program.parameters)
    found_inputs, found_weights = (
        None if given is None else _found(own, given, argument)
        for given, argument in ((inputs, "input_params"), (weights, "weight_params"))
    )
    if found_weights is None:
        found_inputs = found_inputs or []
        return found_inputs, [p for p in own if p not in found_inputs]
    if found_inputs is None:
        found_inputs = [p for p in own if p not in found_weights]
    if both := [p.name for p in found_inputs if p in found_weights]:
        raise SpecError(f"{', '.join(both)} cannot be inputs and weights.", argument="input_params")
    if rest := [p.name for p in own if p not in found_inputs and p not in found_weights]:
        raise SpecError(f"parameters {', '.join(rest)} are neither inputs nor weights.", argument="weight_params")
    return found_inputs, found_weights


def _found(own: list[Any], given: Any, argument: str) -> list[Any]:
    found: list[Any] = []
    for item in [given] if isinstance(given, str) else check_items(given, argument, MAX_OPERATIONS, argument):
        if isinstance(item, str):
            names = {p.name: [p] for p in own}
            for p in own:
                if getattr(p, "vector", None) is not None:
                    names.setdefault(p.vector.name, []).append(p)
            found += names[check_choice(item, "parameter", names, argument)]
        elif hasattr(item, "params"):  # a ParameterVector
            found += list(item.params)
        elif hasattr(item, "uuid"):
            found.append(item)
        else:
            raise SpecError(f"{argument} are parameters or their names, received {shown(item)}.", argument=argument)
    known = {p.name for p in own}
    if strangers := [p.name for p in found if p not in own and p.name in known]:
        raise SpecError(
            f"{argument}: {', '.join(strangers)} are other parameters of the same names than the circuit's. Take "
            "those of circuit.parameters, or give the names.",
            argument=argument,
        )
    if len(set(found)) < len(found):
        raise SpecError(f"{argument} names a parameter twice.", argument=argument)
    return found


# -- to ---------------------------------------------------------------------------------------------------------------


def to_qiskit(circuit: Circuit) -> Any:
    """The `qiskit.QuantumCircuit` of a circuit; slots become the vectors `x` and `w`.

    Qubit q is qubit q. Where amplitudes are inputs, they are a `raw_feature_vector` of qiskit-machine-learning, which
    counts them from the least significant qubit: the register is turned round then, qubit q is qubit n - 1 - q.

    Example:
        >>> c = Circuit(1)
        >>> c.ry(c.weights(1)[0], 0)
        >>> to_qiskit(c).parameters
        ParameterView([ParameterVectorElement(w[0])])
    """
    library()
    from qiskit.circuit import ParameterVector

    features = circuit.n_amplitudes + circuit.n_inputs
    return written(circuit, ParameterVector("x", features), ParameterVector("w", circuit.n_weights))


def written(circuit: Circuit, x: Sequence[Any], w: Sequence[Any]) -> Any:
    """A circuit with these parameters; amplitudes are the first of `x`."""
    out, place = library().QuantumCircuit(circuit.n_qubits), _place(circuit)
    if circuit.n_amplitudes:
        raw = _raw_feature_vector()(circuit.n_amplitudes)
        out.compose(raw.assign_parameters(dict(zip(raw.parameters, x, strict=False))), inplace=True)
    slots = {"x": x[circuit.n_amplitudes :], "w": w}

    def value(angle: Angle) -> Any:
        return sum((c * math.prod((slot(kind, k) for kind, k in m), start=1) for m, c in angle.terms), 0.0)

    def slot(kind: str, k: Any) -> Any:
        if kind not in FUNCTIONS:
            return slots[kind][k]
        if kind == "tanh":
            raise SpecError("Qiskit's parameters have no tanh.")
        inner = value(Angle(k))
        if kind in ("sqrt", "reciprocal"):
            return inner**0.5 if kind == "sqrt" else 1.0 / inner
        return getattr(inner, kind)()

    for op in circuit.operations:
        if not _write_controlled(out, op, value, place):
            for name, qubits, params in within(op, KNOWN):
                getattr(out, THEIRS.get(name, name))(*map(value, params), *(place[q] for q in qubits))
    return out


def _place(circuit: Circuit) -> Sequence[int]:
    """Where the qubits of a circuit are in its program."""
    return range(circuit.n_qubits)[:: -1 if circuit.n_amplitudes else 1]


def _raw_feature_vector() -> Any:
    try:
        from qiskit_machine_learning.circuit.library import raw_feature_vector
    except ImportError as error:
        raise BackendUnavailableError(
            "amplitudes that are inputs are an instruction of qiskit-machine-learning, which cannot be imported: "
            f"{error}. Install it with: pip install qiskit-machine-learning",
            name="qiskit_machine_learning",
        ) from error
    return raw_feature_vector


def _write_controlled(out: Any, op: Any, value: Callable[[Angle], Any], place: Sequence[int]) -> bool:
    """A controlled gate whose base Qiskit has."""
    if not op.gate.startswith("controlled_"):
        return False
    _, values, base = op.gate.split("_", 2)
    if base not in KNOWN:
        return False
    from qiskit.circuit.library import get_standard_gate_name_mapping

    name = THEIRS.get(base, base)
    made = get_standard_gate_name_mapping()[name].base_class(*map(value, op.params))
    out.append(
        made.control(len(values), ctrl_state=int(values[::-1], 2), annotated=False), [place[q] for q in op.qubits]
    )
    return True


def layer_to_qiskit(circuit: Circuit, measurement: Measurement) -> QiskitLayer:
    """A circuit and what it measures.

    Raises:
        SpecError: Qiskit has no such measurement, or no gates for a channel.
    """
    library()
    from qiskit.circuit import ParameterVector
    from qiskit.quantum_info import SparsePauliOp

    features = circuit.n_amplitudes + circuit.n_inputs
    x, w = list(ParameterVector("x", features)), list(ParameterVector("w", circuit.n_weights))
    program, place = written(circuit, x, w), _place(circuit)
    if isinstance(measurement, Expectation):
        observables = [
            SparsePauliOp(["".join(s[q] for q in place)[::-1] for s, _ in o.terms], [c for _, c in o.terms])
            for o in measurement.as_observables(circuit.n_qubits)
        ]
        return QiskitLayer(program, observables, x, w)
    if not isinstance(measurement, Probabilities):
        raise SpecError(f"Qiskit has no measurement for {shown(measurement)}.", argument="measurement")
    measure(
        program, [place[q] for q in (range(circuit.n_qubits) if measurement.qubits is None else measurement.qubits)]
    )
    outputs = measurement.n_outputs(circuit.n_qubits)
    return QiskitLayer(program, None, x, w, lambda k: k % outputs, outputs)


def measure(program: Any, qubits: Sequence[int] | None) -> None:
    """Measure qubits, the first one into the most significant bit; None for all."""
    from qiskit.circuit import ClassicalRegister

    where = range(program.num_qubits) if qubits is None else qubits
    program.add_register(ClassicalRegister(len(where), "c"))
    program.measure(list(reversed(where)), range(len(where)))


def library() -> Any:
    """Qiskit, imported."""
    try:
        import qiskit
        import qiskit.qasm2
        import qiskit.qasm3
    except ImportError as error:
        raise BackendUnavailableError(
            f'Qiskit cannot be imported: {error}. Install it with: pip install "qstore[aer]"',
            name="qiskit",
        ) from error
    return qiskit


Circuit.to_qiskit = to_qiskit  # type: ignore[attr-defined]
