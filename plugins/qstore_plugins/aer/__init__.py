"""Qiskit: Aer simulators by name, and any Qiskit backend, estimator or sampler given as an object.

    get_backend("aer")                                          statevector, exact, with adjoint gradients
    get_backend("aer", method="density_matrix", noise_model=m)  exact values of noisy circuits
    get_backend("aer", backend=service.backend("ibm_…"))        hardware: give the layer shots=
    get_backend("aer", estimator=EstimatorV2(...))              a primitive, with its own options

A batch is one submission: one Aer run, or one job with one PUB per measured basis. Circuits are transpiled once.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from qstore_core import BackendError, Capabilities, CapabilityError, Circuit, NoiseModel, OptionError, hookimpl
from qstore_core.backends.contract import check_options
from qstore_core.backends.forking import off_forked_thread, on_fork
from qstore_core.circuit.measurements.measurement import Measurement, Probabilities

from ._noise import Channels, noise_of

__all__ = ["AerBackend", "qstore_backend"]

QSTORE_CONTRACT = 2

_METHODS = ("automatic", "statevector", "density_matrix", "matrix_product_state", "tensor_network")
_OBJECTS = ("backend", "estimator", "sampler")
_COMMON = ("optimization_level",)


# Qiskit's own sign for a child process, whose transpiler must not wait for its parent's threads.
on_fork(lambda: os.environ.update(QISKIT_IN_PARALLEL="TRUE"))


@hookimpl
def qstore_backend(options: dict[str, Any]) -> AerBackend:
    """The backend for `options`; see `AerBackend`."""
    from qiskit_aer import AerSimulator  # an ImportError from here names the missing library

    objects = {name: options[name] for name in _OBJECTS if options.get(name) is not None}
    known = {*_OBJECTS, *_COMMON}
    if not objects:
        known |= {"method", "noise_model", "device", "basis_gates", *AerSimulator().options.__dict__}
    check_options({k: v for k, v in options.items() if v is not None}, known, backend="aer")
    return AerBackend(**options)


class AerBackend:
    """Circuits on Qiskit.

    Args:
        method: Of Aer: "statevector" (default), "density_matrix", "matrix_product_state", "automatic" (statevector, or
            the density matrix under noise) or "tensor_network".
        noise_model: A qiskit_aer.noise.NoiseModel or a qstore_core.NoiseModel. Circuits then run as they are written:
            gates that the model names have its noise, all others and the preparation of amplitudes have none. Exact
            values need the density matrix, which is the method of a model of the core.
        backend: A Qiskit BackendV2, in place of a method. Alongside a primitive: what to transpile for.
        estimator: An EstimatorV2, for expectation values.
        sampler: A SamplerV2, for what the estimator does not do, or for all. Both have their own seeds.
        optimization_level: Of the transpiler. By default 0 under noise, on devices and for primitives, where each gate
            is wanted as it is written; what is above it merges gates, and their noise with them.
        **simulator: Any further option of AerSimulator: device="GPU", precision="single", max_parallel_threads=1, …
            With basis_gates=noise_model.basis_gates a circuit is translated to these first, as for a device.

    Example:
        >>> from qstore_core import QuantumReadout, get_backend
        >>> backend = get_backend("aer", method="matrix_product_state")     # doctest: +SKIP
        >>> layer = QuantumReadout(4, backend=backend, shots=1024, seed=0)  # doctest: +SKIP
    """

    name = "aer"

    def __init__(
        self,
        *,
        method: str | None = None,
        noise_model: Any = None,
        backend: Any = None,
        estimator: Any = None,
        sampler: Any = None,
        optimization_level: int | None = None,
        **simulator: Any,
    ) -> None:
        from qiskit_aer import AerSimulator

        self._estimator, self._sampler = estimator, sampler
        self._channels = noise_model if isinstance(noise_model, NoiseModel) else None
        self._simulator: Any = None
        self._target = backend
        if estimator is not None or sampler is not None:
            if backend is None:
                self._target = _backend_of(estimator if estimator is not None else sampler)
        elif backend is None:
            self._simulator = _simulator(method, noise_model, simulator)
        elif isinstance(backend, AerSimulator):
            self._simulator = backend
        elif not callable(getattr(backend, "run", None)) or not hasattr(backend, "target"):
            raise OptionError(
                f"backend= takes a Qiskit BackendV2, received {backend!r}. Backends of qstore are named: "
                'get_backend("aer").',
                argument="backend", backend="aer",
            )  # fmt: skip
        self._noise = noise_of(self._simulator or estimator or sampler or backend)
        exact_gates = self._simulator is not None and self._noise is None
        self._level = optimization_level if optimization_level is not None else 1 if exact_gates else 0
        # Not for a device that is simulated: its circuits must be made of its gates.
        self._device = getattr(self._simulator, "coupling_map", None) is not None or "basis_gates" in simulator
        self._as_written = self._noise is not None and not self._device and optimization_level is None
        self.capabilities = self._capabilities()

    def _capabilities(self) -> Capabilities:
        if self._simulator is not None:
            # Noise without the density matrix is one random trajectory per shot: no exact values.
            noisy, method = self._noise is not None, self._simulator.options.method
            exact = not noisy or method in ("automatic", "density_matrix")
            vjp = not noisy and method in ("automatic", "statevector")
            channels = method == "density_matrix" and not (noisy or self._device)
            noisy = noisy or self._channels is not None
            return Capabilities(exact=exact, shots=True, vjp=vjp, noisy=noisy, channels=channels)
        primitive = self._estimator if self._estimator is not None else self._sampler
        return Capabilities(
            exact=self._estimator is not None and _default_precision(self._estimator) == 0,
            shots=True,
            remote=not _is_local(primitive if primitive is not None else self._target),
            noisy=self._noise is not None or not _is_ideal(primitive if primitive is not None else self._target),
            max_qubits=getattr(self._target, "num_qubits", None),
        )

    def compile(
        self, circuit: Circuit, measurement: Measurement, *, dtype: str = "float32", shots: int | None = None
    ) -> Any:
        """An executable; transpiles.

        Raises:
            CapabilityError: probabilities of an estimator; exact values of something that samples.
        """
        from ._circuits import AerExact, AerSampled, Estimated, Sampled, instruction_names, kept_names
        from ._register import RegisterExecutable

        if self._channels is not None:
            circuit = self._channels.applied(circuit)
        if circuit.noisy:
            return self._with_channels(circuit, measurement, dtype, shots)
        if self._noise is not None and not self._as_written:
            target = self._target if self._simulator is None else self._simulator
            self._noise.check_kept(instruction_names(circuit), kept_names(target))
        if self._simulator is not None:
            run = (self._simulator, self._submit if shots is not None else self._submit_exact, dtype,
                   None if self._as_written else self._level, self._noise)  # fmt: skip
            if shots is not None:
                return AerSampled(circuit, measurement, *run, shots)
            if self.capabilities.vjp:
                return RegisterExecutable(circuit, measurement, self._run_register, dtype)
            if not self.capabilities.exact:
                raise self._cannot("exact values under noise with this method", 'method="density_matrix", or shots=')
            if self._noise is not None:
                self._noise.check_exact()
            return AerExact(circuit, measurement, *run)
        if self._estimator is not None and not (isinstance(measurement, Probabilities) and self._sampler is not None):
            if isinstance(measurement, Probabilities):
                raise self._cannot("probabilities: an Estimator gives expectation values", "sampler= as well")
            if self._noise is not None and self._noise.spoils_readout:
                raise self._cannot("readout errors with an estimator of Aer's: it leaves them out", "noise_model= here")
            return Estimated(circuit, measurement, self._estimator, self._target, dtype, self._level, shots)
        if shots is None:
            raise self._cannot("exact values: it samples", "shots=, for example shots=1024")
        return Sampled(circuit, measurement, self._make_sampler, self._target, dtype, self._level, shots)

    def _with_channels(self, circuit: Circuit, measurement: Measurement, dtype: str, shots: int | None) -> Any:
        """Channels as Kraus instructions of a circuit that runs as it is written."""
        from ._circuits import AerExact, AerSampled

        if not self.capabilities.channels:
            instead = 'method="density_matrix" without a noise model, or backend="density"'
            raise self._cannot("channels in a circuit, as it is set up", instead)
        channels = Channels(circuit)
        if shots is None:
            return AerExact(circuit, measurement, self._simulator, self._submit_exact, dtype, None, channels)
        readout = {"noise_model": channels.model()} if channels.spoils_readout else {}
        submit = partial(self._submit, **readout)
        return AerSampled(circuit, measurement, self._simulator, submit, dtype, None, channels, shots)

    def _make_sampler(self, seed: int | None) -> Any:
        if self._sampler is not None:
            return self._sampler
        if type(self._target).__module__.startswith("qiskit_ibm_runtime.ibm_backend"):  # has no run() of its own
            from qiskit_ibm_runtime import SamplerV2

            return SamplerV2(mode=self._target)
        from qiskit.primitives import BackendSamplerV2

        return BackendSamplerV2(backend=self._target, options={"seed_simulator": seed})

    # -- AerSimulator -----------------------------------------------------------------------------------------------

    @off_forked_thread
    def _submit(self, circuits: list[Any], count: int, **options: Any) -> Any:
        """One run; its result where all of it succeeded and has `count` parts."""
        result = self._simulator.run(circuits, **options).result()
        if not result.success:
            reasons = {str(one.status) for one in result.results or () if not one.success} or {str(result.status)}
            raise BackendError(f"Aer failed: {'; '.join(sorted(reasons))}", backend="aer")
        if len(result.results) != count:
            raise BackendError(f"Aer returned {len(result.results)} results, expected {count}.", backend="aer")
        return result

    def _submit_exact(self, circuits: list[Any], count: int, **options: Any) -> Any:
        if self._noise is not None:
            options["method"] = "density_matrix"
        return self._submit(circuits, count, **options)

    def _run_register(self, circuits: list[Any], binds: list[Any]) -> list[dict[str, Any]]:
        # Clifford circuits would be given to the stabilizer method by "automatic".
        result = self._submit(
            circuits, len(circuits), parameter_binds=binds if any(binds) else None, shots=1, method="statevector"
        )
        return [result.data(number) for number in range(len(circuits))]

    def _cannot(self, what: str, instead: str) -> CapabilityError:
        return CapabilityError(f"backend 'aer' has no {what}. Use {instead}.", backend="aer")

    def __repr__(self) -> str:
        of = self._simulator or self._estimator or self._sampler or self._target
        return f"<AerBackend: {of!r}>"


def _simulator(method: str | None, noise_model: Any, options: dict[str, Any]) -> Any:
    from qiskit_aer import AerSimulator

    if isinstance(noise_model, NoiseModel):  # in the circuit, as channels
        method, noise_model = method or "density_matrix", None
        if method != "density_matrix":
            raise OptionError(
                f'a noise model of qstore_core needs method="density_matrix", received method={method!r}.',
                argument="method", backend="aer",
            )  # fmt: skip
    elif noise_model is not None and not hasattr(noise_model, "noise_instructions"):
        raise OptionError(
            "noise_model is a qiskit_aer.noise.NoiseModel or a qstore_core.NoiseModel, received "
            f"{type(noise_model).__name__}.", argument="noise_model", backend="aer",
        )  # fmt: skip
    if method is None:
        method = "statevector" if noise_model is None else "automatic"
    if method not in _METHODS:
        raise OptionError(
            f"Aer has no method {method!r} for layers. Known: {', '.join(_METHODS)}.", argument="method", backend="aer"
        )
    if noise_model is not None:
        options = {**options, "noise_model": noise_model}
    # Parameters bound in the simulator, not in Python: 32 circuits are assembled once.
    options = {"runtime_parameter_bind_enable": True, **options}
    return AerSimulator(method=method, **options)


def _backend_of(primitive: Any) -> Any:
    """What a primitive runs on, where it says so and takes only circuits of that target."""
    if type(primitive).__module__.startswith("qiskit_aer."):
        from qiskit_aer import AerSimulator

        return AerSimulator()  # does not say, and does not take every gate
    backend = getattr(primitive, "backend", None)
    backend = backend() if callable(backend) else backend
    return backend if hasattr(backend, "target") else None


def _default_precision(estimator: Any) -> float | None:
    for owner in (estimator, getattr(estimator, "options", None)):
        precision = getattr(owner, "default_precision", None)
        if isinstance(precision, int | float):
            return float(precision)
    return None


def _is_ideal(thing: Any) -> bool:
    """True for simulators of no device."""
    return type(thing).__module__.startswith(("qiskit_aer.", "qiskit.primitives.statevector"))


def _is_local(thing: Any) -> bool:
    module, name = type(thing).__module__, type(thing).__name__
    return module.startswith(("qiskit_aer.", "qiskit.primitives.statevector")) or name.startswith(("Fake", "Generic"))
