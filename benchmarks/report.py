"""From results to tables, and to `docs/performance.md` between its marks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from . import plots
from .lab import PATIENCE, ROOT
from .layers import passes
from .peers import LIBRARIES
from .results import POINT, Line, Results

PAGE = ROOT / "docs" / "performance.md"
MODES = {"forward": "forward", "step": "forward + backward"}
HEADLINES = (
    ((4, 32), (8, 32), (8, 256), (12, 32)),
    ("torch-auto", "torch-engine", "keras-auto", "keras-xla"),
    ("pennylane", "tensorcircuit"),
)
ON_GPU = (
    ((4, 32), (8, 32), (8, 4096), (10, 4096), (12, 4096), (14, 256), (16, 32), (18, 32), (20, 32)),
    ("gpu-triton", "gpu-triton-inline", "gpu-triton-graph", "gpu-torch", "gpu-torch-graph", "gpu-jax"),
    ("gpu-pennylane", "gpu-tensorcircuit", "gpu-triton-qml", "gpu-fastqml-graph"),
)


def duration(seconds: float) -> str:
    """Seconds with a unit that reads well.

    Example:
        >>> duration(0.00123), duration(2.5), duration(4.2e-6)
        ('1.23 ms', '2.5 s', '4.2 µs')
    """
    factor, unit = (1, "s") if seconds >= 1 else (1e3, "ms") if seconds >= 1e-4 else (1e6, "µs")
    value = seconds * factor
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return (f"{value:.{min(digits, 3)}f}".rstrip("0").rstrip(".") if digits else f"{value:.0f}") + f" {unit}"


def size(count: float) -> str:
    """Bytes in MB or GB."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"


def cell(line: Line | None, key: str = "seconds") -> str:
    """What a table says about a result."""
    status = "unavailable" if line is None else line["status"]
    if line is not None and status == "ok":
        return size(max(0, line[key])) if key == "memory" else duration(line[key])
    words = {"over": "too slow", "memory": "memory", "unavailable": "–", "skipped": "·", "wrong": "wrong"}
    return words.get(status, "failed")


def ratio(theirs: float | None, mine: float | None) -> str:
    """How many times faster ours is."""
    if theirs is None or mine is None:
        return "–"
    value = theirs / mine
    return f"{value:.0f} ×" if value >= 10 else f"{value:.1f} ×" if value >= 1 else f"**{value:.2f} ×**"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; the first column is left-aligned."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def lines_of_point(measured: dict[tuple[str, str], Line]) -> list[str]:
    """What is printed as a run goes on."""
    return [f"    {name:24} {mode:8} {cell(line):>10}  {_why(line)}" for (name, mode), line in measured.items()]


def _why(line: Line) -> str:
    return f"differs by {line['difference']:.0e}" if "difference" in line else line.get("message", "")[:200]


