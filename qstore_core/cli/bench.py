"""`qstore bench`: one layer on every backend that is installed here, timed by turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..circuit.spec.initial import initial_theta
from ..circuit.spec.layer_spec import LayerSpec
from ..errors import QstoreError
from ..runtime.execution import Execution
from ..runtime.program import LayerProgram

__all__ = ["measure"]

_LEAST_ROUNDS = 5
_VALUE_TOLERANCE = 1e-4  # float32 outputs of other libraries against float64


def measure(
    spec: LayerSpec,
    backends: Sequence[str],
    *,
    batch: int,
    seconds: float,
    progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Median times of a layer in float32, on NumPy arrays.

    Args:
        spec: The layer.
        backends: Names.
        batch: Rows.
        seconds: Time for each backend, after its first call.
        progress: Told the name of the backend that is prepared.

    Returns:
        Rows with `backend`, `forward ms`, `step ms` (forward and backward), `times` (as long as the fastest step) and
        `note` (why there is no figure, or the largest difference from float64 values).
    """
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.0, 1.0, size=(batch, spec.n_features)).astype(np.float32)
    theta = initial_theta("normal", spec.n_weights, 0).astype(np.float32)
    cotangents = np.ones((batch, spec.output_dim), np.float32)
    exact = LayerProgram(spec, Execution("statevector"), name="reference")
    expected = exact.forward(theta.astype(np.float64), x.astype(np.float64))
    rows: list[dict[str, Any]] = []
    ready: list[tuple[dict[str, Any], LayerProgram]] = []
    for name in backends:
        progress(name)
        row: dict[str, Any] = {"backend": name, "forward ms": None, "step ms": None, "times": None, "note": ""}
        rows.append(row)
        try:
            program = LayerProgram(spec, Execution(name, fallback=None), name=name)
            error = float(np.abs(program.forward(theta, x) - expected).max())
            _step(program, theta, x, cotangents)
        except (QstoreError, ImportError) as problem:
            row["note"] = f"{type(problem).__name__}: {str(problem).splitlines()[0]}"
            continue
        row["note"] = f"differs by {error:.0e}" + ("" if error < _VALUE_TOLERANCE else ": wrong, not timed")
        if error < _VALUE_TOLERANCE:
            ready.append((row, program))
    times: dict[str, tuple[list[float], list[float]]] = {row["backend"]: ([], []) for row, _ in ready}
    end = time.perf_counter() + seconds * max(1, len(ready))
    while ready and (time.perf_counter() < end or len(times[ready[0][0]["backend"]][0]) < _LEAST_ROUNDS):
        for row, program in ready:  # by turns: a machine that slows down slows all of them down
            forward, steps = times[row["backend"]]
            forward.append(_time(program.forward, theta, x))
            steps.append(_time(_step, program, theta, x, cotangents))
    medians = {name: [1e3 * statistics.median(t) for t in both] for name, both in times.items()}
    best = min((step for _, step in medians.values()), default=0.0)
    for row, _ in ready:
        forward_ms, step_ms = medians[row["backend"]]
        row |= {"forward ms": round(forward_ms, 4), "step ms": round(step_ms, 4), "times": round(step_ms / best, 1)}
    return sorted(rows, key=lambda row: (row["step ms"] is None, row["step ms"] or 0.0))


def _step(program: LayerProgram, theta: np.ndarray, x: np.ndarray, cotangents: np.ndarray) -> None:
    _, vjp_fn = program.value_and_vjp(theta, x, wrt_inputs=not program.no_input_gradient)
    vjp_fn(cotangents)


def _time(call: Callable[..., Any], *arguments: Any) -> float:
    begin = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - begin
