"""Provenance: which backend really computed the last outputs of a layer, from what, and how well they are known.

    layer(x)
    layer.last_run.backend, layer.last_run.std_error

A pass fills a `PassRecord`; a layer keeps the last one, of whichever thread finished last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter, time
from typing import Any

import numpy as np

from ..backends.contract import RunReport
from ..backends.seeds import CallSeeds
from ..notebook import table
from .execution import Settings

__all__ = ["LastRun", "PassRecord"]


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
        std_error: Standard errors (…, P) of what the backend sampled, where it gives them: of the outputs, or of the
            values that the measurement makes them from.
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

    def _repr_html_(self) -> str:
        runs = {"forward": self} | ({"backward": self.backward} if self.backward is not None else {})
        names = ("backend", "shots", "seed", "gradient", "jobs", "retries", "resumed", "fallback", "seconds")
        rows = ({name: getattr(run, name) or None for name in names} for run in runs.values())
        return table({"pass": which} | row for which, row in zip(runs, rows, strict=True))


class PassRecord:
    """What one pass leaves behind; cheap, since every pass of every layer makes one.

    Args:
        settings: Of the backend that begins.
        lead: Leading dimensions of the outputs.

    Attributes:
        settings: Of the backend that computed.
        end: When it ended; the caller stops the clock.
        backward: The record of the backward pass.
        circuits: How many rows of circuits were run, where that was counted.
        fused: For profiles: the part that the whole pass is, where an engine does all of it.
        seeds: Of a pass that draws.
    """

    circuits = 0
    fused = ""
    failures: Sequence[str] = ()
    reports: tuple[RunReport, ...] = ()
    backward: PassRecord | None = None
    seeds: CallSeeds
    end: float

    def __init__(self, settings: Settings, lead: tuple[int, ...] = ()) -> None:
        """Start the clock."""
        self.settings, self.lead = settings, lead
        self.start, self.begin = time(), perf_counter()

    def run(self, executable: Any, theta: np.ndarray, inputs: np.ndarray, seed: int | None) -> Any:
        """`executable.forward(theta, inputs)`, with its report where it makes one; with a `seed` where it samples."""
        seeds = {} if seed is None else {"seed": seed}
        self.circuits += len(inputs)
        if not hasattr(executable, "value_and_report"):
            return executable.forward(theta, inputs, **seeds)
        outputs, report = executable.value_and_report(theta, inputs, **seeds)
        if not isinstance(report, RunReport):
            raise TypeError(f"value_and_report returned a {type(report).__name__}, expected (outputs, RunReport)")
        if report.std_error is not None and np.shape(report.std_error) != np.shape(outputs):
            raise ValueError(f"standard errors of shape {np.shape(report.std_error)} for outputs {np.shape(outputs)}")
        self.reports = (*self.reports, report)
        return outputs

    def counts(self) -> dict[str, int]:
        """What the pass took, for profiles."""
        return {
            "circuits": self.circuits,
            "shots": self.circuits * (self.settings.shots or 0),
            "jobs": sum(len(report.jobs) for report in self.reports),
            "retries": sum(report.retries for report in self.reports),
            "resumed": sum(report.resumed for report in self.reports),
        }

    def last_run(self, seed: int | None, *, backward: bool = False) -> LastRun:
        """All of it."""
        std_error = None
        if not backward and len(self.reports) == 1:
            std_error = self.reports[0].std_error
            if std_error is not None:
                std_error = np.asarray(std_error).reshape(*self.lead, -1)
        return LastRun(
            self.settings.backend,
            self.settings.shots,
            seed,
            self.settings.gradient if backward else None,
            tuple(job for report in self.reports for job in report.jobs),
            sum(report.retries for report in self.reports),
            sum(report.resumed for report in self.reports),
            "; ".join(self.failures) or None,
            self.start,
            self.end - self.begin,
            std_error,
            self.backward.last_run(seed, backward=True) if self.backward is not None else None,
        )
