"""Dask: a batch in shards over the workers of an existing cluster, each computed by any backend there.

    get_backend("dask", address="tcp://10.0.0.1:8786")                     statevector on every worker
    get_backend("dask", address="tcp://10.0.0.1:8786", backend="aer", method="density_matrix", noise_model=m)
    get_backend("dask", client=client, backend="numba")                    the user's own distributed.Client

Workers need qstore and the inner backend. Circuits travel as dicts, and each worker compiles and caches them once.
Values and gradients are both sharded. Where a worker dies, the scheduler gives its shards to the others.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import pickle
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from qstore_core import (
    BackendError,
    BackendUnavailableError,
    Capabilities,
    CapabilityError,
    Circuit,
    OptionError,
    UnknownBackendError,
    get_backend,
    hookimpl,
)
from qstore_core.backends.contract import RunReport
from qstore_core.backends.seeds import child_seed
from qstore_core.circuit.circuit import whole_number
from qstore_core.circuit.measurements.measurement import Measurement

if TYPE_CHECKING:
    from ._link import Link
    from ._worker import Inner, Problem, Shard

__all__ = ["DaskBackend", "DaskExecutable", "qstore_backend"]

QSTORE_CONTRACT = 2

_SEEDED_SHARDS = 8  # samples must not depend on how many workers there are today
_SHARD_BYTES = 8 << 20  # Dask warns about tasks of more than 10 MB


@hookimpl
def qstore_backend(options: dict[str, Any]) -> DaskBackend:
    """The backend for `options`; see `DaskBackend`."""
    import distributed  # noqa: F401 - an ImportError from here names the missing library

    return DaskBackend(**options)


class DaskBackend:
    """Another backend, on the workers of a Dask cluster.

    Args:
        address: Of the scheduler. The connection is made at the first call, and again where it was lost.
        client: A synchronous distributed.Client, in place of an address; closing it stays the user's.
        backend: Name of the inner backend.
        shards: Into how many parts a batch goes. By default one per worker thread; for samples 8, so that they do not
            depend on the workers. Each shard has a seed of its own.
        timeout: Seconds without a scheduler that answers, or without any worker, after which a call raises
            BackendError. How long a circuit may compute is not limited.
        security: A distributed.Security, for an address with TLS.
        **options: Of the inner backend. They travel to the workers, so they must pickle.

    Safe in threads. A forked child opens a connection of its own, also in place of `client`.

    Example:
        >>> from qstore_core import QuantumReadout, get_backend
        >>> backend = get_backend("dask", address="tcp://127.0.0.1:8786", backend="numba")  # doctest: +SKIP
        >>> layer = QuantumReadout(4, backend=backend)                                      # doctest: +SKIP
    """

    name = "dask"

    def __init__(
        self,
        *,
        address: str | None = None,
        client: Any = None,
        backend: str = "statevector",
        shards: int | None = None,
        timeout: float = 30.0,
        security: Any = None,
        **options: Any,
    ) -> None:
        from ._link import Link
        from ._worker import Inner

        _check(backend, shards, timeout)
        self._shards = shards
        try:
            self._inner = Inner(backend, pickle.dumps(options))
        except Exception as error:
            raise OptionError(f"options of {backend!r} travel to the workers, and these do not pickle: {error}",
                              backend="dask") from error  # fmt: skip
        address, security = _where(address, client, security)
        self._link = Link(address, client, security, float(timeout))
        _links.add(self._link)
        weakref.finalize(self, _close_in, os.getpid(), self._link).atexit = False  # `_close_all` is in time
        self.capabilities = replace(self._ask(options), framework=None, remote=True, embedded=False)

    def _ask(self, options: Mapping[str, Any]) -> Capabilities:
        """Of the inner backend, here; where it is installed only there, of a worker."""
        from ._worker import capabilities

        try:
            return get_backend(self._inner.name, **options).capabilities
        except (BackendUnavailableError, UnknownBackendError) as error:
            try:
                (found,) = _unpacked(self._link.run(capabilities, lambda _: [self._inner]))
            except BackendError as there:
                error.add_note(str(there))
                raise error from None
            return found

    def compile(
        self, circuit: Circuit, measurement: Measurement, *, dtype: str = "float32", shots: int | None = None
    ) -> DaskExecutable:
        """An executable. Workers compile when it runs.

        Raises:
            CapabilityError: the inner backend does not sample, or does nothing else.
        """
        from ._worker import Problem

        if shots is not None and not self.capabilities.shots:
            raise CapabilityError(f"backend {self._inner.name!r} on the workers computes exact values, not shots.",
                                  backend="dask")  # fmt: skip
        text = {"circuit": circuit.to_dict(), "measurement": measurement.to_dict()}
        problem = Problem(json.dumps(text), self._inner, dtype, shots)
        return DaskExecutable(problem, self._link, measurement.n_outputs(circuit.n_qubits), self._shards)

    def close(self) -> None:
        """Close the connection, unless it is the user's own client. The next call opens another."""
        self._link.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """By address: a copy in another process opens a connection of its own."""
        return _copied, (self._link.address, self._link.security, self._inner, self._link.timeout,
                         {"shards": self._shards})  # fmt: skip

    def __repr__(self) -> str:
        return f"<DaskBackend: {self._inner.name!r} on {self._link.address}>"