class Tables:
    """The tables of a run."""

    def __init__(self, results: Results, section: str = "grid", mine: str = "ours", theirs: str = "peer") -> None:
        self.results, self.section = results, section
        self.names = results.libraries(section)
        self.ours = [n for n in self.names if LIBRARIES[n].kind == mine]
        self.peers = [n for n in self.names if LIBRARIES[n].kind == theirs]

    def label(self, name: str) -> str:
        """Name in tables; "auto" says what it chose."""
        text = LIBRARIES[name].label
        if name.endswith("auto"):
            chosen = {line["backend"] for line in self.results.find(self.section, library=name) if line.get("backend")}
            return f"{text} ({'/'.join(sorted(chosen))})" if chosen else text
        return text

    def head(self, names: Iterable[str]) -> list[str]:
        """Labels."""
        return [self.label(name) for name in names]

    def best(self, names: Iterable[str], **point: Any) -> tuple[float, str] | None:
        """The fastest of some libraries at a point."""
        times = [(t, n) for n in names if (t := self.results.seconds(self.section, library=n, **point)) is not None]
        return min(times, default=None)

    def libraries(self) -> list[str]:
        """Column names and what they are."""
        return table(
            ("column", "what runs"), [(LIBRARIES[n].label, LIBRARIES[n].note) for n in (*self.ours, *self.peers)]
        )

    def times(self, batch: int, mode: str) -> list[str]:
        """Time against qubits, for one batch size."""
        rows = []
        for n in sorted(self.results.values(self.section, "n_qubits", batch=batch)):
            point = {"n_qubits": n, "batch": batch, "mode": mode}
            mine, top = self.best(self.ours, **point), self.best(self.peers, **point)
            cells = []
            for name in (*self.ours, *self.peers):
                text = cell(self.results.get(self.section, library=name, **point))
                cells.append(f"**{text}**" if top and mine and name in (mine[1], top[1]) else text)
            gain = ratio(top[0], mine[0]) if top and mine else "no peer left" if mine else "–"
            rows.append([str(n), *cells, LIBRARIES[mine[1]].label if mine else "–", gain])
        head = [*self.head((*self.ours, *self.peers)), "best qstore", "times faster than the best peer"]
        return table(["qubits", *head], rows)

    def column(self, column: str, key: str = "seconds", batch: int | None = None) -> list[str]:
        """A field of forward + backward against a column, all libraries."""
        wanted = {} if batch is None else {"batch": batch}
        rows = []
        for value in self.results.values(self.section, column, **wanted):
            point = {column: value, "mode": "step", **wanted}
            row = [str(value)]
            if key == "memory" and batch is not None:
                row.append(size(8 * batch << value))
            lines = (self.results.get(self.section, library=name, **point) for name in self.names)
            rows.append([*row, *(cell(line, key) for line in lines)])
        head = [column.replace("n_", ""), *(["the batch of states"] if len(rows[0]) > 1 + len(self.names) else [])]
        return table([*head, *self.head(self.names)], rows)

    def headlines(self, points: Iterable[tuple[int, int]], main: Sequence[str], against: Sequence[str]) -> list[str]:
        """Forward + backward at some points: ours, the best peer, and how many times the first of ours is faster."""
        main, against = ([name for name in wanted if name in self.names] for wanted in (main, against))
        rows = []
        for n, batch in points:
            point = {"n_qubits": n, "batch": batch, "mode": "step"}
            lines = [self.results.get(self.section, library=name, **point) for name in main]
            if not any(lines):
                continue
            top = self.best(self.peers, **point)
            row = [f"{n} qubits, batch {batch}", *(cell(line) for line in lines)]
            row.append(f"{duration(top[0])} ({LIBRARIES[top[1]].label})" if top else "–")
            mine = self.results.seconds(self.section, library=main[0], **point)
            rows.append([*row, *(ratio(self.results.seconds(self.section, library=p, **point), mine) for p in against)])
        head = [f"{LIBRARIES[n].label} ÷ {LIBRARIES[main[0]].label}" for n in against] if main else []
        return table(["forward + backward", *self.head(main), "best peer", *head], rows)

    def slower(self) -> list[str]:
        """Where a peer is faster than ours."""
        rows = []
        for n in self.results.values(self.section, "n_qubits"):
            for batch in self.results.values(self.section, "batch", n_qubits=n):
                for name in self.ours:
                    for mode, title in MODES.items():
                        point = {"n_qubits": n, "batch": batch, "mode": mode}
                        line = self.results.get(self.section, library=name, **point)
                        mine, top = self.best([name], **point), self.best(self.peers, **point)
                        if top is None or (mine is not None and mine[0] <= top[0]):
                            continue
                        where = f"{n} qubits, batch {batch}, {title}"
                        theirs = f"{LIBRARIES[top[1]].label} {duration(top[0])}"
                        factor = f"{mine[0] / top[0]:.2f}" if mine else "–"
                        rows.append((where, self.label(name), cell(line), theirs, factor))
        if not rows:
            return ["Nowhere in this grid."]
        return table(("point", "ours", "time", "best peer", "times slower"), rows)


