"""The layers' names, arguments and documentation: written once, for NumPy, PyTorch and Keras.

Each class here is a mixin. An adapter mixes it with its own base class, which supplies `_define` (create the
parameter, keep the program) and the call: `class QuantumReadout(definition.QuantumReadout, TorchLayer)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ..circuit import spec as specs
from ..circuit.ansatz import Ansatz
from ..circuit.circuit import Circuit
from ..circuit.drawing import draw
from ..circuit.encoding import Encoding
from ..circuit.initial import Init, check_init
from ..circuit.measurement import Measurement
from ..circuit.spec import LayerSpec
from ..errors import SpecError, nearest
from ..runtime.fallback import FallbackEvent
from ..runtime.program import Execution, LayerProgram
from ..runtime.record import LastRun

__all__ = [
    "PRESETS",
    "LayerDefinition",
    "QuantumEncoder",
    "QuantumFeatureExtractor",
    "QuantumLayer",
    "QuantumPooling",
    "QuantumReadout",
]

PRESETS: dict[str, dict[str, Any]] = {
    "speed": {"depth": 1, "entanglement": "linear"},
    "accuracy": {"depth": 3, "entanglement": "full", "measurement_bases": ("Z", "X", "Y")},
    "research": {"depth": 4, "ansatz": "strongly_entangling", "measurement_bases": ("Z", "X", "Y")},
}


class LayerDefinition:
    """What all layers have in common. Adapters supply `_define`."""

    _program: LayerProgram
    _config: dict[str, Any]
    _init: Init
    _spec_arguments: ClassVar[tuple[str, ...]] = ()

    def _describe(
        self,
        spec: LayerSpec,
        arguments: Mapping[str, Any],
        execution: Execution,
        init: Init,
        framework: dict[str, Any],
    ) -> None:
        check_init(init)
        config = {k: _plain(v) for k, v in arguments.items()}
        if spec.measurement is not None:
            config |= {
                "backend": execution.backend,
                "shots": execution.shots,
                "gradient": execution.gradient,
                "fallback": list(execution.fallback) if isinstance(execution.fallback, tuple) else execution.fallback,
                "init": init,
                "seed": execution.seed,
            }
        self._define(spec, execution, init, config, **framework)

    def _define(
        self, spec: LayerSpec, execution: Execution, init: Init, config: dict[str, Any], **framework: Any
    ) -> None:
        raise NotImplementedError

    @property
    def spec(self) -> LayerSpec:
        """What the layer computes: frozen, hashable, with `to_dict` and `from_dict`."""
        return self._program.spec

    @property
    def circuit(self) -> Circuit:
        """The layer's circuit."""
        return self.spec.circuit

    @property
    def output_dim(self) -> int:
        """Outputs per sample."""
        return self.spec.output_dim

    @property
    def backend_name(self) -> str:
        """Name of the backend that computes."""
        return self._program.backend_name

    @property
    def fallbacks(self) -> dict[FallbackEvent, int]:
        """Fallbacks that this layer took, by kind."""
        return dict(self._program.chain.counts)

    @property
    def last_run(self) -> LastRun | None:
        """What really happened in the last call: backend, shots, jobs, retries, fallback, times, standard errors.

        The last call that returned, in whichever thread; None before the first. Calls inside graphs of framework
        operations (`tf.function` on the engine "tensorflow", `torch.export`) leave no record: Python does not see them.
        """
        return self._program.last_run

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Shape of the outputs for inputs of `input_shape`; None stands for an unknown size."""
        return self.spec.output_shape(tuple(input_shape))

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values.

        Raises:
            SpecError: the backend, one of the fallbacks or init is an object, which no file can hold.
        """
        for key in ("backend", "fallback", "init"):
            value = self._config.get(key)
            if value is not None and not all(
                isinstance(v, str) for v in (value if isinstance(value, list) else [value])
            ):
                raise SpecError(
                    f"{key}={value!r} is an object and cannot be saved. Give the layer a name instead, for example "
                    f"one registered with register_backend.",
                    argument=key,
                )
        return dict(self._config)

    def draw(self) -> str:
        """The circuit as text."""
        return draw(self.circuit)

    def explain(self) -> str:
        """Which backend computes, and why; then where each kind of call computes: eager, in graphs, in transforms."""
        return self._program.explain()

    @classmethod
    def from_preset(cls, preset: str, *args: Any, **overrides: Any) -> Any:
        """A layer with the arguments of a preset.

        Args:
            preset: "speed" (depth 1, linear entanglement), "accuracy" (depth 3, bases Z, X, Y) or "research"
                (depth 4, strongly entangling, bases Z, X, Y). What a layer does not have is left out.
            *args: Positional arguments of the layer.
            **overrides: Further arguments; they win over the preset.
        """
        if not isinstance(preset, str) or preset not in PRESETS:
            raise SpecError(
                f"no preset {preset!r}. Known: {', '.join(PRESETS)}.{nearest(str(preset), PRESETS)}",
                argument="preset",
            )
        chosen = {k: v for k, v in PRESETS[preset].items() if k in cls._spec_arguments}
        return cls(*args, **(chosen | overrides))


