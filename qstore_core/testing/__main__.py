"""`python -m qstore_core.testing NAME [--option key=value …]`: check a backend, print a table.

Exit status: 0 where all checks pass, 1 where one fails, 2 where the backend cannot be loaded.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Sequence
from typing import Any

from ..errors import QstoreError
from .kit import run_checks

__all__ = ["main", "option"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check one backend.

    Args:
        arguments: Of the command line; None for those of this process.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        "python -m qstore_core.testing", description="Check that a backend keeps the contract."
    )
    parser.add_argument("backend", help='name of the backend, or "name:device"')
    parser.add_argument(
        "-o",
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        type=option,
        help="option of the backend",
    )
    parser.add_argument("--shots", type=int, default=4096, help="for backends that only sample (default: 4096)")
    parser.add_argument("--skip", action="append", default=[], metavar="CHECK", help="leave a check out")
    chosen = parser.parse_args(arguments)
    try:
        report = run_checks(chosen.backend, shots=chosen.shots, skip=chosen.skip, **dict(chosen.option))
    except QstoreError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(report)
    return 0 if report.ok else 1


def option(text: str) -> tuple[str, Any]:
    """One `KEY=VALUE`; the value is a Python literal where it reads as one, otherwise text.

    Example:
        >>> option("shots=100"), option("device=gpu:0")
        (('shots', 100), ('device', 'gpu:0'))
    """
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, received {text!r}")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


if __name__ == "__main__":
    sys.exit(main())
