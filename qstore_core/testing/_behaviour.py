"""Checks of how a backend behaves: threads, pickling, errors, options."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..backends.registry import get_backend
from ..circuit.measurement import Expectation
from ..errors import CapabilityError, InputError, OptionError, QstoreError, ShapeError
from ..layers.numpy import QuantumFeatureExtractor
from ._values import random_point, rotations
from .subject import ConformanceError, NotDeclared, Subject, arrays, check, same


@check("repeatable")
def _repeatable(subject: Subject) -> None:
    """Exact values are the same at every call and after every compilation."""
    if subject.shots is not None:
        raise NotDeclared("capabilities.exact is False: values are sampled")
    circuit = rotations(3)
    theta, inputs = arrays(*random_point(circuit, 5), "float64")
    executable = subject.compile(circuit, Expectation())
    first = executable.forward(theta, inputs)
    same(executable.forward(theta, inputs), first, 1e-9, "the same call again")
    same(
        subject.compile(circuit, Expectation()).forward(theta, inputs),
        first,
        1e-9,
        "the same circuit compiled again",
    )


@check("threads")
def _threads(subject: Subject) -> None:
    """Four threads compile and call at once; each gets its own values."""
    circuit, measured = rotations(2), Expectation()
    points = [arrays(*random_point(circuit, 3, seed), "float64") for seed in range(12)]
    shared = subject.compile(circuit, measured)
    alone = [np.asarray(shared.forward(*point)) for point in points]
    ready = threading.Barrier(4)

    def call(number: int) -> np.ndarray:
        ready.wait()  # the four calls of a round begin together
        executable = shared if number % 2 else subject.compile(circuit, measured)
        return np.asarray(executable.forward(*points[number]))

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(call, range(len(points))))
    tolerance = 2 * subject.tolerance(circuit, measured)
    for number, (got, want) in enumerate(zip(together, alone, strict=True)):
        same(got, want, tolerance, f"call {number} of 12 in 4 threads, against the same call alone")


@check("pickling")
def _pickling(subject: Subject) -> None:
    """A layer on this backend can be sent to another process."""
    by_name = isinstance(subject.given, str) and not subject.options
    layer = QuantumFeatureExtractor(
        2,
        depth=1,
        encoding="angle",
        backend=subject.given if by_name else subject.backend,
        shots=subject.shots,
        fallback=None,
        seed=1,
    )
    x = np.array([[0.3, 1.0]])
    first = layer(x)
    try:
        copy = pickle.loads(pickle.dumps(layer))
    except Exception as error:
        if by_name:
            raise ConformanceError(f"a layer with backend={subject.given!r} does not pickle: {error}") from error
        raise NotDeclared(f"the backend was given as an object, and it does not pickle: {error}") from None
    spread = 0.0 if subject.shots is None else 10.0 / subject.shots**0.5
    same(copy(x), first, 1e-9 + spread, "a layer after pickling, against before")


@check("errors")
def _errors(subject: Subject) -> None:
    """The caller's mistakes come out as what they are, never as a fallback; limits are said before anything runs."""
    layer = QuantumFeatureExtractor(2, depth=1, encoding="angle", backend=subject.backend, shots=subject.shots)
    for inputs, kind in ((np.array([[np.nan, 0.0]]), InputError), (np.zeros((1, 5)), ShapeError)):
        _raises(lambda inputs=inputs: layer(inputs), kind, f"inputs {inputs.tolist()}")
    limit = subject.capabilities.max_qubits
    if limit is not None:
        _raises(
            lambda: QuantumFeatureExtractor(limit + 1, encoding="angle", backend=subject.backend, shots=subject.shots),
            CapabilityError,
            f"{limit + 1} qubits where max_qubits is {limit}",
        )
    if not subject.capabilities.exact:
        _raises(
            lambda: QuantumFeatureExtractor(2, encoding="angle", backend=subject.backend),
            CapabilityError,
            "shots=None where capabilities.exact is False",
        )


@check("options")
def _options(subject: Subject) -> None:
    """An unknown option is refused by name."""
    if not isinstance(subject.given, str):
        raise NotDeclared("the backend was given as an object")
    unknown = {"no_such_option": 1}
    _raises(lambda: get_backend(str(subject.given), **unknown), OptionError, "an unknown option 'no_such_option'")


def _raises(call: object, kind: type[QstoreError], what: str) -> None:
    assert callable(call)
    try:
        call()
    except kind:
        return
    except Exception as error:
        raise ConformanceError(f"{what}: raised {type(error).__name__}: {error}; expected {kind.__name__}.") from error
    raise ConformanceError(f"{what}: nothing was raised, expected {kind.__name__}.")
