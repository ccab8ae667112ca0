"""A file names backends; it imports no package of others unless its user allows that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qstore_core import QuantumReadout, SpecError, allow_backends, get_backend, register_backend, unregister_backend
from qstore_core.backends.allowed import ALLOW_VARIABLE, check_allowed

ROOT = Path(__file__).parents[3]
CODE = """
import json, os, sys
import qstore_core
from qstore_core import QuantumReadout, SpecError, allow_backends
config = json.loads(sys.argv[1])
plugin = {"aer": "qstore_plugins.aer", "pennylane": "qstore_plugins.pennylane_device"}
def load():
    try:
        layer = QuantumReadout.from_config(config)
        return layer.backend_name
    except SpecError as error:
        return f"SpecError: {error}"
"""


def run(config, code, **environment):
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", CODE + code, json.dumps(config)],
        capture_output=True, text=True, check=True, cwd=ROOT, env=os.environ | environment,
    )  # fmt: skip
    return done.stdout.strip()


def configuration(**changes):
    return QuantumReadout(2).get_config() | changes


@pytest.mark.parametrize("changes", [{"backend": "aer"}, {"fallback": "aer"}, {"fallback": ["statevector", "aer"]}])
def test_a_file_imports_no_plugin(changes):
    printed = run(configuration(**changes), "print(load()); print(plugin['aer'] in sys.modules)")
    message, imported = printed.splitlines()
    assert message.startswith("SpecError: the configuration of a QuantumReadout names the backend 'aer'")
    assert "allow_backends('aer')" in message
    assert f"{ALLOW_VARIABLE}=aer" in message
    assert imported == "False"


@pytest.mark.parametrize("backend", ["auto", "numba", "statevector"])
def test_our_engines_are_always_taken(backend):
    assert run(configuration(backend=backend), "print(load())") in (backend, "numba", "statevector")


@pytest.mark.parametrize("value", ["aer", "dask, aer", "all", "qstore"])
def test_the_environment_allows(value):
    assert run(configuration(backend="aer"), "print(load())", **{ALLOW_VARIABLE: value}) == "aer"
    assert "SpecError" in run(configuration(backend="aer"), "print(load())", **{ALLOW_VARIABLE: "pennylane"})


def test_a_scope_allows_and_ends():
    code = """
with allow_backends("dask"):
    print(load()[:9])
    with allow_backends("aer"):
        print(load())
config["backend"] = "pennylane"
print(load()[:9])
"""
    assert run(configuration(backend="aer"), code).splitlines() == ["SpecError", "aer", "SpecError"]


def test_what_the_user_has_loaded_is_taken():
    code = "qstore_core.get_backend('aer'); print(load())"
    assert run(configuration(backend="aer"), code) == "aer"


def test_a_device_is_more_than_its_backend():
    """Devices of PennyLane are packages of their own."""
    code = """
qstore_core.get_backend("pennylane:default.qubit")
print(load())
config["backend"] = "pennylane:lightning.qubit"
print(load()[:9])
with allow_backends("pennylane"):
    print(load())
"""
    printed = run(configuration(backend="pennylane:default.qubit"), code).splitlines()
    assert [line.partition(":")[0] for line in printed] == ["pennylane", "SpecError", "pennylane"]


def test_backends_of_this_process_and_unknown_names():
    register_backend("mine_alone", lambda: get_backend("statevector"))
    try:
        check_allowed(["mine_alone", "nobody", None, 3, "auto"], "a file")
    finally:
        unregister_backend("mine_alone")


def test_metadata_is_parsed_once(monkeypatch):
    from importlib import metadata

    check_allowed(["statevector"], "a file")
    monkeypatch.setattr(metadata.PathDistribution, "read_text", lambda *_: pytest.fail("metadata is read again"))
    check_allowed(["numba", "density", "trajectories", "nobody"] * 10, "a file")


def test_names_are_text():
    with pytest.raises(SpecError), allow_backends(3):
        pass
