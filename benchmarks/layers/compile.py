"""How long the numba engine takes to compile when there is no cache; PyTorch models, compiled and eager.

The floor is the same compiled model around an operator that returns empty tensors: what PyTorch needs to enter and
leave a graph and its operators.
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
    """A training step of three layers in a row: eager, compiled, and the floor."""
    import torch

    from qstore_torch import QuantumFeatureExtractor

    from .keras_calls import medians

    torch.set_num_threads(1)
    library = torch.library.Library("qstore_benchmark", "FRAGMENT")
    library.define("nothing(str content, Tensor theta, Tensor x) -> Tensor")
    library.define("nothing_vjp(str content, Tensor theta, Tensor x, Tensor gradient) -> (Tensor, Tensor)")
    operators = {
        "nothing": lambda content, theta, x: torch.empty_like(x),
        "nothing_vjp": lambda content, theta, x, gradient: (torch.empty_like(theta), torch.empty_like(x)),
    }
    for name, compute in operators.items():
        library.impl(name, compute, "CompositeExplicitAutograd")
        torch.library.register_fake(f"qstore_benchmark::{name}", compute, lib=library)

    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.content, *tensors = inputs
        ctx.save_for_backward(*tensors)

    def back(ctx: Any, gradient: Any) -> Any:
        return None, *torch.ops.qstore_benchmark.nothing_vjp(ctx.content, *ctx.saved_tensors, gradient)

    torch.library.register_autograd("qstore_benchmark::nothing", back, setup_context=keep, lib=library)

    class Nothing(torch.nn.Module):
        def __init__(self, layer: QuantumFeatureExtractor) -> None:
            super().__init__()
            self.theta, self.content = layer.theta, str(layer.spec.to_dict())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.qstore_benchmark.nothing(self.content, self.theta, x)

    layers = [QuantumFeatureExtractor(4, encoding="angle", seed=k) for k in range(3)]
    eager, empty = torch.nn.Sequential(*layers), torch.nn.Sequential(*map(Nothing, layers))
    models = {"eager": eager, "compiled": torch.compile(eager), "floor": torch.compile(empty)}
    x, gradient = torch.rand(32, 4), torch.ones(32, 4)

    def step(model: Any) -> None:
        eager.zero_grad()
        model(x).backward(gradient)

    print("three QuantumFeatureExtractor(4), batch 32, training step; medians in µs, interleaved")
    for name, time in medians({name: partial(step, model) for name, model in models.items()}, 300).items():
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
