"""Over 1,000 calls of layers on a job service that fails as it is told to.

Whatever happens to the service, a call ends within its deadline in one of three ways: the right values, the fallback's
values with a FallbackWarning, or a named error. See the outcome counts:

    python -m tests.backends.test_job_faults
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from qstore_core import (
    Circuit,
    Expectation,
    FallbackWarning,
    Probabilities,
    QstoreError,
    QuantumLayer,
    close,
    with_jobs,
)
from tests.support.job_service import FAULTS, HttpBackend, Service
from tests.support.tolerances import EXACT, EXACT_GRADIENT

SCHEDULES = 1080
DEADLY = 30  # the last of them, which end the service's process: every one costs those beside it a restart
KILLS = (300, 600, 900)  # after so many calls the service is killed from outside
TOGETHER = 24

SHORT, DEADLINE, DEADLY_DEADLINE = 0.3, 4.0, 15.0  # seconds; the last where the service starts again meanwhile
GRACE = 0.5
LOAD = 15.0  # seconds that a machine with other work to do may add
POLICY = {"backoff": 0.005, "max_backoff": 0.08, "job_timeout": 1.0, "grace": GRACE}


def circuits():
    """Circuits with weights and angles, one of them with probabilities; and one of amplitudes."""
    plain = Circuit(2)
    x, w = plain.inputs(2), plain.weights(3)
    for q in range(2):
        plain.ry(x[q], q)
        plain.rx(w[q], q)
    plain.crz(w[2] * x[0], 0, 1)
    loaded = Circuit(2, amplitudes=True)
    for q, slot in enumerate(loaded.weights(2)):
        loaded.ry(slot, q)
    loaded.cnot(0, 1)
    return {
        "expectations": (plain, Expectation(("Z", "X"))),
        "probabilities": (plain, Probabilities()),
        "amplitudes": (loaded, Expectation("Z")),
    }


CIRCUITS = circuits()


@dataclass
class Result:
    """How one call ended. `wrong` says what must not happen."""

    outcome: str
    seconds: float
    allowed: float
    wrong: str = ""
    layer: str = ""


@dataclass
class Storm:
    """What came of all calls."""

    results: list[Result] = field(default_factory=list)
    faults: Counter = field(default_factory=Counter)
    restarts: int = 0
    seconds: float = 0.0
    warned: set[str] = field(default_factory=set)

    @property
    def outcomes(self):
        return Counter(result.outcome for result in self.results)

    def __str__(self):
        slowest = max(self.results, key=lambda result: result.seconds / result.allowed)
        return (
            f"{len(self.results)} calls under seeded faults in {self.seconds:.0f} s\n"
            f"  outcomes: {_listed(self.outcomes)}\n"
            f"  faults:   {_listed(self.faults)}\n"
            f"  the service started again {self.restarts} times\n"
            f"  longest call, of what its deadlines allow: {slowest.seconds:.1f} of {slowest.allowed:.1f} s"
        )


def _listed(counts):
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def one_call(port, seed):
    """One layer on one fault schedule."""
    rng = random.Random(seed)
    deadly = seed >= SCHEDULES - DEADLY
    schedule = {
        "seed": seed,
        "rate": rng.choice((0.05, 0.2, 0.4) if deadly else (0.0, 0.05, 0.1, 0.2, 0.4, 0.9)),
        "kinds": rng.sample([kind for kind in FAULTS if kind != "die"], rng.randint(1, 4)) + ["die"] * deadly,
        "seconds": rng.choice((0.0, 0.0, 0.01, 0.05)),
    }
    deadline = DEADLY_DEADLINE if deadly else rng.choice((SHORT, DEADLINE, DEADLINE, DEADLINE))
    backend = with_jobs(
        HttpBackend(port, schedule),
        **POLICY,
        max_batch=rng.choice((1, 2, None)),
        max_jobs=rng.choice((1, 3, 8)),
        retries=100 if deadly else rng.choice((0, 4, 10)),
        deadline=deadline,
        unique=rng.random() < 0.8,
    )
    kind = rng.choice(sorted(CIRCUITS))
    wants_gradient = kind != "amplitudes" and rng.random() < 0.25
    fallback = rng.choice((None, "auto", "statevector"))
    layer = QuantumLayer(*CIRCUITS[kind], backend=backend, fallback=fallback, seed=seed, name=f"schedule {seed}")
    right = QuantumLayer(*CIRCUITS[kind], backend="statevector", seed=seed)
    data = np.random.default_rng(seed)
    x = data.uniform(-2, 2, (rng.randint(1, 4), layer.spec.n_features))
    x[-1] = x[0]  # equal rows are computed once
    cotangents = data.normal(size=(len(x), layer.output_dim))
    allowed = (2 if wants_gradient else 1) * (deadline + 2 * GRACE + 1.0)  # a gradient is two calls of the service
    begin = time.monotonic()
    result = Result("", 0.0, allowed, layer=layer.name)
    try:
        values = layer.vjp(x, cotangents) if wants_gradient else (layer(x),)
    except QstoreError as error:
        result.outcome = type(error).__name__
        if fallback is not None:
            result.wrong = f"raised {error!r} although there is a fallback"
    else:
        result.outcome = "fallback with warning" if layer.fallbacks else "value"
        expected = right.vjp(x, cotangents) if wants_gradient else (right(x),)
        tolerance = EXACT_GRADIENT if wants_gradient else EXACT
        for got, want in zip(values, expected, strict=True):
            if got.shape != want.shape or got.dtype != want.dtype:
                result.wrong = f"shape {got.shape}, dtype {got.dtype}, expected {want.shape}, {want.dtype}"
            elif not np.abs(got - want).max() <= tolerance:
                result.wrong = f"values are off by {np.abs(got - want).max():.3g}"
    result.seconds = time.monotonic() - begin
    if result.seconds > allowed + LOAD:
        result.wrong = result.wrong or f"took {result.seconds:.1f} s"
    return result


@contextlib.contextmanager
def quiet(logger):
    """No tracebacks of failures that are meant to happen."""
    logging.getLogger(logger).disabled = True
    yield
    logging.getLogger(logger).disabled = False


def storm(schedules=SCHEDULES):
    """All calls, `TOGETHER` at a time."""
    done, begin = Storm(), time.monotonic()
    longest = 2 * (DEADLY_DEADLINE + 2 * GRACE + 1.0) + LOAD
    with Service() as service, warnings.catch_warnings(record=True) as caught, quiet("qstore.fallback"):
        warnings.simplefilter("always", FallbackWarning)
        with ThreadPoolExecutor(TOGETHER) as pool:
            waiting = [pool.submit(one_call, service.port, seed) for seed in range(schedules)]
            for number, future in enumerate(waiting):
                done.results.append(future.result(timeout=longest + 60.0))  # raises what is no error of ours
                if number in KILLS:
                    service.kill()
        done.faults, done.restarts = service.faults(), service.restarts
    done.warned = {str(w.message).split("'")[1] for w in caught if issubclass(w.category, FallbackWarning)}
    for result in done.results:
        if result.outcome == "fallback with warning" and result.layer not in done.warned:
            result.wrong = "the fallback computed, and nothing warned"
    done.seconds = time.monotonic() - begin
    return done


def test_every_call_ends_right_whatever_happens_to_the_service(capsys):
    done = storm()
    with capsys.disabled():
        print(f"\n{done}")
    assert [f"{r.layer}: {r.outcome}: {r.wrong}" for r in done.results if r.wrong] == []
    assert len(done.results) == SCHEDULES > 1000
    assert set(done.outcomes) == {"value", "fallback with warning", "BackendError", "DeadlineError"}
    assert set(done.faults) == set(FAULTS)
    assert done.restarts >= len(KILLS) + 1
    close()


if __name__ == "__main__":
    print(storm())
    close()
