"""Results as JSON lines: one line per point, library and mode, after lines that say what ran."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .peers import LIBRARIES
from .problem import Problem

Line = dict[str, Any]
POINT = ("n_qubits", "batch", "depth", "bases")


class Results:
    """The lines of a run, in memory and in a file that grows with them."""

    def __init__(self, path: Path | None = None, resume: bool = True) -> None:
        self.path = path
        self.lines: list[Line] = []
        if path is not None and path.exists() and resume:
            self.lines = [json.loads(line) for line in path.read_text().splitlines()]
        elif path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")

    def add(self, section: str, **line: Any) -> Line:
        """Append a line."""
        line = {"section": section, **line}
        self.lines.append(line)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        return line

    def add_point(self, section: str, problem: Problem, measured: dict[tuple[str, str], Line]) -> None:
        """Append what was measured at a point."""
        for (name, mode), result in measured.items():
            self.add(section, library=name, mode=mode, **problem.to_dict(), **result)

    def find(self, section: str, **wanted: Any) -> Iterator[Line]:
        """Lines of a section whose fields are as wanted."""
        for line in self.lines:
            if line["section"] == section and all(line.get(key) == value for key, value in wanted.items()):
                yield line

    def get(self, section: str, **wanted: Any) -> Line | None:
        """The first such line."""
        return next(self.find(section, **wanted), None)

    def seconds(self, section: str, **wanted: Any) -> float | None:
        """Median time of such a line."""
        line = self.get(section, **wanted)
        return line.get("seconds") if line and line["status"] == "ok" else None

    def values(self, section: str, key: str, **wanted: Any) -> list[Any]:
        """Distinct values of a field, in order of appearance."""
        return list(dict.fromkeys(line[key] for line in self.find(section, **wanted)))

    def libraries(self, section: str) -> list[str]:
        """Libraries that were asked for, less those that are not installed."""
        there = {x["library"] for x in self.find(section) if x["status"] != "unavailable"}
        return [name for name in LIBRARIES if name in there]


def now() -> str:
    """The time, UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


def command() -> str:
    """How this process was called."""
    words = sys.argv[1:]
    for option in ("--python", "--output"):  # where things are on this machine
        if option in words:
            k = words.index(option)
            words = words[:k] + words[k + 2 :]
    return " ".join(["python -m benchmarks", *words])


def machine(libraries: Iterable[str]) -> Line:
    """What runs here."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        flags = next(line for line in lines if line.startswith("flags"))
        model += " (AVX-512)" if "avx512f" in flags else " (AVX2)" if "avx2" in flags else ""
    except (OSError, StopIteration):
        pass
    versions = {}
    every = {LIBRARIES[name].distribution for name in libraries} | {"numpy", "numba", "torch", "triton", "jax"}
    for name in sorted(every):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
    }
