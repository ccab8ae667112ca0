"""The layers' names, arguments and documentation: written once, for NumPy, PyTorch and Keras.

Each class here is a mixin. An adapter mixes it with its own base class, which supplies `_define` (create the
parameter, keep the program) and the call: `class QuantumReadout(definition.QuantumReadout, TorchLayer)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from .. import notebook
from ..backends.allowed import check_allowed
from ..circuit.checks import check_choice, check_items, read_fields, shown
from ..circuit.circuit import Circuit
from ..circuit.component import Component
from ..circuit.drawing import WIDTH
from ..circuit.spec import layer_spec as specs
from ..circuit.spec.ansatz import IdentityBlocks
from ..circuit.spec.initial import Init, check_init, init_to_config, initial_theta
from ..circuit.spec.layer_spec import LayerSpec
from ..engines.arrays.planes import Planes
from ..errors import CapabilityError, QstoreError, SpecError
from ..runtime.fallback import FallbackEvent
from ..runtime.program import Execution, LayerProgram
from ..runtime.record import LastRun
from .elsewhere import FromElsewhere, ToElsewhere
from .presets import PRESETS
from .signature import ClassSignature, check_framework_arguments, document, signature_of

__all__ = [
    "LayerDefinition",
    "QuantumEncoder",
    "QuantumFeatureExtractor",
    "QuantumLayer",
    "QuantumPooling",
    "QuantumReadout",
]

_EXECUTION = ("backend", "shots", "gradient", "fallback", "seed")


class LayerDefinition(ToElsewhere):
    """What all layers have in common. Adapters supply `_define`.

    Attributes:
        _framework_arguments: What the framework's base takes besides: name → (default, meaning).
    """

    _spec: LayerSpec
    _program: LayerProgram
    _config: dict[str, Any]
    _init: Init
    _template: ClassVar[str] = ""
    _meanings: ClassVar[dict[str, str]] = {}
    _framework_arguments: ClassVar[dict[str, tuple[Any, str]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Signature and docstring of a layer class, whole in every framework."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls) or cls._template:
            cls.__signature__ = ClassSignature(signature_of(cls, cls._framework_arguments))  # type: ignore[attr-defined]
        own = vars(cls).get("__doc__")
        if own and "{arguments}" in own:
            cls._template = own
        inherited = any(own == base.__doc__ for base in cls.__mro__[1:] if issubclass(base, LayerDefinition))
        if cls._template and (not own or own is cls._template or inherited):
            names = cls.__signature__.parameters  # type: ignore[attr-defined]
            cls.__doc__ = document(cls._template, cls._meanings, cls._framework_arguments, names)

    def _describe(self, make: Callable[..., LayerSpec], given: dict[str, Any]) -> None:
        """Check all arguments and define the layer.

        Args:
            make: Makes the spec, from the arguments that are not about how it is computed.
            given: All arguments by name: `locals()` of `__init__`.
        """
        framework = given.pop("framework")
        given = {name: value for name, value in given.items() if name not in ("self", "__class__")}
        check_framework_arguments(type(self), framework, self._framework_arguments, type(self).__init__)
        if not isinstance(framework.get("name"), str | None):
            raise SpecError(f"name is text, received {shown(framework['name'])}.", argument="name")
        init = self._as_init(given.pop("init", "zeros"))
        computed = {name: given.pop(name) for name in _EXECUTION if name in given}
        if isinstance(computed.get("fallback"), list):
            computed["fallback"] = tuple(computed["fallback"])
        spec = make(**given)
        if spec.user_circuit is not None:
            given |= {"circuit": spec.user_circuit, "measurement": spec.measurement}
        if isinstance(init, tuple):
            initial_theta(init, spec.n_weights)  # as many as it takes
        if init == "identity_blocks" and not isinstance(spec.ansatz, IdentityBlocks):
            raise SpecError(
                'init="identity_blocks" makes levels of the ansatz "identity_blocks" the identity, and none of '
                f'{shown(spec.ansatz)}. Use ansatz="identity_blocks", or init="small_normal".',
                argument="init",
            )
        execution = Execution(**computed)
        if computed:
            given |= {name: getattr(execution, name) for name in _EXECUTION} | {"init": init}
        self._define(spec, execution, init, given, **framework)

    def _define(
        self, spec: LayerSpec, execution: Execution, init: Init, config: dict[str, Any], **framework: Any
    ) -> None:
        raise NotImplementedError

    @classmethod
    def _as_init(cls, init: Any) -> Init:
        """An init in any form that the framework knows."""
        return check_init(init)

    @property
    def spec(self) -> LayerSpec:
        """What the layer computes: frozen, hashable, with `to_dict`, `from_dict` and `fingerprint`."""
        return self._spec

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
        return self.spec.output_shape(check_items(input_shape, "input_shape", 64, "input_shape"))

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values; `from_config` is the inverse.

        Raises:
            SpecError: an argument is an object that no file can hold; the message says what to register.
        """
        return {name: _plain(name, value) for name, value in self._config.items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The layer of a configuration, which may come from a file.

        Everything in it is checked before anything is built. A backend of another package is refused unless the user
        allows it; see `qstore_core.allow_backends`.

        Raises:
            SpecError: an entry is missing, unknown or wrong, or names a backend that is not allowed.
        """
        parameters = cls.__signature__.parameters.values()  # type: ignore[attr-defined]
        named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
        required = [p.name for p in named if p.default is p.empty]
        known = {p.name: p.default for p in named if p.default is not p.empty}
        known |= {name: default for name, (default, _) in cls._framework_arguments.items()}
        what = f"the configuration of a {cls.__name__}"
        entries = {name: value for name, value in read_fields(config, what, required, known).items() if name in config}
        fallback = entries.get("fallback")
        check_allowed([entries.get("backend"), *(fallback if isinstance(fallback, list | tuple) else [fallback])], what)
        try:
            return cls(**cls._restored(entries))
        except QstoreError:
            raise
        except Exception as error:  # the framework's own arguments are checked by the framework
            raise SpecError(f"{what} cannot be used: {type(error).__name__}: {error}") from error

    @classmethod
    def _restored(cls, entries: dict[str, Any]) -> dict[str, Any]:
        """A configuration with the framework's own arguments as the framework's objects."""
        return entries

    def on(self, backend: Any, **execution: Any) -> Self:
        """The same layer, with the same theta, computed elsewhere: `layer.on("aer", shots=1024)`.

        Args:
            backend: As in the constructor.
            **execution: `shots`, `gradient`, `fallback` or `seed`, where they are to change.
        """
        for name in execution:
            check_choice(name, "argument", [n for n in _EXECUTION if n != "backend"], "execution")
        if "backend" not in self._config:
            raise SpecError(
                f"{type(self).__name__} runs no circuit, so that no backend computes it.", argument="backend"
            )
        other = type(self)(**(self._config | {"backend": backend} | execution), **self._framework_config())
        other._take_theta(self)
        return other

    def _framework_config(self) -> dict[str, Any]:
        """The framework's arguments of a copy."""
        return {}

    def _take_theta(self, other: Self) -> None:
        """Give this layer the weights of another one."""
        raise NotImplementedError

    def _put_theta(self, theta: np.ndarray) -> None:
        """Take weights from an array (W,)."""
        raise NotImplementedError

    def _postprocessed(self, ops: Any, values: Any, epsilon: float) -> Any:
        """Outputs from what the circuits gave, in the framework's array functions."""
        assert self._spec.measurement is not None
        measured = self._spec.measurement
        try:
            out = measured.postprocess(ops, values, self._resolution(epsilon))
            return ops.joined(out) if isinstance(out, Planes) else out
        except CapabilityError as error:
            raise CapabilityError(f"{self._program.name} measures {measured.name!r}: {error}") from error

    def _output_dtype(self, dtype: str) -> str:
        """Dtype of the outputs where the framework's rules say `dtype`."""
        measured = self._spec.measurement
        return dtype if measured is None else measured.output_dtype(dtype)

    def _resolution(self, epsilon: float) -> float:
        """What circuits resolve: `epsilon` of their dtype, or one sample."""
        shots = self._program.execution.shots
        return epsilon if shots is None else 1.0 / shots

    def draw(self, width: int | None = WIDTH) -> str:
        """The circuit as text; `width` in characters, None for lines of any length."""
        return self.circuit.draw(width)

    def _repr_html_(self) -> str:
        row = {
            "layer": type(self).__name__,
            "qubits": self.spec.n_qubits,
            "weights": self.spec.n_weights,
            "outputs": self.output_dim,
            "backend": self.backend_name,
        }
        return notebook.table([row]) + notebook.drawing(self.draw())

    def explain(self) -> str:
        """Which backend computes, and why; then where each kind of call computes: eager, in graphs, in transforms."""
        return self._program.explain()

    @classmethod
    def from_preset(cls, preset: str, *args: Any, **overrides: Any) -> Any:
        """A layer with the arguments of a preset.

        Args:
            preset: "speed" (6 qubits, depth 1, Z), "accuracy" (8 qubits, depth 3, Z) or "research" (8 qubits, depth 3,
                Z, X and Y). The number of qubits is that of a feature extractor; other layers are given theirs. What a
                layer does not have is left out.
            *args: Positional arguments of the layer.
            **overrides: Further arguments; they win over the preset.

        Example:
            >>> from qstore_core import QuantumFeatureExtractor
            >>> QuantumFeatureExtractor.from_preset("speed").spec.n_qubits
            6
        """
        chosen = PRESETS[check_choice(preset, "preset", PRESETS, "preset")]
        signature = inspect.signature(cls.__init__)
        given = signature.bind_partial(None, *args, **overrides).arguments
        arguments = {name: value for name, value in chosen.arguments().items() if name in signature.parameters}
        if issubclass(cls, QuantumFeatureExtractor):
            arguments["n_qubits"] = chosen.n_qubits
        if given.get("n_classes") is not None:
            arguments.pop("measurement_bases", None)
        return cls(*args, **({name: value for name, value in arguments.items() if name not in given} | overrides))


def _plain(name: str, value: Any) -> Any:
    """An argument in the form that a saved configuration holds; constructors take it back."""
    if name == "init":
        return init_to_config(value) if not hasattr(value, "to_config") else value.to_config()
    if name in ("backend", "fallback"):
        names = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(v, str) or v is None for v in names):
            raise SpecError(
                f"{name}={shown(value)} is an object and cannot be saved. Register what makes it under a name, with "
                'qstore_core.register_backend("name", function), and give the layer that name; or save '
                'layer.on("auto"), which has the same weights.',
                argument=name,
            )
        return list(names) if isinstance(value, tuple) else value
    if isinstance(value, Circuit | Component):
        return value.to_dict()  # type: ignore[union-attr]
    if isinstance(value, tuple | list):
        return [_plain("", v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


class QuantumEncoder(LayerDefinition):
    """Features → amplitudes: L2-normalised rows, zero-padded to 2**n_qubits. No weights.

    {arguments}

    Shapes:
        Inputs (…, F ≤ 2**n_qubits), outputs (…, 2**n_qubits). A zero row gives |0…0⟩ and zero gradient.
    """

    _meanings: ClassVar[dict[str, str]] = {"n_qubits": "Number of qubits; at most 2**n_qubits features."}

    def __init__(self, n_qubits: int, *, n_features: int | None = None, **framework: Any) -> None:
        self._describe(specs.encoder, locals())


class QuantumFeatureExtractor(LayerDefinition):
    """Encode, evolve, measure every qubit.

    {arguments}

    Shapes:
        Inputs (…, F), outputs (…, n_qubits · bases), basis-major. theta (W,) in radians.

    Raises:
        SpecError: an argument is wrong or unknown.
        CapabilityError: the backend cannot do what is asked for.
    """

    def __init__(
        self,
        n_qubits: int,
        depth: int = 2,
        *,
        encoding: Any = "amplitude",
        ansatz: Any = "hardware_efficient",
        entanglement: Any = None,
        measurement_bases: Any = "Z",
        reuploading: bool = False,
        n_features: int | None = None,
        backend: Any = "auto",
        shots: int | None = None,
        gradient: str = "auto",
        fallback: Any = "auto",
        init: Any = "small_normal",
        seed: int | None = None,
        **framework: Any,
    ) -> None:
        self._describe(specs.feature_extractor, locals())


class QuantumPooling(LayerDefinition):
    """Encode, evolve, keep one qubit of each group of `pool_size`, measure the kept ones.

    {arguments}

    Shapes:
        Inputs (…, F), outputs (…, n_qubits / pool_size · bases). theta: the ansatz's, then 3 angles (RZ, RY, RZ) per
        qubit that is pooled away.

    Source:
        Cong, Choi & Lukin, arXiv:1810.03787.
    """

    _meanings: ClassVar[dict[str, str]] = {
        "pool_size": "Qubits per group; divides n_qubits. The first of each group is kept.",
        "mode": '"measurement" rotates the kept qubit where the others are |1⟩, then traces them out; "partial_trace" '
        "only traces out.",
        "depth": "Levels of the ansatz before pooling.",
    }

    def __init__(
        self,
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
        backend: Any = "auto",
        shots: int | None = None,
        gradient: str = "auto",
        fallback: Any = "auto",
        init: Any = "small_normal",
        seed: int | None = None,
        **framework: Any,
    ) -> None:
        self._describe(specs.pooling, locals())


class QuantumReadout(LayerDefinition):
    """Encode, evolve, read class probabilities or ⟨Z⟩ per qubit.

    {arguments}

    Shapes:
        Inputs (…, F), outputs (…, n_classes) or (…, n_qubits · bases).
    """

    _meanings: ClassVar[dict[str, str]] = {
        "n_classes": "Number of classes: outputs are Born-rule probabilities, bitstring index modulo n_classes, sum 1. "
        "None: expectation values per qubit.",
        "log": "Natural logarithms of the class probabilities, with finite gradients also where a probability is 0: "
        "what a negative log-likelihood takes. See `qstore_core.LogProbabilities`.",
        "measurement_bases": '"Z", or a sequence such as ("Z", "X", "Y"); without n_classes only.',
    }

    def __init__(
        self,
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
        backend: Any = "auto",
        shots: int | None = None,
        gradient: str = "auto",
        fallback: Any = "auto",
        init: Any = "small_normal",
        seed: int | None = None,
        **framework: Any,
    ) -> None:
        self._describe(specs.readout, locals())


class QuantumLayer(FromElsewhere, LayerDefinition):
    """Any circuit as a layer.

    {arguments}

    Shapes:
        Inputs (…, n_amplitudes + n_inputs): amplitudes first, which are normalised; outputs (…, O), matrices
        (…, d, d) of `DensityMatrix`.
    """

    _meanings: ClassVar[dict[str, str]] = {
        "circuit": "A `Circuit`; building stops here, it is frozen.",
        "measurement": "`Expectation(...)`, `Probabilities(...)`, `Variance(...)`, `Entropy(...)` or another "
        "measurement, one of yours (`register_measurement`), or Pauli observables, one output each.",
    }

    def __init__(
        self,
        circuit: Circuit | Mapping[str, Any],
        measurement: Any,
        *,
        n_features: int | None = None,
        backend: Any = "auto",
        shots: int | None = None,
        gradient: str = "auto",
        fallback: Any = "auto",
        init: Any = "small_normal",
        seed: int | None = None,
        **framework: Any,
    ) -> None:
        self._describe(specs.custom, locals())
