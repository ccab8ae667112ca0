"""Checks of what a backend is and refuses: parts, options, limits, unknown gates, what compiled circuits share."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable

import numpy as np

from ...backends.contract import contract_problems
from ...backends.registry import get_backend
from ...circuit.angles.angle import as_angle
from ...circuit.circuit import Circuit, Operation, register_gate, unregister_gate
from ...circuit.gates.table import GATES, AxisRotation, Cnot, Gate
from ...circuit.measurements.measurement import Expectation, Measurement, Pauli, Probabilities
from ...errors import CapabilityError, OptionError, QstoreError, SpecError
from ...layers.numpy import QuantumFeatureExtractor
from .. import reference
from ..compare import ConformanceError, same
from ..points import cotangents, generic, random_point, scramble
from ..subject import SEED, SIGMAS, SLOPES, Compiled, NotDeclared, Subject, arrays, check, each

__all__: list[str] = []


@check("backend: parts", "B1", core=True)
def _parts(subject: Subject) -> None:
    """It is a Backend; executables have the methods that its capabilities declare."""
    backend = subject.backend
    problems = contract_problems(backend)
    named = subject.given.partition(":")[0] if isinstance(subject.given, str) else ""
    if named and not problems and backend.name.partition(":")[0] != named:
        problems.append(f"it calls itself {backend.name!r}, but is installed as {named!r}")
    declared = subject.capabilities
    if not declared.exact and not declared.shots:
        problems.append("capabilities declare neither exact values nor shots")
    executable = subject.compile(generic(1), Expectation()).raw
    if declared.vjp and not (hasattr(executable, "vjp") or hasattr(executable, "value_and_vjp")):
        problems.append("capabilities.vjp is declared, but executables have neither vjp nor value_and_vjp")
    if declared.framework is not None and not hasattr(executable, "apply"):
        problems.append(f"capabilities.framework is {declared.framework!r}, but executables have no apply")
    if declared.embedded and (declared.remote or not declared.exact):
        problems.append("capabilities.embedded is declared: computed exactly in this process, not remote or sampled")
    said = backend.explain(2) if hasattr(backend, "explain") else ""
    if not isinstance(said, str):
        problems.append(f"explain(2) gave {type(said).__name__}, expected str")
    size = getattr(executable, "nbytes", 0)
    if not isinstance(size, int | np.integer) or size < 0:
        problems.append(f"nbytes of an executable is {size!r}, expected its size in bytes")
    if problems:
        raise ConformanceError("; ".join(problems) + ".")


@check("backend: options", "B2")
def _options(subject: Subject) -> None:
    """An unknown option is refused by name."""
    if not isinstance(subject.given, str):
        raise NotDeclared("the backend was given as an object")
    name, unknown = subject.given, {"no_such_option": 1}
    _raises(lambda: get_backend(name, **unknown), OptionError, "an unknown option 'no_such_option'")


@check("backend: max_qubits", "B3")
def _max_qubits(subject: Subject) -> None:
    """One qubit more than max_qubits is refused when it is compiled."""
    limit = subject.capabilities.max_qubits
    if limit is None:
        raise NotDeclared("capabilities.max_qubits is None: it states no limit")
    c = Circuit(limit + 1)
    c.append("ry", (limit,), c.inputs(1))
    measured = Expectation(observables=(Pauli("I" * limit + "Z"),))
    _raises(
        lambda: subject.backend.compile(c, measured, dtype="float64", shots=subject.shots),
        CapabilityError,
        f"compile with {limit + 1} qubits where capabilities.max_qubits is {limit}",
    )


@check("backend: shots refused", "B4")
def _shots_refused(subject: Subject) -> None:
    """A backend that does not sample says so, with a CapabilityError, instead of ignoring shots."""
    if subject.capabilities.shots:
        raise NotDeclared("capabilities.shots is True: it takes shots")
    _raises(
        lambda: subject.compile(generic(1), Expectation(), shots=100),
        CapabilityError,
        "compile(..., shots=100) where capabilities.shots is False",
    )


def _raises(call: Callable[[], object], kind: type[QstoreError], what: str) -> None:
    try:
        call()
    except kind:
        return
    except Exception as error:
        raise ConformanceError(f"{what}: raised {type(error).__name__}: {error}; expected {kind.__name__}.") from error
    raise ConformanceError(f"{what}: nothing was raised, expected {kind.__name__}.")


_HALF = math.sqrt(0.5)
_NEW_GATES = (
    Gate(
        "kit_rotation",
        1,
        1,
        lambda a: math.cos(a / 2) * np.eye(2) - 1j * math.sin(a / 2) * GATES["h"].matrix(),
        (AxisRotation(0, (_HALF, 0.0, _HALF), (1.0,)),),
        "two-term",
        "Rotation about the axis of H.",
    ),
    Gate(
        "kit_cnot_swap",
        2,
        0,
        lambda: GATES["swap"].matrix() @ GATES["cnot"].matrix(),
        (Cnot(0, 1), Cnot(0, 1), Cnot(1, 0), Cnot(0, 1)),
        "",
        "CNOT, then exchange.",
    ),
)


@check("gates: unknown", "B5")
def _unknown_gates(subject: Subject) -> None:
    """A gate that a user has registered is computed by its matrix, or refused with a CapabilityError."""
    for gate in _NEW_GATES:
        what = f"a circuit with a gate {gate.name!r}, which the backend cannot know"
        register_gate(gate)
        try:
            c = Circuit(3)
            scramble(c, 0.3)
            c.append(gate.name, (2, 0)[: gate.n_qubits], c.inputs(gate.n_params))
            scramble(c, 1.3)
            subject.expect(c, Expectation(("Z", "X")), random_point(c, 2), what)
        except (ConformanceError, NotDeclared):
            raise
        except (CapabilityError, SpecError):  # SpecError: of a worker in another process, which has no such gate
            continue
        except Exception as error:
            raise ConformanceError(
                f"{what}: raised {type(error).__name__}: {error}; expected a CapabilityError, or the values that its "
                "matrix in the gate table gives."
            ) from error
        finally:
            unregister_gate(gate.name)


def _variant(gate: str = "rx", constant: float = 0.3, swap: bool = False, slot: int = 0, late: bool = False) -> Circuit:
    c = Circuit(2)
    x, w = c.inputs(2), c.weights(2)
    c.append("ry", (0,), (x[slot],))
    c.append("ry", (1,), (w[1 - slot],))
    operations = [
        Operation("cnot", (1, 0) if swap else (0, 1)),
        Operation(gate, (1,), (as_angle(constant),)),
        Operation("rz", (0,), (w[0],)),
    ]
    c.extend(reversed(operations) if late else operations)
    c.append("ry", (0,), (x[1],))
    return c


@check("backend: compiled apart", "B6", core=True)
def _compiled_apart(subject: Subject) -> None:
    """Circuits of one shape that differ in one thing, compiled one after the other and called by turns."""
    zx = Expectation(("Z", "X"))
    circuits = {
        "another constant": _variant(constant=0.9),
        "another gate": _variant(gate="ry"),
        "control and target exchanged": _variant(swap=True),
        "other slots": _variant(slot=1),
        "another order of operations": _variant(late=True),
    }
    measurements: dict[str, Measurement] = {
        "the order of bases": Expectation(("X", "Z")),
        "another basis": Expectation(("Z", "Y")),
        "the order of qubits": Expectation(("Z", "X"), qubits=(1, 0)),
        "observables": Expectation(observables=tuple(Pauli(p) for p in ("ZI", "IZ", "ZZ", "XX"))),
        "coefficients": Expectation(observables=tuple(2.0 * Pauli(p) for p in ("ZI", "IZ", "ZZ", "XX"))),
        "probabilities": Probabilities(),
        "the order of qubits of probabilities": Probabilities(qubits=(1, 0)),
        "classes": Probabilities(n_classes=4),
    }
    base = _variant()
    built: list[tuple[str, Circuit, Measurement, Compiled]] = [("nothing", base, zx, subject.compile(base, zx))]
    built += [(what, c, zx, subject.compile(c, zx)) for what, c in circuits.items()]
    built += [(what, base, measured, subject.compile(base, measured)) for what, measured in measurements.items()]
    point = random_point(base, 2)
    for turn in range(2):
        for what, circuit, measured, compiled in built:
            text = f"a circuit that differs from another in {what}, call {turn + 1}"
            subject.expect(circuit, measured, point, text, compiled=compiled)
    for circuit, first in ((_variant(constant=1.7), "float64"), (_variant(constant=2.7), "float32")):
        order = (first, "float32" if first == "float64" else "float64")
        both = [(dtype, subject.compile(circuit, zx, dtype)) for dtype in order]
        for dtype, compiled in both:
            text = f"dtype {dtype}, of a circuit compiled for {order[0]}, then for {order[1]}"
            subject.expect(circuit, zx, point, text, dtype=dtype, compiled=compiled)
    if not (subject.capabilities.shots and subject.capabilities.exact):
        return
    for circuit, options in ((_variant(constant=-1.7), (None, 500)), (_variant(constant=-2.7), (500, None))):
        for compiled in [subject.compile(circuit, zx, shots=shots) for shots in options]:
            shots = compiled.shots
            text = f"shots={shots}, of a circuit compiled with shots={options[0]}, then with shots={options[1]}"
            got = subject.expect(circuit, zx, point, text, compiled=compiled)
            if shots and np.abs(got - reference.outputs(circuit, zx, *arrays(*point))).max() < 1e-9:
                raise ConformanceError(f"{text}: the values are the exact ones.")


@check("layers", "B7")
def _layers(subject: Subject) -> None:
    """A layer on this backend has the circuit's values and gradients, and so has a copy that was pickled."""
    by_name = isinstance(subject.given, str) and not subject.options
    layer = QuantumFeatureExtractor(
        2,
        depth=1,
        encoding="angle",
        backend=subject.given if by_name else subject.backend,
        shots=subject.shots,
        fallback=None,
        init="normal",
        seed=SEED,
    )
    spec = layer.spec
    assert spec.measurement is not None
    x, d = np.random.default_rng(SEED).uniform(-1, 1, (3, 2)), cotangents(3, 2)
    theta, _ = arrays(layer.theta, x)
    want = reference.outputs(spec.circuit, spec.measurement, theta, x)
    d_theta, d_x = reference.slopes(spec.circuit, spec.measurement, theta, x, d)
    copy = None
    try:
        copy = pickle.loads(pickle.dumps(layer))
    except Exception as error:
        if by_name:
            raise ConformanceError(f"a layer with backend={subject.given!r} does not pickle: {error}") from error
    spread = loss = 0.0
    if subject.shots is not None:  # two-term rule: each row's circuits contribute (Σ|cotangent|)²/2 shots
        spread = SIGMAS / float(np.sqrt(subject.shots))
        loss = spread * float(np.sqrt((np.abs(d).sum(axis=1) ** 2).sum() / 2))

    def compare(what: str, layer: QuantumFeatureExtractor) -> None:
        got = layer.vjp(x, d)
        same(layer(x), want, 1e-6 + spread, f"outputs of {what}")
        same(got[0], d_theta, SLOPES["float32"] + loss, f"gradient for theta of {what}")
        same(got[1], d_x, SLOPES["float32"] + loss, f"gradient for inputs of {what}")

    layers = [("a layer", layer)] + ([] if copy is None else [("a layer after pickling", copy)])
    each(layers, compare)
    if copy is None:
        raise NotDeclared("values and gradients are right; the backend was given as an object that does not pickle")
