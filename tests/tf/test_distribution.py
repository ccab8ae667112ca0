"""Two replicas train as one does: on two devices of a process, and in two processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.support.tolerances import FRAMEWORK


def start(how, **environment):
    command = [sys.executable, "-m", "tests.tf.replicated", how]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )


def found(process):
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error[-2000:]
    return json.loads(next(line for line in out.splitlines() if line.startswith("found:")).removeprefix("found:"))


def free_ports(count):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.mark.slow
def test_two_replicas_train_as_one():
    workers = [f"localhost:{port}" for port in free_ports(2)]
    configs = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}} for index in range(2)]
    processes = [start("one"), start("two"), *(start("worker", TF_CONFIG=json.dumps(config)) for config in configs)]
    try:
        one, *others = map(found, processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert one[0][-1] < one[0][0]
    for other in others:
        for expected, actual in zip(one, other, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=0, atol=10 * FRAMEWORK["float32"])  # after four steps
