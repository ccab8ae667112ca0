"""`LayerProgram`: one layer's calls, with their remembered checks, fallback chain and records, for every framework."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, Literal

import numpy as np

from ..backends.contract import Backend, Capabilities
from ..backends.registry import get_backend
from ..backends.seeds import SeedStream
from ..circuit.spec.layer_spec import LayerSpec
from ..engines.memory import check_drawn, check_memory
from ..errors import (
    BackendUnavailableError,
    CapabilityError,
    GradientError,
    InputError,
    ShapeError,
    UnknownBackendError,
)
from . import profiling
from .encoded import EncodedExecutable
from .execution import Execution, Settings, choose_backend, fallback_backends
from .fallback import Chain
from .narrow import check_narrow_memory, narrowing
from .record import LastRun, PassRecord
from .route import FRAMEWORKS, SITUATIONS, Places, Route, route

__all__ = ["Call", "Execution", "LayerProgram"]

_MOST_CALLS = 256
_PLAIN: tuple[Literal["C", "A"], ...] = ("C", "A")
_NO_CIRCUIT = Capabilities(vjp=True, embedded=True)

VjpFn = Callable[[np.ndarray], tuple["np.ndarray | None", "np.ndarray | None"]]


@dataclass(frozen=True, slots=True)
class Call:
    """What is remembered about calls with arrays of one type, dtype, shape and layout.

    Attributes:
        dtype: Of the circuit and the outputs.
        lead: Leading dimensions.
        rows: Their product, and the features.
        as_is: Whether features are what an engine reads, and its outputs what the caller gets.
        theta_as_is: Whether theta is what an engine reads.
        executable: On the first backend.
        no_input_gradient: Why features have no gradient there; "" where they have one.
    """

    dtype: np.dtype
    lead: tuple[int, ...]
    rows: tuple[int, int]
    as_is: bool
    theta_as_is: bool
    executable: EncodedExecutable
    no_input_gradient: str


class LayerProgram:
    """Runs one layer. Safe to share between threads; holds no weights.

    Args:
        spec: What is computed.
        execution: How.
        name: Layer name, for messages and profiles.
        framework: None (NumPy), or a name in `FRAMEWORKS`: whose tensors the layer meets.
        draw_seed: The framework's generator, for samples of a layer without a seed; a function of a module, since it
            is pickled with the layer.

    Attributes:
        backends: First to last resort; empty for a layer without a circuit.
        places: Where it can compute, for `route`.
        chain: Runs a pass on one backend after the other.
        last: The last pass.
    """

    def __init__(
        self,
        spec: LayerSpec,
        execution: Execution,
        *,
        name: str,
        framework: str | None = None,
        draw_seed: Callable[[], int] | None = None,
    ) -> None:
        self._drawn = spec.measurement is not None and spec.measurement.drawn
        shots = execution.samples(spec.measurement)
        self.spec, self.name, self.framework = spec, name, framework
        self.last: PassRecord | None = None
        self._calls: dict[Any, Call] = {}
        self._executables: dict[tuple[int, str], EncodedExecutable] = {}
        self._single: dict[int, LayerProgram] = {}
        self._routes: dict[Any, Route] = {}
        self._draw_seed, self._seeds = draw_seed, SeedStream(execution.seed, draw_seed)
        self.backends: tuple[Backend, ...] = ()
        self._tensor: Backend | None = None
        self._gpu: dict[str, Backend | None] = {}
        self.reason, backend = "as asked", execution.backend
        if spec.measurement is not None:
            chosen = not (isinstance(backend, str) and backend == "auto")
            if not chosen:
                asked = None if self._drawn else shots
                backend, self.reason = choose_backend(framework, asked, spec.circuit, spec.computed)
            first = get_backend(backend)
            if self._drawn:  # its own samples, or drawn from its exact values
                execution = replace(execution, shots=shots if first.capabilities.shots else None)
            self.execution = execution
            execution.check(first, spec.circuit, spec.computed)
            self.backends = (first, *fallback_backends(execution, first, spec.circuit, spec.computed))
            self.places = self._places(chosen)
        else:
            self.places = Places(framework, None if framework else "none", "none" if framework else None)
        self.execution, self._draws = execution, execution.draws(spec.measurement)
        changes = [execution.changes(self.backends[0], backend) for backend in self.backends]
        self.chain = Chain(name, [b.name for b in self.backends], changes)
        self._alone = not self.backends or (len(self.backends) == 1 and self.backends[0].capabilities.embedded)
        self._check_memory(1, "float32")

    def _places(self, chosen: bool) -> Places:
        """The backend is on the tensors, or an engine that computes the same is, or there is none."""
        first, framework = self.backends[0], self.framework
        exact = self.executable(0, "float32").settings.gradient == "vjp"
        noisy = first.capabilities.noisy or self.spec.circuit.noisy
        if framework is None or self._drawn:
            return Places(framework, first.name, None, chosen, drawn=self._drawn)
        if first.capabilities.framework == framework and exact:
            self._tensor = first
            return Places(framework, None, first.name, chosen)
        if first.capabilities.embedded and exact and not noisy:
            self._tensor = get_backend(FRAMEWORKS[framework].engine)
        return Places(framework, first.name, self._tensor.name if self._tensor is not None else None, chosen,
                      noisy=noisy)  # fmt: skip

    def _check_memory(self, rows: int, dtype: str) -> None:
        if self._drawn:
            check_drawn(rows, self.spec.output_dim)
        if not self.backends:
            check_memory(self.spec.n_qubits, rows, dtype)
        elif self.backends[0].capabilities.embedded:
            assert self.spec.computed is not None
            check_narrow_memory(self.spec.circuit, self.spec.computed, self.backends[0], rows, dtype)

    @property
    def backend_name(self) -> str:
        """Name of the first backend."""
        return self.backends[0].name if self.backends else "none"

    @property
    def last_run(self) -> LastRun | None:
        """What is known about the last pass."""
        return self.last.last_run(self.execution.seed) if self.last is not None else None

    @property
    def method(self) -> str:
        """How the first backend differentiates: "vjp", "parameter-shift", "finite-difference" or "spsa"."""
        return self.executable(0, "float32").settings.gradient

    @property
    def no_gradient(self) -> str:
        """Why there are no gradients at all, and what to do; "" where there are."""
        return self.executable(0, "float32").no_gradient

    @property
    def no_input_gradient(self) -> str:
        """Why features have no gradient on the first backend, and what to do; "" where they have one."""
        return self.executable(0, "float32").no_input_gradient

    def route(self, **situation: str | None) -> Route:
        """Where a call computes; see `route.route`. Remembered by situation."""
        key = tuple(situation.items())
        found = self._routes.get(key)
        if found is None:
            places = self.places
            if situation.get("device") == "cuda" and (gpu := self._on_gpu("float32")) is not None:
                places = replace(places, gpu=gpu.name)
            found = self._routes[key] = route(places, **situation)  # type: ignore[arg-type]
        return found

    def explain(self) -> str:
        """Which backend computes, and why; then, for tensors, where each kind of call computes."""
        if not self.backends:
            return f"{self.name}: normalises; runs no circuit"
        rest = "".join(f", then {b.name}" for b in self.backends[1:])
        layout = getattr(self.backends[0], "explain", None)
        assert self.spec.computed is not None
        narrow = narrowing(self.spec.circuit, self.spec.computed, self.backends[0], self.execution.shots)
        n_qubits = self.spec.n_qubits if narrow.is_full else narrow.width
        how = f", {layout(n_qubits)}" if layout is not None and narrow.window is None else ""
        how += "" if narrow.is_full else f", {narrow}"
        lines = [f"{self.name}: {self.backend_name} ({self.reason}{how}){rest}"]
        if self.framework is not None:
            for what, situation in SITUATIONS:
                found = self.route(**situation)
                lines.append(f"  {what}: {found.where} ({found.why})")
        return "\n".join(lines)

    # -- executables ----------------------------------------------------------------------------------------------

    def executable(self, index: int, dtype: str) -> EncodedExecutable:
        """The layer on backend number `index`; -1 for the engine on the framework's tensors, -2 for that on a GPU."""
        found = self._executables.get((index, dtype))
        if found is None:
            backend = self._tensor if index < 0 else self.backends[index] if self.backends else None
            if index == -2:
                backend = self._on_gpu(dtype)
            capabilities = _NO_CIRCUIT if backend is None else backend.capabilities
            name = "none" if backend is None else backend.name
            found = self._executables[index, dtype] = EncodedExecutable(
                self.spec,
                backend,
                self.execution.settings(name, capabilities, dtype),
                self.name,
                ops=FRAMEWORKS[self.framework].load_ops() if self.framework is not None and index < 0 else None,
            )
        return found

    def only(self, index: int) -> LayerProgram:
        """The same layer on backend number `index` alone."""
        if index not in self._single:
            execution = replace(self.execution, backend=self.backends[index], fallback=None, gradient="auto")
            if not self.backends[index].capabilities.shots:
                execution = replace(execution, shots=None)
            state = self.__getstate__() | {"execution": execution}
            self._single[index] = LayerProgram(**state)
        return self._single[index]

    def with_fallback(
        self, compute: Callable[[], Any], elsewhere: Callable[[LayerProgram], Any], *, recorded: bool = True
    ) -> Any:
        """`compute()` on the framework's tensors; where that fails, `elsewhere(program)` of a later backend alone.

        The record of that program becomes this one's, where calls are `recorded`: not where a framework traces them.
        """
        if len(self.backends) < 2:
            return compute()
        failures: list[str] = []
        out, index = self.chain.run(lambda n: elsewhere(self.only(n)) if n else compute(), failures=failures)
        if index and recorded:
            self.last = self.only(index).last
            if self.last is not None:
                self.last.failures = failures
        return out

    def on_tensors(self, x: Any, *, leaves: bool = False) -> EncodedExecutable:
        """The layer on the framework's tensors, in the precision of `x`; by operations in a graph that `leaves`."""
        dtype = "float64" if "64" in str(x.dtype) else "float32"
        faster = not leaves and getattr(x, "is_cuda", False) and self._on_gpu(dtype) is not None
        return self.executable(-2 if faster else -1, dtype)

    def _on_gpu(self, dtype: str) -> Backend | None:
        """With "auto", a faster engine on CUDA tensors, where there is one for this size and it can be used here."""
        if dtype not in self._gpu:
            found = None
            if self.framework is not None and self._tensor is not None and not self.places.chosen:
                framework = FRAMEWORKS[self.framework]
                if framework.gpu and self.spec.n_qubits <= framework.gpu_qubits.get(dtype, 0):
                    with suppress(BackendUnavailableError, UnknownBackendError, CapabilityError):
                        self.execution.check(get_backend(framework.gpu), self.spec.circuit, self.spec.computed)
                        found = get_backend(framework.gpu)
            self._gpu[dtype] = found
        return self._gpu[dtype]

    def __getstate__(self) -> dict[str, Any]:
        """Compiled circuits stay behind: recipes hold the backend by identity."""
        kept = {"spec": self.spec, "execution": self.execution, "name": self.name, "framework": self.framework}
        return {**kept, "draw_seed": self._draw_seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __deepcopy__(self, memo: dict[int, Any]) -> LayerProgram:
        """Only counters change in it, that of its seeds too, and they start anew; a backend is not copied."""
        return LayerProgram(**self.__getstate__())

    # -- calls on arrays ------------------------------------------------------------------------------------------

    def forward(self, theta: Any, x: Any) -> np.ndarray:
        """Features (…, F) → outputs (…, O)."""
        call, theta, rows = self._arrays(theta, x)
        record = PassRecord(call.executable.settings, call.lead)
        if self._draws:
            record.seeds = self._seeds.call()
        if not call.rows[0]:
            outputs = np.zeros((0, self.spec.output_dim), call.dtype)
        elif self._alone:
            outputs = call.executable.forward(theta, rows, record)
        else:
            outputs, _ = self._on_chain(lambda executable: executable.forward(theta, rows, record), call, record)
        self._end("forward", record, record)
        return outputs if call.as_is else self._shaped(outputs, call)

    def value_and_vjp(
        self, theta: Any, x: Any, *, wrt_theta: bool = True, wrt_inputs: bool = True, copied: bool = False
    ) -> tuple[np.ndarray, VjpFn]:
        """Outputs (…, O), and the function that pulls cotangents of that shape back.

        Args:
            theta: (W,); radians. Copied, unless it is `copied`: it may change before that function is called.
            x: Features (…, F); must not change before.
            wrt_theta: Whether the gradient of theta is wanted; circuits that only it needs are not run then.
            wrt_inputs: The same for gradients of the features.
            copied: Whether theta is the caller's copy already.

        Returns:
            `(outputs, vjp_fn)`; `vjp_fn(cotangents)` gives `(d_theta (W,), d_x like x)`; None for what is not
            wanted. Where the gradient takes circuits of its own, `vjp_fn(cotangents, wrt_theta, wrt_inputs)` may want
            less.

        Raises:
            GradientError: an exact gradient was asked for where there is none.
        """
        call, theta, rows = self._arrays(theta, x)
        if wrt_inputs and call.no_input_gradient:
            raise GradientError(call.no_input_gradient)
        record, index = PassRecord(call.executable.settings, call.lead), 0
        if not copied and call.theta_as_is:  # it is a copy where it was converted
            theta = theta.copy()
        if self._draws:
            record.seeds = self._seeds.call()
        wanted = wrt_theta, wrt_inputs
        if not call.rows[0]:
            outputs, own = self._no_rows(theta, rows)
        elif self._alone:
            outputs, own = call.executable.value_and_vjp(theta, rows, record, wanted)
        else:
            begin = partial(_begin, theta=theta, rows=rows, record=record, wanted=wanted)
            (outputs, own), index = self._on_chain(begin, call, record)
        self._end("forward", record, record)

        def vjp_fn(cotangents: np.ndarray, *less: bool) -> tuple[np.ndarray | None, np.ndarray | None]:
            record.backward = back = PassRecord(record.settings, call.lead)
            if record.fused:
                back.fused = "gradient"
            if self._draws:
                back.seeds = record.seeds
            if not (call.as_is and cotangents.dtype == call.dtype and cotangents.flags.carray):
                # A copy: `np.require` takes ten times as long, and most are broadcast.
                cotangents = np.array(cotangents, call.dtype, order="C").reshape(len(rows), self.spec.output_dim)
            if self._alone or not call.rows[0]:
                d_theta, d_x = own(cotangents, *less)
            else:
                begin = partial(_begin, theta=theta, rows=rows, record=record, wanted=wanted)
                pull = partial(_pull, begin=begin, own=own, record=record, arguments=(cotangents, *less))
                (d_theta, d_x), _ = self._on_chain(pull, call, back, index)
            self._end("backward", back, record)
            if not wrt_theta:
                d_theta = None
            if d_x is None or not wrt_inputs:
                return d_theta, None
            return d_theta, d_x if call.as_is else d_x.reshape(*call.lead, rows.shape[1])

        return outputs if call.as_is else self._shaped(outputs, call), vjp_fn

    def _on_chain(
        self, compute: Callable[[EncodedExecutable], Any], call: Call, record: PassRecord, first: int = 0
    ) -> tuple[Any, int]:
        """`compute` on one backend after the other, until one can."""
        record.failures = failures = []  # type: ignore[var-annotated]

        def attempt(index: int) -> Any:
            executable = self.executable(index, call.dtype.name)
            record.settings, record.reports = executable.settings, ()  # not those of a backend that failed
            return compute(executable)

        return self.chain.run(attempt, first, failures=failures)

    def _no_rows(self, theta: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, Any]:
        outputs = np.zeros((0, self.spec.output_dim), rows.dtype)
        return outputs, lambda *_: (np.zeros_like(theta), np.zeros_like(rows))

    def _end(self, phase: str, record: PassRecord, last: PassRecord) -> None:
        """End a pass: `last_run` and open profiles tell about it."""
        record.end = end = perf_counter()
        self.last = last
        if profiling.profiles:
            profiling.note(self.name, phase, "", record.begin, end, record)

    def _shaped(self, outputs: np.ndarray, call: Call) -> np.ndarray:
        """Outputs of a backend that may have another precision than asked for, with the leading dimensions."""
        return outputs.reshape(*call.lead, self.spec.output_dim).astype(call.dtype, copy=False)

    def _arrays(self, theta: Any, x: Any) -> tuple[Call, np.ndarray, np.ndarray]:
        """Theta (W,) and features (B, F) as engines read them, and what is remembered about such arrays."""
        try:
            call = self._calls[
                x.__class__, x.dtype, x.shape, x.flags.num, theta.__class__, theta.dtype, theta.shape, theta.flags.num
            ]
        except (KeyError, AttributeError, TypeError):
            call, theta, x = self._look(theta, x)
        if not call.theta_as_is:
            theta = theta.astype(call.dtype, "C")
        return call, theta, x if call.as_is else np.require(x, call.dtype, _PLAIN).reshape(call.rows)

    def _look(self, theta: Any, x: Any) -> tuple[Call, np.ndarray, np.ndarray]:
        """Check all that can be told without values, and remember it."""
        given, theta, x = (theta, x), self.real_array(theta, "angles"), self.real_array(x, "features")
        self.check_shapes(theta.shape, x.shape)
        dtype = "float64" if x.dtype.kind == "f" and x.dtype.itemsize >= 8 else "float32"
        lead = x.shape[:-1]
        rows = math.prod(lead), x.shape[-1]
        self._check_memory(rows[0], dtype)
        plain = np.require(x, dtype, _PLAIN) is x and x.ndim == 2 and self._alone
        theta_plain = np.require(theta, dtype, _PLAIN) is theta
        executable = self.executable(0, dtype)
        call = Call(np.dtype(dtype), lead, rows, plain, theta_plain, executable, executable.no_input_gradient)
        if theta is given[0] and x is given[1]:
            if len(self._calls) >= _MOST_CALLS:
                self._calls = {}
            self._calls[
                x.__class__, x.dtype, x.shape, x.flags.num, theta.__class__, theta.dtype, theta.shape, theta.flags.num
            ] = call
        return call, theta, x

    def real_array(self, values: Any, what: str) -> np.ndarray:
        """`values` as an array of real numbers.

        Raises:
            InputError: they are none.
        """
        if isinstance(values, np.ma.MaskedArray):
            raise InputError(
                f"{self.name} takes plain arrays, received {what} with a mask, which it would ignore. Fill what is "
                "masked: x.filled(0)."
            )
        try:
            array = np.asarray(values)
        except ValueError as error:  # rows of different lengths
            raise InputError(f"{self.name} takes an array of numbers: {error}") from error
        if array.dtype.kind not in "fiub":
            raise InputError(f"{self.name} takes real numbers, received {what} of dtype {array.dtype}.")
        return array

    def valid_rows(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Bool (B,): rows of features (B, F) that a call does not refuse."""
        return self.executable(0, x.dtype.name).valid_rows(theta, x)

    def check_shapes(self, theta: tuple[int | None, ...], x: tuple[int | None, ...]) -> None:
        """Raise `ShapeError` where theta or features of these shapes do not fit; None stands for an unknown size."""
        if tuple(theta) != (self.spec.n_weights,):
            raise ShapeError(
                f"{self.name}: theta has shape ({self.spec.n_weights},), received {tuple(theta)}. Weights of another "
                "circuit, or of several, do not fit.",
                expected=(self.spec.n_weights,),
                received=tuple(theta),
            )
        self.spec.check_features(tuple(x))
        if len(x) == 1:
            raise ShapeError(
                f"{self.name} takes inputs of shape (batch, features), received {tuple(x)}. Use x[None, :] for one "
                "sample.",
                received=tuple(x),
            )

    # -- calls on tensors -----------------------------------------------------------------------------------------

    def record(
        self, phase: str, compute: Callable[[], Any], settings: Settings, forward: PassRecord | None = None
    ) -> Any:
        """`compute()` on eager tensors, with a record: `(result, record)`.

        Args:
            phase: "forward" or "backward".
            compute: The work.
            settings: Of the executable that computes.
            forward: The record of the forward pass, for a backward pass.
        """
        record = PassRecord(settings)
        result = compute()
        if forward is not None:
            forward.backward = record
        self._end(phase, record, forward or record)
        return result, record


def _begin(
    executable: EncodedExecutable, *, theta: np.ndarray, rows: np.ndarray, record: PassRecord, wanted: tuple[bool, bool]
) -> tuple[np.ndarray, VjpFn]:
    return executable.value_and_vjp(theta, rows, record, wanted)


def _pull(
    executable: EncodedExecutable, *, begin: Callable[..., Any], own: VjpFn, record: PassRecord, arguments: Any
) -> Any:
    """On the backend of the forward half, or, where that failed now, both halves on a later one."""
    if executable.settings is record.settings:
        return own(*arguments)
    reports, (_, vjp_of_it) = record.reports, begin(executable)
    record.reports = reports
    return vjp_of_it(*arguments)
