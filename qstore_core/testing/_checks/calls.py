"""Checks of calls: nothing is kept, nothing is written to, nothing is shared, whoever calls."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from ...circuit.circuit import Circuit
from ...circuit.measurements.measurement import Expectation
from .. import reference
from ..compare import ConformanceError, same
from ..points import cotangents, generic, random_point
from ..subject import Subject, arrays, check

__all__ = ["at_once", "unchanged"]

_ZX = Expectation(("Z", "X"))


@check("calls: nothing kept", "S1", core=True)
def _nothing_kept(subject: Subject) -> None:
    """Many calls of one executable: new arrays, the same arrays with new contents, other batches, in turn."""
    circuit = generic(2)
    compiled = subject.compile(circuit, _ZX)
    theta, inputs = arrays(*random_point(circuit, 4))
    first = compiled.forward(theta, inputs)
    for number in range(36):
        new_theta, new_inputs = arrays(*random_point(circuit, 4 - 2 * (number % 3 == 2), number))
        if number % 4 in (0, 1) and len(new_inputs) == 4:  # the same arrays, as a training loop has them
            if number % 4 == 0:
                theta[:] = new_theta
            else:
                inputs[:] = new_inputs
            point, how = (theta, inputs), "with the same arrays, which hold other numbers now"
        else:
            point, how = (new_theta, new_inputs), "with new arrays"
        subject.expect(circuit, _ZX, point, f"call {number + 2} of one executable, {how}", compiled=compiled)
    if compiled.shots is None:
        again = arrays(*random_point(circuit, 4))
        same(compiled.forward(*again), first, 1e-9, "the first call once more, after 36 others")


@check("calls: arguments", "S2", core=True)
def _arguments(subject: Subject) -> None:
    """No call of forward or value_and_report writes to theta or inputs."""
    for circuit in (generic(2, amplitudes=True), generic(2)):
        for shots in subject.both_ways():
            compiled = subject.compile(circuit, _ZX, shots=shots)
            text = "" if shots is None else f", with shots={shots},"
            unchanged(f"forward{text}", compiled.forward, _many_turns(circuit))
            if hasattr(compiled.raw, "value_and_report"):
                unchanged(f"value_and_report{text}", compiled.report, _many_turns(circuit))


def _many_turns(circuit: Circuit) -> tuple[np.ndarray, np.ndarray]:
    """Arguments with angles that a backend may be tempted to reduce."""
    theta, inputs = arrays(*random_point(circuit, 3))
    inputs[:, circuit.n_amplitudes :] *= 3.0
    return 3.0 * theta, inputs


def unchanged(method: str, call: Callable[..., Any], arguments: tuple[np.ndarray, ...]) -> Any:
    """Call, and compare the arguments with copies of them."""
    kept = [argument.copy() for argument in arguments]
    answer = call(*arguments)
    for name, now, before in zip(("theta", "inputs", "cotangents"), arguments, kept, strict=False):
        if not np.array_equal(now, before):
            raise ConformanceError(f"{method} wrote to its argument {name}.")
    return answer


@check("calls: results", "S3", core=True)
def _results(subject: Subject) -> None:
    """Results stay as they are whatever happens next, and may be written to."""
    for shots in subject.both_ways():
        _own_results(subject, shots)


def _own_results(subject: Subject, shots: int | None) -> None:
    circuit = generic(2)
    compiled = subject.compile(circuit, _ZX, shots=shots)
    theta, inputs = arrays(*random_point(circuit, 3))
    other = arrays(*random_point(circuit, 3, 5))
    first = compiled.forward(theta, inputs)
    before = first.copy()
    compiled.forward(*other)
    same(first, before, 0.0, "the result of a first call, after a second call of forward (is a buffer used again?)")
    compiled.forward(theta, inputs)
    same(first, before, 0.0, "the result of a first call, after a third call (is a buffer used again?)")
    theta[:], inputs[:] = other
    same(first, before, 0.0, "the result of a call, after its arguments were changed")
    if first.flags.writeable:
        first[:] = 7.0
        again = random_point(circuit, 3)
        text = "the same call again, after the result of the first one was written to"
        subject.expect(circuit, _ZX, again, text, compiled=compiled)


def at_once(calls: list[Callable[[], Any]], threads: int = 4) -> list[Any]:
    """Results of all calls, made in threads that begin together and are switched as often as Python can."""
    ready = threading.Barrier(threads)

    def run(call: Callable[[], Any]) -> Any:
        ready.wait(60)
        return call()

    with _many_switches(), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, calls))


@contextmanager
def _many_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@check("calls: threads", "S4", core=True)
def _threads(subject: Subject) -> None:
    """Four threads compile and call at once; each gets its own values."""
    circuit = generic(2)
    points = [arrays(*random_point(circuit, 8, seed)) for seed in range(24)]
    shared = subject.compile(circuit, _ZX)

    def call(number: int) -> Callable[[], np.ndarray]:
        def run() -> np.ndarray:
            compiled = subject.compile(circuit, _ZX) if number % 4 < 2 else shared
            return compiled.forward(*points[number])

        return run

    for number, got in enumerate(at_once([call(number) for number in range(24)])):
        want = reference.outputs(circuit, _ZX, *points[number])
        tolerance = subject.tolerance(circuit, _ZX, *points[number], shots=subject.shots)
        same(got, want, tolerance, f"call {number + 1} of 24 in 4 threads")
    if not subject.capabilities.shots or subject.capabilities.remote:
        return
    sampled = subject.compile(circuit, _ZX, shots=100)
    theta, inputs = points[0]
    alone = [sampled.forward(theta, inputs, seed=seed) for seed in range(16)]
    for seed, got in enumerate(at_once([partial(sampled.forward, theta, inputs, seed=seed) for seed in range(16)])):
        same(got, alone[seed], 0.0, f"samples of seed {seed}, while other threads sample with other seeds")


@check("calls: report", "S5")
def _report(subject: Subject) -> None:
    """value_and_report has the outputs of forward, and a report of the right types."""
    circuit = generic(2)
    compiled = subject.compile(circuit, _ZX)
    if not hasattr(compiled.raw, "value_and_report") and subject.capabilities.shots:
        compiled = subject.compile(circuit, _ZX, shots=500)
    point = arrays(*random_point(circuit, 3))
    seed = {} if compiled.shots is None else {"seed": 5}
    outputs, report = compiled.report(*point, **seed)
    want = reference.outputs(circuit, _ZX, *point)
    same(outputs, want, subject.tolerance(circuit, _ZX, *point, shots=compiled.shots), "outputs of value_and_report")
    if compiled.shots is None:
        same(outputs, compiled.forward(*point), 1e-9, "outputs of value_and_report, against forward")
    elif not subject.capabilities.remote:
        same(outputs, compiled.forward(*point, **seed), 0.0, "samples of value_and_report, against forward's, one seed")
    if not (isinstance(report.jobs, tuple) and all(isinstance(job, str) for job in report.jobs)):
        raise ConformanceError(f"RunReport.jobs is {report.jobs!r}, expected a tuple of str.")
    for name in ("retries", "resumed"):
        if not isinstance(getattr(report, name), int):
            raise ConformanceError(f"RunReport.{name} is {getattr(report, name)!r}, expected an int.")
    if report.std_error is not None and np.shape(report.std_error) != outputs.shape:
        raise ConformanceError(
            f"RunReport.std_error has shape {np.shape(report.std_error)}, expected that of outputs, {outputs.shape}."
        )
    if compiled.shots is None and report.std_error is not None and np.any(report.std_error):
        raise ConformanceError("RunReport.std_error of exact values is not None.")


def _vjp_needed(subject: Subject) -> None:
    subject.need("vjp", "qstore computes gradients with the parameter-shift rule")


@check("gradient: arguments", "G11")
def _gradient_arguments(subject: Subject) -> None:
    """Neither vjp nor value_and_vjp writes to theta, inputs or cotangents."""
    _vjp_needed(subject)
    for circuit in (generic(2), generic(2, amplitudes=True)):
        compiled = subject.compile(circuit, _ZX)
        theta, inputs = _many_turns(circuit)
        d = cotangents(3, 4)
        unchanged("vjp", compiled.vjp, (theta, inputs, d))
        if hasattr(compiled.raw, "value_and_vjp"):
            _, vjp_fn = unchanged("value_and_vjp", compiled.value_and_vjp, (theta, inputs))
            unchanged("vjp_fn", lambda theta, inputs, d, vjp_fn=vjp_fn: vjp_fn(d), (theta, inputs, d))


@check("gradient: threads", "G12")
def _gradient_threads(subject: Subject) -> None:
    """Four threads ask for gradients of one executable at once; each gets its own."""
    _vjp_needed(subject)
    circuit = generic(2)
    points = [arrays(*random_point(circuit, 12, seed)) for seed in range(16)]
    d = [cotangents(12, 4, seed) for seed in range(16)]
    shared = subject.compile(circuit, _ZX)
    shares = hasattr(shared.raw, "value_and_vjp")

    def call(number: int) -> Callable[[], Any]:
        def run() -> Any:
            theta, inputs, own = (a.copy() for a in (*points[number], d[number]))
            return (
                shared.value_and_vjp(theta, inputs)[1](own) if number % 2 and shares else shared.vjp(theta, inputs, own)
            )

        return run

    for number, got in enumerate(at_once([call(number) for number in range(16)])):
        want = reference.slopes(circuit, _ZX, *points[number], d[number])
        for k, what in enumerate(("theta", "inputs")):
            same(got[k], want[k], 2e-8, f"gradient for {what}, call {number + 1} of 16 in 4 threads")
