"""Layers from circuits of other libraries, and to them: the methods that `LayerDefinition` and `QuantumLayer` have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from ..circuit.circuit import Circuit
from ..circuit.spec.layer_spec import LayerSpec
from ..errors import SpecError

if TYPE_CHECKING:
    from ..interchange.common import Imported
    from ..interchange.qiskit import QiskitLayer

__all__ = ["FromElsewhere", "ToElsewhere"]


class ToElsewhere:
    """What every layer has."""

    _spec: LayerSpec
    _program: Any

    def to_pennylane(self, device: Any = None) -> Any:
        """The layer as a QNode of `inputs` (…, F) and `weights` (W,), which take the features and theta.

        Args:
            device: A PennyLane device; `default.qubit` by default.

        Raises:
            SpecError: PennyLane has no such measurement.

        Example:
            >>> import numpy as np
            >>> from qstore_core import QuantumFeatureExtractor
            >>> layer = QuantumFeatureExtractor(2, depth=1, encoding="angle", seed=0)
            >>> qnode, x = layer.to_pennylane(), np.array([[0.1, 0.2]])
            >>> np.abs(np.transpose(qnode(x, layer.theta)) - layer(x)).max() < 1e-10
            np.True_
        """
        from ..interchange import pennylane_writing

        return pennylane_writing.to_qnode(*self._circuit_and_measurement(), device, self._program.execution.shots)

    def to_qiskit(self) -> QiskitLayer:
        """The layer as a Qiskit circuit with observables and parameters, for networks of qiskit-machine-learning.

        Returns:
            `(circuit, observables, input_params, weight_params, interpret, output_shape)`: for an `EstimatorQNN` the
            first four; where the layer gives probabilities, for a `SamplerQNN` all but the observables.

        Raises:
            SpecError: Qiskit has no such measurement, or channels are in the circuit.
        """
        from ..interchange import qiskit

        return qiskit.layer_to_qiskit(*self._circuit_and_measurement())

    def to_openqasm(self, version: int = 3) -> str:
        """The layer's circuit as an OpenQASM program, with measurements at its end where it gives probabilities."""
        from ..interchange import openqasm

        circuit, measurement = self._circuit_and_measurement()
        return openqasm.to_openqasm(circuit, version, measurement)

    def _circuit_and_measurement(self) -> tuple[Circuit, Any]:
        if self._spec.measurement is None:
            raise SpecError(f"{self._spec.kind} runs no circuit, so that there is none to take elsewhere.")
        return self._spec.circuit, self._spec.measurement


class FromElsewhere:
    """What `QuantumLayer` has."""

    @classmethod
    def from_pennylane(
        cls,
        source: Any,
        weight_shapes: Mapping[str, Any] | None = None,
        *,
        weights: Mapping[str, Any] | None = None,
        inputs: str | None = None,
        n_features: int | None = None,
        **arguments: Any,
    ) -> Self:
        """The layer of a PennyLane circuit: its gates and measurements, and its weights where it holds some.

        The circuit alone comes: what computes it is this layer's `backend`. Several measurements are concatenated.

        Args:
            source: A QNode, a quantum function, a tape, or a `qml.qnn.TorchLayer`, whose trained weights come along.
                The trainable parameters of a tape are weights, with their values.
            weight_shapes: Shape of every parameter that is a weight, by name, as for `TorchLayer`. theta is all
                weights, flattened, in this order.
            weights: Trained weights by name, in the place of their shapes.
            inputs: Name of the parameter that takes the features; the one that is no weight by default.
            n_features: Features per sample; by default as many as the circuit uses.
            **arguments: Of the layer: `backend`, `shots`, `measurement` in the place of the circuit's, and so on.

        Raises:
            SpecError: what cannot be said is named, with its position in the circuit.

        Example:
            >>> import numpy as np
            >>> import pennylane as qml
            >>> from qstore_core import QuantumLayer
            >>> @qml.qnode(qml.device("default.qubit", wires=1))
            ... def circuit(inputs, weights):
            ...     qml.RY(inputs[0], wires=0)
            ...     qml.RY(weights, wires=0)
            ...     return qml.expval(qml.Z(0))
            >>> layer = QuantumLayer.from_pennylane(circuit, {"weights": 1}, init="zeros")
            >>> layer(np.array([[0.0], [np.pi]])).round(6)
            array([[ 1.],
                   [-1.]])
        """
        from ..interchange import pennylane

        found = pennylane.from_pennylane(source, weight_shapes, weights=weights, inputs=inputs, n_features=n_features)
        return cls._of(found, arguments)

    @classmethod
    def from_qiskit(
        cls,
        source: Any,
        observables: Any = None,
        input_params: Iterable[Any] | None = None,
        weight_params: Iterable[Any] | None = None,
        *,
        interpret: Callable[[int], Any] | None = None,
        output_shape: int | tuple[int, ...] | None = None,
        **arguments: Any,
    ) -> Self:
        """The layer of a Qiskit circuit, or of a network of qiskit-machine-learning.

        Args:
            source: A `QuantumCircuit`; or an `EstimatorQNN` or `SamplerQNN`, or the `TorchConnector` around one, whose
                weights come along: all else is known then.
            observables: `SparsePauliOp`, `Pauli`, `Operator` or a label of Qiskit, or several: one output each.
            input_params: Parameters that take the features, in this order: parameters, vectors, or names of either.
            weight_params: Parameters that are weights; without, all others, in Qiskit's order.
            interpret: As in `SamplerQNN`: the output that a measured integer belongs to.
            output_shape: How many outputs `interpret` has.
            **arguments: Of the layer: `backend`, `shots`, `measurement` in the place of `observables`, and so on.

        Raises:
            SpecError: what cannot be said is named, with its position in the circuit.

        Example:
            >>> import numpy as np
            >>> from qiskit.circuit import Parameter, QuantumCircuit
            >>> from qstore_core import QuantumLayer
            >>> x, program = Parameter("x"), QuantumCircuit(1)
            >>> _ = program.ry(x, 0)
            >>> QuantumLayer.from_qiskit(program, "Z", [x])(np.array([[0.0], [np.pi]])).round(6)
            array([[ 1.],
                   [-1.]])
        """
        from ..interchange import qiskit

        found = qiskit.from_qiskit(
            source, observables, input_params, weight_params, interpret=interpret, output_shape=output_shape
        )
        return cls._of(found, arguments)

    @classmethod
    def from_openqasm(cls, text: str, measurement: Any = None, *, inputs: Iterable[str] = (), **arguments: Any) -> Self:
        """The layer of an OpenQASM 2 or 3 program.

        Args:
            text: The program.
            measurement: What is read; without, the probabilities of what the program measures at its end.
            inputs: Names of the parameters (`input float[64] name;`) that take the features, in this order; the others
                are weights, in the order of their declarations.
            **arguments: Of the layer.

        Raises:
            SpecError: the program is not valid, or has something that a circuit with parameter slots cannot say.
        """
        from ..interchange import openqasm

        found = openqasm.from_openqasm(text, inputs=inputs)
        return cls._of(found, arguments | ({} if measurement is None else {"measurement": measurement}))

    @classmethod
    def _of(cls, found: Imported, arguments: dict[str, Any]) -> Self:
        measurement = arguments.pop("measurement", found.measurement)
        if measurement is None:
            raise SpecError("the circuit measures nothing: say what, with measurement=.", argument="measurement")
        came: dict[str, Any] = {"n_features": found.n_features, "shots": found.shots}
        if found.theta is not None:
            came["init"] = found.theta
        return cls(found.circuit, measurement, **(came | arguments))  # type: ignore[call-arg]
