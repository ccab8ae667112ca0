"""A job service on 127.0.0.1, with its client: a real server in a process of its own, which fails as it is told to.

    POST /jobs            hand in a circuit with theta and rows; answers {"job": id}
    GET /jobs/ID          waits a little for the job; answers {"outputs": [...]}, or 202 while it runs
    DELETE /jobs/ID       cancel
    GET /counts           what happened so far

Every request carries a fault schedule, `{"seed": …, "rate": …, "kinds": […]}`: a seeded generator per schedule decides
which requests go wrong, and how (`FAULTS`). "die" ends the process. What went wrong is written to a file, which
outlives the process.
"""

from __future__ import annotations

import asyncio
import io
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

from qstore_core import BackendError, Capabilities, CapabilityError, Circuit, JobLostError, JobPolicy, TransientError
from qstore_core.circuit.measurements.measurement import as_measurement

FAULTS = (
    "delay",  # the answer comes late
    "drop",  # the connection is closed before the request is looked at
    "drop late",  # it is closed when the work is done: the answer is lost
    "cut",  # half an answer
    "429",
    "500",
    "no json",
    "html",
    "short",  # a row too few
    "narrow",  # an output too few
    "nan",
    "text",  # numbers as text
    "lose",  # the job is forgotten
    "hang",  # no answer, ever
    "400",  # refused for good
    "die",
)


# ---- the server


