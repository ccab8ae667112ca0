"""Faults of state: what is kept, written to, shared."""

from __future__ import annotations

import time

import numpy as np

from qstore_core import RunReport

from .backend import QulacsExecutable as E
from .faults import faulty

KIND = "state"


def seeing(change):
    """Arguments of exact values, changed: `change(self, theta, inputs) → theta, inputs`."""
    return {"exact": lambda self, theta, inputs: E.exact(self, *change(self, theta, inputs))}


def kept(self, key, value):
    """What was there under the key, or this value from now on."""
    return self.__dict__.setdefault("kept", {}).setdefault(key, value)


def reported(change):
    """What value_and_report returns, changed: `change(self, outputs, report)`; forward is right."""

    def forward(self, theta, inputs, *, seed=None):
        return E.value_and_report(self, theta, inputs, seed=seed)[0]

    def value_and_report(self, theta, inputs, *, seed=None):
        return change(self, *E.value_and_report(self, theta, inputs, seed=seed))

    return {"forward": forward, "value_and_report": value_and_report}


faulty(KIND, "theta kept by identity", "calls: nothing kept", **seeing(lambda s, t, x: (kept(s, id(t), t.copy()), x)))
faulty(KIND, "inputs kept by identity", "calls: nothing kept", **seeing(lambda s, t, x: (t, kept(s, id(x), x.copy()))))
faulty(KIND, "inputs kept by shape", "calls: nothing kept", **seeing(lambda s, t, x: (t, kept(s, x.shape, x.copy()))))
faulty(KIND, "theta of the first call", "calls: nothing kept", **seeing(lambda s, t, x: (kept(s, 0, t.copy()), x)))
faulty(
    KIND,
    "theta looked at every other call",
    "calls: nothing kept",
    only=False,
    **seeing(lambda s, t, x: (alternating(s, t.copy()), x)),
)


def alternating(self, theta):
    self.calls = getattr(self, "calls", 0) + 1
    if self.calls % 2 or len(theta) != len(self.last):
        self.last = theta
    return self.last


def drifting(self, theta, inputs):
    self.calls = getattr(self, "calls", 0) + 1
    return theta, inputs + 1e-3 * (self.calls > 30)


faulty(KIND, "another value from the thirtieth call on", "calls: nothing kept", only=True, **seeing(drifting))


def shared(key):
    """Executables that take the circuit of an earlier one with an equal key."""
    seen = {}

    def build(self, circuit, measurement, *, dtype="float32", shots=None):
        self.check(circuit)
        what = (circuit, measurement, dtype, shots)
        return E(*seen.setdefault(key(*what), what))

    return {"compile": build}


def names(circuit):
    return tuple((op.gate, op.qubits) for op in circuit.operations)


def shape(circuit):
    return circuit.n_qubits, circuit.n_inputs, circuit.n_weights, circuit.n_amplitudes, len(circuit.operations)


faulty(
    KIND,
    "compiled once per shape of a circuit",
    "backend: compiled apart",
    backend=shared(lambda c, m, d, s: (shape(c), m, d, s)),
)
faulty(
    KIND,
    "compiled once whatever the angles",
    "backend: compiled apart",
    backend=shared(lambda c, m, d, s: (shape(c), names(c), m, d, s)),
)
faulty(
    KIND,
    "compiled once whatever the measurement",
    "backend: compiled apart",
    backend=shared(lambda c, m, d, s: (c, type(m), m.n_outputs(c.n_qubits), d, s)),
)
faulty(
    KIND, "compiled once whatever the dtype", "backend: compiled apart", backend=shared(lambda c, m, d, s: (c, m, s))
)
faulty(
    KIND, "compiled once whatever the shots", "backend: compiled apart", backend=shared(lambda c, m, d, s: (c, m, d))
)
faulty(
    KIND,
    "compiled once whatever the constants of rx",
    "backend: compiled apart",
    only=True,
    backend=shared(
        lambda c, m, d, s: (
            (c, m, d, s)
            if shape(c) != (2, 2, 2, 0, 6)
            else (shape(c), names(c), tuple(op.params for op in c.operations if op.gate != "rx"), m, d, s)
        )
    ),
)


def writes(which, change):
    def forward(self, theta, inputs, *, seed=None):
        answer = E.forward(self, theta, inputs, seed=seed)
        change((theta, inputs)[which])
        return answer

    return {"forward": forward}


def normalise(inputs):
    inputs[...] = np.nextafter(inputs, np.inf)


def wrap(theta):
    theta[theta > 3] -= 2 * np.pi


faulty(KIND, "writes to inputs", "calls: arguments", only=True, **writes(1, normalise))
faulty(KIND, "writes to theta", "calls: arguments", **writes(0, wrap))


def writes_samples(self, theta, inputs, *, seed=None):
    answer = E.forward(self, theta, inputs, seed=seed)
    if self.shots is not None:
        normalise(inputs)
    return answer


faulty(KIND, "writes to inputs under shots", "calls: arguments", only=True, forward=writes_samples)


def buffered(self, theta, inputs, *, seed=None):
    answer = E.forward(self, theta, inputs, seed=seed)
    out = kept(self, ("buffer", answer.shape), np.zeros_like(answer))
    out[...] = answer
    return out


def remembered(self, theta, inputs, *, seed=None):
    key = (theta.tobytes(), inputs.tobytes(), seed)
    return kept(self, key, E.forward(self, theta, inputs, seed=seed))


faulty(KIND, "a buffer used again", "calls: results", forward=buffered)
faulty(
    KIND,
    "a buffer of samples used again",
    "calls: results",
    forward=lambda self, theta, inputs, *, seed=None: (E.forward if self.shots is None else buffered)(
        self, theta, inputs, seed=seed
    ),
)
faulty(KIND, "results remembered and handed out again", "calls: results", only=True, forward=remembered)


def racing(self, theta, inputs):
    self.theta = theta
    time.sleep(0.0005)
    return E.exact(self, self.theta, inputs)


faulty(KIND, "theta on the executable, unsafe in threads", "calls: threads", exact=racing)


def racing_samples(self, theta, inputs, seed):
    self.seed = seed
    time.sleep(0.0005)
    return E.sampled(self, theta, inputs, self.seed)


faulty(KIND, "a seed on the executable, unsafe in threads", "calls: threads", only=True, sampled=racing_samples)


def racing_compile(self, circuit, measurement, *, dtype="float32", shots=None):
    self.check(circuit)
    self.busy = getattr(self, "busy", 0) + 1
    time.sleep(0.002)
    alone, self.busy = self.busy == 1, self.busy - 1
    return E(circuit, measurement, dtype, shots) if alone else E(circuit, type(measurement)(("Z", "Y")), dtype, shots)


faulty(KIND, "compiling unsafe in threads", "calls: threads", only=True, backend={"compile": racing_compile})
faulty(KIND, "value_and_report differs from forward", "calls: report", **reported(lambda s, y, r: (y * 1.01, r)))
faulty(
    KIND,
    "value_and_report in another order",
    "calls: report",
    **reported(lambda s, y, r: (y[::-1], r)),
)
faulty(KIND, "a report that is a dict", "calls: report", **reported(lambda s, y, r: (y, {"jobs": ()})))
faulty(
    KIND,
    "ids of a report are no str",
    "calls: report",
    only=True,
    **reported(lambda s, y, r: (y, RunReport(jobs=(7,), std_error=r.std_error))),
)
faulty(
    KIND,
    "standard errors of exact values",
    "calls: report",
    only=True,
    **reported(lambda s, y, r: (y, RunReport(std_error=np.full_like(y, 0.1) if s.shots is None else r.std_error))),
)
