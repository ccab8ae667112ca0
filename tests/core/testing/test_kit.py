"""The conformance kit: passes what is right, and says in words what is wrong with the rest."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import unittest

import numpy as np
import pytest

from qstore_core import Capabilities, CapabilityError, SpecError, list_backends, register_backend, unregister_backend
from qstore_core.testing import SENTENCES, ConformanceError, conformance_checks, run_checks
from qstore_core.testing.__main__ import main

from .broken_backends import Over, binomial


def installed(name):
    return importlib.util.find_spec(name) is not None


@pytest.mark.parametrize("check", conformance_checks("statevector"), ids=str)
def test_statevector(check):
    check()


@pytest.mark.parametrize("name", ["numba", "density", "torch", "tensorflow"])
def test_our_engines(name):
    if name != "density" and not installed(name):
        pytest.skip(f"{name} is not installed")
    if name not in {info.name for info in list_backends()}:
        pytest.skip(f"this installation has no backend {name}")
    report = run_checks(name, qubits=8 if name == "density" else 12)
    assert report.ok, str(report)
    assert sum(outcome.status == "passed" for outcome in report.outcomes) >= 35


def test_a_backend_of_samples():
    """Without exact values every check is one of samples; ours has no standard errors and no sums of strings."""
    sums = ["shots: observables", "values: observables", "values: many observables"]
    skip = [*sums, "shots: all circuits", "values: qubits", "shots: number"]
    report = run_checks(Over("sampler", sample=sample_any, exact=False, vjp=False), skip=skip)
    assert report.ok, str(report)
    status = {outcome.check: outcome.status for outcome in report.outcomes}
    assert status["values: gates"] == status["shots: seeds"] == "passed"
    assert status["layers"] == "skipped"  # an object that does not pickle; values and gradients are right
    assert status["gradient: weights"] == "skipped"


def sample_any(outputs, measurement, shots, rng):
    return binomial(outputs, measurement, shots, rng)


def test_every_sentence_of_the_contract_has_a_check():
    checked = {sentence for check in conformance_checks("statevector") for sentence in check.sentences}
    assert checked == set(SENTENCES)


def test_a_failure_says_what_was_expected_and_which_sentence_is_broken():
    report = run_checks(Over("zero", outputs=np.zeros_like))
    failed = {outcome.check: outcome for outcome in report.failed}
    assert "All values are zero" in failed["values: gates"].reason
    assert "expected" in failed["values: gates"].reason
    assert "gate cswap" not in failed["values: gates"].reason.partition("Wrong too")[0]
    assert f"V3: {SENTENCES['V3'][:40]}" in str(failed["values: gates"])


def test_a_limit_is_skipped_and_an_essential_is_not():
    class Small(Over):
        def compile(self, circuit, measurement, **options):
            if any(op.gate in ("ccx", "ccz") for op in circuit.operations) or circuit.n_weights > 5:
                raise CapabilityError("no gates of three qubits, few weights")
            return super().compile(circuit, measurement, **options)

    outcomes = {outcome.check: outcome for outcome in run_checks(Small("small")).outcomes}
    assert outcomes["values: gates"].status == "skipped"
    assert "gate ccx on qubits (0, 1, 2)" in outcomes["values: gates"].reason
    assert outcomes["values: observables"].status == "skipped"
    assert outcomes["values: shapes"].status == "failed"  # every backend takes six weights
    assert "every backend must do this" in outcomes["values: shapes"].reason


def test_max_qubits():
    class Two(Over):
        def compile(self, circuit, measurement, **options):
            if circuit.n_qubits > 2:
                raise CapabilityError("two qubits at most")
            return super().compile(circuit, measurement, **options)

    backend = Two("two")
    backend.capabilities = Capabilities(vjp=True, max_qubits=2)
    status = {outcome.check: outcome.status for outcome in run_checks(backend).outcomes}
    assert status["backend: max_qubits"] == status["values: qubits"] == "passed"
    assert "failed" not in status.values()


def test_fewer_qubits_are_tried_where_that_is_asked_for():
    seen = []

    class Watched(Over):
        def compile(self, circuit, measurement, **options):
            seen.append(circuit.n_qubits)
            return super().compile(circuit, measurement, **options)

    checks = {str(check): check for check in conformance_checks(Watched("watched"), qubits=5)}
    checks["values: qubits"]()
    assert max(seen) == 5


def test_checks_of_a_registered_name_and_exit_status(capsys):
    register_backend("wrong_sign", Over("wrong_sign", outputs=lambda y: -y))
    try:
        assert main(["wrong_sign"]) == 1
        table = capsys.readouterr().out
        assert "backend 'wrong_sign', qstore contract version 2" in table
        assert "The sign is wrong." in table
        assert "V3: Every gate has the matrix of the gate table" in table
    finally:
        unregister_backend("wrong_sign")
    assert main(["statevector", "--skip", "calls: threads", "--qubits", "4"]) == 0
    assert "calls: threads" not in capsys.readouterr().out
    assert main(["statevektor"]) == 2
    assert "Did you mean 'statevector'?" in capsys.readouterr().err
    assert main(["statevector", "--option", "device=x"]) == 2
    assert "no option" in capsys.readouterr().err


def test_unknown_check_to_skip():
    with pytest.raises(SpecError, match="Did you mean 'calls: threads'"):
        conformance_checks("statevector", skip=["calls: thread"])


def test_check_is_a_callable_that_raises():
    checks = {str(check): check for check in conformance_checks(Over("zero", outputs=np.zeros_like))}
    with pytest.raises(ConformanceError, match="All values are zero"):
        checks["values: gates"]()
    with pytest.raises(unittest.SkipTest, match=r"capabilities\.shots is False"):
        checks["shots: bases"]()
    assert all(check.help and check.sentences for check in checks.values())


def test_thorough_tries_more(monkeypatch):
    seen = []
    backend = Over("rows", outputs=lambda y: seen.append(len(y)) or y)
    checks = {str(check): check for check in conformance_checks(backend, thorough=True)}
    checks["values: batches"]()
    assert max(seen) == 10_000


def test_module_runs_and_needs_no_pytest():
    code = "import sys, qstore_core.testing; sys.exit(any(m in sys.modules for m in ('pytest', 'hypothesis', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    done = subprocess.run(
        [sys.executable, "-m", "qstore_core.testing", "statevector", "--qubits", "6"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert ", 0 failed" in done.stdout


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
        timeout=240,
    )
    passed, skipped = (sum(done.stdout.count(letter) for letter in mark) for mark in (".", "s"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert passed >= 35, done.stdout
    assert skipped, done.stdout
