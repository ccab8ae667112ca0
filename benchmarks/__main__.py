"""`python -m benchmarks`: qstore's layers against every library a user might pick instead, in one run.

Makes the environment with the peers on first use (`.venv-peers`), measures the grid, and writes
`benchmarks/results/grid.json`, the pictures `docs/performance*.png` and the tables between the marks of
`docs/performance.md`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def whole(text: str) -> tuple[int, ...]:
    """Numbers from "2,4,8"."""
    return tuple(int(part) for part in text.split(","))


def words(text: str) -> tuple[str, ...]:
    """Names from "a,b"."""
    return tuple(text.split(","))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    p.add_argument("--quick", action="store_true", help="a small grid; leaves docs/ alone")
    p.add_argument("--qubits", type=whole, help="default: 2,4,…,20")
    p.add_argument("--batches", type=whole, help="default: 1,32,256")
    p.add_argument("--only", type=words, help="names of libraries, e.g. torch-auto,pennylane")
    p.add_argument("--limit", type=float, default=60.0, help="seconds that a call may take, compilation included")
    p.add_argument("--rounds", type=int, default=5, help="turns of every library at a point")
    p.add_argument("--seconds", type=float, default=0.1, help="length of a turn")
    p.add_argument("--threads", type=int, help="per library; default: what the library takes")
    p.add_argument("--memory", type=float, help="GiB that a library may hold; default: 70 %% of the machine's")
    p.add_argument("--no-growth", action="store_true", help="leave out depth, batch, memory and bases")
    p.add_argument("--output", type=Path, help="folder for results; default: benchmarks/results and docs")
    p.add_argument("--resume", action="store_true", help="go on with a run that ended early; keeps what it measured")
    p.add_argument("--report", type=Path, metavar="JSON", help="measure nothing, write the report of an earlier run")
    p.add_argument("--python", help="interpreter that has the libraries; default: that of .venv-peers")
    return p


def peers_python() -> str:
    """The interpreter of `.venv-peers`, which is made or brought up to date where needed."""
    folder, requirements = ROOT / ".venv-peers", HERE / "requirements-peers.txt"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    # pyproject.toml as well: it names the backends, which an environment learns when qstore is installed into it.
    contents = requirements.read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    stamp, wanted = folder / "requirements.sha256", hashlib.sha256(contents).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Making {folder} from {requirements.name} (several GB, once) …", flush=True)
        if not python.exists():
            venv.create(folder, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "-r", str(requirements)], check=True)
        subprocess.run([*pip, "--no-deps", "-e", str(ROOT)], check=True)
        stamp.write_text(wanted)
    return str(python)


def main() -> None:
    """Find the interpreter with the peers, and run there."""
    arguments = parser().parse_args()
    python = arguments.python or peers_python()
    if Path(python).absolute() != Path(sys.executable).absolute():
        os.chdir(ROOT)
        os.execv(python, [python, "-m", "benchmarks", *sys.argv[1:], "--python", python])
    from .run import run

    run(arguments)


if __name__ == "__main__":
    main()
