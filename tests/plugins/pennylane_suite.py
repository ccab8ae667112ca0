"""`python -m tests.plugins.pennylane_suite`: PennyLane's own device tests on qstore.qubit, exact and with shots.

Prints how many passed, and every reason for which one was skipped. It is what `pl-device-test` runs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree

SHOTS = 20_000


def run_suite(shots: int | None, *arguments: str, files: Sequence[str] = ("",)) -> dict[str, int]:
    """Counts by outcome, and `skipped: reason`; what fails is printed."""
    from pennylane.devices.tests import get_device_tests

    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.xml")
        command = [
            sys.executable, "-m", "pytest", *(os.path.join(get_device_tests(), name) for name in files),
            "--device=qstore.qubit", f"--shots={shots}", "-q", "--tb=short", "-p", "no:cacheprovider",
            f"--junitxml={report}", *arguments,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        if not os.path.exists(report):
            raise RuntimeError(done.stdout + done.stderr)
        cases = list(ElementTree.parse(report).iter("testcase"))
    counts: Counter[str] = Counter()
    for case in cases:
        kinds = {child.tag: child for child in case}
        if (skip := kinds.get("skipped")) is not None:
            kind = "expected to fail" if skip.get("type") == "pytest.xfail" else "skipped"
            reason = re.sub(r"\s+", " ", skip.get("message") or skip.text or "")
            counts[kind] += 1
            counts[f"{kind}: {reason}"] += 1
        else:
            counts["failed" if "failure" in kinds else "error" if "error" in kinds else "passed"] += 1
    if counts["failed"] or counts["error"]:
        print(done.stdout)
    return dict(counts)


def main() -> int:
    """Both modes; the exit status says whether all passed."""
    bad = 0
    for shots in (None, SHOTS):
        counts = run_suite(shots, *sys.argv[1:])
        bad += counts.get("failed", 0) + counts.get("error", 0)
        print(f"shots={shots}")
        for name, count in sorted(counts.items(), key=lambda item: (":" in item[0], -item[1])):
            print(f"  {count:4} {name}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
