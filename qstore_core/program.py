"""`LayerProgram`: one layer's way from features to outputs and gradients, for every framework.

Host path (NumPy in, NumPy out): check → encode → compiled circuit → outputs, with fallback and the choice of the
gradient method. Tensor path: the same encoding in the framework's ops, then `Executable.apply`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from . import profiling
from .backend import Backend
from .circuit import whole_number
from .compile import Recipe, compiled
from .differentiate import ParameterShift, unshared
from .encoding import check_finite, unit_rows, unit_rows_and_pull, unit_rows_of_array
from .errors import BackendError, CapabilityError, GradientError, InputError, ShapeError, SpecError, nearest
from .fallback import Ladder
from .plugins import get_backend, list_backends
from .spec import LayerSpec

__all__ = ["Execution", "LayerProgram", "choose_backend"]

OWN_ENGINES = ("statevector", "numba", "torch", "tensorflow")
_GRADIENTS = ("auto", "adjoint", "parameter-shift")

Pullback = Callable[[np.ndarray], tuple[np.ndarray, "np.ndarray | None"]]


@dataclass(frozen=True)
class Execution:
    """How a layer is computed, as opposed to what it computes (`LayerSpec`).

    Attributes:
        backend: Name ("name:device" for a backend of devices), a `Backend`, or "auto".
        shots: Samples per circuit; None for exact values.
        gradient: "auto", "adjoint" or "parameter-shift".
        fallback: "auto" (the local exact simulator for backends that are not ours), None, a name or names.
        seed: Of sampling and of the initial theta.
    """

    backend: Any = "auto"
    shots: int | None = None
    gradient: str = "auto"
    fallback: Any = "auto"
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without a backend."""
        for argument, least, meaning in (("shots", 1, "exact"), ("seed", 0, "a new one each time")):
            value = getattr(self, argument)
            if value is None:
                continue
            number = whole_number(value)
            if number is None or number < least:
                raise SpecError(
                    f"{argument} is None ({meaning}) or a whole number of at least {least}, received {value!r}.",
                    argument=argument,
                )
            object.__setattr__(self, argument, number)
        if self.gradient not in _GRADIENTS:
            raise SpecError(
                f"no gradient method {self.gradient!r}. Known: {', '.join(_GRADIENTS)}."
                f"{nearest(str(self.gradient), _GRADIENTS)}",
                argument="gradient",
            )
        if self.gradient == "adjoint" and self.shots is not None:
            raise CapabilityError(
                f"adjoint differentiation needs the statevector, but the layer asks for shots={self.shots}. "
                'Use gradient="parameter-shift", or shots=None.'
            )


def choose_backend(framework: str | None, shots: int | None) -> tuple[str, str]:
    """The backend that "auto" stands for, and why."""
    if shots is not None:
        raise CapabilityError(
            f"shots={shots} needs a backend that samples. Name one: {', '.join(_other_names()) or 'none is installed'}."
        )
    if _has_numba():
        return "numba", "the fastest engine on a CPU at every size"
    return framework or "statevector", 'numba, which is faster on a CPU, is not installed: pip install "qstore[fast]"'


def _other_names() -> list[str]:
    return [info.name for info in list_backends() if info.name not in OWN_ENGINES]


@lru_cache(maxsize=1)
def _has_numba() -> bool:
    return find_spec("numba") is not None and any(info.name == "numba" for info in list_backends())