def _plain(value: Any) -> Any:
    """An argument in the form that a saved configuration holds; constructors take it back."""
    if isinstance(value, Circuit):
        return value.to_dict()
    if isinstance(value, Encoding | Ansatz):
        return specs.value_to_dict(value)
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


class QuantumEncoder(LayerDefinition):
    """Features → amplitudes: L2-normalised rows, zero-padded to 2**n_qubits. No weights.

    Args:
        n_qubits: Number of qubits; at most 2**n_qubits features.

    Shapes:
        Inputs (…, F ≤ 2**n_qubits), outputs (…, 2**n_qubits). A zero row gives |0…0⟩ and zero gradient.
    """

    _spec_arguments = ("n_qubits",)

    def __init__(self, n_qubits: int, **framework: Any) -> None:
        """Describe the layer."""
        self._describe(specs.encoder(n_qubits), {"n_qubits": n_qubits}, Execution(), "zeros", framework)


class QuantumFeatureExtractor(LayerDefinition):
    """Encode, evolve, measure every qubit.

    Args:
        n_qubits: Number of qubits.
        depth: Levels of the ansatz.
        encoding: "amplitude" (F ≤ 2**n_qubits), "angle", "basis", "iqp", "zz" (F = n_qubits), or an object.
        ansatz: "hardware_efficient", "strongly_entangling", "real_amplitudes", or an object.
        entanglement: "linear", "circular", "full", "none", or (control, target) pairs.
        measurement_bases: "Z", or a sequence such as ("Z", "X", "Y"); all bases are read from one state.
        reuploading: Encode again before every level (not with amplitude encoding).
        backend: "auto", a name, or a `Backend`.
        shots: Samples per circuit; None for exact values.
        gradient: "auto" (exact: the backend's own, else parameter-shift), "adjoint", "parameter-shift"; or an
            approximation from two sets of circuits that differ a little: "finite-difference" (two circuits per weight
            and feature), "spsa" (two circuits in all, along seeded random directions: right on average only).
        fallback: What computes when the backend fails: "auto" (QSTORE_FALLBACK where it is set; else the local exact
            simulator; nothing where the backend is one of ours), None (raise), or names.
        init: "small_normal", "normal", "uniform", "zeros", or a function (generator, size) → values.
        seed: Of the initial theta and of sampling.

    Shapes:
        Inputs (…, F), outputs (…, n_qubits · bases), basis-major. theta (W,) in radians.

    Raises:
        SpecError: an argument is wrong or unknown.
        CapabilityError: the backend cannot do what is asked for.
    """

    _spec_arguments = (
        "n_qubits",
        "depth",
        "encoding",
        "ansatz",
        "entanglement",
        "measurement_bases",
        "reuploading",
    )

    def __init__(
        self,
        n_qubits: int,
        depth: int = 2,
        *,
        encoding: Any = "amplitude",
        ansatz: Any = "hardware_efficient",
        entanglement: Any = "full",
        measurement_bases: Any = "Z",
        reuploading: bool = False,
        backend: Any = "auto",
        shots: int | None = None,
        gradient: str = "auto",
        fallback: Any = "auto",
        init: Init = "small_normal",
        seed: int | None = None,
        **framework: Any,
    ) -> None:
        """Describe the layer."""
        arguments = {
            "n_qubits": n_qubits,
            "depth": depth,
            "encoding": encoding,
            "ansatz": ansatz,
            "entanglement": entanglement,
            "measurement_bases": measurement_bases,
            "reuploading": reuploading,
        }
        execution = Execution(backend, shots, gradient, _chain(fallback), seed)
        self._describe(specs.feature_extractor(**arguments), arguments, execution, init, framework)


