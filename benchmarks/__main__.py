"""`python -m benchmarks COMMAND`: qstore's layers against every library a user might pick instead.

Without a command: `page`, which measures every section on a CPU and writes docs/performance.md and its pictures.
Results are JSON lines in benchmarks/results/, one per point, library and mode. Commands that measure peers run in an
environment of their own, `.venv-peers`, made on first use from benchmarks/requirements-peers.txt.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import subprocess
import sys
import venv
from pathlib import Path

from .sections import SECTIONS
from .sections import add_options as add_section_options

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
OTHERS = {
    name: f"{__package__}.{folder}.{name.replace('-', '_')}"
    for folder, names in {
        "layers": ("gpu", "compile", "accuracy", "guide", "planes", "kernels", "keras-calls", "against"),
        "simulators": ("aer", "pennylane-device", "circuits", "noise", "qiskit-primitives"),
    }.items()
    for name in names
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = out.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in {"page": "all of the sections below; writes docs/performance.md", **SECTIONS}.items():
        add_section_options(commands.add_parser(name, help=text, description=text))
    report = commands.add_parser("report", help="print the tables of an earlier run, or write them into docs/")
    report.add_argument("results", type=Path, help="JSON lines")
    report.add_argument("--docs", action="store_true", help="write docs/performance.md and its pictures")
    for name, path in OTHERS.items():
        module = importlib.import_module(path)
        text = (module.__doc__ or "").partition("\n")[0]
        module.add_options(commands.add_parser(name, help=text, description=module.__doc__))
    return out


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
    """Find what is asked for, and an interpreter that has the libraries, and run there."""
    words = sys.argv[1:]
    if not words or (words[0].startswith("-") and not {"-h", "--help"} & set(words)):
        words = ["page", *words]
    options = parser().parse_args(words)
    if options.command == "report":
        from . import report
        from .results import Results

        results = Results(options.results)
        report.write_page(results) if options.docs else print("\n".join(report.tables(results)))
    elif options.command in OTHERS:
        importlib.import_module(OTHERS[options.command]).main(options)
    else:
        python = options.python or peers_python()
        if Path(python).absolute() != Path(sys.executable).absolute():
            os.chdir(ROOT)
            os.execv(python, [python, "-m", "benchmarks", *words, "--python", python])
        importlib.import_module(".sections", __package__).main(options)


if __name__ == "__main__":
    main()
