"""A process that forks while threads compute: children compute too, in time, on every backend but TensorFlow's."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys

import pytest

FORKS, DEADLINE = 50, 60  # seconds that a child may take
NEEDS = {
    "statevector": "numpy",
    "numba": "numba",
    "density": "numba",
    "jobs": "numpy",
    "torch": "torch",
    "aer": "qiskit_aer",
    "pennylane:default.qubit": "pennylane",
    "pennylane:lightning.qubit": "pennylane_lightning",
    "noisy": "pennylane",
}

# Not "tensorflow": its own runtime does not survive a fork while its threads compute (children hang inside it);
# docs/troubleshooting.md says so.
SLOW = {"torch", "pennylane:default.qubit", "noisy"}

PROGRAM = """
import os, sys, threading, time, warnings
import numpy as np
from qstore_core import QuantumReadout, cache_clear, get_backend

warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of fork beside threads
name, forks, deadline = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
backend = name
if name == "jobs":
    from tests.core.backends.test_jobs import MemoryBackend
    backend = MemoryBackend()
if name == "noisy":
    import pennylane as qml
    noise = qml.noise.partial_wires(qml.DepolarizingChannel, 0.1)
    device = qml.add_noise(qml.device("default.mixed", wires=1), qml.NoiseModel({qml.noise.op_eq(qml.RY): noise}))
    backend = get_backend("pennylane", device=device)
size, rows = (6, 32) if name == "density" else (1, 2)  # density matrices of few qubits are computed on one thread
layer = QuantumReadout(size, encoding="angle", backend=backend, fallback=None, seed=0)
x, cotangents = np.full((rows, size), 0.4), np.ones((rows, size))
expected, expected_vjp = layer(x), layer.vjp(x, cotangents)[0]
stop = threading.Event()

def load(number):
    for k in range(10**9):
        if stop.is_set():
            return
        fresh = QuantumReadout(size, depth=1 + k % 3, encoding="angle", backend=backend, fallback=None, seed=number)
        fresh(x), layer.vjp(x, cotangents)
        if k % 5 == number:
            cache_clear()

def check(good):
    good.append(np.allclose(layer(x), expected, atol=1e-6))
    good.append(np.allclose(layer.vjp(x, cotangents)[0], expected_vjp, atol=1e-5))

def child():
    good = []
    threads = [threading.Thread(target=check, args=(good,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    check(good)
    for thread in threads:
        thread.join()
    return len(good) == 6 and all(good)

threads = [threading.Thread(target=load, args=(number,), daemon=True) for number in range(4)]
for thread in threads:
    thread.start()
for number in range(forks):
    time.sleep(0.002 * (number % 5))
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if child() else 1)
        finally:
            os._exit(2)
    end = time.monotonic() + deadline
    while (done := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
        time.sleep(0.002)
    if done == (0, 0):
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        print(f"child {number} of {forks} was not done within {deadline} s")
        os._exit(3)
    if done[1]:
        print(f"child {number} ended with status {done[1]}")
        os._exit(4)
stop.set()
for thread in threads:
    thread.join()
print("good")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in NEEDS])
def test_forks_under_load(name):
    if importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    command = [sys.executable, "-c", PROGRAM, name, str(FORKS), str(DEADLINE)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=240)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert output.strip().endswith("good"), output
