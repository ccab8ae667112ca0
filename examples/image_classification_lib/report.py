"""The table at the end, and the same figures as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .export import Check
from .train import Epoch, Settings


@dataclass
class Result:
    """Everything a run found out; plain values, so that JSON can hold it."""

    framework: str
    version: str
    settings: Settings
    source: str
    image_shape: tuple[int, ...]
    train_images: int
    validation_images: int
    skipped_files: int
    parameters: int
    quantum_parameters: int
    history: list[Epoch]
    best: Epoch
    train_seconds: float
    step_seconds: float
    part_seconds: dict[str, float]
    quantum_layers: dict[str, str]
    cache: dict[str, int] = field(default_factory=dict)
    fallbacks: int = 0
    exported: list[Check] = field(default_factory=list)

    @property
    def quantum_share(self) -> float:
        """The part of a training step that all quantum layers take together."""
        return sum(self.part_seconds[name] for name in self.quantum_layers) / self.step_seconds

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        exported = [{**asdict(checked), "file": str(checked.file)} for checked in self.exported]
        return {**asdict(self), "quantum_share": self.quantum_share, "exported": exported}


def write(result: Result, folder: Path) -> Path:
    """Write `results.json`."""
    path = folder / "results.json"
    path.write_text(json.dumps(result.to_dict(), indent=2) + "\n")
    return path


def show(result: Result, console: Console) -> None:
    """Print the table."""
    table = Table(title=f"{result.version}: {result.settings.head} head", title_justify="left", min_width=72)
    table.add_column("measured")
    table.add_column("value", justify="right")
    last = result.history[-1]
    table.add_row(f"validation accuracy, best epoch ({result.best.number})", f"{result.best.validation_accuracy:.2%}")
    table.add_row(f"validation accuracy, last epoch ({last.number})", f"{last.validation_accuracy:.2%}")
    table.add_row("training", f"{result.train_seconds:.1f} s")
    table.add_row(f"time per batch of {result.settings.batch_size}", f"{result.step_seconds * 1e3:.1f} ms")
    if result.quantum_layers:
        for name, backend in result.quantum_layers.items():
            seconds = result.part_seconds[name]
            share = seconds / result.step_seconds
            table.add_row(f"  in {name} ({backend})", f"{seconds * 1e3:.2f} ms = {share:.1%} of the step")
        table.add_row("  in all quantum layers", f"{result.quantum_share:.1%} of the step")
        table.add_row("circuit cache", f"{result.cache['hits']} hits, {result.cache['misses']} compiled")
        table.add_row("fallbacks", str(result.fallbacks))
    of_which = f", {result.quantum_parameters} of them angles" if result.quantum_layers else ""
    table.add_row("trained parameters", f"{result.parameters:,}{of_which}")
    console.print()
    console.print(table)
    for checked in result.exported:
        console.print(str(checked), soft_wrap=True)
    how = "Time per batch: median training step, data included."
    if result.quantum_layers:
        how += (
            " Quantum layers: each one alone, forward and backward (weights and inputs), on a real batch, median of "
            "20; the call's own overhead is counted in."
        )
    console.print(how, style="dim", highlight=False)