def _bases(results: Results) -> list[str]:
    tables, rows = Tables(results, "bases"), []
    peer = "pennylane" if "pennylane" in tables.names else None
    for name in tables.names:
        for mode, title in MODES.items():
            one, three = (results.get("bases", library=name, mode=mode, bases=b) for b in ("Z", "ZXY"))
            both = one and three and one["status"] == three["status"] == "ok"
            times = f"{three['seconds'] / one['seconds']:.2f}" if both else "–"
            against = [results.seconds("bases", library=n, mode=mode, bases="Z") for n in (peer, name)]
            rows.append((f"{tables.label(name)}, {title}", cell(one), cell(three), times, ratio(*against)))
    return table(("", "Z", "Z, X, Y", "ratio", "PennyLane ÷ this, Z"), rows)


def _crossover(results: Results) -> list[str]:
    rows = []
    for line in results.find("crossover", library="keras-numba", mode="step"):
        other = line | {"library": "keras-ops"}
        theirs = results.get("crossover", **{k: other[k] for k in (*POINT, "encoding", "library", "mode")})
        both = theirs and theirs["status"] == line["status"] == "ok"
        where = f"{line['n_qubits']} qubits, batch {line['batch']}, {line['encoding']}"
        rows.append((where, cell(line), cell(theirs), f"{theirs['seconds'] / line['seconds']:.2f}" if both else "–"))
    return table(("forward + backward", "two host calls (numba)", "TensorFlow's operations", "ratio"), rows)


def _nothing(results: Results) -> list[str]:
    names = results.libraries("nothing")
    cells = {n: [cell(results.get("nothing", library=n, mode=mode)) for mode in MODES] for n in names}
    rows = [[LIBRARIES[n].label, LIBRARIES[n].note, *cells[n]] for n in names]
    return table(["framework", "what runs", *MODES.values()], rows)


def _arithmetic(results: Results) -> list[str]:
    one = results.get("peak", threads=1)
    assert one is not None
    rows = []
    for line in results.find("arithmetic", status="ok"):
        time, done, plain = line["seconds"], line["scheduled"], line["multiply_adds"]
        where = f"{line['n_qubits']} qubits, {LIBRARIES[line['library']].label}, {MODES[line['mode']]}"
        shares = (f"{100 * count / time / one['peak']:.0f} %" for count in (done, plain))
        rows.append((where, f"{done / 1e6:.2f} · 10⁶", duration(time), f"{done / time / 1e9:.2f} · 10⁹", *shares))
    return table(("point", "multiply-adds", "time", "per second", "of the peak", "gate by gate, of the peak"), rows)


def _about(results: Results) -> list[str]:
    run, m = results.get("run") or {}, (results.get("run") or {})["machine"]
    options, finished = run["options"], results.get("finished") or {"at": "(unfinished)"}
    load = [line["average"] for line in results.find("load")]
    peaks = [line["peak"] / 1e9 for line in results.find("peak")]
    head = (
        f"Measured by `{run['command']}`, {run['started']} to {finished['at']}, on {m['cpu']}, {m['cores']} cores, "
        f"{m['memory'] / 2**30:.0f} GiB, {m['system']}, Python {m['python']}. "
    )
    if peaks:
        head += f"Peak: {peaks[0]:.1f} · 10⁹ multiply-adds per second on one core, {peaks[-1]:.1f} · 10⁹ on all. "
    if load:
        quiet = "quiet" if max(load) < 1.5 * m["cores"] else "shared: read with care"
        head += f"Load average before each point: {min(load)} to {max(load)} (the machine was {quiet})."
    words = (
        f"Medians of {options['rounds']} rounds of {options['seconds']:g} s in which the libraries alternate. "
        f'"too slow": a call took more than {options["limit"]:g} s, compilation included; '
        '"memory": it held more than the limit; "wrong": its values or gradients differ from the reference by more '
        'than rounding; "·": not tried, since a smaller point was too slow or held too much, or its time there, '
        f'grown with the batch of states, is over {options["limit"] / PATIENCE:g} s; "–": not installed, or not '
        "measured at this point."
    )
    return [head, "", words, "", "Versions: " + ", ".join(f"{k} {v}" for k, v in m["versions"].items()) + "."]


