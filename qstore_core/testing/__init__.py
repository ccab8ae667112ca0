"""Conformance kit: does a backend keep the contract?

From the command line, with a table and an exit status:

    python -m qstore_core.testing mine --option device=x
    python -m qstore_core.testing mine --thorough

In the tests of a plugin package (pytest, or anything that calls functions):

    from qstore_core.testing import conformance_checks

    @pytest.mark.parametrize("check", conformance_checks("mine"), ids=str)
    def test_conformance(check):
        check()

What a backend does not declare in its `Capabilities` is skipped, with the reason. Noise models must be off: exact
values are compared with closed forms.

Example:
    >>> report = run_checks("statevector")
    >>> report.ok, report.failed
    (True, ())
"""

from __future__ import annotations

from .compare import ConformanceError
from .kit import Outcome, Report, conformance_checks, run_checks
from .sentences import SENTENCES
from .subject import Check, NotDeclared

__all__ = [
    "SENTENCES",
    "Check",
    "ConformanceError",
    "NotDeclared",
    "Outcome",
    "Report",
    "conformance_checks",
    "run_checks",
]
