"""The triton engine's passes over memory, one by one: bytes, time, and share of the bandwidth of a copy.

`python -m benchmarks gpu` prints them beside the times of layers; `python -m benchmarks.layers.passes` by themselves,
also for other numbers of amplitudes to a program (`--held`), to a line of memory (`--low`) and to a thread
(`--registers`, all as powers of two) and of threads.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from typing import Any
from unittest.mock import patch

import numpy as np

from ..problem import Problem, difference, reference

HEAD = ("kernel", "MB", "time", "of the bandwidth of a copy")
_REPEATS = 10


def moved(constants: dict[str, Any], kernel: str, problem: Problem) -> int | None:
    """Bytes that a kernel reads and writes of states and features; None where that is not what it does."""
    feature, amplitude = (size * problem.batch << problem.n_qubits for size in (4, 8))
    if kernel == "parts_of_norms":
        return feature
    if kernel == "pass_forward":
        start = feature if constants["AMPLITUDES"] else 0
        return (start if constants["FIRST"] else amplitude) + (amplitude if constants["KEEP"] else 0)
    if kernel == "pass_backward":
        read = amplitude if constants["READ"] else 2 * amplitude
        end = feature if constants["AMPLITUDES"] else 0
        return read + (end if constants["FIRST"] else 2 * amplitude)
    return None


def measure(problem: Problem, **arguments: Any) -> list[dict[str, Any]]:
    """Forward and backward of one point, launch by launch: kernel, bytes, seconds; the largest difference is checked.

    Args:
        problem: A circuit of more qubits than one program holds.
        arguments: Of `WideCircuit`, and `warps`.
    """
    import torch

    from qstore_core import QuantumFeatureExtractor, lower
    from qstore_torch.triton.launch import Launch
    from qstore_torch.triton.wide import WideCircuit

    spec = QuantumFeatureExtractor(**problem.layer()).spec
    assert spec.measurement is not None
    warps = arguments.pop("warps", None)
    circuit = WideCircuit(lower(spec.circuit, spec.measurement), torch.float32, **arguments)
    if warps:
        for launch in (*circuit._forward[0], *circuit._forward[1], *circuit._backward):
            launch._warps = warps
    expected, rows = reference(problem), problem.checked_rows()
    arrays = (problem.angles().ravel(), problem.features(), problem.cotangents(rows))
    theta, x, cotangents = (torch.from_numpy(np.ascontiguousarray(a)).cuda() for a in arrays)
    seen: list[tuple[Any, Any, Any]] = []
    call = Launch.__call__

    def timed(self: Any, *launched: Any) -> None:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call(self, *launched)
        end.record()
        seen.append((self, begin, end))

    times = []
    for _ in range(_REPEATS + 2):
        seen.clear()
        with patch.object(Launch, "__call__", timed):
            outputs, kept = circuit.forward(theta, x, keep=True)
            assert kept is not None
            d_theta, d_x = circuit.backward(theta, x, kept, cotangents)
        torch.cuda.synchronize()
        times.append([begin.elapsed_time(end) * 1e-3 for _, begin, end in seen])
    found = {"outputs": outputs[rows], "d_theta": d_theta, "d_inputs": d_x[rows]}
    off = max(difference(found[key].cpu().numpy(), expected[key]) for key in expected)
    if not off <= problem.tolerance:
        raise AssertionError(f"{problem.key}: passes differ from the reference by {off:.0e}")
    medians = np.median(np.array(times[2:]), axis=0)
    lines = []
    for (launch, _, _), seconds in zip(seen, medians, strict=True):
        name = launch.kernel.fn.__name__
        lines.append({"kernel": name, "bytes": moved(launch.constants, name, problem), "seconds": float(seconds)})
    return lines


def shares(lines: Sequence[dict[str, Any]], copy: float) -> list[tuple[str, str, str, str]]:
    """Rows of a table: kernel, MB, µs, share of a copy's bandwidth; passes, then all launches."""
    rows = []
    for line in lines:
        bytes_, seconds = line["bytes"], line["seconds"]
        counted = (f"{bytes_ / 1e6:.1f}", f"{100 * bytes_ / seconds / copy:.0f} %") if bytes_ else ("–", "–")
        rows.append((line["kernel"], counted[0], f"{seconds * 1e6:.1f} µs", counted[1]))
    passes = [line for line in lines if line["kernel"].startswith("pass_")]
    for title, some in (("all passes", passes), ("all launches", lines)):
        bytes_, seconds = sum(x["bytes"] or 0 for x in some), sum(x["seconds"] for x in some)
        rows.append((title, f"{bytes_ / 1e6:.1f}", f"{seconds * 1e6:.1f} µs", f"{100 * bytes_ / seconds / copy:.0f} %"))
    return rows


def main() -> None:
    """Print the passes of some points."""
    from ..sections import whole
    from .gpu import ceilings

    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("qubits", "16,18,20"), ("batches", "32"), ("held", "11"), ("low", "4"), ("registers", "4")):
        parser.add_argument(f"--{name}", type=whole, default=whole(default))
    parser.add_argument("--warps", type=whole, default=[0])
    options = parser.parse_args()
    copy = ceilings()["copy"]
    print(f"a copy moves {copy / 1e12:.2f} TB/s")
    grid = (options.qubits, options.batches, options.held, options.low, options.registers, options.warps)
    for n, batch, held, low, registers, warps in product(*grid):
        lines = measure(Problem(n, batch), held=held, low=low, registers=registers, warps=warps or None)
        how = f"held {held}, low {low}, registers {registers}, warps {warps or 'as is'}"
        print(f"{n} qubits, batch {batch}, {how}")
        for row in shares(lines, copy):
            print("    {:16} {:>10} MB {:>12} {:>6}".format(*row), flush=True)


if __name__ == "__main__":
    main()
