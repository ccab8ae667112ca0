"""`python -m qstore_core.testing NAME [--thorough] [--option key=value …]`: check a backend, print a table.

Exit status: 0 where all checks pass, 1 where one fails, 2 where the backend cannot be loaded.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Sequence
from typing import Any

from ..backends.contract import CONTRACT_VERSION
from ..errors import QstoreError
from .kit import Outcome, run_checks

__all__ = ["main", "option"]


def main(arguments: Sequence[str] | None = None, command: str = "python -m qstore_core.testing") -> int:
    """Check one backend.

    Args:
        arguments: Of the command line; None for those of this process.
        command: Its name, for its help.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(command, description="Check that a backend keeps the contract.")
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
    parser.add_argument("--qubits", type=int, default=12, help="most qubits to try (default: 12)")
    parser.add_argument("--thorough", action="store_true", help="more and larger circuits and batches")
    chosen = parser.parse_args(arguments)
    shown = _Progress(chosen.backend)
    try:
        report = run_checks(
            chosen.backend,
            shots=chosen.shots,
            qubits=chosen.qubits,
            thorough=chosen.thorough,
            skip=chosen.skip,
            progress=shown,
            **dict(chosen.option),
        )
    except QstoreError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(report.counts)
    return 0 if report.ok else 1


class _Progress:
    """Prints outcomes as they come, and on a terminal what is running."""

    def __init__(self, backend: str) -> None:
        self.heading = f"backend {backend!r}, qstore contract version {CONTRACT_VERSION}"
        self.live = sys.stdout.isatty()

    def __call__(self, step: str | Outcome) -> None:
        if self.heading:
            print(self.heading)
            self.heading = ""
        if isinstance(step, Outcome):
            print(f"\r{step}" if self.live else step, flush=True)
        elif self.live:
            print(f"  {step} …", end="", flush=True)


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
