"""`LayerProgram`: one layer's way from features to outputs and gradients, for every framework.

Host path (NumPy in, NumPy out): check → encode → compiled circuit → outputs, with fallback and the choice of the
gradient method. Tensor path: the same encoding in the framework's ops, then `Executable.apply`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from ..backends.contract import Backend
from ..backends.registry import get_backend
from ..backends.seeds import CallSeeds, SeedStream
from ..circuit.encoding import check_finite, rows_of, unit_rows, unit_rows_and_pull, unit_rows_of_array
from ..circuit.spec import LayerSpec
from ..engines.memory import check_memory
from ..errors import BackendError, GradientError, InputError
from . import profiling
from .cache import Recipe, compiled
from .direct import Direct
from .execution import OWN_ENGINES, Execution, choose_backend, fallback_backends
from .fallback import Ladder
from .gradients import NO_AMPLITUDE_RULE, Differences, ParameterShift, unshared
from .record import Runs, Trail

__all__ = ["Execution", "LayerProgram", "Pullback"]

Pullback = Callable[[np.ndarray], tuple[np.ndarray, "np.ndarray | None"]]

_Pull = Callable[[np.ndarray, Trail], tuple[np.ndarray, "np.ndarray | None"]]

# Step of approximate gradients: where values are exact, truncation (its square) and rounding are both far below what
# a step of training notices; where they are sampled, noise goes with 1/step.
_STEP, _SAMPLED_STEP = 1e-3, 0.1


class LayerProgram:
    """Runs one layer. Safe to share between threads; holds no weights.

    Args:
        spec: What is computed.
        execution: How.
        name: Layer name, for messages and profiles.
        framework: None (NumPy), "torch" or "tensorflow": whose tensors the layer meets.
        draw_seed: The framework's generator, for samples of a layer without a seed; a function of a module, since it
            is pickled with the layer.

    Attributes:
        twin: With backend "auto": the same layer on the framework's own engine, for tensors on a GPU, function
            transforms, second derivatives and exported graphs. None where the backend was named, or is that engine.
        is_direct: True where small batches go the short way (`direct`).
    """

    def __init__(
        self,
        spec: LayerSpec,
        execution: Execution,
        *,
        name: str,
        framework: str | None = None,
        runs: Runs | None = None,
        draw_seed: Callable[[], int] | None = None,
    ) -> None:
        """Resolve the backends; compile nothing yet. `runs` is where records go, one's own by default."""
        self.spec, self.execution, self.name, self.framework = spec, execution, name, framework
        self._recipes: dict[tuple[int, str, bool], Recipe] = {}
        self._draw_seed, self._seeds = draw_seed, SeedStream(execution.seed, draw_seed)
        self.runs = Runs() if runs is None else runs
        self.reason = "as asked"
        self._direct: Direct | None = None
        self.is_direct = False
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
                self.twin = LayerProgram(spec, twin, name=name, framework=framework, runs=self.runs)
        first = get_backend(backend)
        self.backends = (first, *fallback_backends(execution.fallback, first))
        self.ladder = Ladder(name, [b.name for b in self.backends])
        execution.check(first, spec.n_qubits)
        if first.name in OWN_ENGINES:
            self._check_memory(backend=first.name)
        # An engine that normalises features itself does so in the pass that loads them, and looks for NaN there.
        checks = getattr(first, "takes_features", False) and len(self.backends) == 1 and self._method(0) == "vjp"
        self._passes_features = spec.encoding.is_amplitude and checks
        plain = not spec.circuit.n_inputs if spec.encoding.is_amplitude else spec.encoding.differentiable
        if checks and plain:
            own = partial(self.executable, 0)
            self._direct, self.is_direct = Direct(spec, name, first.name, execution.seed, self.runs, own), True

    def _check_memory(self, rows: int = 1, dtype: str = "float32", backend: str = "") -> None:
        if self.spec.n_qubits <= 12 and rows <= 1024:
            return
        check_memory(self.spec.n_qubits, rows, dtype, backend=backend)

    @property
    def backend_name(self) -> str:
        """Name of the first backend."""
        return self.backends[0].name if self.backends else "none"

    @cached_property
    def has_input_gradient(self) -> bool:
        """True where features have a gradient on this backend, by the method that was asked for."""
        amplitudes = self.spec.circuit.n_amplitudes > 0
        return self.spec.encoding.differentiable and not (amplitudes and self._method(0) == "parameter-shift")

    @property
    def no_input_gradient(self) -> str:
        """Why features have none, and what to do."""
        if not self.spec.encoding.differentiable:
            return (
                f"{self.spec.encoding.name} encoding has no gradient for its inputs: bits do not vary continuously. "
                'Use encoding="angle" or "amplitude", or stop gradients before this layer.'
            )
        return f"{NO_AMPLITUDE_RULE}, or stop gradients before this layer."

    def _method(self, rung: int) -> str:
        """How gradients are computed: "vjp" (adjoint, or the device's own), or what was asked for.

        A vjp is one of exact values: under shots the parameter-shift rule takes its place.
        """
        if not self.backends:
            return "vjp"
        if self.execution.gradient not in ("auto", "adjoint"):
            return self.execution.gradient
        has_vjp = self.backends[rung].capabilities.vjp and self._shots(rung) is None
        return "vjp" if has_vjp else "parameter-shift"

    def _shots(self, rung: int) -> int | None:
        """Samples per circuit on backend number `rung`."""
        return self.execution.shots if self.backends[rung].capabilities.shots else None

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
            circuit = unshared(self.spec.circuit) if shifted else self.spec.circuit
            assert self.spec.measurement is not None
            recipe = Recipe(circuit, self.spec.measurement, backend, dtype, self._shots(rung))
            self._recipes[rung, dtype, shifted] = recipe
        return compiled(recipe)

    def __getstate__(self) -> dict[str, Any]:
        """Compiled circuits stay behind: recipes hold the backend by identity."""
        return {
            "spec": self.spec,
            "execution": self.execution,
            "name": self.name,
            "framework": self.framework,
            "draw_seed": self._draw_seed,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __deepcopy__(self, memo: dict[int, Any]) -> LayerProgram:
        """Only counters change in it, that of its seeds too, and they start anew; a backend is not copied."""
        return LayerProgram(**self.__getstate__())

    # -- tensor path ----------------------------------------------------------------------------------------------

    @property
    def on_tensors(self) -> bool:
        """True where the backend computes on the framework's own tensors, without a round trip to the host."""
        return not self.backends or (
            self.framework is not None
            and self.backends[0].capabilities.framework == self.framework
            and len(self.backends) == 1
            and self._method(0) == "vjp"
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

    def noting(self, compute: Callable[[], Any]) -> Any:
        """`compute()` on tensors in eager mode, with a record; about calls inside a graph nothing can be said."""
        trail = Trail()
        outputs = compute()
        self._finish(trail, 0)
        self.runs.trail = trail
        return outputs

    # -- host path ------------------------------------------------------------------------------------------------

    def forward(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Features (…, F) → outputs (…, O)."""
        if self._direct is not None and (done := self._direct.forward(theta, x)) is not None:
            return done
        trail = Trail()
        with profiling.timed(self.name, "forward"):
            outputs, rung = self._forward(theta, x, trail)
        self._finish(trail, rung)
        self.runs.trail = trail
        return outputs

    def _forward(self, theta: np.ndarray, x: np.ndarray, trail: Trail) -> tuple[np.ndarray, int]:
        rows, lead = rows_of(x, self.spec.check_features, self.name)
        trail.lead = lead
        if (engine := self._takes_features(rows)) is not None:
            theta = self._weights(theta, rows.dtype)
            (outputs, finite), rung = self.ladder.climb(lambda _: engine.forward_checked(theta, rows, self._raw(rows)))
            if not finite:
                check_finite(rows, self.name)
            return outputs if len(lead) == 1 else outputs.reshape(*lead, self.spec.output_dim), rung
        inputs, _ = self._encode(rows)
        if not self.backends or not len(rows):
            out = inputs if not self.backends else np.zeros((0, self.spec.output_dim), rows.dtype)
            return out.reshape(*lead, self.spec.output_dim), 0
        theta = self._weights(theta, rows.dtype)

        seeds = self._seeds.call()

        def attempt(rung: int) -> np.ndarray:
            return self._run(rung, self.executable(rung, _name(rows.dtype)), theta, inputs, trail, seeds)

        outputs, rung = self.ladder.climb(attempt, failures=trail.failures)
        return outputs.reshape(*lead, self.spec.output_dim).astype(rows.dtype, copy=False), rung

    def _run(
        self, rung: int, executable: Any, theta: np.ndarray, inputs: np.ndarray, trail: Trail, seeds: CallSeeds
    ) -> np.ndarray:
        """Checked outputs (B, O); what the backend reports about them goes to `trail`."""
        trail.reports.clear()  # those of a backend that failed
        seed = None if self._shots(rung) is None else seeds.next()
        return self._checked(rung, trail.forward(executable, theta, inputs, seed), len(inputs))

    def value_and_vjp(
        self, theta: np.ndarray, x: np.ndarray, *, wrt_inputs: bool = True
    ) -> tuple[np.ndarray, Pullback]:
        """Outputs (…, O), and the function that pulls cotangents of that shape back.

        Returns:
            `(outputs, pullback)`; `pullback(cotangents)` gives `(d_theta (W,), d_x like x)`; d_x may be None where
            `wrt_inputs` is False.

        Raises:
            GradientError: an exact gradient was asked for where there is none.
        """
        if self._direct is not None and (begun := self._direct.value_and_vjp(theta, x)) is not None:
            return begun
        trail, first, seeds = Trail(), 0, self._seeds.call()
        with profiling.timed(self.name, "forward"):
            rows, lead = rows_of(x, self.spec.check_features, self.name)
            trail.lead = lead
            if wrt_inputs and not self.has_input_gradient:
                raise GradientError(self.no_input_gradient)
            engine = self._takes_features(rows)
            inputs, unencode = self._encode(rows) if engine is None else (rows, _same)
            theta = self._weights(theta, rows.dtype)
            pull: _Pull
            if engine is not None:
                (outputs, begun, finite), first = self.ladder.climb(
                    lambda _: engine.value_and_vjp_checked(theta, rows, self._raw(rows))
                )
                if not finite:
                    check_finite(rows, self.name)
                pull = _unnoted(begun)
            elif self.backends and len(rows):
                (outputs, pull), first = self.ladder.climb(
                    lambda rung: self._start(rung, theta, inputs, wrt_inputs, trail, seeds), failures=trail.failures
                )
            else:
                outputs = inputs if not self.backends else np.zeros((0, self.spec.output_dim), rows.dtype)
        self._finish(trail, first)
        self.runs.trail = trail

        def pull_on(rung: int, cotangents: np.ndarray, back: Trail) -> tuple[np.ndarray, np.ndarray | None]:
            """On the backend of the forward half, or, where that failed now, both halves on a later one."""
            own = pull if rung == first else self._start(rung, theta, inputs, wrt_inputs, back, seeds)[1]
            return own(cotangents, back)

        def pullback(cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
            d_theta: np.ndarray
            d_inputs: np.ndarray | None
            back, rung = Trail(), first
            with profiling.timed(self.name, "backward"):
                flat = np.ascontiguousarray(cotangents, rows.dtype).reshape(len(rows), self.spec.output_dim)
                if not self.backends:
                    d_theta, d_inputs = np.zeros(0, rows.dtype), flat
                elif not len(rows):
                    d_theta, d_inputs = np.zeros_like(theta), np.zeros_like(inputs)
                else:
                    (d_theta, d_inputs), rung = self.ladder.climb(
                        lambda rung: pull_on(rung, flat, back), start=first, failures=back.failures
                    )
                d_x = None if d_inputs is None or not wrt_inputs else unencode(d_inputs).reshape(*lead, rows.shape[1])
            self._finish(back, rung)
            back.gradient = self._method(rung)
            trail.backward, self.runs.trail = back, trail
            return d_theta, d_x

        return outputs.reshape(*lead, self.spec.output_dim).astype(rows.dtype, copy=False), pullback

    def _finish(self, trail: Trail, rung: int) -> None:
        if self.backends:
            trail.finish(self.backends[rung].name, self._shots(rung), self.execution.seed)
        else:
            trail.finish("none", None, None)

    def _takes_features(self, rows: np.ndarray) -> Any:
        """The executable, where it takes features (B, F) as they are; None where they are encoded here."""
        if not self.backends or not self._passes_features or not len(rows):
            return None
        self._check_memory(len(rows), _name(rows.dtype))
        return self.executable(0, _name(rows.dtype))

    def _raw(self, rows: np.ndarray) -> int:
        """How many columns are amplitude features."""
        return rows.shape[1] - self.spec.circuit.n_inputs

    def _start(
        self, rung: int, theta: np.ndarray, inputs: np.ndarray, wrt_inputs: bool, trail: Trail, seeds: CallSeeds
    ) -> tuple[np.ndarray, _Pull]:
        """The forward half of a gradient on one backend, and its backward half."""
        executable, method = self.executable(rung, _name(inputs.dtype)), self._method(rung)
        pull: Pullback
        if method == "vjp" and hasattr(executable, "value_and_vjp"):
            outputs, pull = executable.value_and_vjp(theta, inputs)
            outputs = self._checked(rung, outputs, len(inputs))
        else:
            outputs = self._run(rung, executable, theta, inputs, trail, seeds)

        def pull_checked(cotangents: np.ndarray, back: Trail) -> tuple[np.ndarray, np.ndarray | None]:
            back.reports.clear()
            if method != "vjp":
                rule = self._rule(rung, method, inputs.dtype, back, seeds)
                d_theta, d_inputs = rule.vjp(theta, inputs, cotangents, wrt_inputs=wrt_inputs)
            elif hasattr(executable, "value_and_vjp"):
                d_theta, d_inputs = pull(cotangents)
            else:
                d_theta, d_inputs = executable.vjp(theta, inputs, cotangents)
            finite = bool(np.isfinite(cotangents).all())  # else the gradients need not be
            d_theta = self._like(rung, "a gradient of theta", d_theta, theta.shape, finite)
            if d_inputs is not None:
                d_inputs = self._like(rung, "a gradient of the inputs", d_inputs, inputs.shape, finite)
            return d_theta, d_inputs

        return outputs, pull_checked

    def _rule(
        self, rung: int, method: str, dtype: np.dtype, trail: Trail, seeds: CallSeeds
    ) -> ParameterShift | Differences:
        """A gradient without a statevector: all circuits of a batch are one call of the backend."""
        shift = method == "parameter-shift"
        exact = self._shots(rung) is None
        # Differences of values that are close to each other: exact ones are taken in float64.
        free = self.executable(rung, _name(dtype) if shift or not exact else "float64", shifted=True)

        def forward(theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
            seed = None if exact else seeds.next()
            return self._checked(rung, trail.forward(free, theta, inputs, seed), len(inputs))

        if shift:
            return ParameterShift(self.spec.circuit, forward)
        rng = np.random.default_rng(seeds.next()) if method == "spsa" else None
        return Differences(self.spec.circuit, forward, step=_STEP if exact else _SAMPLED_STEP, rng=rng)

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


def _unnoted(pull: Pullback) -> _Pull:
    return lambda cotangents, _: pull(cotangents)


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _name(dtype: np.dtype) -> str:
    """`dtype.name`, which takes NumPy a microsecond."""
    return "float64" if dtype.itemsize == 8 else "float32"
