"""What runs on a Dask worker: one shard of a batch, on the inner backend, with circuits from the worker's own cache."""

from __future__ import annotations

import contextlib
import json
import pickle
import traceback
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from distributed import get_worker

from qstore_core import BackendError, Capabilities, Circuit, QstoreError, get_backend
from qstore_core.backends.contract import Backend, RunReport
from qstore_core.backends.forking import new_lock
from qstore_core.circuit.measurements.measurement import as_measurement
from qstore_core.runtime.cache import Recipe, compiled
from qstore_core.runtime.fallback import is_callers_mistake

__all__ = ["Failure", "Inner", "Problem", "Shard", "capabilities", "compute"]


@dataclass(frozen=True)
class Inner:
    """A backend by name and pickled options, as a worker makes it."""

    name: str
    options: bytes


@dataclass(frozen=True)
class Problem:
    """What a compiled circuit depends on; small, hashable, and equal in every process.

    Attributes:
        text: Circuit and measurement as dicts, in JSON.
        inner: What computes.
        dtype: Of arrays.
        shots: Samples per circuit; None for exact values.
    """

    text: str
    inner: Inner
    dtype: str
    shots: int | None


@dataclass(frozen=True, eq=False)
class Shard:
    """Rows of a batch; one opaque object, which Dask does not look into.

    Attributes:
        problem: What to compute.
        theta: (W,).
        inputs: (b, I).
        cotangents: (b, O) for a gradient, None for values.
        seed: Of this shard's samples.
    """

    problem: Problem
    theta: np.ndarray
    inputs: np.ndarray
    cotangents: np.ndarray | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Failure:
    """An error in the place of a result, and where it happened. It keeps its class where that is one of qstore's."""

    error: QstoreError
    where: str


def compute(shard: Shard) -> Any:
    """`(outputs, RunReport)`, or `(d_theta, d_inputs)` where there are cotangents; or a `Failure`."""
    try:
        executable: Any = compiled(_recipe_of(shard.problem))
        theta, inputs = _writable(shard.theta), _writable(shard.inputs)
        if shard.cotangents is not None:
            return executable.vjp(theta, inputs, _writable(shard.cotangents))
        seeds = {} if shard.seed is None else {"seed": shard.seed}
        if hasattr(executable, "value_and_report"):
            return executable.value_and_report(theta, inputs, **seeds)
        return executable.forward(theta, inputs, **seeds), RunReport()
    except Exception as error:  # noqa: BLE001 - it is raised where the caller is
        return _failure(error)


def capabilities(inner: Inner) -> Capabilities | Failure:
    """What the inner backend can do, asked where it is installed."""
    try:
        return _backend(inner).capabilities
    except Exception as error:  # noqa: BLE001 - it is raised where the caller is
        return _failure(error)


_lock = new_lock(__name__, "_lock")  # a worker has several threads, and `lru_cache` may call twice


@lru_cache(maxsize=64)
def _made(inner: Inner) -> Backend:
    return get_backend(inner.name, **pickle.loads(inner.options))


@lru_cache(maxsize=256)
def _recipe(problem: Problem) -> Recipe:
    data = json.loads(problem.text)
    measurement = as_measurement(data["measurement"])
    return Recipe(Circuit.from_dict(data["circuit"]), measurement, _made(problem.inner), problem.dtype, problem.shots)


def _backend(inner: Inner) -> Backend:
    with _lock:
        return _made(inner)


def _recipe_of(problem: Problem) -> Recipe:
    with _lock:
        return _recipe(problem)


def _writable(array: np.ndarray) -> np.ndarray:
    """An array as executables receive it: what came over the network may be read-only."""
    return np.require(array, requirements=["C", "A", "W"])


def _failure(error: Exception) -> Failure:
    worker = get_worker().address
    kept = None
    if isinstance(error, BackendError) or is_callers_mistake(error):
        with contextlib.suppress(Exception):  # a plugin's own class, or a cause that does not pickle
            assert type(error).__module__.startswith("qstore_core.")
            kept = pickle.loads(pickle.dumps(error))
    if kept is None:
        kept = BackendError(f"on Dask worker {worker}: {type(error).__name__}: {error}", backend="dask")
    text = "".join(traceback.format_exception(error))
    return Failure(kept, f"On Dask worker {worker}:\n{text}")
