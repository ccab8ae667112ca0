"""How objects show themselves in notebooks: HTML of tables and drawings."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["drawing", "table"]


def drawing(text: str) -> str:
    """Text whose columns stay below each other; it scrolls where it is wider than the page.

    Example:
        >>> drawing("0: ─●─")
        '<pre style="line-height:1.2;overflow-x:auto;white-space:pre">0: ─●─</pre>'
    """
    return f'<pre style="line-height:1.2;overflow-x:auto;white-space:pre">{html.escape(text)}</pre>'


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows with equal keys; None is an empty cell.

    Example:
        >>> table([{"name": "numba", "ms": 0.1}])
        '<table><thead><tr><th>name</th><th>ms</th></tr></thead>...<td>numba</td><td>0.1</td>...</table>'
    """
    listed = list(rows)
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in (listed[0] if listed else ()))
    lines = (
        "".join(f"<td>{html.escape('' if cell is None else str(cell))}</td>" for cell in row.values()) for row in listed
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
