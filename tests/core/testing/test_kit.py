"""The conformance kit: passes what is right, and says in words what is wrong with the rest."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
import time
import unittest

import numpy as np
import pytest

from qstore_core import Capabilities, CapabilityError, SpecError, list_backends, register_backend, unregister_backend
from qstore_core.testing import ConformanceError, conformance_checks, run_checks
from qstore_core.testing.__main__ import main

from .broken_backends import Over, binomial, negative_angles, reversed_qubits


def installed(name):
    return importlib.util.find_spec(name) is not None


@pytest.mark.parametrize("check", conformance_checks("statevector"), ids=str)
def test_statevector(check):
    check()


@pytest.mark.parametrize("name", ["numba", "torch", "tensorflow"])
def test_our_engines(name):
    if not installed(name):
        pytest.skip(f"{name} is not installed")
    if name not in {info.name for info in list_backends()}:
        pytest.skip(f"this installation has no backend {name}")
    report = run_checks(name)
    assert report.ok, str(report)
    assert sum(outcome.status == "passed" for outcome in report.outcomes) >= 25


def test_a_backend_of_samples():
    report = run_checks(Over("sampler", sample=sample_any, exact=False, vjp=False))
    assert report.ok, str(report)
    status = {outcome.check: outcome.status for outcome in report.outcomes}
    assert status["shots: spread"] == status["gradient: layer"] == status["shots: seed"] == "passed"
    assert status["gradient: weights"] == status["repeatable"] == "skipped"


def sample_any(outputs, measurement, shots, rng):
    """`binomial`, for sums of Pauli strings as well: normal noise no larger than the bound of one shot."""
    observables = getattr(measurement, "observables", ())
    if not observables:
        return binomial(outputs, measurement, shots, rng)
    return outputs + rng.normal(size=outputs.shape) / np.sqrt(shots) * 0.5


def frozen(outputs, measurement, shots, rng):
    return sample_any(outputs, measurement, shots, np.random.default_rng(1))


def unseeded(outputs, measurement, shots, rng):
    return sample_any(outputs, measurement, shots, np.random.default_rng())


def fewer(outputs, measurement, shots, rng):
    return sample_any(outputs, measurement, shots // 4, rng)


BROKEN = {
    "wrong qubit order": (
        {"circuit": reversed_qubits},
        "qubit order",
        "qubit 0 must be the most significant bit",
    ),
    "wrong sign": ({"outputs": lambda y: -y}, "closed forms", "The sign is wrong"),
    "wrong direction of rotation": ({"circuit": negative_angles}, "closed forms", "after RY(x) is sin x"),
    "batch mixed up": (
        {"outputs": lambda y: np.roll(y, 1, axis=0)},
        "batch = loop",
        "rows of the batch are mixed up",
    ),
    "gradient of zeros": (
        {"gradients": lambda d: tuple(np.zeros_like(a) for a in d)},
        "gradient: weights",
        "All values are zero",
    ),
    "gradient with half the slope": (
        {"gradients": lambda d: (d[0] / 2, d[1])},
        "gradient: weights",
        "against the parameter-shift rule",
    ),
    "ignored shots": (
        {"sample": lambda y, *_: y},
        "shots: spread",
        "shots are ignored: all 128 values with shots=200",
    ),
    "fewer shots": ({"sample": fewer}, "shots: spread", "as if it took"),
    "frozen samples": ({"sample": frozen}, "shots: fresh", "very same samples"),
    "ignored seed": ({"sample": unseeded}, "shots: seed", "the seed is ignored"),
    "wrong shape": ({"outputs": np.transpose}, "output shape", "It is transposed: samples come first"),
    "complex": ({"outputs": lambda y: y.astype(complex)}, "output shape", "expected real floats"),
    "constant": ({"outputs": np.zeros_like}, "closed forms", "All values are zero"),
    "NaN": ({"outputs": lambda y: y * np.nan}, "closed forms", "value nan"),
    "single precision": ({"outputs": lambda y: y.astype(np.float16)}, "dtypes", "dtype float32"),
}


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_backend_fails_with_a_readable_reason(fault):
    changes, check, words = BROKEN[fault]
    report = run_checks(Over(fault, **changes))
    failed = {outcome.check: outcome.reason for outcome in report.failed}
    assert not report.ok
    assert check in failed, str(report)
    assert words in failed[check], failed[check]


def test_shots_that_are_taken_without_being_declared():
    class Deaf(Over):
        def compile(self, circuit, measurement, *, dtype="float32", shots=None):
            return super().compile(circuit, measurement, dtype=dtype)

    failed = {outcome.check: outcome.reason for outcome in run_checks(Deaf("deaf")).failed}
    assert list(failed) == ["shots refused"]
    assert "raised no CapabilityError" in failed["shots refused"]


def test_a_backend_that_is_not_safe_in_threads():
    class Shared(Over):
        def compile(self, *args, **kwargs):
            executable = super().compile(*args, **kwargs)
            forward, slot = executable.forward, {}

            def racing(theta, inputs):
                slot["x"] = inputs
                if threading.current_thread() is not threading.main_thread():
                    time.sleep(0.1)  # others come meanwhile, however busy the machine is
                return forward(theta, slot["x"])

            executable.forward = racing
            return executable

    failed = {outcome.check: outcome.reason for outcome in run_checks(Shared("shared")).failed}
    assert list(failed) == ["threads"]
    assert "of 12 in 4 threads" in failed["threads"]


def test_what_is_declared_must_be_there():
    class Boasting(Over):
        def compile(self, *args, **kwargs):
            executable = super().compile(*args, **kwargs)

            class Bare:
                forward = executable.forward

            return Bare()

    failed = {outcome.check: outcome.reason for outcome in run_checks(Boasting("boasting")).failed}
    assert "neither vjp nor value_and_vjp" in failed["contract"]


def test_a_limit_is_skipped_and_an_essential_is_not():
    class Small(Over):
        def compile(self, circuit, measurement, **options):
            if any(op.gate in ("ccx", "ccz") for op in circuit.operations) or circuit.n_amplitudes:
                raise CapabilityError("no gates of three qubits, no amplitudes")
            return super().compile(circuit, measurement, **options)

    outcomes = {outcome.check: outcome for outcome in run_checks(Small("small")).outcomes}
    assert outcomes["every gate"].status == "skipped"
    assert "ccx, ccz" in outcomes["every gate"].reason
    assert outcomes["amplitudes"].status == "skipped"
    assert outcomes["qubit order"].status == "failed"  # amplitudes have an order that every backend must keep


def test_max_qubits():
    backend = Over("two")
    backend.capabilities = Capabilities(vjp=True, max_qubits=2)
    report = run_checks(backend)
    assert report.ok, str(report)


def test_checks_of_a_registered_name_and_exit_status(capsys):
    register_backend("wrong_sign", Over("wrong_sign", outputs=lambda y: -y))
    try:
        assert main(["wrong_sign"]) == 1
        table = capsys.readouterr().out
        assert "backend 'wrong_sign', qstore contract version 2" in table
        assert "The sign is wrong." in table
    finally:
        unregister_backend("wrong_sign")
    assert main(["statevector", "--skip", "threads"]) == 0
    assert "threads" not in capsys.readouterr().out
    assert main(["statevektor"]) == 2
    assert "Did you mean 'statevector'?" in capsys.readouterr().err
    assert main(["statevector", "--option", "device=x"]) == 2
    assert "no option" in capsys.readouterr().err


def test_unknown_check_to_skip():
    with pytest.raises(SpecError, match="Did you mean 'threads'"):
        conformance_checks("statevector", skip=["thread"])


def test_check_is_a_callable_that_raises():
    checks = {str(check): check for check in conformance_checks(Over("zero", outputs=np.zeros_like))}
    with pytest.raises(ConformanceError, match="All values are zero"):
        checks["closed forms"]()
    with pytest.raises(unittest.SkipTest, match=r"capabilities\.shots is False"):
        checks["shots: mean"]()
    assert all(check.help for check in checks.values())


def test_module_runs_and_needs_no_pytest():
    code = "import sys, qstore_core.testing; sys.exit(any(m in sys.modules for m in ('pytest', 'hypothesis', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    done = subprocess.run(
        [sys.executable, "-m", "qstore_core.testing", "statevector"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "25 passed, 7 skipped, 0 failed" in done.stdout


def test_pytest_plugin(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_conformance(qstore_check):\n    qstore_check()\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "qstore_core.testing.pytest_plugin",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, "--qstore-backend", "statevector", "-q", str(tmp_path), "--rootdir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "25 passed, 7 skipped" in done.stdout, done.stdout + done.stderr
