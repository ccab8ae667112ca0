"""What the kernel modules share: compiler settings, offsets in the scratch array, and moving rows in and out of it."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import config
from numba.extending import intrinsic

from ..records import LOW_ROWS, OFFSETS
from ..simd import get, get_item, lanes, put, transpose, vload, vsplat, vstore

__all__ = [
    "COMPILING",
    "SHORT",
    "add_to",
    "clear",
    "compiled",
    "inline",
    "jit",
    "list_sizes",
    "load_rows",
    "offset",
    "source_digest",
    "store_rows",
]

SHORT = 8
"""Blocks of rows that are summed in the precision of the state before their sum joins a longer one.

A running sum of m terms loses a bit for every factor of four in m: a million float32 terms one by one lose three
digits of seven. So sums are short ones of short ones, and those of many are added up in double precision.
"""

# Inner kernels are called by kernels only: a Python entry for each would double the time to compile them. They are
# cached on disk inside the entry (`kernels.entry`).
_SETTINGS = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
jit = njit(**_SETTINGS)
inline = njit(**_SETTINGS, forceinline=True)


COMPILING = threading.Lock()
"""Held while an entry is compiled. A fork waits for it: LLVM in the middle of it is of no use to a child."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=COMPILING.acquire, after_in_parent=COMPILING.release, after_in_child=COMPILING.release)


def compiled(function: Callable[..., Any], signature: Any) -> Callable[..., Any]:
    """An entry, compiled now or read from the disk cache of an earlier process."""
    settings = {"nogil": True, "error_model": "numpy"}
    try:
        entry: Callable[..., Any] = njit(signature, cache=True, **settings)(function)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        entry = njit(signature, **settings)(function)
    return entry


def source_digest(*folders: Path) -> int:
    """A number that changes with the source of any kernel: numba's cache looks at the entry's file alone."""
    sha = hashlib.sha256()
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        sha.update(path.read_bytes())
    sha.update(bytes([bool(config.BOUNDSCHECK)]))
    return int.from_bytes(sha.digest()[:7], "big")


@intrinsic
def offset(typingctx, ints, name):
    """Where a part of the scratch array starts. An intrinsic, so that it is not compiled anew for every name."""

    def codegen(context, builder, signature, args):
        table, part = args
        offsets = get_item(context, builder, signature.args[0], table, ir.Constant(ir.IntType(64), OFFSETS))
        return get_item(context, builder, signature.args[0], table, builder.add(offsets, part))

    return types.int64(ints, types.int64), codegen


@inline
def list_sizes(n):
    """Lengths of the two lists of `n` rows: row i is `low[i % len(low)] ^ high[i // len(low)]`."""
    low = min(n, LOW_ROWS)
    return low, n // low


@inline
def add_to(array, at, value):
    """Add a vector to the one at element `at`."""
    vstore(array, at, vload(array, at) + value)


@jit
def clear(array, start, count):
    """Set `count` vectors to zero."""
    size = lanes(array)
    zero = vsplat(array, 0.0)
    for i in range(count):
        vstore(array, start + i * size, zero)


@jit
def load_rows(source, column, width, n, first, count, target, at):
    """Columns [column, column + n) of rows [first, first + count) of a (B, width) array, samples innermost."""
    size = lanes(target)
    done = 0
    if count == size:
        while done + size <= n:
            transpose(source, first * width + column + done, width, target, at + done * size, size)
            done += size
    elif n > done:
        clear(target, at, n)
    for i in range(count):
        for k in range(done, n):
            put(target, at + k * size + i, get(source, (first + i) * width + column + k))


@jit
def store_rows(source, at, target, column, width, n, first, count):
    """Inverse of `load_rows`."""
    size = lanes(source)
    done = 0
    if count == size:
        while done + size <= n:
            transpose(source, at + done * size, size, target, first * width + column + done, width)
            done += size
    for i in range(count):
        for k in range(done, n):
            put(target, (first + i) * width + column + k, get(source, at + k * size + i))