class LayerProgram:
    """Runs one layer. Safe to share between threads; holds no weights.

    Args:
        spec: What is computed.
        execution: How.
        name: Layer name, for messages and profiles.
        framework: None (NumPy), "torch" or "tensorflow": whose tensors the layer meets.

    Attributes:
        twin: With backend "auto": the same layer on the framework's own engine, for tensors on a GPU, function
            transforms, second derivatives and exported graphs. None where the backend was named, or is that engine.
    """

    def __init__(self, spec: LayerSpec, execution: Execution, *, name: str, framework: str | None = None) -> None:
        """Resolve the backends; compile nothing yet."""
        self.spec, self.execution, self.name, self.framework = spec, execution, name, framework
        self._recipes: dict[tuple[int, str, bool], Recipe] = {}
        self.reason = "as asked"
        self.twin: LayerProgram | None = None
        if spec.measurement is None:
            self._check_memory()
            self.backends: tuple[Backend, ...] = ()
            self.ladder = Ladder(name, ())
            return
        backend = execution.backend
        if isinstance(backend, str) and backend == "auto":
            backend, self.reason = choose_backend(framework, execution.shots)
            if framework is not None and backend != framework:
                twin = replace(execution, backend=framework, fallback=None)
                self.twin = LayerProgram(spec, twin, name=name, framework=framework)
        first = get_backend(backend)
        chain = _fallback_names(execution.fallback, first)
        self.backends = (first, *(get_backend(name) for name in chain))
        self.ladder = Ladder(name, [b.name for b in self.backends])
        self._check(first)
        # An engine that normalises features itself does so in the pass that loads them.
        self._may_pass_features = spec.encoding.is_amplitude and len(self.backends) == 1 and not self._shifts(0)

    def _check(self, backend: Backend) -> None:
        capabilities, shots = backend.capabilities, self.execution.shots
        if shots is not None and not capabilities.shots:
            raise CapabilityError(
                f"backend {backend.name!r} computes exact values, but the layer asks for shots={shots}. "
                "Use shots=None, or a backend that samples.",
                backend=backend.name,
            )
        if shots is None and not capabilities.exact:
            raise CapabilityError(
                f"backend {backend.name!r} can only sample. Give the layer shots=, for example shots=1024.",
                backend=backend.name,
            )
        if capabilities.max_qubits is not None and self.spec.n_qubits > capabilities.max_qubits:
            raise CapabilityError(
                f"backend {backend.name!r} takes at most {capabilities.max_qubits} qubits, the layer has "
                f"{self.spec.n_qubits}.",
                backend=backend.name,
            )
        if self.execution.gradient == "adjoint" and not capabilities.vjp:
            raise GradientError(
                f'backend {backend.name!r} has no adjoint gradients. Use gradient="parameter-shift" or "auto".',
                backend=backend.name,
            )
        if backend.name in OWN_ENGINES:
            self._check_memory(backend=backend.name)

    def _check_memory(self, rows: int = 1, dtype: str = "float32", backend: str = "") -> None:
        if self.spec.n_qubits <= 12 and rows <= 1024:
            return
        from .engines.memory import check_memory  # engines come after this module

        check_memory(self.spec.n_qubits, rows, dtype, backend=backend)

    @property
    def backend_name(self) -> str:
        """Name of the first backend."""
        return self.backends[0].name if self.backends else "none"

    @property
    def has_input_gradient(self) -> bool:
        """True where features have an exact gradient on this backend."""
        return self.spec.encoding.differentiable and not (self.spec.circuit.n_amplitudes and self._shifts(0))

    @property
    def no_input_gradient(self) -> str:
        """Why features have none, and what to do."""
        if not self.spec.encoding.differentiable:
            return (
                f"{self.spec.encoding.name} encoding has no gradient for its inputs: bits do not vary continuously. "
                'Use encoding="angle" or "amplitude", or stop gradients before this layer.'
            )
        return (
            "gradients for amplitude-encoded inputs have no parameter-shift rule. Use a backend with a statevector "
            '(backend="statevector"), encoding="angle", or stop gradients before this layer.'
        )

    def _shifts(self, rung: int) -> bool:
        """True where gradients come from the parameter-shift rule: no vjp, or one of exact values under shots."""
        if not self.backends:
            return False
        capabilities = self.backends[rung].capabilities
        sampled = self.execution.shots is not None and capabilities.shots
        return self.execution.gradient == "parameter-shift" or not capabilities.vjp or sampled

    def explain(self) -> str:
        """One line: the backend and why."""
        if not self.backends:
            return f"{self.name}: normalises; runs no circuit"
        rest = "".join(f", then {b.name}" for b in self.backends[1:])
        if self.twin is not None:
            rest += f"; {self.twin.backend_name} on a GPU and wherever tensors must not leave the framework"
        layout = getattr(self.backends[0], "explain", None)
        how = f", {layout(self.spec.n_qubits)}" if layout is not None and self.backend_name in OWN_ENGINES else ""
        return f"{self.name}: {self.backend_name} ({self.reason}{how}){rest}"

    # -- executables ----------------------------------------------------------------------------------------------

    def executable(self, rung: int = 0, dtype: str = "float32", *, shifted: bool = False) -> Any:
        """The compiled circuit on backend number `rung`, from the circuit cache."""
        recipe = self._recipes.get((rung, dtype, shifted))
        if recipe is None:
            backend = self.backends[rung]
            shots = self.execution.shots if backend.capabilities.shots else None
            circuit = unshared(self.spec.circuit) if shifted else self.spec.circuit
            assert self.spec.measurement is not None
            recipe = Recipe(circuit, self.spec.measurement, backend, dtype, shots, self.execution.seed)
            self._recipes[rung, dtype, shifted] = recipe
        return compiled(recipe)

    def __getstate__(self) -> dict[str, Any]:
        """Compiled circuits stay behind: recipes hold the backend by identity."""
        return {
            "spec": self.spec,
            "execution": self.execution,
            "name": self.name,
            "framework": self.framework,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(  # type: ignore[misc]
            state["spec"], state["execution"], name=state["name"], framework=state["framework"]
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> LayerProgram:
        """Only counters change in it, and they start anew; a backend (a device, a connection) is not copied."""
        return LayerProgram(self.spec, self.execution, name=self.name, framework=self.framework)

    # -- tensor path ----------------------------------------------------------------------------------------------

    @property
    def on_tensors(self) -> bool:
        """True where the backend computes on the framework's own tensors, without a round trip to the host."""
        return not self.backends or (
            self.framework is not None
            and self.backends[0].capabilities.framework == self.framework
            and len(self.backends) == 1
            and self.execution.gradient != "parameter-shift"
        )

    def apply(self, ops: Any, theta: Any, x: Any, dtype: str) -> Any:
        """Tensors `theta` (W,), `x` (B, F) → outputs (B, O), differentiable by the framework."""
        spec = self.spec
        width = spec.circuit.n_amplitudes if spec.measurement is not None else 1 << spec.n_qubits
        if width:
            angles = spec.circuit.n_inputs if spec.measurement is not None else 0
            unit = unit_rows(ops, x[:, :width] if angles else x, width)
            x = ops.concat([unit, x[:, width:]]) if angles else unit
        if spec.measurement is None:
            return x
        return self.executable(0, dtype).apply(theta, x)

    def apply_and_pull(self, ops: Any, theta: Any, x: Any, dtype: str) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
        """The same with the pull-back `cotangents (B, O) → (d_theta (W,), d_x (B, F))` of the adjoint method."""
        spec = self.spec
        circuit = spec.circuit
        width = circuit.n_amplitudes if spec.measurement is not None else 1 << spec.n_qubits
        if not width:
            return self.executable(0, dtype).apply_and_pull(theta, x)
        mixed = spec.measurement is not None and circuit.n_inputs > 0
        unit, unencode = unit_rows_and_pull(ops, x[:, :width] if mixed else x, width)
        inputs = ops.concat([unit, x[:, width:]]) if mixed else unit
        if spec.measurement is None:
            return inputs, lambda cotangents: (theta, unencode(cotangents))
        outputs, pull_circuit = self.executable(0, dtype).apply_and_pull(theta, inputs)

        def pull(cotangents: Any) -> tuple[Any, Any]:
            d_theta, d_inputs = pull_circuit(cotangents)
            if not mixed:
                return d_theta, unencode(d_inputs)
            return d_theta, ops.concat([unencode(d_inputs[:, :width]), d_inputs[:, width:]])

        return outputs, pull

    # -- host path ------------------------------------------------------------------------------------------------

    def forward(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Features (…, F) → outputs (…, O)."""
        with profiling.timed(self.name, "forward"):
            return self._forward(theta, x)[0]

    def _forward(self, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, int]:
        rows, lead = self.rows(x)
        if (engine := self._takes_features(rows)) is not None:
            theta = self._weights(theta, rows.dtype)
            outputs, rung = self.ladder.climb(lambda _: engine.forward_features(theta, rows))
            self._check_features_by(outputs, rows)
            return outputs if len(lead) == 1 else outputs.reshape(*lead, self.spec.output_dim), rung
        inputs, _ = self._encode(rows)
        if not self.backends or not len(rows):
            out = inputs if not self.backends else np.zeros((0, self.spec.output_dim), rows.dtype)
            return out.reshape(*lead, self.spec.output_dim), 0
        theta = self._weights(theta, rows.dtype)

        def attempt(rung: int) -> np.ndarray:
            return self._checked(rung, self.executable(rung, _name(rows.dtype)).forward(theta, inputs), len(rows))

        outputs, rung = self.ladder.climb(attempt)
        return outputs.reshape(*lead, self.spec.output_dim).astype(rows.dtype, copy=False), rung

    def value_and_vjp(
        self, theta: np.ndarray, x: np.ndarray, *, wrt_inputs: bool = True
    ) -> tuple[np.ndarray, Pullback]:
        """Outputs (…, O), and the function that pulls cotangents of that shape back.

        Returns:
            `(outputs, pullback)`; `pullback(cotangents)` gives `(d_theta (W,), d_x like x)`, with None for d_x where
            `wrt_inputs` is False.

        Raises:
            GradientError: an exact gradient was asked for where there is none.
        """
        with profiling.timed(self.name, "forward"):
            rows, lead = self.rows(x)
            if wrt_inputs and not self.has_input_gradient:
                raise GradientError(self.no_input_gradient)
            engine = self._takes_features(rows)
            inputs, unencode = self._encode(rows) if engine is None else (rows, _same)
            theta = self._weights(theta, rows.dtype)
            if engine is not None:
                (outputs, pull), first = self.ladder.climb(lambda _: engine.value_and_vjp_features(theta, rows))
                self._check_features_by(outputs, rows)
            elif self.backends and len(rows):
                (outputs, pull), first = self.ladder.climb(lambda rung: self._start(rung, theta, inputs, wrt_inputs))
            else:
                outputs = inputs if not self.backends else np.zeros((0, self.spec.output_dim), rows.dtype)

        def pull_on(rung: int, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
            """On the backend of the forward half, or, where that failed now, both halves on a later one."""
            own: Pullback = pull if rung == first else self._start(rung, theta, inputs, wrt_inputs)[1]
            return own(cotangents)

        def pullback(cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
            d_theta: np.ndarray
            d_inputs: np.ndarray | None
            with profiling.timed(self.name, "backward"):
                flat = np.ascontiguousarray(cotangents, rows.dtype).reshape(len(rows), self.spec.output_dim)
                if not self.backends:
                    d_theta, d_inputs = np.zeros(0, rows.dtype), flat
                elif not len(rows):
                    d_theta, d_inputs = np.zeros_like(theta), np.zeros_like(inputs)
                else:
                    (d_theta, d_inputs), _ = self.ladder.climb(lambda rung: pull_on(rung, flat), start=first)
                d_x = None if d_inputs is None or not wrt_inputs else unencode(d_inputs).reshape(*lead, rows.shape[1])
                return d_theta, d_x

        return outputs.reshape(*lead, self.spec.output_dim).astype(rows.dtype, copy=False), pullback

    def _takes_features(self, rows: np.ndarray) -> Any:
        """The executable, where it takes features (B, F) as they are; None where they are encoded here."""
        if not self.backends or not self._may_pass_features or not len(rows):
            return None
        self._check_memory(len(rows), _name(rows.dtype))
        executable = self.executable(0, _name(rows.dtype))
        return executable if hasattr(executable, "forward_features") else None

    def _check_features_by(self, outputs: np.ndarray, rows: np.ndarray) -> None:
        """Raise for features that are not finite: amplitudes make all outputs of their row NaN, angles need not."""
        if not np.isfinite(outputs).all() or rows.shape[1] > 1 << self.spec.n_qubits:
            check_finite(rows, self.name)

    def _start(self, rung: int, theta: np.ndarray, inputs: np.ndarray, wrt_inputs: bool) -> tuple[np.ndarray, Pullback]:
        """The forward half of a gradient on one backend, and its backward half."""
        executable = self.executable(rung, _name(inputs.dtype))
        if self._shifts(rung):
            shifted = self.executable(rung, _name(inputs.dtype), shifted=True)
            rule = ParameterShift(self.spec.circuit, executable.forward, shifted.forward)
            outputs, pull = rule.value_and_vjp(theta, inputs, wrt_inputs=wrt_inputs)
        elif hasattr(executable, "value_and_vjp"):
            outputs, pull = executable.value_and_vjp(theta, inputs)
        else:
            outputs = executable.forward(theta, inputs)

            def pull(cotangents: np.ndarray) -> Any:
                return executable.vjp(theta, inputs, cotangents)

        def pull_checked(cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
            d_theta, d_inputs = pull(cotangents)
            finite = bool(np.isfinite(cotangents).all())  # else the gradients need not be
            d_theta = self._like(rung, "a gradient of theta", d_theta, theta.shape, finite)
            if d_inputs is not None:
                d_inputs = self._like(rung, "a gradient of the inputs", d_inputs, inputs.shape, finite)
            return d_theta, d_inputs

        return self._checked(rung, outputs, len(inputs)), pull_checked

    def _checked(self, rung: int, outputs: Any, rows: int) -> np.ndarray:
        """Outputs of a backend, which must have the promised shape and be finite."""
        return self._like(rung, "outputs", outputs, (rows, self.spec.output_dim))

    def _like(self, rung: int, what: str, values: Any, shape: tuple[int, ...], finite: bool = True) -> np.ndarray:
        """What a backend returned, as an array of this shape; what ours return is not searched for NaN."""
        name = self.backends[rung].name
        array = np.asarray(values)
        problem = ""
        if array.dtype.kind != "f":
            problem = f"{what} of dtype {array.dtype}, expected floats"
        elif array.shape != shape:
            problem = f"{what} of shape {array.shape}, expected {shape}"
        elif finite and name not in OWN_ENGINES and not np.isfinite(array).all():
            problem = f"{what} that are not finite"
        if problem:
            raise BackendError(f"backend {name!r} returned {problem}.", backend=name)
        return array

    def _weights(self, theta: Any, dtype: np.dtype) -> np.ndarray:
        """Angles in the dtype of the inputs."""
        theta = np.ascontiguousarray(theta, dtype)
        if not np.isfinite(theta).all():
            bad = int(np.flatnonzero(~np.isfinite(theta))[0])
            raise InputError(
                f"{self.name}: theta has {theta[bad]} at index {bad}; finite angles are expected. Where training "
                "diverged, lower the learning rate or clip gradients, and set theta anew.",
                value=float(theta[bad]),
            )
        return theta

    def rows(self, x: Any) -> tuple[np.ndarray, tuple[int, ...]]:
        """Features as (B, F) of a float dtype, and the leading dimensions."""
        try:
            array = np.asarray(x)
        except ValueError as error:  # rows of different lengths
            raise InputError(f"{self.name} takes an array of numbers: {error}") from error
        if array.dtype.kind not in "fiub":
            raise InputError(f"{self.name} takes real numbers, received dtype {array.dtype}.")
        self.spec.check_features(array.shape)
        if array.ndim == 1:
            raise ShapeError(
                f"{self.name} takes inputs of shape (batch, features), received {array.shape}. "
                "Use x[None, :] for one sample.",
                received=array.shape,
            )
        dtype = np.float64 if array.dtype.kind == "f" and array.dtype.itemsize >= 8 else np.float32
        lead = array.shape[:-1]
        return np.ascontiguousarray(array, dtype).reshape(math.prod(lead), array.shape[-1]), lead

    def check_values(self, rows: np.ndarray) -> None:
        """Raise `InputError` for features (B, F) that cannot be encoded."""
        self._encode(rows)

    def _encode(self, rows: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """Rows as the circuit's inputs, and the pull-back of input gradients to features."""
        spec = self.spec
        if spec.encoding.is_amplitude:
            width = 1 << spec.n_qubits
            self._check_memory(len(rows), _name(rows.dtype))
            unit, pull = unit_rows_of_array(rows[:, :width], width, self.name)
            if rows.shape[1] <= width:
                return unit, pull
            check_finite(rows[:, width:], self.name)
            inputs = np.concatenate([unit, rows[:, width:]], axis=1)
            return inputs, lambda d: np.concatenate([pull(d[:, :width]), d[:, width:]], axis=1)
        check_finite(rows, self.name)
        if not spec.encoding.differentiable and ((rows != 0) & (rows != 1)).any():
            row, column = np.argwhere((rows != 0) & (rows != 1))[0]
            raise InputError(
                f"{self.name}: basis encoding takes bits 0 and 1, row {row} has "
                f"{rows[row, column]} in feature {column}.",
                row=int(row),
                column=int(column),
                value=float(rows[row, column]),
            )
        return rows, lambda d: d


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _name(dtype: np.dtype) -> str:
    """`dtype.name`, which takes NumPy a microsecond."""
    return "float64" if dtype.itemsize == 8 else "float32"


def _fallback_names(fallback: Any, first: Backend) -> tuple[Any, ...]:
    if fallback is None:
        return ()
    if isinstance(fallback, str) and fallback == "auto":
        return () if first.name in OWN_ENGINES else ("statevector",)
    if isinstance(fallback, str) or not isinstance(fallback, Sequence):
        return (fallback,)
    return tuple(fallback)
