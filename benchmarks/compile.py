"""How long the numba engine takes to compile when there is no cache."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile

_CODE = """
import time
from qstore_core.engines.numba.kernels.entry import entry
for single in (False, True):
    begin = time.perf_counter()
    entry("float32", single)
    print(f"{'single samples' if single else 'vectors of samples'}: {time.perf_counter() - begin:.1f} s")
"""


def add_options(p: argparse.ArgumentParser) -> None:
    """None."""


def main(_: argparse.Namespace) -> None:
    """Twice in an empty cache: compiled, then read."""
    with tempfile.TemporaryDirectory() as folder:
        for title in ("compiled", "read from the disk cache"):
            print(title, flush=True)
            subprocess.run([sys.executable, "-c", _CODE], env=os.environ | {"NUMBA_CACHE_DIR": folder}, check=True)
