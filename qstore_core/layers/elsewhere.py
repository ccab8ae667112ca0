"""Layers from circuits of other libraries, and to them: the methods that `LayerDefinition` and `QuantumLayer` have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from ..circuit.circuit import Circuit
from ..circuit.spec import LayerSpec
from ..errors import SpecError
from ..interchange import pennylane
from ..interchange.common import Imported

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
        return pennylane.to_qnode(*self._circuit_and_measurement(), device, self._program.execution.shots)

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
        found = pennylane.from_pennylane(source, weight_shapes, weights=weights, inputs=inputs, n_features=n_features)
        return cls._of(found, arguments)

    @classmethod
    def _of(cls, found: Imported, arguments: dict[str, Any]) -> Self:
        measurement = arguments.pop("measurement", found.measurement)
        if measurement is None:
            raise SpecError("the circuit measures nothing: say what, with measurement=.", argument="measurement")
        came: dict[str, Any] = {"n_features": found.n_features, "shots": found.shots}
        if found.theta is not None:
            came["init"] = found.theta
        return cls(found.circuit, measurement, **(came | arguments))  # type: ignore[call-arg]
