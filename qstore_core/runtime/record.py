"""Provenance: which backend really computed the last outputs of a layer, from what, and how well they are known.

    layer(x)
    layer.last_run.backend, layer.last_run.std_error

A pass fills a `Trail`; `Runs` keeps the last one of a layer, and makes the record when somebody asks for it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends.contract import RunReport

__all__ = ["Brief", "LastRun", "Runs", "Trail"]


@dataclass(frozen=True, eq=False)
class LastRun:
    """What is known about one pass through a layer.

    Attributes:
        backend: Name of the backend that computed, after any fallback; "none" where there is no circuit.
        shots: Samples per circuit on that backend; None for exact values.
        seed: Of sampling; None for a new one each time.
        gradient: How a backward pass was computed: "vjp" (adjoint, or the device's own), "parameter-shift",
            "finite-difference" or "spsa". None for a forward pass.
        jobs: Ids of the jobs whose outputs were used, in the order of the rows.
        retries: How often that backend's jobs were tried again.
        resumed: Jobs that had been submitted earlier, and were fetched now.
        fallback: Why backends before this one did not compute, for example "aer: OSError: no route to host"; None
            where the first one did.
        start: When it began, in seconds since 1970 as `time.time()` gives them.
        seconds: How long it took; for work that an accelerator does on its own, how long it took to hand it over.
        std_error: Standard errors (…, O) of sampled outputs, where the backend gives them.
        backward: The same about the backward pass; None before it has run.
    """

    backend: str
    shots: int | None = None
    seed: int | None = None
    gradient: str | None = None
    jobs: tuple[str, ...] = ()
    retries: int = 0
    resumed: int = 0
    fallback: str | None = None
    start: float = 0.0
    seconds: float = 0.0
    std_error: np.ndarray | None = None
    backward: LastRun | None = None


class Trail:
    """What one pass leaves behind; cheap, since every pass of every layer makes one."""

    __slots__ = ("backend", "backward", "begin", "end", "failures", "gradient", "lead", "reports", "seed", "shots",
                 "start")  # fmt: skip

    def __init__(self) -> None:
        """Start the clock."""
        self.failures: list[str] = []
        self.reports: list[RunReport] = []
        self.gradient: str | None = None
        self.backward: Trail | None = None
        self.lead: tuple[int, ...] | None = None
        self.start, self.begin = time.time(), time.perf_counter()

    def finish(self, backend: str, shots: int | None, seed: int | None) -> None:
        """Stop the clock."""
        self.end = time.perf_counter()
        self.backend, self.shots, self.seed = backend, shots, seed

    def forward(self, executable: Any, theta: np.ndarray, inputs: np.ndarray, seed: int | None) -> Any:
        """`executable.forward(theta, inputs)`, with its report where it makes one; with a `seed` where it samples."""
        seeds = {} if seed is None else {"seed": seed}
        if not hasattr(executable, "value_and_report"):
            return executable.forward(theta, inputs, **seeds)
        outputs, report = executable.value_and_report(theta, inputs, **seeds)
        if not isinstance(report, RunReport):
            raise TypeError(f"value_and_report returned a {type(report).__name__}, expected (outputs, RunReport)")
        if report.std_error is not None and np.shape(report.std_error) != np.shape(outputs):
            raise ValueError(f"standard errors of shape {np.shape(report.std_error)} for outputs {np.shape(outputs)}")
        self.reports.append(report)
        return outputs

    def record(self) -> LastRun:
        """All of it."""
        std_error = None
        if self.gradient is None and len(self.reports) == 1:
            std_error = self.reports[0].std_error
            if std_error is not None and self.lead is not None:
                std_error = np.asarray(std_error).reshape(*self.lead, -1)
        return LastRun(
            self.backend,
            self.shots,
            self.seed,
            self.gradient,
            tuple(job for report in self.reports for job in report.jobs),
            sum(report.retries for report in self.reports),
            sum(report.resumed for report in self.reports),
            "; ".join(self.failures) or None,
            self.start,
            self.end - self.begin,
            std_error,
            self.backward.record() if self.backward is not None else None,
        )


class Brief:
    """A `Trail` of a pass on an engine of ours: nothing but its times is to be told, and taking notes costs less."""

    __slots__ = ("_backend", "_gradient", "_seconds", "_seed", "_start", "backward")

    def __init__(
        self, backend: str, seed: int | None, start: float, seconds: float, gradient: str | None = None
    ) -> None:
        """As in `LastRun`."""
        self._backend, self._seed, self._start, self._seconds, self._gradient = backend, seed, start, seconds, gradient
        self.backward: Brief | None = None

    def record(self) -> LastRun:
        """All of it."""
        backward = self.backward.record() if self.backward is not None else None
        return LastRun(
            self._backend,
            seed=self._seed,
            gradient=self._gradient,
            start=self._start,
            seconds=self._seconds,
            backward=backward,
        )


class Runs:
    """The last pass of a layer, of whichever thread finished last."""

    def __init__(self) -> None:
        """Nothing has run."""
        self.trail: Trail | Brief | None = None

    @property
    def last(self) -> LastRun | None:
        """Its record."""
        trail = self.trail
        return None if trail is None else trail.record()
