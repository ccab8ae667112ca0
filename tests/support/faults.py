"""Backends that really fail: they compute with the `statevector` engine until something goes wrong on purpose."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from qstore_core import Capabilities, get_backend

ERRORS = {
    "raises": lambda: RuntimeError("the device reported an error"),
    "out of memory": lambda: MemoryError("no memory left on the device"),
    "loses connection": lambda: ConnectionResetError("the connection was reset"),
    "times out": lambda: TimeoutError("no answer from the device"),
}
BAD_RESULTS = {
    "misses a row": lambda values: values[:-1],
    "misses an output": lambda values: values[..., :-1],
    "is flat": lambda values: values.ravel()[None, None],
    "is NaN": lambda values: np.full_like(values, np.nan),
    "is infinite": lambda values: np.where(np.arange(values.size).reshape(values.shape) == 0, np.inf, values),
    "is nothing": lambda values: None,
    "is text": lambda values: values.astype(str),
}
TROUBLES = (*ERRORS, *BAD_RESULTS)
PLACES = ("compile", "forward", "backward")


@dataclass(frozen=True)
class Fault:
    """What goes wrong (`TROUBLES`), where (`PLACES`), and after how many good calls."""

    trouble: str
    place: str
    after: int = 0

    @property
    def cause(self):
        """Name of the exception that the backend raises; "BackendError" where it returns something unusable."""
        return type(ERRORS[self.trouble]()).__name__ if self.trouble in ERRORS else "BackendError"

    def strike(self, values=None):
        """Raise, or spoil `values`."""
        if self.trouble in ERRORS:
            raise ERRORS[self.trouble]()
        return BAD_RESULTS[self.trouble](values)


class FaultyBackend:
    """A backend with a fault. `calls` counts the calls by place; `fault` may be changed or set to None (mended)."""

    def __init__(self, name, fault, **capabilities):
        self.name, self.fault = name, fault
        self.capabilities = Capabilities(**({"vjp": True, "remote": True} | capabilities))
        self.calls = dict.fromkeys(PLACES, 0)
        self._lock = threading.Lock()  # as real clients have; such a backend can be neither copied nor pickled

    def strikes(self, place):
        """Count a call; True where it is to fail."""
        with self._lock:
            self.calls[place] += 1
            fault = self.fault
            return fault is not None and fault.place == place and self.calls[place] > fault.after

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        if self.strikes("compile"):
            self.fault.strike()
        return _FaultyExecutable(self, get_backend("statevector").compile(circuit, measurement, dtype=dtype))


class _FaultyExecutable:
    def __init__(self, backend, good):
        self.backend, self.good = backend, good

    def forward(self, theta, inputs):
        values = self.good.forward(theta, inputs)
        return self.backend.fault.strike(values) if self.backend.strikes("forward") else values

    def vjp(self, theta, inputs, cotangents):
        d_theta, d_inputs = self.good.vjp(theta, inputs, cotangents)
        if self.backend.strikes("backward"):
            return self.backend.fault.strike(d_theta), self.backend.fault.strike(d_inputs)
        return d_theta, d_inputs


class OtherEngine:
    """A third party's engine on the tensors of `framework`, which fails where it has a `fault`."""

    def __init__(self, framework):
        self.name, self.fault, self.engine = f"other-{framework}", None, get_backend(framework)
        self.capabilities = Capabilities(vjp=True, framework=framework)

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        return _OtherExecutable(self, self.engine.compile(circuit, measurement, dtype=dtype))


class _OtherExecutable:
    def __init__(self, backend, good):
        self.backend, self.good = backend, good

    def apply(self, theta, inputs):
        if self.backend.fault is not None:
            raise self.backend.fault
        return self.good.apply(theta, inputs)

    def apply_and_vjp(self, theta, inputs):
        self.apply(theta, inputs)
        return self.good.apply_and_vjp(theta, inputs)
