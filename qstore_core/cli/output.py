"""Tables and texts for a terminal: with rich where it is installed, plain otherwise; JSON where it was asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["show", "text", "warn"]


def show(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print rows with equal keys as a table, or as a JSON list.

    Example:
        >>> show([{"name": "numba", "ms": 0.1}], as_json=True)
        [{"name": "numba", "ms": 0.1}]
    """
    if as_json:
        print(json.dumps(list(rows)))
        return
    if not rows:
        return
    cells = [[str("" if value is None else value) for value in row.values()] for row in rows]
    head = list(rows[0])
    numeric = [all(isinstance(row[name], int | float) or row[name] is None for row in rows) for name in head]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        _plain(head, cells, numeric)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, right in zip(head, numeric, strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for line in cells:
        table.add_row(*[cell.replace("[", r"\[") for cell in line])
    Console(file=sys.stdout, highlight=False).print(table)


def _plain(head: list[str], cells: list[list[str]], numeric: list[bool]) -> None:
    widths = [max(len(name), *(len(line[k]) for line in cells)) for k, name in enumerate(head)]
    for line in [head, *cells]:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ]
        print("  ".join(padded).rstrip())


def text(message: str = "") -> None:
    """Print a line."""
    print(message)


def warn(message: str) -> None:
    """Print a line on the error stream."""
    print(message, file=sys.stderr)
