"""The advice that circulates about quantum layers in image classifiers, each claim beside what is measured.

Ratios of medians, the two sides of each taken by turns in one run: event loop per batch or one that is reused, three
bases or one, depth three or two, one layer of the original head or three layers sized one by one. With `--train` the
classifier is trained as well (`examples/image_classification.py --quick-test`, PyTorch): time per batch, share of the
quantum layers, time of an epoch and accuracy with its spread over seeds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from qstore_core import QuantumFeatureExtractor, QuantumPooling, QuantumReadout
from qstore_core.backends.runner import portal

EXAMPLE = Path(__file__).parents[2] / "examples" / "image_classification.py"
HEADS = {"quantum, 8 + 6 + 4 qubits": (), "original, one of 8": ("--original",), "classical": ("--no-quantum",)}
BATCH = 32


def add_options(p: argparse.ArgumentParser) -> None:
    """Options."""
    p.add_argument("--seconds", type=float, default=1.0, help="time for each line of the table (default: 1)")
    p.add_argument("--train", action="store_true", help="train the classifier too; takes some minutes")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])


def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    print(f"batch {BATCH}, float32, forward and backward on NumPy arrays, medians of calls taken by turns\n")
    print("| what | instead of | ms | ms | times | the advice says |")
    print("|---|---|---|---|---|---|")
    for what, instead, first, second, claim in _lines():
        a, b = _by_turns(first, second, options.seconds)
        print(f"| {what} | {instead} | {1e3 * a:.3f} | {1e3 * b:.3f} | {a / b:.2f} | {claim} |", flush=True)
    if options.train:
        _train(options.seeds)


def _lines() -> list[tuple[str, str, Callable[[], Any], Callable[[], Any], str]]:
    def original(depth: int, bases: Any) -> Callable[[], Any]:
        return _step(QuantumFeatureExtractor(8, depth, measurement_bases=bases, seed=0))

    three = [
        _step(QuantumFeatureExtractor(8, 2, seed=0)),
        _step(QuantumPooling(6, seed=0)),
        _step(QuantumReadout(4, seed=0)),
    ]
    nothing = asyncio.sleep
    return [
        (
            "an event loop for every batch",
            "one that is reused",
            lambda: asyncio.run(nothing(0)),
            lambda: portal().run_sync(nothing, 0),
            "50 to 100 ms saved",
        ),
        ("bases Z, X, Y", "Z", original(2, ("Z", "X", "Y")), original(2, "Z"), "3 times"),
        ("depth 3", "depth 2", original(3, "Z"), original(2, "Z"), "1.5 times"),
        (
            "bases Z, X, Y and depth 3",
            "Z and depth 2",
            original(3, ("Z", "X", "Y")),
            original(2, "Z"),
            "4.5 times",
        ),
        (
            "three layers of 8 qubits",
            "of 8, 6 and 4",
            _all([_step(QuantumFeatureExtractor(8, 2, seed=k)) for k in range(3)]),
            _all(three),
            "fewer qubits where fewer do",
        ),
    ]  # fmt: skip


def _step(layer: Any) -> Callable[[], Any]:
    x = np.random.default_rng(0).normal(size=(BATCH, 1 << layer.spec.n_qubits)).astype(np.float32)
    cotangents = np.ones((BATCH, layer.output_dim), np.float32)
    return lambda: layer.vjp(x, cotangents)


def _all(steps: list[Callable[[], Any]]) -> Callable[[], Any]:
    def run() -> None:
        for step in steps:
            step()

    return run


def _by_turns(first: Callable[[], Any], second: Callable[[], Any], seconds: float) -> tuple[float, float]:
    """Median seconds of a call of each; the first calls compile."""
    for _ in range(3):
        first(), second()
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 20:
        for function, mine in zip((first, second), times, strict=True):
            begin = time.perf_counter()
            function()
            mine.append(time.perf_counter() - begin)
    return statistics.median(times[0]), statistics.median(times[1])


def _train(seeds: list[int]) -> None:
    print(f"\n| head | ms per batch | in quantum layers | s per epoch | validation accuracy, {len(seeds)} seeds |")
    print("|---|---|---|---|---|")
    for name, words in HEADS.items():
        runs = []
        for seed in seeds:
            print(f"{name}, seed {seed} …", file=sys.stderr, flush=True)
            runs.append(_trained(words, seed))
        step = statistics.median(run["step_seconds"] for run in runs)
        share = statistics.mean(
            sum(run["part_seconds"][layer] for layer in run["quantum_layers"]) / run["step_seconds"] for run in runs
        )
        epoch = statistics.mean(run["train_seconds"] / len(run["history"]) for run in runs)
        accuracies = [100 * run["best"]["validation_accuracy"] for run in runs]
        accuracy = f"{statistics.mean(accuracies):.1f} % ({min(accuracies):.1f} to {max(accuracies):.1f})"
        print(f"| {name} | {1e3 * step:.1f} | {share:.0%} | {epoch:.1f} | {accuracy} |", flush=True)


def _trained(words: tuple[str, ...], seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(EXAMPLE), "--framework", "torch", "--quick-test", "--seed", str(seed), *words]
        done = subprocess.run([*command, "--output-dir", folder], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        result: dict[str, Any] = json.loads((Path(folder) / "results.json").read_text())
        return result