def cpu_tables(results: Results) -> list[str]:
    """Everything between the marks of the page, as far as it was measured."""
    out, there = _about(results), {line["section"] for line in results.lines}

    def add(title: str, lines: Sequence[str], text: str = "") -> None:
        out.extend(["", f"### {title}", "", *([text, ""] if text else []), *lines])

    if "grid" in there:
        grid = Tables(results)
        middle = 32 if results.get("grid", batch=32) else results.values("grid", "batch")[-1]
        out += ["", *grid.libraries()]
        add("At a glance", grid.headlines(*HEADLINES))
        add("Where a peer is faster", grid.slower())
        for batch in sorted(results.values("grid", "batch")):
            for mode, title in MODES.items():
                add(f"Batch {batch}, {title}", grid.times(batch, mode))
        text = f"The first forward + backward of a process, batch {middle}, with tracing and compilation if any."
        add("First call", grid.column("n_qubits", "first", middle), text)
        text = (
            f"Forward + backward, batch {middle}: largest resident size (VmHWM) of the library's own process from the "
            "first call on, less its resident size before it, when libraries, features and weights were loaded. Code "
            "loaded or compiled at the first call is part of it: all there is at few qubits."
        )
        add("Peak memory", grid.column("n_qubits", "memory", middle), text)
    if "nothing" in there:
        text = "Tensors in and out as those of a layer of 4 qubits at batch 32."
        add("What a call of a framework takes by itself", _nothing(results), text)
    if "arithmetic" in there:
        text = (
            "Engines by themselves (unit rows in, no layer around them), batch 256, one thread, float32. A "
            "multiply-add is a·b + c on real numbers; the peak is that of a product of matrices. They are counted as "
            "defined in `benchmarks/arithmetic.py`: for the numba engine what its schedule does, for the NumPy "
            "engine, and in the last column for both, what the Plan needs gate by gate. The last column is over 100 % "
            "where the schedule saves more than the machine's distance to its peak."
        )
        add("Distance to the machine's limit", _arithmetic(results), text)
    for section, column, key, title in (
        ("depth", "depth", "seconds", "Time against depth, 8 qubits, batch 32, forward + backward"),
        ("batch", "batch", "seconds", "Time against batch, 8 qubits, depth 2, forward + backward"),
        ("memory", "depth", "memory", "Peak memory against depth, 14 qubits, batch 16, forward + backward"),
    ):
        if section in there:
            add(title, Tables(results, section).column(column, key))
    if "crossover" in there:
        add("Keras without XLA", _crossover(results))
    if "bases" in there:
        add("Bases Z, X, Y against Z alone, 8 qubits, batch 32", _bases(results))
    return out


