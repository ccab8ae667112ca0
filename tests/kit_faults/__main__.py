"""`python -m tests.kit_faults`: the kit on every faulty backend; a table, and how many of them it refuses.

    python -m tests.kit_faults                 every fault, by the whole kit; some minutes
    python -m tests.kit_faults --fault race    those whose name has this word
    python -m tests.kit_faults --sentences     the table of docs/plugins.md

A fault that only one check refuses is run through all checks; another one until the first check fails.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

for name in ("OMP_NUM_THREADS", "QULACS_NUM_THREADS"):  # two processes; a circuit is too small for threads of its own
    os.environ.setdefault(name, "1")

from qstore_core.testing import run_checks  # noqa: E402

from . import FAULTS, by_name, tensors  # noqa: E402
from .backend import QulacsBackend  # noqa: E402
from .run import refusals, remember_references, sentence_table  # noqa: E402
from .tensors import TorchBackend  # noqa: E402


def _judged(name: str) -> tuple[str, list[str], str, float]:
    begin, fault = time.perf_counter(), by_name(name)
    refused = refusals(fault, first=not fault.only)
    return name, [check for check, _ in refused], refused[0][1] if refused else "", time.perf_counter() - begin


def _all_judged(names: list[str], processes: int) -> Iterator[tuple[str, list[str], str, float]]:
    """By several processes, forked with what this one has computed; PyTorch's threads do not survive a fork."""
    if processes == 1:
        yield from map(_judged, names)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(_judged, names)


def main() -> int:
    """Print the table; exit status 1 where a fault is accepted, or refused by more checks than it should be."""
    parser = argparse.ArgumentParser("python -m tests.kit_faults")
    parser.add_argument("--fault", default="", help="only faults with this in their name or kind")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sentences", action="store_true", help="print the table of docs/plugins.md, run nothing")
    chosen = parser.parse_args()
    if chosen.sentences:
        print(sentence_table())
        return 0
    faults = [fault for fault in FAULTS if chosen.fault in str(fault)]
    remember_references()
    refused, total, wrong = Counter(), Counter(), 0
    on_torch = [str(fault) for fault in faults if fault.kind == tensors.KIND]
    others = [str(fault) for fault in faults if fault.kind != tensors.KIND]
    for right, names in ((QulacsBackend(), others), (TorchBackend(), on_torch)):
        if names and (failed := run_checks(right).failed):
            print("the right backend fails", *failed, sep="\n")
            return 1
        for name, checks, reason, seconds in _all_judged(names, 1 if names is on_torch else chosen.processes):
            fault = by_name(name)
            total[fault.kind] += 1
            refused[fault.kind] += bool(checks)
            mark = "refused " if checks else "ACCEPTED"
            if fault.only and checks != [fault.refused_by]:
                mark, wrong = "NOT ONLY", wrong + 1
            print(f"{mark} {seconds:6.1f} s  {fault}: {', '.join(checks)}  {reason[:90]}", flush=True)
    for kind in total:
        print(f"  {kind:20} {refused[kind]:4} of {total[kind]:4} refused")
    count, of = sum(refused.values()), sum(total.values())
    print(f"  {'all':20} {count:4} of {of:4} refused: {100 * count / of:.1f} %")
    return 0 if count == of and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