class QuantumPooling(LayerDefinition):
    """Encode, evolve, keep one qubit of each group of `pool_size`, measure the kept ones.

    Args:
        n_qubits: Number of qubits.
        pool_size: Qubits per group; divides n_qubits. The first of each group is kept.
        mode: "measurement" turns the kept qubit where the others are |1⟩, then traces them out; "partial_trace"
            only traces out.
        depth: Levels of the ansatz before pooling.
        encoding: As in `QuantumFeatureExtractor`, with all further arguments.
        ansatz: See there.
        entanglement: See there.
        measurement_bases: See there.
        reuploading: See there.
        backend: See there.
        shots: See there.
        gradient: See there.
        fallback: See there.
        init: See there.
        seed: See there.

    Shapes:
        Inputs (…, F), outputs (…, n_qubits / pool_size · bases). theta: the ansatz's, then 3 angles (RZ, RY, RZ) per
        qubit that is pooled away.

    Source:
        Cong, Choi & Lukin, arXiv:1810.03787.
    """

    _spec_arguments = (
        "n_qubits",
        "pool_size",
        "mode",
        "depth",
        "encoding",
        "ansatz",
        "entanglement",
        "measurement_bases",
        "reuploading",
    )

    def __init__(
        self,
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
        backend: Any = "auto",
        shots: int | None = None,
        gradient: str = "auto",
        fallback: Any = "auto",
        init: Init = "small_normal",
        seed: int | None = None,
        **framework: Any,
    ) -> None:
        """Describe the layer."""
        arguments = {
            "n_qubits": n_qubits,
            "pool_size": pool_size,
            "mode": mode,
            "depth": depth,
            "encoding": encoding,
            "ansatz": ansatz,
            "entanglement": entanglement,
            "measurement_bases": measurement_bases,
            "reuploading": reuploading,
        }
        execution = Execution(backend, shots, gradient, _chain(fallback), seed)
        self._describe(specs.pooling(**arguments), arguments, execution, init, framework)


class QuantumReadout(LayerDefinition):
    """Encode, evolve, read class probabilities or ⟨Z⟩ per qubit.

    Args:
        n_qubits: Number of qubits.
        n_classes: Number of classes: outputs are Born-rule probabilities, bitstring index modulo n_classes, sum 1.
            None: expectation values per qubit.
        depth: Levels of the ansatz.
        encoding: As in `QuantumFeatureExtractor`, with all further arguments.
        ansatz: See there.
        entanglement: See there.
        measurement_bases: See there; without n_classes only.
        reuploading: See there.
        backend: See there.
        shots: See there.
        gradient: See there.
        fallback: See there.
        init: See there.
        seed: See there.

    Shapes:
        Inputs (…, F), outputs (…, n_classes) or (…, n_qubits · bases).
    """

    _spec_arguments = (
        "n_qubits",
        "n_classes",
        "depth",
        "encoding",
        "ansatz",
        "entanglement",
        "measurement_bases",
        "reuploading",
    )

    def __init__(
        self,
        n_qubits: int,
        n_classes: int | None = None,
        *,
        depth: int = 1,
        encoding: Any = "amplitude",
        ansatz: Any = "hardware_efficient",
        entanglement: Any = "full",
        measurement_bases: Any = "Z",
        reuploading: bool = False,
        backend: Any = "auto",
        shots: int | None = None,
        gradient: str = "auto",
        fallback: Any = "auto",
        init: Init = "small_normal",
        seed: int | None = None,
        **framework: Any,
    ) -> None:
        """Describe the layer."""
        arguments = {
            "n_qubits": n_qubits,
            "n_classes": n_classes,
            "depth": depth,
            "encoding": encoding,
            "ansatz": ansatz,
            "entanglement": entanglement,
            "measurement_bases": measurement_bases,
            "reuploading": reuploading,
        }
        execution = Execution(backend, shots, gradient, _chain(fallback), seed)
        self._describe(specs.readout(**arguments), arguments, execution, init, framework)


class QuantumLayer(LayerDefinition):
    """Any circuit as a layer.

    Args:
        circuit: A `Circuit`; building stops here, it is frozen.
        measurement: `Expectation(...)`, `Probabilities(...)`, or Pauli observables, one output each.
        backend: As in `QuantumFeatureExtractor`, with all further arguments.
        shots: See there.
        gradient: See there.
        fallback: See there.
        init: See there.
        seed: See there.

    Shapes:
        Inputs (…, n_amplitudes + n_inputs): amplitudes first, which are normalised; outputs (…, O).
    """

    _spec_arguments = ("circuit", "measurement")

    def __init__(
        self,
        circuit: Circuit | Mapping[str, Any],
        measurement: Any,
        *,
        backend: Any = "auto",
        shots: int | None = None,
        gradient: str = "auto",
        fallback: Any = "auto",
        init: Init = "small_normal",
        seed: int | None = None,
        **framework: Any,
    ) -> None:
        """Describe the layer."""
        spec = specs.custom(circuit, measurement)
        assert spec.measurement is not None
        measured: Measurement = spec.measurement
        arguments = {"circuit": spec.circuit, "measurement": specs.measurement_to_dict(measured)}
        execution = Execution(backend, shots, gradient, _chain(fallback), seed)
        self._describe(spec, arguments, execution, init, framework)


def _chain(fallback: Any) -> Any:
    return tuple(fallback) if isinstance(fallback, list) else fallback