class DaskExecutable:
    """A circuit that workers compile and run.

    Args:
        problem: The circuit, as it travels.
        link: To the scheduler.
        n_outputs: Per row.
        shards: As in `DaskBackend`.
    """

    def __init__(self, problem: Problem, link: Link, n_outputs: int, shards: int | None) -> None:
        self._problem, self._link, self._n_outputs, self._shards = problem, link, n_outputs, shards

    def forward(self, theta: np.ndarray, inputs: np.ndarray, *, seed: int | None = None) -> np.ndarray:
        """Outputs (B, O)."""
        return self.value_and_report(theta, inputs, seed=seed)[0]

    def value_and_report(
        self, theta: np.ndarray, inputs: np.ndarray, *, seed: int | None = None
    ) -> tuple[np.ndarray, RunReport]:
        """The same with standard errors, and the jobs of an inner backend that runs jobs."""
        if not len(inputs):
            return np.zeros((0, self._n_outputs), self._problem.dtype), RunReport()
        answers = self._run(theta, inputs, seed=seed)
        reports = [report for _, report in answers]
        errors = [report.std_error for report in reports]
        return np.concatenate([outputs for outputs, _ in answers]), RunReport(
            tuple(job for report in reports for job in report.jobs),
            sum(report.retries for report in reports),
            sum(report.resumed for report in reports),
            None if any(error is None for error in errors) else np.concatenate(errors),
        )

    def vjp(self, theta: np.ndarray, inputs: np.ndarray, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`(d_theta (W,), d_inputs (B, I))`. Shards are summed in the order of their rows, in float64."""
        if not len(inputs):
            return np.zeros_like(theta), np.zeros_like(inputs)
        answers = self._run(theta, inputs, cotangents=cotangents)
        d_theta = np.sum([d_theta for d_theta, _ in answers], axis=0, dtype=np.float64)
        return d_theta.astype(self._problem.dtype), np.concatenate([d_inputs for _, d_inputs in answers])

    def _run(
        self, theta: np.ndarray, inputs: np.ndarray, *, seed: int | None = None, cotangents: np.ndarray | None = None
    ) -> list[Any]:
        from ._worker import Shard, compute

        def split(threads: int) -> Sequence[Shard]:
            wanted = self._shards or (threads if seed is None else _SEEDED_SHARDS)
            count = min(max(wanted, math.ceil(inputs.nbytes / _SHARD_BYTES)), len(inputs))
            bounds = [len(inputs) * k // count for k in range(count + 1)]
            return [
                Shard(
                    self._problem, theta, inputs[low:high], None if cotangents is None else cotangents[low:high],
                    None if seed is None else child_seed(seed, number),
                )
                for number, (low, high) in enumerate(pairwise(bounds))
            ]  # fmt: skip

        return _unpacked(self._link.run(compute, split))


def _copied(address: str, security: Any, inner: Inner, timeout: float, rest: dict[str, Any]) -> DaskBackend:
    options = {**rest, **pickle.loads(inner.options)}
    return DaskBackend(address=address, security=security, backend=inner.name, timeout=timeout, **options)


def _unpacked(answers: Sequence[Any]) -> list[Any]:
    """Answers of workers; the first failure is raised here."""
    from ._worker import Failure

    for answer in answers:
        if isinstance(answer, Failure):
            answer.error.add_note(answer.where)
            raise answer.error
    return list(answers)


def _check(backend: Any, shards: Any, timeout: Any) -> None:
    if not isinstance(backend, str) or backend.partition(":")[0] in ("auto", "dask"):
        raise OptionError(
            f"backend= names what computes on the workers, such as 'numba' or 'aer'; received {backend!r}.",
            argument="backend", backend="dask",
        )  # fmt: skip
    if shards is not None and ((number := whole_number(shards)) is None or number < 1):
        raise OptionError(f"shards is a whole number of at least 1, received {shards!r}.", argument="shards",
                          backend="dask")  # fmt: skip
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise OptionError(f"timeout is a number of seconds above 0, received {timeout!r}.", argument="timeout",
                          backend="dask")  # fmt: skip


def _where(address: str | None, client: Any, security: Any) -> tuple[str, Any]:
    """The scheduler's address, and the security of connections to it."""
    from distributed import Client
    from distributed.comm.addressing import get_address_host

    if client is not None and address is None:
        if not isinstance(client, Client) or client.scheduler is None or client.asynchronous:
            raise OptionError(
                f"client= takes a connected, synchronous distributed.Client, received {client!r}.",
                argument="client",
                backend="dask",
            )
        return str(client.scheduler.address), client.security
    if client is not None or address is None:
        raise OptionError(
            'backend "dask" needs one of address="tcp://host:8786" and client=, a distributed.Client.', backend="dask"
        )
    try:
        get_address_host(address)
    except (AttributeError, TypeError, ValueError) as error:
        raise OptionError(f"address= of a Dask scheduler: {error}", argument="address", backend="dask") from error
    return address, security


_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _close_in(process: int, link: Link) -> None:
    """Close what nobody can use any more, in the process that opened it."""
    if os.getpid() == process:
        with contextlib.suppress(Exception):
            link.close()


def _close_all() -> None:
    for link in list(_links):
        with contextlib.suppress(Exception):
            link.close()


atexit.register(_close_all)  # after the runner's own, so that it comes before
