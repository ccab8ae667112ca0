"""`EncodedExecutable`: features → outputs on one backend.

It encodes where the backend does not, calls it, checks what it returns, and differentiates as its `Settings` say.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from ..backends.contract import Backend
from ..circuit.angles.functions import flattened
from ..circuit.measurements.measurement import Amplitudes
from ..circuit.spec.encoding import check_finite, unit_rows_and_vjp
from ..circuit.spec.layer_spec import LayerSpec
from ..engines.arrays.numpy_ops import NumpyOps
from ..engines.memory import check_bytes
from ..errors import BackendError, GradientError, InputError
from . import profiling
from .cache import Recipe, cache_generation, compiled
from .execution import Settings
from .gradients import NO_AMPLITUDE_RULE, Differences, ParameterShift, unshared
from .narrow import bytes_of_a_row, narrow_executable
from .profiling import timed
from .record import PassRecord

__all__ = ["EncodedExecutable", "VjpFn"]

VjpFn = Callable[[Any], tuple[Any, Any]]
"""Cotangents (B, O) → gradients of theta (W,) and of features or inputs (B, F); None for what is not wanted."""

_NUMPY = NumpyOps()
# Step of approximate gradients. Exact values are taken in float64 and have an error of 1e-15 or so, which goes with
# 1/step; truncation goes with its square, and with the third power of angles' coefficients. Of samples the noise does.
_STEPS, _SAMPLED_STEP = {"float64": 1e-5, "float32": 1e-4}, 0.1


class EncodedExecutable:
    """One layer on one backend in one precision.

    Args:
        spec: What is computed.
        backend: Who computes; None for a layer without a circuit, whose outputs are the encoded rows.
        settings: How.
        layer: Name of the layer, for messages.
        ops: Array functions of the framework, for `apply` and `apply_and_vjp`; None for NumPy.
    """

    def __init__(
        self,
        spec: LayerSpec,
        backend: Backend | None,
        settings: Settings,
        layer: str,
        *,
        ops: Any = None,
    ) -> None:
        """Compile nothing yet."""
        self.spec, self.settings, self.layer = spec, settings, layer
        self._backend, self._ops = backend, NumpyOps() if ops is None else ops
        self._recipes: dict[tuple[str, bool], Recipe] = {}
        self._narrow: dict[tuple[str, bool], tuple[int, Any]] = {}
        self._row_bytes: dict[tuple[bool, bool], int] = {}
        self._generation, self._engine = -1, None
        self._flat, self._derived = flattened(spec.circuit) if spec.measurement is not None else (spec.circuit, None)
        self._fuses = backend is not None and backend.capabilities.features
        self._embedded = backend is None or backend.capabilities.embedded
        self._remote = backend is not None and backend.capabilities.remote
        self._width = spec.circuit.n_amplitudes if spec.measurement is not None else 1 << spec.n_qubits
        self._angles = spec.circuit.n_inputs if spec.measurement is not None else 0
        self._passes = self._fuses or not self._width
        self._looks, self._exact = spec.encoding.checks_values, settings.gradient == "vjp"
        self._drawn = spec.measurement if spec.measurement is not None and spec.measurement.drawn else None
        self._outputs_of = spec.output_dim if spec.computed is None else spec.computed.n_outputs(spec.n_qubits)
        simple = not self._looks and self._derived is None and self._drawn is None
        self._whole = self._fuses and self._embedded and self._exact and simple

    @property
    def engine(self) -> Any:
        """The compiled circuit, from the cache."""
        if self._generation != (generation := cache_generation()):  # the cache was cleared: compile anew
            self._engine, self._generation = self._compiled(self.settings.dtype), generation
        return self._engine

    def _compiled(self, dtype: str, *, shifted: bool = False) -> Any:
        if self._backend is None:
            return _NoCircuit()
        recipe = self._recipes.get((dtype, shifted))
        if recipe is None:
            circuit = unshared(self._flat) if shifted else self._flat
            assert self.spec.computed is not None
            recipe = Recipe(circuit, self.spec.computed, self._backend, dtype, self.settings.shots)
            self._recipes[dtype, shifted] = recipe
        with timed(self.layer, "backward" if shifted else "forward", "compile"):
            generation, narrow = self._narrow.get((dtype, shifted), (-1, None))
            if generation != cache_generation():
                generation, narrow = cache_generation(), narrow_executable(recipe, self._ops)
                self._narrow[dtype, shifted] = generation, narrow
            return compiled(recipe) if narrow is None else narrow

    # -- on arrays ------------------------------------------------------------------------------------------------

    def forward(self, theta: np.ndarray, features: np.ndarray, record: PassRecord) -> np.ndarray:
        """`theta` (W,), `features` (B, F) → outputs (B, O)."""
        if self._whole:
            return self._all_of_it(self.engine.forward, theta, features, record)
        angles, inputs, _ = self._slots(theta, features)
        try:
            outputs = self._outputs(self._run(self.engine, angles, inputs, record), len(features))
            return outputs if self._drawn is None else self._draw(outputs, record)
        except InputError:
            self.check_finite(theta, features)  # says where
            raise

    def value_and_vjp(
        self, theta: np.ndarray, features: np.ndarray, record: PassRecord, wanted: tuple[bool, bool] = (True, True)
    ) -> tuple[np.ndarray, VjpFn]:
        """The same, and the function that pulls cotangents (B, O) back to theta (W,) and features (B, F).

        What the backward pass runs goes to `record.backward`, which must be there by then. `wanted` says whether the
        gradient of theta is, and that of the features; an engine that takes features as they are gives both.
        """
        if self._drawn is not None:
            return self.forward(theta, features, record), self._refuse_gradient
        if not self._whole:
            return self._composed(theta, features, record, *wanted)
        return self._all_of_it(self.engine.value_and_vjp, theta, features, record)

    def _all_of_it(self, function: Any, theta: np.ndarray, features: np.ndarray, record: PassRecord) -> Any:
        """What an engine computes that does all of it."""
        if profiling.profiles:
            record.circuits, record.fused = len(features), "simulate"
        try:
            return function(theta, features)
        except InputError:
            self.check_finite(theta, features)  # says where
            raise

    def _composed(
        self, theta: np.ndarray, features: np.ndarray, record: PassRecord, wrt_theta: bool, wrt_inputs: bool
    ) -> tuple[np.ndarray, VjpFn]:
        """Encoding, a gradient method and checks around an engine that does not do all of it."""
        given = theta
        theta, inputs, slots_vjp = self._slots(theta, features)
        engine = self.engine
        if self._exact and hasattr(engine, "value_and_vjp"):
            record.circuits += len(inputs)
            try:
                with timed(self.layer, "forward", "simulate"):
                    outputs, engine_vjp = engine.value_and_vjp(theta, inputs)
            except InputError:
                self.check_finite(given, features)  # says where
                raise
            outputs = self._outputs(outputs, len(features))
        else:
            outputs = self._outputs(self._run(engine, theta, inputs, record), len(features))

            def engine_vjp(cotangents: np.ndarray) -> Any:
                return engine.vjp(theta, inputs, cotangents)

        def vjp_fn(
            cotangents: np.ndarray, wrt_theta: bool = wrt_theta, wrt_inputs: bool = wrt_inputs
        ) -> tuple[np.ndarray | None, np.ndarray | None]:
            with timed(self.layer, "backward", "gradient"):
                if self._exact:
                    d_theta, d_inputs = engine_vjp(cotangents)
                else:
                    assert record.backward is not None
                    rule = self._rule(record.backward)
                    through = wrt_inputs or (wrt_theta and self._derived is not None and self._derived.mixes)
                    d_theta, d_inputs = rule.vjp(theta, inputs, cotangents, wrt_theta=wrt_theta, wrt_inputs=through)
            if not (wrt_inputs or self._derived is not None):
                d_inputs = None
            if not self._embedded:
                finite = bool(np.isfinite(cotangents).all())  # else the gradients need not be
                if wrt_theta:
                    d_theta = self._like("a gradient of theta", d_theta, theta.shape, finite)
                if d_inputs is not None:
                    d_inputs = self._like("a gradient of the inputs", d_inputs, inputs.shape, finite)
            if slots_vjp is not None:
                d_theta, d_inputs = slots_vjp(d_theta, d_inputs)
            return d_theta if wrt_theta else None, d_inputs if wrt_inputs else None

        return outputs, vjp_fn

    def _draw(self, values: np.ndarray, record: PassRecord) -> np.ndarray:
        """Samples of a backend in random order, or drawn from its exact values."""
        assert self._drawn is not None
        rng = np.random.default_rng(record.seeds.next())
        return self._drawn.draw(values, self.settings.shots, rng)

    def _refuse_gradient(self, *_: Any) -> Any:
        raise GradientError(self.no_gradient)

    def _run(
        self, executable: Any, theta: np.ndarray, inputs: np.ndarray, record: PassRecord, phase: str = "forward"
    ) -> Any:
        """One circuit batch, with a seed of its own where it samples."""
        seed = None if self.settings.shots is None else record.seeds.next()
        if self._whole and phase == "forward":
            record.fused = "simulate"
        elif profiling.profiles:
            return self._timed_run(executable, theta, inputs, record, phase, seed)
        return record.run(executable, theta, inputs, seed)

    def _timed_run(
        self, executable: Any, theta: np.ndarray, inputs: np.ndarray, record: PassRecord, phase: str, seed: int | None
    ) -> Any:
        begin, before = perf_counter(), len(record.reports)
        try:
            return record.run(executable, theta, inputs, seed)
        finally:
            part = "wait" if self._remote else "simulate"
            profiling.note(self.layer, phase, part, begin, perf_counter())
            for report in record.reports[before:]:
                for name, seconds in report.seconds.items():
                    profiling.note(self.layer, phase, name, begin, begin + seconds)

    def _slots(
        self, theta: np.ndarray, features: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, Callable[[Any, Any], tuple[Any, Any]] | None]:
        """Weights and inputs as the engine takes them, and the vjp of that; None where they stay as they are."""
        inputs, encoding_vjp = self._encode(theta, features)
        if self._derived is None:
            if encoding_vjp is None:
                return theta, inputs, None
            return theta, inputs, lambda d_theta, d: (d_theta, None if d is None else encoding_vjp(d))
        all_weights, all_inputs, derived_vjp = self._functions(theta, inputs, features)

        def vjp_fn(d_theta: Any, d_inputs: Any) -> tuple[Any, Any]:
            # What was not wanted is None; nothing comes back through it.
            known = np.zeros_like(all_weights) if d_theta is None else d_theta
            with np.errstate(all="ignore"):
                d_theta, d = derived_vjp(known, np.zeros_like(all_inputs) if d_inputs is None else d_inputs)
            return d_theta, d if encoding_vjp is None else encoding_vjp(d)

        return all_weights, all_inputs, vjp_fn

    def _functions(self, theta: np.ndarray, inputs: np.ndarray, features: np.ndarray) -> tuple[Any, Any, Any]:
        """Weights and inputs with the functions of them that the circuit has, all finite; and the vjp of that."""
        assert self._derived is not None
        with np.errstate(all="ignore"):
            all_weights, all_inputs, derived_vjp = self._derived.extend(_NUMPY, theta, inputs)
        if not (np.isfinite(all_weights).all() and np.isfinite(all_inputs).all()):
            self.check_finite(theta, features)
            self._derived.refuse(all_weights, all_inputs, self.layer)
        return all_weights, all_inputs, derived_vjp

    def _encode(self, theta: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, Callable[..., np.ndarray] | None]:
        """Features as the engine takes them, and the vjp of that; None where they stay as they are."""
        if self._looks:
            self.spec.encoding.validate(features, self.layer)
        if self._fuses:
            return features, None
        self.check_finite(theta, features)
        if self._passes:
            return features, None
        with timed(self.layer, "forward", "encode"):
            inputs, encoding_vjp = self._unit_rows(self._ops, features)

        def quiet_vjp(d_inputs: np.ndarray) -> np.ndarray:
            with np.errstate(over="ignore"):  # features of 1e-38 may have gradients beyond the largest number: infinite
                d_features: np.ndarray = encoding_vjp(d_inputs)
            return d_features

        return inputs, quiet_vjp

    def check_finite(self, theta: np.ndarray, features: np.ndarray) -> None:
        """Raise `InputError` for angles or features that are not finite."""
        if not np.isfinite(theta).all():
            bad = int(np.flatnonzero(~np.isfinite(theta))[0])
            raise InputError(
                f"{self.layer}: theta has {theta[bad]} at index {bad}; finite angles are expected. Where training "
                "diverged, lower the learning rate or clip gradients, and set theta anew.",
                value=float(theta[bad]),
            )
        check_finite(features, self.layer)

    @property
    def looks(self) -> bool:
        """Whether finite angles and features may be refused: bits, and what a function has no value for."""
        return self._looks or self._derived is not None

    def check_values(self, theta: np.ndarray, features: np.ndarray) -> None:
        """Raise `InputError` for what cannot be encoded; for frameworks, whose engines look at no values."""
        self.check_finite(theta, features)
        if self._looks:
            self.spec.encoding.validate(features, self.layer)
        if self._derived is not None:
            self._functions(theta, features, features)  # amplitudes are in no function

    def valid_rows(self, theta: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Bool (B,): the rows that calls on arrays do not refuse; slow."""
        return np.array([self._is_valid(theta, row[None]) for row in features])

    def _is_valid(self, theta: np.ndarray, features: np.ndarray) -> bool:
        try:
            self.check_values(theta, features)
        except InputError:
            return False
        return True

    def _outputs(self, outputs: Any, rows: int) -> np.ndarray:
        """Outputs of the promised shape, all finite."""
        return outputs if self._embedded else self._like("outputs", outputs, (rows, self._outputs_of))

    def _like(self, what: str, values: Any, shape: tuple[int, ...], finite: bool = True) -> np.ndarray:
        """What a backend returned, as an array of this shape."""
        name, array, problem = self.settings.backend, np.asarray(values), ""
        if array.dtype.kind != "f":
            problem = f"{what} of dtype {array.dtype}, expected floats"
        elif array.shape != shape:
            problem = f"{what} of shape {array.shape}, expected {shape}"
        elif finite and not np.isfinite(array).all():
            problem = f"{what} that are not finite"
        if problem:
            raise BackendError(f"backend {name!r} returned {problem}.", backend=name)
        return array

    def _rule(self, record: PassRecord) -> ParameterShift | Differences:
        """A gradient without a statevector: all circuits of a batch are one call of the backend."""
        settings = self.settings
        if isinstance(self.spec.computed, Amplitudes) and settings.gradient == "parameter-shift":
            raise GradientError(
                'the parameter-shift rule is one of expectation values, not of amplitudes. Use gradient="adjoint", or '
                '"finite-difference", which is an approximation.'
            )
        shift, exact = settings.gradient == "parameter-shift", settings.shots is None
        # Differences of values that are close to each other: exact ones are taken in float64.
        free = self._compiled(settings.dtype if shift or not exact else "float64", shifted=True)

        def forward(theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
            outputs = self._run(free, theta, inputs, record, "backward")
            return self._like("outputs", outputs, (len(inputs), self._outputs_of), finite=not self._embedded)

        if shift:
            return ParameterShift(self._flat, forward)
        rng = np.random.default_rng(record.seeds.next()) if settings.gradient == "spsa" else None
        return Differences(self._flat, forward, step=_STEPS[settings.dtype] if exact else _SAMPLED_STEP, rng=rng)

    # -- on tensors -----------------------------------------------------------------------------------------------

    def apply(self, theta: Any, x: Any) -> Any:
        """Tensors `theta` (W,), `x` (B, F) → outputs (B, O), differentiable by the framework."""
        self._check_rows(theta, x, False)
        inputs = self._encode_tensors(x)[0]
        if self._derived is not None:
            theta, inputs, _ = self._derived.extend(self._ops.here(), theta, inputs)
        return self.engine.apply(theta, inputs)

    def apply_and_vjp(self, theta: Any, x: Any) -> tuple[Any, VjpFn]:
        """The same outside the framework's differentiation, with the function that pulls cotangents back."""
        self._check_rows(theta, x, True)
        inputs, encoding_vjp = self._encode_tensors(x)
        derived_vjp = None
        if self._derived is not None:
            theta, inputs, derived_vjp = self._derived.extend(self._ops.here(), theta, inputs)
        outputs, vjp_fn = self.engine.apply_and_vjp(theta, inputs)
        if encoding_vjp is None and derived_vjp is None:
            return outputs, vjp_fn

        def vjp_of_features(cotangents: Any) -> tuple[Any, Any]:
            d_theta, d_inputs = vjp_fn(cotangents)
            if derived_vjp is not None:
                d_theta, d_inputs = derived_vjp(d_theta, d_inputs)
            return d_theta, d_inputs if encoding_vjp is None else encoding_vjp(d_inputs)

        return outputs, vjp_of_features

    def _check_rows(self, theta: Any, x: Any, gradient: bool) -> None:
        """Raise `MemoryLimitError` where so many rows do not fit into the memory of this machine."""
        rows = x.shape[0]
        if not isinstance(rows, int) or self._backend is None:  # a size that only a graph knows
            return
        (on_host, recorded), of_theta = self._ops.holds(x), self._ops.holds(theta)
        if not on_host:
            return
        kind = gradient, recorded or of_theta[1]
        each = self._row_bytes.get(kind)
        if each is None:
            assert self.spec.computed is not None
            layers = len(getattr(getattr(self.engine, "program", None), "layers", ())) if kind[1] else 0
            each = self._row_bytes[kind] = bytes_of_a_row(
                self._flat, self.spec.computed, self._backend, self.settings.dtype, any(kind), layers
            )
        check_bytes(
            rows * each,
            f"{rows} rows of {self.spec.n_qubits} qubits cannot be computed here by backend {self.settings.backend!r}",
        )

    def _encode_tensors(self, x: Any) -> tuple[Any, Callable[[Any], Any] | None]:
        if not self._looks and self._passes:
            return x, None
        ops = self._ops.here()
        if self._looks:
            x = self.spec.encoding.nan_where_invalid(ops, x)
        return (x, None) if self._passes else self._unit_rows(ops, x)

    def _unit_rows(self, ops: Any, x: Any) -> tuple[Any, Callable[[Any], Any]]:
        """Amplitudes of unit length, angles as they are; and the vjp."""
        width = self._width
        if not self._angles:
            unit, unit_vjp = unit_rows_and_vjp(ops, x, width)
            return unit, unit_vjp
        unit, unit_vjp = unit_rows_and_vjp(ops, x[:, :width], width)
        inputs = ops.concat([unit, x[:, width:]])
        return inputs, lambda d: ops.concat([unit_vjp(d[:, :width]), d[:, width:]])

    # -- gradients of the features --------------------------------------------------------------------------------

    @property
    def no_gradient(self) -> str:
        """Why outputs have no gradient, and what to do; "" where they have one."""
        if self._drawn is None:
            return ""
        name = type(self._drawn).__name__
        return f"{name} are drawn at random and have no gradient. Train on Probabilities or expectation values."

    @property
    def no_input_gradient(self) -> str:
        """Why features have no gradient, and what to do; "" where they have one."""
        if not self.spec.encoding.differentiable:
            return (
                f"{self.spec.encoding.name} encoding has no gradient for its inputs: bits do not vary continuously. "
                'Use encoding="angle" or "amplitude", or stop gradients before this layer.'
            )
        if self._width and self.settings.gradient == "parameter-shift":
            return f"{NO_AMPLITUDE_RULE}, or stop gradients before this layer."
        return ""

    def check_input_gradient(self) -> None:
        """Raise `GradientError` where features have no gradient."""
        if self.no_input_gradient:
            raise GradientError(self.no_input_gradient)


class _NoCircuit:
    """An executable whose outputs are its inputs: a layer that only encodes."""

    def forward(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        return inputs

    def value_and_vjp(self, theta: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, VjpFn]:
        return inputs, lambda cotangents: (np.zeros_like(theta), cotangents)

    def apply(self, theta: Any, inputs: Any) -> Any:
        return inputs

    def apply_and_vjp(self, theta: Any, inputs: Any) -> tuple[Any, VjpFn]:
        return inputs, lambda cotangents: (theta, cotangents)
