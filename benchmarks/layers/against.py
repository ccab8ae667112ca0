"""Today's tree against another revision of it: every layer of ours, timed by turns in one run.

The revision is installed into a folder of its own (build/against/); its layers and those of today are then measured by
the same code, in a process each, values being checked first.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from ..lab import MODES, ROOT, Remote
from ..peers import LIBRARIES, names
from ..problem import Problem, reference
from ..report import duration
from ..sections import add_lab_options
from ..worker import NoAnswerError

_SIDES = ("before", "now")


def add_options(p: argparse.ArgumentParser) -> None:
    """The revision, and what is measured."""
    p.add_argument("revision", help="a commit, tag or branch of this repository")
    add_lab_options(p, limit=60.0, rounds=15, seconds=0.1)
    p.add_argument("--encodings", nargs="+", default=["amplitude"], help="such as amplitude angle")
    p.add_argument("--threads", type=int, default=1, help="per layer; 1: the code, not the scheduler")


def installed(revision: str) -> Path:
    """A folder with the packages of a revision, and the names of its backends, to stand first in `sys.path`."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run(
        [*git, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    if not commit:
        raise SystemExit(f"{revision!r} is no revision of this repository; `git log --oneline` lists them.")
    folder = ROOT / "build" / "against" / commit[:12]
    if not folder.exists():
        print(f"installing {commit[:12]} into {folder.relative_to(ROOT)} …", flush=True)
        archive = subprocess.run([*git, "archive", commit], capture_output=True, check=True).stdout
        with tempfile.TemporaryDirectory() as source:
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(source, filter="data")
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), source]
            subprocess.run(pip, check=True)
    return folder


@contextlib.contextmanager
def sides(name: str, folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Remote]]:
    """A process of each tree; what is spawned takes `sys.path` along."""
    memory = int((options.memory or 8.0) * 2**30)
    remotes = {}
    try:
        with patch.object(sys, "path", [str(folder), *sys.path]):
            remotes["before"] = Remote(name, options.threads, memory)
        remotes["now"] = Remote(name, options.threads, memory)
        yield remotes
    finally:
        for remote in remotes.values():
            remote.close()


def compare(problem: Problem, mode: str, remotes: dict[str, Remote], options: argparse.Namespace) -> str:
    """A row of the table: medians, and the median of the ratios of the rounds with their quartiles."""
    expected = reference(problem)
    for side, remote in remotes.items():
        remote.ask(options.limit, "build", problem=problem)
        remote.ask(options.limit, "first", mode=mode)
        off = remote.ask(options.limit, "check", mode=mode, expected=expected)["difference"]
        if not off <= problem.tolerance:
            raise NoAnswerError("wrong", f"{side}: differs from the reference by {off:.1e}")
    medians: dict[str, list[float]] = {side: [] for side in _SIDES}
    for k in range(options.rounds):
        for side in _SIDES if k % 2 else reversed(_SIDES):
            samples = remotes[side].ask(options.limit + 10, "time", mode=mode, seconds=options.seconds)["samples"]
            medians[side].append(statistics.median(samples))
    ratios = [b / a for a, b in zip(medians["before"], medians["now"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    before, now = (duration(statistics.median(medians[side])) for side in _SIDES)
    return f"{before:>10} {now:>10} {middle:7.3f}  ({low:.3f} to {high:.3f})"


def main(options: argparse.Namespace) -> None:
    """Print a row for every layer, point and mode."""
    folder = installed(options.revision)
    wanted = options.only or names("ours")
    print(f"{'':44}{'before':>10} {'now':>10}   ratio  (quartiles), {options.rounds} rounds by turns; depth 2, float32")
    points = [
        Problem(n, b, encoding=e)
        for e in options.encodings
        for n in options.qubits or (4, 8, 12)
        for b in options.batches or (32,)
    ]
    for name in wanted:
        with sides(name, folder, options) as remotes:
            for problem in points:
                for mode in MODES:
                    try:
                        found = compare(problem, mode, remotes, options)
                    except NoAnswerError as failure:
                        found = f"{failure.status}: {failure.message}"
                    label = f"{LIBRARIES[name].label}, {problem.n_qubits} qubits, {problem.encoding}, {mode}"
                    print(f"{label:44}{found}", flush=True)
