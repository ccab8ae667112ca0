"""How long the numba engine takes to compile when there is no cache; PyTorch models, compiled and eager.

Two floors: the same compiled model around operators that return empty tensors, and a compiled model of three products,
without operators: what PyTorch needs to enter and leave a graph.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from functools import partial
from typing import Any

_CODE = """
import time
from qstore_core.engines.numba.kernels.entry import entry
for single in (False, True):
    begin = time.perf_counter()
    entry("float32", single)
    print(f"{'single samples' if single else 'vectors of samples'}: {time.perf_counter() - begin:.1f} s")
"""


def _models() -> None:
    """A training step of three layers in a row: eager, compiled, and the floors."""
    import torch

    from qstore_torch import QuantumFeatureExtractor, graph

    from .keras_calls import medians

    torch.set_num_threads(1)

    class Product(torch.nn.Module):
        def __init__(self, layer: QuantumFeatureExtractor) -> None:
            super().__init__()
            self.theta = layer.theta

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.theta[: x.shape[1]]

    def begin(content: str, wrt_theta: bool, wrt_x: bool, theta: torch.Tensor, x: torch.Tensor) -> Any:
        return torch.empty_like(x), lambda gradient: (torch.empty_like(theta), torch.empty_like(x))

    def step(model: Any) -> None:
        eager.zero_grad()
        model(x).backward(gradient)

    def empty() -> None:
        graph._begin = begin
        step(compiled)
        graph._begin = own

    for n in (4, 8):
        own, layers = graph._begin, [QuantumFeatureExtractor(n, encoding="angle", seed=k) for k in range(3)]
        eager = torch.nn.Sequential(*layers)
        compiled, product = torch.compile(eager), torch.compile(torch.nn.Sequential(*map(Product, layers)))
        x, gradient = torch.rand(32, n), torch.ones(32, n)
        calls = {name: partial(step, model) for name, model in (("eager", eager), ("compiled", compiled))}
        calls |= {
            "compiled, operators that compute nothing": empty,
            "compiled products, no operators": partial(step, product),
        }
        print(f"three QuantumFeatureExtractor({n}), batch 32, training step; medians in µs, interleaved")
        for name, time in medians(calls, 300).items():
            print(f"  {name}: {time:.0f}")


def add_options(p: argparse.ArgumentParser) -> None:
    """None."""


def main(_: argparse.Namespace) -> None:
    """Twice in an empty cache: compiled, then read. Then models."""
    with tempfile.TemporaryDirectory() as folder:
        for title in ("compiled", "read from the disk cache"):
            print(title, flush=True)
            subprocess.run([sys.executable, "-c", _CODE], env=os.environ | {"NUMBA_CACHE_DIR": folder}, check=True)
    _models()
