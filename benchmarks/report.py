"""From results to `docs/performance.md` (between its marks) and `docs/performance*.png`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .lab import PATIENCE, ROOT
from .subjects import NOTHING, PEERS, SUBJECTS

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
MODE_NAMES = {"forward": "forward", "step": "forward + backward"}
HEADLINES = ((4, 32), (8, 32), (8, 256), (12, 32))

Result = dict[str, Any]
Point = dict[str, Any]


def duration(seconds: float) -> str:
    """Seconds with a unit that reads well.

    Example:
        >>> duration(0.00123), duration(2.5)
        ('1.23 ms', '2.5 s')
    """
    value, unit = (seconds, "s") if seconds >= 1 else (seconds * 1e3, "ms")
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{min(digits, 3)}f}".rstrip("0").rstrip(".") + f" {unit}" if digits else f"{value:.0f} {unit}"


def size(count: float) -> str:
    """Bytes in MB or GB."""
    return (
        f"{count / 1e9:.1f} GB"
        if count >= 1e9
        else f"{count / 1e6:.0f} MB"
        if count >= 1e7
        else f"{count / 1e6:.1f} MB"
    )


def cell(result: Result | None, key: str = "seconds") -> str:
    """What a table says about a result."""
    if result is None:
        return "–"
    status = result["status"]
    if status == "ok":
        return size(max(0, result[key])) if key == "memory" else duration(result[key])
    if status in ("over", "memory", "unavailable"):
        return {"over": "too slow", "memory": "memory", "unavailable": "–"}[status]
    return {"skipped": "·", "wrong": "wrong"}.get(status, "failed")


def seconds(point: Point, name: str, mode: str) -> float | None:
    """Median time, None where there is none."""
    result = point["results"].get(name, {}).get(mode)
    return result["seconds"] if result and result["status"] == "ok" else None


def best(point: Point, names: Iterable[str], mode: str) -> tuple[str, float] | None:
    """The fastest of some libraries at a point."""
    times = [(t, name) for name in names if (t := seconds(point, name, mode)) is not None]
    return (min(times)[1], min(times)[0]) if times else None


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; the first column is left-aligned."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def names_in(section: dict[str, Point]) -> list[str]:
    """Libraries that were asked for, in order, less those that are not installed."""
    names: list[str] = []
    for point in section.values():
        for name, modes in point["results"].items():
            available = any(result["status"] != "unavailable" for result in modes.values())
            if available and name not in names:
                names.append(name)
    return names


def label(name: str, section: dict[str, Point]) -> str:
    """Name in tables; "auto" says what it chose."""
    chosen = {
        result["backend"]
        for point in section.values()
        for result in point["results"].get(name, {}).values()
        if result.get("backend")
    }
    text = SUBJECTS[name].label
    return f"{text} ({'/'.join(sorted(chosen))})" if name.endswith("auto") and chosen else text


# -- Markdown ------------------------------------------------------------------------------------------------


def markdown(results: dict[str, Any]) -> str:
    """Everything between the marks."""
    grid = results["grid"]
    names = names_in(grid)
    peers = [name for name in names if name in PEERS]
    ours = [name for name in names if name not in PEERS]
    lines = [*_machine(results), "", *_libraries(names)]
    lines += ["", "### At a glance", "", *_headlines(grid, ours, peers)]
    lines += ["", "### Where a peer is faster", "", *_slower(grid, ours, peers)]
    if "nothing" in results:
        lines += ["", "### What a call of a framework takes by itself", "", *_nothing(results["nothing"])]
    for batch in sorted({p["problem"]["batch"] for p in grid.values()}):
        for mode, title in MODE_NAMES.items():
            lines += ["", f"### Batch {batch}, {title}", "", *_times(grid, batch, mode, ours, peers)]
    lines += ["", "### First call", "", *_first_calls(grid, names)]
    lines += ["", "### Peak memory", "", *_memory(grid, names)]
    if "arithmetic" in results:
        lines += ["", "### Distance to the machine's limit", "", *_arithmetic(results)]
    if "depth" in results:
        lines += ["", "### How cost grows", "", *_growth(results)]
    return "\n".join(lines)


def _machine(results: dict[str, Any]) -> list[str]:
    m, options, peak = results["machine"], results["options"], results["peak"]
    load = results["load"]
    head = (
        f"Measured by `{results['command']}`, {results['started']} to "
        f"{results.get('finished', '(unfinished)')}, on {m['cpu']}, {m['cores']} cores, "
        f"{m['memory'] / 2**30:.0f} GiB, {m['system']}, Python {m['python']}. "
        f"Peak: {peak['one']['peak'] / 1e9:.1f} · 10⁹ multiply-adds per second on one core, "
        f"{peak['all']['peak'] / 1e9:.1f} · 10⁹ on all (float32). "
        f"Load average before each point: {min(load)} to {max(load)} (the machine was "
        f"{'quiet' if max(load) < 1.5 * m['cores'] else 'shared: read with care'})."
    )
    words = (
        f"Medians of {options['rounds']} interleaved turns of {options['seconds']:g} s. "
        f'"too slow": a call took more than {options["limit"]:g} s, compilation included; '
        '"memory": it held more than the limit; "wrong": its values or gradients differ from the reference by more '
        'than rounding; "·": not tried, since a smaller point was too slow or held too much, or its time there, '
        f"grown with the batch of states, is over {options['limit'] / PATIENCE:g} s; "
        '"–": not installed, or not measured at this point.'
    )
    versions = ", ".join(f"{k} {v}" for k, v in m["versions"].items())
    return [head, "", words, "", f"Versions: {versions}."]


def _libraries(names: Sequence[str]) -> list[str]:
    return table(("column", "what runs"), [(SUBJECTS[n].label, SUBJECTS[n].note) for n in names])


def _headlines(grid: dict[str, Point], ours: Sequence[str], peers: Sequence[str]) -> list[str]:
    main = [name for name in ("torch-auto", "torch-engine", "keras-auto", "keras-xla") if name in ours]
    head = ["forward + backward", *(label(n, grid) for n in main), "best peer"]
    head += [
        f"{SUBJECTS[n].label} ÷ {SUBJECTS[main[0]].label}"
        for n in ("pennylane", "tensorcircuit")
        if n in peers and main
    ]
    rows = []
    for n, batch in HEADLINES:
        point = _at(grid, n, batch)
        if point is None:
            continue
        top = best(point, peers, "step")
        row = [f"{n} qubits, batch {batch}", *(cell(point["results"][name].get("step")) for name in main)]
        row.append(f"{duration(top[1])} ({SUBJECTS[top[0]].label})" if top else "–")
        mine = seconds(point, main[0], "step") if main else None
        for name in ("pennylane", "tensorcircuit"):
            if name in peers and main:
                theirs = seconds(point, name, "step")
                row.append(ratio(theirs, mine))
        rows.append(row)
    return table(head, rows)


def ratio(theirs: float | None, mine: float | None) -> str:
    """How many times faster ours is."""
    if theirs is None or mine is None:
        return "–"
    value = theirs / mine
    return f"{value:.0f} ×" if value >= 10 else f"{value:.1f} ×" if value >= 1 else f"**{value:.2f} ×**"


def _at(grid: dict[str, Point], n: int, batch: int) -> Point | None:
    for point in grid.values():
        if (point["problem"]["n_qubits"], point["problem"]["batch"]) == (n, batch):
            return point
    return None


def _slower(grid: dict[str, Point], ours: Sequence[str], peers: Sequence[str]) -> list[str]:
    rows = []
    for point in grid.values():
        for name in ours:
            for mode in MODE_NAMES:
                mine, top = seconds(point, name, mode), best(point, peers, mode)
                if top is None or (mine is not None and mine <= top[1]):
                    continue
                result = point["results"].get(name, {}).get(mode)
                some = point["problem"]
                where = f"{some['n_qubits']} qubits, batch {some['batch']}, {MODE_NAMES[mode]}"
                factor = f"{mine / top[1]:.2f}" if mine is not None else "–"
                rows.append(
                    (
                        where,
                        label(name, grid),
                        cell(result),
                        f"{SUBJECTS[top[0]].label} {duration(top[1])}",
                        factor,
                    )
                )
    if not rows:
        return ["Nowhere in this grid."]
    return table(("point", "ours", "time", "best peer", "times slower"), rows)


def _nothing(section: dict[str, Point]) -> list[str]:
    """What no layer in a framework can be faster than."""
    (point,) = section.values()
    n, batch = point["problem"]["n_qubits"], point["problem"]["batch"]
    rows = [
        [SUBJECTS[name].label, SUBJECTS[name].note, *(cell(point["results"][name].get(mode)) for mode in MODE_NAMES)]
        for name in NOTHING
        if name in point["results"]
    ]
    head = ["framework", "what runs", *MODE_NAMES.values()]
    return [f"Tensors in and out as those of a layer of {n} qubits at batch {batch}.", "", *table(head, rows)]


def _times(grid: dict[str, Point], batch: int, mode: str, ours: Sequence[str], peers: Sequence[str]) -> list[str]:
    head = [
        "qubits",
        *(label(n, grid) for n in (*ours, *peers)),
        "best qstore",
        "times faster than the best peer",
    ]
    rows = []
    for point in _points(grid, batch):
        mine, top = best(point, ours, mode), best(point, peers, mode)
        cells = []
        for name in (*ours, *peers):
            text = cell(point["results"].get(name, {}).get(mode))
            cells.append(f"**{text}**" if top and mine and name in (mine[0], top[0]) else text)
        gain = ratio(top[1], mine[1]) if top and mine else "no peer left" if mine else "–"
        rows.append([str(point["problem"]["n_qubits"]), *cells, SUBJECTS[mine[0]].label if mine else "–", gain])
    return table(head, rows)


def _points(grid: dict[str, Point], batch: int) -> list[Point]:
    points = [p for p in grid.values() if p["problem"]["batch"] == batch]
    return sorted(points, key=lambda p: p["problem"]["n_qubits"])


def _middle(grid: dict[str, Point]) -> int:
    batches = sorted({p["problem"]["batch"] for p in grid.values()})
    return 32 if 32 in batches else batches[-1]


def _first_calls(grid: dict[str, Point], names: Sequence[str]) -> list[str]:
    batch = _middle(grid)
    rows = [
        [
            str(p["problem"]["n_qubits"]),
            *(cell(p["results"].get(name, {}).get("step"), "first") for name in names),
        ]
        for p in _points(grid, batch)
    ]
    text = f"The first forward + backward of a process, batch {batch}, with tracing and compilation if any."
    return [text, "", *table(["qubits", *(label(n, grid) for n in names)], rows)]


def _memory(grid: dict[str, Point], names: Sequence[str]) -> list[str]:
    batch = _middle(grid)
    rows = []
    for p in _points(grid, batch):
        state = size(8 * batch << p["problem"]["n_qubits"])
        cells = (cell(p["results"].get(name, {}).get("step"), "memory") for name in names)
        rows.append([str(p["problem"]["n_qubits"]), state, *cells])
    text = (
        f"Forward + backward, batch {batch}: largest resident size (VmHWM) of the library's own process from "
        "the first call on, less its resident size before it, when libraries, features and weights were "
        "loaded. Code loaded or compiled at the first call is part of it: all there is at few qubits."
    )
    return [text, "", *table(["qubits", "the batch of states", *(label(n, grid) for n in names)], rows)]


def _arithmetic(results: dict[str, Any]) -> list[str]:
    one = results["peak"]["one"]["peak"]
    rows = []
    for point in results["arithmetic"].values():
        for name in ("engine-numba", "engine-numpy"):
            for mode, title in MODE_NAMES.items():
                time = seconds(point, name, mode)
                if time is None:
                    continue
                plain = point["multiply_adds"][mode]
                count = point["scheduled"][mode] if name == "engine-numba" else plain
                rows.append(
                    (
                        f"{point['problem']['n_qubits']} qubits, {SUBJECTS[name].label}, {title}",
                        f"{count / 1e6:.2f} · 10⁶",
                        duration(time),
                        f"{count / time / 1e9:.2f} · 10⁹",
                        f"{100 * count / time / one:.0f} %",
                        f"{100 * plain / time / one:.0f} %",
                    )
                )
    text = (
        "Engines by themselves (unit rows in, no layer around them), batch 256, one thread, float32. A multiply-add is "
        "a·b + c on real numbers; the peak is measured by chains of them in registers. They are counted as defined in "
        "`benchmarks/arithmetic.py`: for the numba engine what its schedule of turns and phases does, for the NumPy "
        "engine, and in the last column for both, what the Plan needs gate by gate. The last column is over 100 % "
        "where the schedule saves more than the machine's distance to its peak."
    )
    head = ("point", "multiply-adds", "time", "per second", "of the peak", "gate by gate, of the peak")
    return [text, "", *table(head, rows)]


def _growth(results: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for section, column, text in (
        ("depth", "depth", "Time against depth, 8 qubits, batch 32, forward + backward:"),
        ("batch", "batch", "Time against batch, 8 qubits, depth 2, forward + backward:"),
    ):
        names = names_in(results[section])
        rows = [
            [str(p["problem"][column]), *(cell(p["results"].get(name, {}).get("step")) for name in names)]
            for p in results[section].values()
        ]
        lines += [text, "", *table([column, *(label(n, results[section]) for n in names)], rows), ""]
    section = results["memory"]
    names, some = names_in(section), next(iter(section.values()))["problem"]
    rows = [
        [
            str(p["problem"]["depth"]),
            *(cell(p["results"].get(name, {}).get("step"), "memory") for name in names),
        ]
        for p in section.values()
    ]
    lines += [f"Peak memory against depth, {some['n_qubits']} qubits, batch {some['batch']} (as above):", ""]
    lines += [*table(["depth", *(label(n, section) for n in names)], rows), ""]
    one, three = (p["results"] for p in results["bases"].values())
    rows = []
    for name in names_in(results["bases"]):
        for mode, title in MODE_NAMES.items():
            a, b = one[name].get(mode), three[name].get(mode)
            both = a and b and a["status"] == b["status"] == "ok"
            rows.append(
                (
                    f"{label(name, results['bases'])}, {title}",
                    cell(a),
                    cell(b),
                    f"{b['seconds'] / a['seconds']:.2f}" if both else "–",
                )
            )
    return [
        *lines,
        "Bases Z, X, Y against Z alone, 8 qubits, batch 32:",
        "",
        *table(("", "Z", "Z, X, Y", "ratio"), rows),
    ]


# -- pictures ------------------------------------------------------------------------------------------------

STYLES = {
    "torch-auto": ("#c1121f", "o", 2.6),
    "torch-engine": ("#f28482", "o", 1.8),
    "torch-numba": ("#780000", "o", 1.8),
    "keras-auto": ("#e07b00", "s", 2.6),
    "keras-xla": ("#f7b267", "s", 1.8),
    "numpy-numba": ("#7b2d8b", "D", 1.8),
    "numpy": ("#b892d0", "D", 1.8),
    "pennylane": ("#1d3557", "", 1.4),
    "pennylane-lightning": ("#457b9d", "", 1.4),
    "tensorcircuit": ("#2a7d4f", "", 1.4),
    "tensorcircuit-plain": ("#74b88e", "", 1.4),
    "qujax": ("#14b8a6", "", 1.4),
    "deepquantum": ("#4a4a4a", "", 1.4),
    "pyqtorch": ("#9a9a9a", "", 1.4),
    "qiskit": ("#c4a35a", "", 1.4),
}
DASHES = {
    "tensorcircuit-plain": (4, 2),
    "pennylane-lightning": (4, 2),
    "pyqtorch": (4, 2),
    "qiskit": (1, 1.5),
}


def _style(name: str) -> dict[str, Any]:
    color, marker, width = STYLES.get(name, ("#000000", "", 1.0))
    out: dict[str, Any] = {"color": color, "linewidth": width, "zorder": 3 if marker else 2}
    if marker:
        out |= {"marker": marker, "markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.6}
    if name in DASHES:
        out["dashes"] = DASHES[name]
    return out


def _prepare() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update(
        {
            "font.size": 9.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e6e6e6",
            "grid.linewidth": 0.7,
            "axes.edgecolor": "#888888",
            "axes.titlesize": 10.5,
            "axes.titleweight": "bold",
            "xtick.color": "#444444",
            "ytick.color": "#444444",
            "axes.axisbelow": True,
        }
    )
    return pyplot


def _time_axis(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    def text(value: float, _: int) -> str:
        for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
            if value * factor >= 0.999:
                return f"{value * factor:g} {unit}"
        return f"{value:g} s"

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(10, numticks=12))
    axis.yaxis.set_major_formatter(FuncFormatter(text))
    axis.yaxis.set_minor_formatter(NullFormatter())


def plot_grid(results: dict[str, Any], path: Path) -> None:
    """Time against the size of the state, log-log: a row per mode, a column per batch."""
    pyplot = _prepare()
    grid = results["grid"]
    batches, names = sorted({p["problem"]["batch"] for p in grid.values()}), names_in(grid)
    names.sort(key=lambda name: name not in PEERS)  # ours first in the legend, drawn on top
    figure, axes = pyplot.subplots(
        2, len(batches), figsize=(4.1 * len(batches) + 0.6, 8.2), sharex=True, sharey=True, squeeze=False
    )
    for row, (mode, title) in enumerate(MODE_NAMES.items()):
        for column, batch in enumerate(batches):
            axis = axes[row][column]
            points = _points(grid, batch)
            for name in names:
                line = [(1 << p["problem"]["n_qubits"], t) for p in points if (t := seconds(p, name, mode)) is not None]
                if line:
                    axis.plot(*zip(*line, strict=True), label=label(name, grid), **_style(name))
            axis.set_title(f"batch {batch}: {title}", loc="left")
            axis.set_xscale("log", base=2)
            _time_axis(axis)
            ticks = sorted({p["problem"]["n_qubits"] for p in grid.values()})
            axis.set_xticks([1 << n for n in ticks], [str(n) for n in ticks], minor=False)
            axis.minorticks_off()
            if row == 1:
                axis.set_xlabel("qubits (2ⁿ amplitudes, log scale)")
    handles: dict[str, Any] = {}
    for axis in axes.ravel():
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(text, handle)
    order = [t for name in names if (t := label(name, grid)) in handles]
    figure.legend(
        [handles[t] for t in order],
        order,
        loc="lower center",
        ncols=min(5, len(order)),
        frameon=False,
        handlelength=2.8,
        columnspacing=1.8,
    )
    figure.suptitle(
        f"One quantum layer, depth 2, on a CPU with {results['machine']['cores']} cores "
        "(median time of a call; lower is better)",
        x=0.01,
        ha="left",
        fontsize=12,
    )
    rows = math.ceil(len(order) / min(5, len(order)))
    figure.tight_layout(rect=(0, 0.025 * rows + 0.01, 1, 0.99))
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def plot_growth(results: dict[str, Any], path: Path) -> None:
    """Time against depth and batch, memory against depth."""
    pyplot = _prepare()
    panels = (
        ("depth", "depth", "seconds", "time, 8 qubits, batch 32"),
        ("batch", "batch", "seconds", "time, 8 qubits, depth 2"),
        ("memory", "depth", "memory", "peak memory"),
    )
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4.6))
    handles: dict[str, Any] = {}
    for axis, (section, column, key, title) in zip(axes, panels, strict=True):
        points = list(results[section].values())
        for name in names_in(results[section]):
            line = [
                (p["problem"][column], max(result[key], 1e5) / (1 if key == "seconds" else 1e6))
                if key == "memory"
                else (p["problem"][column], result[key])
                for p in points
                if (result := p["results"].get(name, {}).get("step")) and result["status"] == "ok"
            ]
            if line:
                single = {"marker": "o", "markersize": 5} if len(line) == 1 else {}
                (handle,) = axis.plot(*zip(*line, strict=True), **(_style(name) | single))
                handles.setdefault(label(name, results[section]), handle)
        ticks = [p["problem"][column] for p in points]
        axis.set_xscale("log")
        axis.set_xticks(ticks, [str(t) for t in ticks])
        axis.minorticks_off()
        axis.set_xlabel(column)
        if key == "seconds":
            _time_axis(axis)
        else:
            some = points[0]["problem"]
            title = f"peak memory, {some['n_qubits']} qubits, batch {some['batch']}"
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:g} MB")
        axis.set_title(title, loc="left")
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=len(handles), frameon=False)
    figure.suptitle("How the cost of forward + backward grows", x=0.01, ha="left", fontsize=12)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def write(results: dict[str, Any], output: Path, name: str, *, docs: bool) -> list[Path]:
    """Write tables and pictures: into `docs/` for a full run, beside the results otherwise."""
    text = markdown(results)
    if not docs:
        page, pictures = output / f"{name}.md", (output / f"{name}.png", output / f"{name}-growth.png")
        page.write_text(text + "\n")
    else:
        page = ROOT / "docs" / "performance.md"
        pictures = (page.with_name("performance.png"), page.with_name("performance-growth.png"))
        old = page.read_text() if page.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
        before, rest = old.split(BEGIN)
        page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")
    plot_grid(results, pictures[0])
    if "depth" in results:
        plot_growth(results, pictures[1])
        return [page, *pictures]
    return [page, pictures[0]]
