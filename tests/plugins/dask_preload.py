"""A backend with faults, which workers of tests/plugins/test_dask.py load when they start (`preload`)."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from qstore_core import ShapeError, get_backend, register_backend

FATAL = 0.25  # an angle that no other row has


class Fragile:
    """`statevector`, until a row with the angle FATAL comes: then what `trouble` says, once for each `mark`."""

    name = "fragile"

    def __init__(self, trouble, mark="", process=0):
        self.trouble, self.mark, self.process = trouble, mark, process
        self.inner = get_backend("statevector")
        self.capabilities = self.inner.capabilities

    def compile(self, circuit, measurement, **options):
        return Executable(self, self.inner.compile(circuit, measurement, **options))


class Executable:
    def __init__(self, backend, inner):
        self.backend, self.inner = backend, inner

    def forward(self, theta, inputs):
        self.meet(inputs)
        return self.inner.forward(theta, inputs)

    def vjp(self, theta, inputs, cotangents):
        self.meet(inputs)
        return self.inner.vjp(theta, inputs, cotangents)

    def meet(self, inputs):
        backend = self.backend
        if not (inputs == FATAL).any():
            return
        if backend.trouble == "error":
            raise OSError("the lamp is broken", object())
        if backend.trouble == "mistake":
            raise ShapeError("of the caller", received=(1, 2))
        try:
            Path(backend.mark).touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(backend.process or os.getpid(), signal.SIGKILL)


def dask_setup(worker):
    register_backend("fragile", Fragile)
