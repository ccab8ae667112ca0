"""The image classifier with and without quantum layers, in every framework.

Trains `examples/image_classification.py` on 5,000 real digits (4,000 to train on, 1,000 to validate) for each
framework, head and seed, every run in a process of its own with one thread, and prints validation accuracies: mean and
standard deviation over the seeds. Twelve runs of 20 epochs, about 15 minutes on two cores. Needs the extras `tf`,
`torch`, `fast` and `examples`. Whether all frameworks learn alike, in some minutes (extra `flax` besides):

    python -m benchmarks accuracy --frameworks keras keras-torch keras-jax torch jax --heads quantum --epochs 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "image_classification.py"
HEADS = {"quantum": (), "classical": ("--no-quantum",)}
FRAMEWORKS = {
    "keras": ("keras", "tensorflow"),
    "keras-torch": ("keras", "torch"),
    "keras-jax": ("keras", "jax"),
    "torch": ("torch", ""),
    "jax": ("jax", ""),
}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1")


def add_options(p: argparse.ArgumentParser) -> None:
    """Options."""
    p.add_argument("--frameworks", nargs="+", choices=tuple(FRAMEWORKS), default=["keras", "torch"])
    p.add_argument("--heads", nargs="+", choices=tuple(HEADS), default=list(HEADS))
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--epochs", type=int, default=20)
    p.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at once (default: one for each core)")
    p.add_argument("--output-dir", type=Path, help="keep the runs' results.json here")


def main(options: argparse.Namespace) -> None:
    """Train and print."""
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(options.jobs) as pool:
        folder = options.output_dir or Path(scratch)
        runs = {
            (framework, head): [
                pool.submit(_train, framework, head, seed, options.epochs, folder) for seed in options.seeds
            ]
            for framework in options.frameworks
            for head in options.heads
        }
        results = {key: [run.result() for run in started] for key, started in runs.items()}
    _print(results, options.frameworks)


def _train(framework: str, head: str, seed: int, epochs: int, folder: Path) -> dict:
    folder = folder / f"{framework}-{head}-{seed}"
    name, backend = FRAMEWORKS[framework]
    command = [sys.executable, str(EXAMPLE), "--framework", name, "--seed", str(seed), "--epochs", str(epochs)]
    command += [*HEADS[head], "--output-dir", str(folder)]
    environment = {"KERAS_BACKEND": backend} if backend else {}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ONE_THREAD | environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    result = json.loads((folder / "results.json").read_text())
    print(
        f"{framework}, {head}, seed {seed}: best {result['best']['validation_accuracy']:.2%}, "
        f"last {result['history'][-1]['validation_accuracy']:.2%}, {result['train_seconds']:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return result


def _print(results: dict[tuple[str, str], list[dict]], frameworks: list[str]) -> None:
    first = next(iter(results.values()))[0]
    print(
        f"\n{first['source']}: {first['train_images']} images to train on, {first['validation_images']} to validate\n"
    )
    print("| framework | head | best epoch, each seed | mean | last epoch, each seed | mean | trained parameters |")
    print("|---|---|---|---|---|---|---|")
    for (framework, head), runs in results.items():
        best, last = _accuracies(runs, "best"), _accuracies(runs, "last")
        cells = [
            framework,
            head,
            _each(best),
            _mean(best),
            _each(last),
            _mean(last),
        ]
        print(f"| {' | '.join(cells)} | {runs[0]['parameters']:,} |")
    print()
    for framework in frameworks:
        if not all((framework, head) in results for head in HEADS):
            continue
        for which in ("best", "last"):
            quantum, classical = (statistics.mean(_accuracies(results[framework, head], which)) for head in HEADS)
            print(
                f"{framework}, {which} epoch: quantum − classical = {(quantum - classical) * 100:+.2f} points "
                f"(mean of {len(results[framework, 'quantum'])} seeds)"
            )


def _accuracies(runs: list[dict], which: str) -> list[float]:
    return [(run["best"] if which == "best" else run["history"][-1])["validation_accuracy"] for run in runs]


def _mean(values: list[float]) -> str:
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2%}{spread}"


def _each(values: list[float]) -> str:
    return ", ".join(f"{value:.2%}" for value in values)