class _Server:
    def __init__(self, life, log):
        self.jobs, self.counts, self.schedules, self.compiled = {}, Counter(), {}, {}
        self.life, self.log = life, log

    async def handle(self, reader, writer):
        try:
            method, path, body = await _read_request(reader)
            self.counts[method] += 1
            answer = await self.answer(method, path, body)
            if answer is not None:
                status, content, headers, cut = answer
                data = content.encode()
                head = f"HTTP/1.1 {status} -\r\nContent-Length: {len(data)}\r\n{headers}\r\n".encode()
                writer.write((head + data)[: len(head) + len(data) // 2 if cut else None])
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            writer.close()

    async def answer(self, method, path, body):
        if path == "/counts":
            return 200, json.dumps({**self.counts, "open": len(self.jobs)}), "", False
        schedule = body.get("schedule") or {}
        fault = self.fault(schedule) if method != "DELETE" else None
        if fault is not None:
            self.log.write(f"{fault}\n")
            self.log.flush()
        if fault == "die":
            os._exit(1)
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "drop":
            return None
        if fault in ("429", "500"):
            return int(fault), "busy", "Retry-After: 0.01\r\n" if fault == "429" else "", False
        if fault == "400":
            return 400, "this circuit is refused", "", False
        if fault == "delay":
            await asyncio.sleep(0.05)
        if method == "POST":
            job = f"{self.life}-{self.counts['submitted']}"  # ids are never used again
            self.counts["submitted"] += 1
            self.counts["rows"] += len(body["inputs"])
            self.jobs[job] = (time.monotonic() + schedule.get("seconds", 0.0), self.compute(body))
            content = json.dumps({"job": job})
        else:
            job = path.rpartition("/")[2]
            if fault == "lose" or (method == "DELETE" and job in self.jobs):
                self.counts["cancelled" if method == "DELETE" else "lost"] += 1
                self.jobs.pop(job, None)
            if method == "DELETE":
                return 200, "{}", "", False
            if job not in self.jobs:
                return 404, "no such job", "", False
            ready, outputs = self.jobs[job]
            wait = min(ready - time.monotonic(), 0.2)
            if wait > 0:
                await asyncio.sleep(wait)
            if job in self.jobs and ready > time.monotonic():
                return 202, "{}", "", False
            content = json.dumps({"outputs": _spoil(outputs, fault)})
            self.counts["fetched"] += 1
        if fault == "drop late":
            return None
        if fault == "no json":
            content = content[:-3]
        if fault == "html":
            content = "<html>Bad gateway</html>"
        return 200, content, "", fault == "cut"

    def fault(self, schedule):
        if not schedule.get("rate"):
            return None
        rng = self.schedules.setdefault(schedule["seed"], random.Random(f"{schedule['seed']} {self.life}"))
        return rng.choice(schedule["kinds"]) if rng.random() < schedule["rate"] else None

    def compute(self, body):
        from qstore_core import get_backend

        key = json.dumps([body["circuit"], body["measurement"], body["dtype"]])
        if key not in self.compiled:
            circuit, measurement = Circuit.from_dict(body["circuit"]), as_measurement(body["measurement"])
            self.compiled[key] = get_backend("statevector").compile(circuit, measurement, dtype=body["dtype"])
        theta, inputs = np.array(body["theta"], body["dtype"]), np.array(body["inputs"], body["dtype"])
        inputs = inputs.reshape(len(body["inputs"]), -1)
        return np.asarray(self.compiled[key].forward(theta, inputs)).tolist()


def _spoil(outputs, fault):
    if fault == "short":
        return outputs[:-1]
    if fault == "narrow":
        return [row[:-1] for row in outputs]
    if fault == "nan":
        return [[math.nan, *row[1:]] for row in outputs]
    if fault == "text":
        return [[str(value) for value in row] for row in outputs]
    return outputs


async def _read_request(reader):
    method, path, _ = (await reader.readline()).decode().split(" ")
    length = 0
    while (line := (await reader.readline()).decode().strip()) != "":
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            length = int(value)
    body = json.loads(await reader.readexactly(length)) if length else {}
    return method, path, body


async def _serve(port, life, log):
    server = await asyncio.start_server(_Server(life, log).handle, "127.0.0.1", port, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


class LocalService:
    """The server in a thread of this process, where nothing goes wrong by itself."""

    def __init__(self):
        self.port, started = 0, threading.Event()

        async def serve():
            server = await asyncio.start_server(_Server("local", io.StringIO()).handle, "127.0.0.1", 0, backlog=512)
            self.port = server.sockets[0].getsockname()[1]
            self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
            started.set()
            async with server:
                await self._stop.wait()

        self._thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
        self._thread.start()
        assert started.wait(30), "the service did not start"

    def close(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


class Service:
    """The server's process; started anew, on the same port, whenever it ends."""

    def __init__(self):
        self.port, self.restarts, self._closing = 0, -1, False
        self._process, self._started = None, threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name) / "faults"

    def __enter__(self):
        self._thread.start()
        assert self._started.wait(30), "the service did not start"
        return self

    def __exit__(self, *exc_info):
        self._closing = True
        self._process.kill()
        self._thread.join(10)
        self._folder.cleanup()

    def _keep_alive(self):
        while not self._closing:
            with subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.support.job_service",
                    str(self.port),
                    str(self.restarts + 1),
                    str(self._log),
                ],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            ) as self._process:
                self.port = int(self._process.stdout.readline() or self.port)
                self.restarts += 1
                self._started.set()
                self._process.wait()

    def kill(self):
        self._process.kill()

    def faults(self):
        """What went wrong so far, over all restarts."""
        return Counter(self._log.read_text(encoding="utf-8").splitlines())

    def counts(self):
        return asyncio.run(request(self.port, "GET", "/counts", {}))


# ---- the client: a job-type backend as a plugin author would write it


async def request(port, method, path, body):
    """One request on one connection; the answer's JSON."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        data = json.dumps(body).encode()
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
        )
        await writer.drain()
        answer = await reader.read()
    finally:
        writer.close()
    head, separator, content = answer.partition(b"\r\n\r\n")
    if not separator:
        raise TransientError("the connection was closed without an answer")
    lines = head.decode().split("\r\n")
    status = int(lines[0].split(" ")[1])
    headers = dict(line.split(": ", 1) for line in lines[1:])
    if len(content) < int(headers["Content-Length"]):
        raise TransientError("the answer is cut off")
    if status == 404:
        raise JobLostError(f"{path}: {content.decode()}")
    if status == 429 or status >= 500:
        raise TransientError(f"HTTP {status}", retry_after=float(headers.get("Retry-After", 0)))
    if status >= 400:
        raise BackendError(f"HTTP {status}: {content.decode()}")
    try:
        return {"running": True} if status == 202 else json.loads(content)
    except ValueError as error:
        raise TransientError(f"the answer is no JSON: {content[:30]!r}") from error


class HttpBackend:
    """Circuits at the service. `schedule` is handed to it with every request."""

    name = "http"
    capabilities = Capabilities(exact=True, shots=False, vjp=False, remote=True)
    jobs = JobPolicy(backoff=0.01, max_backoff=0.1, job_timeout=5.0, grace=1.0)

    def __init__(self, port, schedule=None):
        self.port, self.schedule = port, schedule

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        if shots is not None:
            raise CapabilityError(f"backend 'http' computes exact values; shots={shots} was asked for.")
        if circuit.noisy:
            raise CapabilityError("backend 'http' computes gates alone, and a channel stands in the circuit.")
        what = {"circuit": circuit.to_dict(), "measurement": measurement.to_dict(), "dtype": dtype}
        return _HttpExecutable(self, what)


class _HttpExecutable:
    def __init__(self, backend, what):
        self.backend, self.what = backend, what

    async def _ask(self, method, path, **body):
        return await request(self.backend.port, method, path, {"schedule": self.backend.schedule, **body})

    async def submit(self, theta, inputs):
        answer = await self._ask("POST", "/jobs", theta=theta.tolist(), inputs=inputs.tolist(), **self.what)
        return answer["job"]

    async def result(self, job):
        while True:
            answer = await self._ask("GET", f"/jobs/{job}")
            if "outputs" in answer:
                return answer["outputs"]

    async def cancel(self, job):
        await self._ask("DELETE", f"/jobs/{job}")


if __name__ == "__main__":
    with open(sys.argv[3], "a", encoding="utf-8") as faults:
        asyncio.run(_serve(int(sys.argv[1]), sys.argv[2], faults))