def gpu_tables(results: Results) -> list[str]:
    """The page of a GPU."""
    run = results.get("run")
    assert run is not None
    m, top = run["machine"], run["ceilings"]
    finished = (results.get("finished") or {"at": "(unfinished)"})["at"]
    grid = Tables(results, "gpu")
    head = (
        f"Measured by `{run['command']}`, {run['started']} to {finished}, on {m['gpu']}, {m['cores']} cores of "
        f"{m['cpu']}, Python {m['python']}. A copy moves {top['copy'] / 1e12:.2f} TB/s (bytes read and written), a "
        f"product of matrices makes {top['multiply_adds'] / 1e12:.1f} · 10¹² multiply-adds per second (float32), a "
        f"launch takes {top['launch'] * 1e6:.1f} µs, in a CUDA graph {top['launch_in_graph'] * 1e6:.1f} µs."
    )
    for name, what in (("nothing", "An autograd function of PyTorch that does nothing"), ("linear", "`nn.Linear`")):
        calls = [results.seconds("gpu", library=f"gpu-{name}", mode=mode) for mode in MODES]
        if any(calls):
            forward, step = (duration(t) if t else "–" for t in calls)
            head += f" {what} takes {forward}, with backward {step}."
    words = (
        '"too slow": not compiled in half of the time, or a call over the limit; "wrong": values or gradients differ '
        'from the reference by more than float32 rounding; "·": not tried, since a smaller point was too slow; "–": '
        "not installed, not measured, or too many qubits."
    )
    versions = "Versions: " + ", ".join(f"{k} {v}" for k, v in m["versions"].items()) + "."
    out = [head, "", words, "", versions, "", *grid.libraries()]
    out += ["", "### At a glance, on the GPU", "", *grid.headlines(*ON_GPU)]
    for batch in sorted(results.values("gpu", "batch")):
        for mode, title in MODES.items():
            out += ["", f"### Batch {batch}, {title}, on the GPU", "", *grid.times(batch, mode)]
    rows = []
    for line in sorted(results.find("gpu", status="ok"), key=lambda x: [x[k] for k in ("batch", "n_qubits", "mode")]):
        if "launches" in line:
            where = f"{line['n_qubits']} qubits, batch {line['batch']}, {MODES[line['mode']]}"
            point = {key: line[key] for key in (*POINT, "mode")}
            graph = results.seconds("gpu", library=line["library"] + "-graph", **point)
            fastest = min(line["seconds"], graph or line["seconds"])
            millions = [line[key] / 1e6 for key in ("bytes", "multiply_adds")]
            cells = [*(f"{m:.3g}" if m < 999 else f"{m:.0f}" for m in millions), str(line["launches"])]
            times = [duration(t) if t else "–" for t in (line["floor"], line["busy"], line["seconds"], graph)]
            share = f"{100 * line['floor'] / fastest:.0f} %"
            rows.append([where, LIBRARIES[line["library"]].label, *cells, *times, share])
    head = ["point", "engine", "MB", "10⁶ multiply-adds", "launches", "least time"]
    head += ["GPU busy", "eager", "graph", "least ÷ best"]
    out += ["", "### Distance to the GPU's limit", "", *table(head, rows)]
    for line in results.find("passes"):
        out += ["", f"### Passes over memory, {line['n_qubits']} qubits, batch {line['batch']}", ""]
        out += table(passes.HEAD, passes.shares(line["lines"], top["copy"]))
    if left := list(results.find("left")):
        points = ", ".join(f"{x['n_qubits']} qubits batch {x['batch']}" for x in left)
        out += ["", f"Not reached in {run['options']['minutes']:g} minutes: {points}."]
    return out


def write_between(mark: str, lines: Sequence[str]) -> None:
    """Put lines between the page's marks of a name."""
    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    before, rest = PAGE.read_text().split(begin)
    PAGE.write_text("\n".join([before + begin, *lines, end]) + rest.split(end)[1])
    print(f"wrote {PAGE}")


def write_page(results: Results) -> None:
    """Tables and pictures of a whole run, or the tables of a GPU."""
    if _is_of_a_gpu(results):
        write_between("gpu", gpu_tables(results))
        return
    write_between("bench", cpu_tables(results))
    plots.grid(results, PAGE.with_name("performance.png"))
    plots.growth(results, PAGE.with_name("performance-growth.png"))


def tables(results: Results) -> list[str]:
    """What the page says of a run."""
    return gpu_tables(results) if _is_of_a_gpu(results) else cpu_tables(results)


def _is_of_a_gpu(results: Results) -> bool:
    return "gpu" in (results.get("run") or {"machine": ()})["machine"]
