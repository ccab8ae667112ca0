"""What does not fit is refused before it is taken, by every engine, under the limits of this process."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from qstore_core import MemoryLimitError
from qstore_core.engines import memory

ROOT = Path(__file__).parents[3]
NEEDS = {"numba": "numba", "statevector": "numpy", "torch": "torch", "tensorflow": "tensorflow"}

LIMITED = """
import resource, sys, time
import numpy as np
from qstore_core import Circuit, Expectation, MemoryLimitError, get_backend
name, n = sys.argv[1], int(sys.argv[2])
backend = get_backend(name)
small = backend.compile(Circuit(2), Expectation("Z"))
small.forward(np.zeros(0, "float32"), np.zeros((1, 0), "float32"))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
# What importing the framework has reserved does not count against the limit.
resource.setrlimit(resource.RLIMIT_AS, (used + (6 << 30), resource.RLIM_INFINITY))
begin = time.process_time()
try:
    backend.compile(Circuit(n), Expectation("Z"))
except MemoryLimitError as error:
    assert time.process_time() - begin < 1.0  # refused, not tried
    assert error.needed_bytes > error.available_bytes > 5 << 30
    print("refused")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux")
@pytest.mark.parametrize("n", [26, 28])
@pytest.mark.parametrize("engine", NEEDS)
def test_a_limit_of_the_process_is_known(engine, n):
    if importlib.util.find_spec(NEEDS[engine]) is None:
        pytest.skip(f"needs {NEEDS[engine]}")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, engine, str(n)], capture_output=True, text=True, check=False, cwd=ROOT,
        timeout=300,
    )  # fmt: skip
    assert done.stdout.strip() == "refused", done.stderr


def test_the_least_of_all_limits_counts(monkeypatch):
    monkeypatch.setattr(memory, "_group_limit", lambda: 8 << 30)
    monkeypatch.setattr(memory, "_physical_memory", lambda: 1 << 40)
    assert memory.available_memory() < 8 << 30
    memory.check_memory(20)
    with pytest.raises(MemoryLimitError, match="a state of 27 qubits cannot be simulated here"):
        memory.check_memory(27)


def test_a_batch_counts_where_it_is_held_at_once(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 4 << 30)
    with pytest.raises(MemoryLimitError, match="100000 states of 12 qubits"):
        memory.check_memory(12, rows=100_000, backend="statevector")
    memory.check_memory(12, rows=100_000, backend="numba")  # computed in chunks


def test_small_circuits_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 0)
    memory.check_memory(12, rows=16)


def test_a_control_group_is_read(monkeypatch, tmp_path):
    """Whatever the version, the least of the group and of those it is in."""
    for number, (line, file) in enumerate(
        (("0::/a/b", "a/memory.max"), ("4:memory:/a/b", "memory/a/memory.limit_in_bytes"))
    ):
        root = tmp_path / str(number)
        (root / file).parent.mkdir(parents=True)
        (root / file).write_text("123456\n")
        (root / "cgroup").write_text(line + "\n")
        monkeypatch.setattr(
            memory, "Path", lambda p, root=root: root / str(p).replace("/sys/fs/cgroup", ".").replace("/proc/self/", "")
        )
        memory._group_limit.cache_clear()
        assert memory._group_limit() == 123456
    monkeypatch.undo()
    memory._group_limit.cache_clear()
