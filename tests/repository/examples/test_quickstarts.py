"""The quickstarts run as a reader would run them, and learn."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_it_runs_and_learns(framework, tmp_path):
    pytest.importorskip(framework)
    pytest.importorskip("sklearn")
    command = [sys.executable, str(EXAMPLES / f"quickstart_{framework}.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    accuracies = [int(number) for number in re.findall(r"(\d+)%", done.stdout)]
    assert accuracies[-1] >= 90
    if framework == "keras":
        assert accuracies[-1] == accuracies[-2]  # what was saved is what is loaded
