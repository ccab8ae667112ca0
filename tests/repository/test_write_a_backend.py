"""examples/write_a_backend, as a third party would use it: installed, found, checked, removed again."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "write_a_backend"
NAMES = "import qstore_core; print(*(f'{b.name}/{b.distribution}/{b.status}' for b in qstore_core.list_backends()))"


def run(*command, **environment):
    env = {**os.environ, "PYTHONWARNINGS": "default", **environment}
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, env=env)


@pytest.fixture
def python(tmp_path):
    """The interpreter of a fresh environment, which sees the packages of this one and can install its own."""
    # Metadata, not find_spec: looking for pip's module makes setuptools give its distutils up, for the whole process.
    installed = {distribution.name for distribution in importlib.metadata.distributions()}
    for tool in ("pip", "setuptools"):
        if tool not in installed:
            pytest.skip(f"{tool} is not installed here, and nothing is downloaded by tests")
    done = run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env")
    assert done.returncode == 0, done.stderr
    folder = "Scripts" if os.name == "nt" else "bin"
    python = tmp_path / "env" / folder / ("python.exe" if os.name == "nt" else "python")
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").stdout.strip()
    seen = [sysconfig.get_paths()["purelib"], str(ROOT)]
    (Path(site) / "outer.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in seen))
    return python


@pytest.mark.slow
def test_installed_found_conformant_and_removed(python, tmp_path):
    source = tmp_path / "write_a_backend"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    assert " dense/" not in run(python, "-c", NAMES).stdout

    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    done = run(*pip, "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", source)
    assert done.returncode == 0, done.stderr

    done = run(python, "-c", NAMES)
    assert "dense/qstore-dense/installed" in done.stdout, done.stdout + done.stderr
    done = run(python, "-m", "qstore_core.testing", "dense", "--qubits", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 failed" in done.stdout
    done = run(python, "-m", "qstore_core.testing", "dense", "--option", "noise=0.05", "--qubits", "3")
    assert done.returncode == 1  # noise is not what the circuit says: the kit notices
    assert "after RY(x) is cos x" in done.stdout
    done = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", source)
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(python, "-c", NAMES, QSTORE_DISABLE_PLUGINS="1")
    assert "dense/qstore-dense/disabled" in done.stdout
    assert "statevector/qstore/installed" in done.stdout

    done = run(*pip, "uninstall", "--quiet", "--yes", "qstore-dense")
    assert done.returncode == 0, done.stderr
    done = run(python, "-m", "qstore_core.testing", "dense")
    assert done.returncode == 2
    assert "no backend named 'dense'" in done.stderr


def test_it_stays_short():
    text = (EXAMPLE / "qstore_dense.py").read_text()
    documentation = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            documentation |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = [line for number, line in enumerate(text.splitlines(), 1) if line.strip() and number not in documentation]
    assert len(lines) < 80
