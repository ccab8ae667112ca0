"""Arguments and exit status of the `qstore` command.

Exit status: 0 all is well; 1 something that was checked is wrong; 2 the command line is.
"""

from __future__ import annotations

import argparse
import json
import os
import pkgutil
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import pictures
from ..backends.registry import list_backends
from ..circuit.angles.functions import flattened
from ..circuit.drawing import WIDTH
from ..circuit.lowering.plan import lower
from ..errors import QstoreError
from ..testing.__main__ import main as check_backend
from . import bench, costs, doctor, output
from .description import described

__all__ = ["main", "parser"]

_SPEC_HELP = (
    "a layer and its arguments (QuantumReadout n_qubits=4 n_classes=3), a .json file with spec.to_dict(), or - for "
    "such JSON on standard input"
)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    main_parser = argparse.ArgumentParser("qstore", description="Quantum layers: look at them, check them, time them.")
    commands = main_parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str, *, spec: bool = False) -> Any:
        one = commands.add_parser(name, help=text, description=text)
        one.set_defaults(run=run)
        if spec:
            one.add_argument("spec", nargs="+", metavar="SPEC", help=_SPEC_HELP)
        one.add_argument("--json", action="store_true", help="print JSON")
        return one

    add("backends", _backends, "List the backends there are, without loading any.")
    add("doctor", _doctor, "Look at this installation and test values and gradients; takes about a second.")
    drawing = add("draw", _draw, "Draw a layer's circuit.", spec=True)
    drawing.add_argument("--width", type=_positive, metavar="N", help="characters of a line (the terminal's width)")
    drawing.add_argument("--svg", metavar="FILE", help="write a picture instead; needs matplotlib")
    explain = add("explain", _explain, "Say what a layer costs, where it runs and why.", spec=True)
    explain.add_argument("--backend", default="auto", metavar="NAME", help="who computes (auto)")
    explain.add_argument("--batch", type=_positive, default=32, metavar="B", help="rows of a batch (32)")
    explain.add_argument("--rows", type=_positive, default=1000, metavar="N", help="rows of an epoch (1000)")
    explain.add_argument("--shots", type=_positive, default=1024, metavar="S", help="shots a circuit (1024)")
    explain.add_argument("--plan", action="store_true", help="print the lowered circuit as well")
    timing = add("bench", _bench, "Time a layer on every backend that is installed, by turns.", spec=True)
    timing.add_argument("--batch", type=_positive, default=32, metavar="B", help="rows of a batch (32)")
    timing.add_argument("--seconds", type=float, default=1.0, help="time for each backend (1.0)")
    timing.add_argument("--backend", action="append", metavar="NAME", help="this one only; may be repeated")
    fair = add("compare", _compare, "Train hybrid and classical networks on equal budgets, and say what was found.")
    fair.add_argument("--data", action="append", metavar="NAME", help="this data set only; may be repeated")
    for name, value, text in (
        ("seeds", 5, "splits and initial weights"), ("qubits", 4, "of the quantum layer"),
        ("depth", 2, "of the quantum layer"), ("epochs", 30, "of training"),
    ):  # fmt: skip
        fair.add_argument(f"--{name}", type=_positive, default=value, metavar="N", help=f"{text} ({value})")
    check = commands.add_parser(
        "check-backend", help="Check that a backend keeps the contract.", add_help=False, prefix_chars="\0"
    )
    check.add_argument("arguments", nargs=argparse.REMAINDER)
    check.set_defaults(run=lambda chosen: check_backend(chosen.arguments, "qstore check-backend"))
    return main_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Of the command line; None for those of this process.

    Returns:
        The exit status.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    whole = parser()
    try:
        import shtab
    except ImportError:
        pass
    else:
        shtab.add_argument_to(whole, ["--print-completion"])
    chosen = whole.parse_args(arguments)
    try:
        status: int = chosen.run(chosen)
    except QstoreError as error:
        output.warn(f"{type(error).__name__}: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `qstore … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1, received {text}")
    return number


def _backends(chosen: argparse.Namespace) -> int:
    rows = [
        {"name": info.name, "status": info.status, "from": info.distribution, "reason": info.reason}
        for info in list_backends()
    ]
    output.show(rows, as_json=chosen.json)
    return 0


def _doctor(chosen: argparse.Namespace) -> int:
    rows = doctor.findings()
    bad = [row["what"] for row in rows if row["ok"] is False]
    if chosen.json:
        print(json.dumps({"ok": not bad, "findings": rows}))
    else:
        marks = {None: "", True: "ok", False: "WRONG"}
        output.show([row | {"ok": marks[row["ok"]]} for row in rows], as_json=False)
        output.text()
        output.text(f"wrong: {', '.join(bad)}" if bad else "all well")
    return 1 if bad else 0


def _draw(chosen: argparse.Namespace) -> int:
    spec = described(chosen.spec)
    if chosen.json:
        print(json.dumps(spec.to_dict()))
    elif chosen.svg:
        Path(chosen.svg).write_text(pictures.svg(spec.circuit), encoding="utf-8")
        output.text(chosen.svg)
    else:
        width = chosen.width or (shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH)
        output.text(spec.circuit.draw(width))
    return 0


def _explain(chosen: argparse.Namespace) -> int:
    spec = described(chosen.spec)
    rows = costs.costs(spec, batch=chosen.batch, rows=chosen.rows, shots=chosen.shots, backend=chosen.backend)
    output.show(rows, as_json=chosen.json)
    if chosen.plan and spec.measurement is not None and not chosen.json:
        output.text()
        output.text(str(lower(flattened(spec.circuit)[0], spec.measurement)))
    return 0


def _compare(chosen: argparse.Namespace) -> int:
    try:
        comparison = pkgutil.resolve_name("qstore_sklearn.comparison")
    except ImportError as error:
        output.warn(f'compare needs scikit-learn ({error}): pip install "qstore[sklearn]"')
        return 2
    quiet = chosen.json or not sys.stderr.isatty()
    found = comparison.compare(
        chosen.data or tuple(comparison.DATA), n_qubits=chosen.qubits, depth=chosen.depth, seeds=chosen.seeds,
        epochs=chosen.epochs, progress=(lambda text: None) if quiet else (lambda text: output.warn(f"{text} …")),
    )  # fmt: skip
    output.show(found.rows(), as_json=chosen.json)
    if not chosen.json:
        output.text()
        output.text(found.legend())
        output.text()
        output.text(found.finding())
    return 0


def _bench(chosen: argparse.Namespace) -> int:
    spec = described(chosen.spec)
    usable = [info.name for info in list_backends() if info.status in ("installed", "ready")]
    names = chosen.backend or [name for name in usable if name != "dask"]
    quiet = chosen.json or not sys.stderr.isatty()
    rows = bench.measure(
        spec, names, batch=chosen.batch, seconds=chosen.seconds,
        progress=(lambda name: None) if quiet else (lambda name: output.warn(f"preparing {name} …")),
    )  # fmt: skip
    output.show(rows, as_json=chosen.json)
    return 0 if any(row["step ms"] is not None for row in rows) else 1
