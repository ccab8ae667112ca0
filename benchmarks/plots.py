"""The pictures of `docs/performance.md`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .peers import LIBRARIES
from .results import Results

STYLES = {
    "torch-auto": ("#c1121f", "o", 2.6),
    "torch-engine": ("#f28482", "o", 1.8),
    "keras-auto": ("#e07b00", "s", 2.6),
    "keras-xla": ("#f7b267", "s", 1.8),
    "numpy-numba": ("#7b2d8b", "D", 1.8),
    "numpy": ("#b892d0", "D", 1.8),
    "jax-auto": ("#3a5a00", "^", 1.8),
    "jax-ops": ("#8fb339", "^", 1.8),
    "pennylane": ("#1d3557", "", 1.4),
    "pennylane-lightning": ("#457b9d", "", 1.4),
    "tensorcircuit": ("#2a7d4f", "", 1.4),
    "tensorcircuit-plain": ("#74b88e", "", 1.4),
    "qujax": ("#14b8a6", "", 1.4),
    "deepquantum": ("#4a4a4a", "", 1.4),
    "pyqtorch": ("#9a9a9a", "", 1.4),
    "qiskit": ("#c4a35a", "", 1.4),
}
_DASHED = ("tensorcircuit-plain", "pennylane-lightning", "pyqtorch", "qiskit")


def _pyplot() -> Any:
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
            "axes.titlesize": 10.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.axisbelow": True,
        }
    )
    return pyplot


def _time(value: float, _: int) -> str:
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 0.999:
            return f"{value * factor:g} {unit}"
    return ""


def _draw(axis: Any, results: Results, section: str, column: str, key: str = "seconds", **wanted: Any) -> None:
    for name in results.libraries(section):
        found = [x for x in results.find(section, library=name, **wanted) if x["status"] == "ok"]
        line = sorted((x[column], x[key] if key == "seconds" else max(x[key] / 1e6, 0.1)) for x in found)
        if line:
            color, marker, width = STYLES.get(name, ("#000000", "", 1.0))
            style = {"color": color, "linewidth": width, "zorder": 3 if marker else 2, "marker": marker or None}
            dashes = {"dashes": (4, 2)} if name in _DASHED else {}
            axis.plot(
                *zip(*line, strict=True),
                label=LIBRARIES[name].label,
                markersize=5,
                markeredgecolor="white",
                **style,
                **dashes,
            )
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(_time if key == "seconds" else "{x:g} MB")
    if column != "n_qubits":
        axis.set_xscale("log")
    ticks = sorted(results.values(section, column))
    axis.set_xticks(ticks, [str(t) for t in ticks])
    axis.minorticks_off()
    axis.set_xlabel(column.replace("n_", ""))


def _save(figure: Any, axes: Any, title: str, path: Path) -> None:
    handles: dict[str, Any] = {}
    for axis in axes.ravel():
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(text, handle)
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=min(5, len(handles)), frameon=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    rows = -(-len(handles) // 5)
    figure.tight_layout(rect=(0, 0.2 * (rows + 0.5) / figure.get_figheight(), 1, 0.99))
    figure.savefig(path, dpi=130)
    print(f"wrote {path}")


def grid(results: Results, path: Path) -> None:
    """Time against qubits: a row per mode, a column per batch."""
    pyplot, batches = _pyplot(), sorted(results.values("grid", "batch"))
    width = 4.1 * len(batches) + 0.6
    figure, axes = pyplot.subplots(2, len(batches), figsize=(width, 8.2), sharex=True, sharey=True, squeeze=False)
    for row, (mode, title) in zip(axes, (("forward", "forward"), ("step", "forward + backward")), strict=True):
        for axis, batch in zip(row, batches, strict=True):
            _draw(axis, results, "grid", "n_qubits", batch=batch, mode=mode)
            axis.set_title(f"batch {batch}: {title}")
    cores = (results.get("run") or {})["machine"]["cores"]
    title = f"One quantum layer, depth 2, on a CPU with {cores} cores (median time of a call; lower is better)"
    _save(figure, axes, title, path)


def growth(results: Results, path: Path) -> None:
    """Time against depth and batch, memory against depth."""
    figure, axes = _pyplot().subplots(1, 3, figsize=(13, 4.6))
    for axis, section, column, key, title in (
        (axes[0], "depth", "depth", "seconds", "time, 8 qubits, batch 32"),
        (axes[1], "batch", "batch", "seconds", "time, 8 qubits, depth 2"),
        (axes[2], "memory", "depth", "memory", "peak memory, 14 qubits, batch 16"),
    ):
        _draw(axis, results, section, column, key, mode="step")
        axis.set_title(title)
    _save(figure, axes, "How the cost of forward + backward grows", path)
