"""`qstore doctor`: what is installed here, and whether a layer computes what it should."""

from __future__ import annotations

import ctypes.util
import math
import os
import platform
import time
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.registry import list_backends
from ..circuit.circuit import Circuit
from ..circuit.measurements.measurement import Expectation
from ..errors import QstoreError
from ..layers.numpy import QuantumLayer
from ..runtime.cache import cache_info

__all__ = ["findings"]

_LIBRARIES = ("numpy", "numba", "torch", "triton", "tensorflow", "keras", "jax", "qiskit", "qiskit-aer", "pennylane")
_TOLERANCE = 1e-6  # closed forms in float64


def findings() -> list[dict[str, Any]]:
    """Rows `{"what", "found", "ok"}`; ok is None where there is nothing to judge."""
    rows = [_row("python", f"{platform.python_version()} ({platform.machine()}, {platform.system()})")]
    rows.append(_row("qstore", metadata.version("qstore")))
    for name in _LIBRARIES:
        try:
            rows.append(_row(name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            rows.append(_row(name, "not installed"))
    rows.append(_row("threads", _threads()))
    rows.append(_row("gpu", _gpu()))
    rows.append(_row("circuit cache", f"at most {cache_info().max_nbytes >> 20} MiB in a process"))
    rows.append(_row("numba's cache", _kernel_cache()))
    for info in list_backends():
        broken = info.status in ("broken", "duplicate")
        rows.append(_row(f"backend {info.name}", info.status, False if broken else None))
    rows.append(_self_test("statevector"))
    if util.find_spec("numba") is not None and _compiled_kernels():
        rows.append(_self_test("numba"))
    return rows


def _row(what: str, found: str, ok: bool | None = None) -> dict[str, Any]:
    return {"what": what, "found": found, "ok": ok}


def _threads() -> str:
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS")
    limits = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{usable} of {os.cpu_count()} cores usable" + (f", {', '.join(limits)}" if limits else "")


def _gpu() -> str:
    """Asked of the driver, since importing a framework takes longer than all the rest."""
    library = ctypes.util.find_library("cuda")
    if library is None:
        return "none (no CUDA driver)"
    try:
        cuda, count = ctypes.CDLL(library), ctypes.c_int()
        if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
            return "none (the CUDA driver finds no device)"
        name = ctypes.create_string_buffer(96)
        names = []
        for number in range(count.value):
            cuda.cuDeviceGetName(name, len(name), number)
            names.append(name.value.decode())
        return ", ".join(names) or "none"
    except (OSError, AttributeError) as error:
        return f"none ({error})"


def _kernel_cache() -> str:
    if util.find_spec("numba") is None:
        return 'numba is not installed: pip install "qstore[fast]" for the fastest engine on a CPU'
    kernels = _compiled_kernels()
    return (
        f"{kernels} compiled kernels" if kernels else "empty: the first layer compiles kernels, some 25 seconds, once"
    )


def _compiled_kernels() -> int:
    """Kernels of ours in numba's disk cache; without them a self-test would take half a minute."""
    folder = os.environ.get("NUMBA_CACHE_DIR")
    root = Path(folder) if folder else Path(__file__).parents[1] / "engines" / "numba"
    return sum(1 for _ in root.rglob("*.nbi")) if root.is_dir() else 0


def _self_test(backend: str) -> dict[str, Any]:
    """⟨Z⟩ and ⟨X⟩ after RY(x) RY(w) are cos(x + w) and sin(x + w), and so are their derivatives."""
    circuit = Circuit(1)
    (x,), (w,) = circuit.inputs(1), circuit.weights(1)
    circuit.ry(x, 0)
    circuit.ry(w, 0)
    begin = time.perf_counter()
    try:
        layer = QuantumLayer(circuit, Expectation(("Z", "X")), backend=backend, seed=0)
        theta = float(np.asarray(layer.theta)[0])
        points = np.linspace(-3.0, 3.0, 7)[:, None]
        outputs = layer(points)
        d_theta, d_x = layer.vjp(points, np.ones_like(outputs))
    except QstoreError as error:
        return _row(f"self-test {backend}", f"{type(error).__name__}: {error}", False)
    angle = points[:, 0] + theta
    slope = np.cos(angle) - np.sin(angle)
    largest = max(
        float(np.abs(outputs - np.stack([np.cos(angle), np.sin(angle)], axis=1)).max()),
        float(np.abs(d_x[:, 0] - slope).max()),
        abs(float(d_theta[0]) - math.fsum(slope)),
    )
    seconds = time.perf_counter() - begin
    return _row(
        f"self-test {backend}", f"values and gradients within {largest:.0e}, {seconds:.2f} s", largest < _TOLERANCE
    )
