"""The array engine on complex numbers and on pairs of real ones, side by side in every mode of every framework.

On a busy machine, keep to one thread: OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from qstore_core import QuantumFeatureExtractor, lower
from qstore_core.engines.arrays.adjoint import value_and_vjp
from qstore_core.engines.arrays.planes import PlanesOps
from qstore_core.engines.arrays.program import ArrayProgram

ROWS = 32


def add_options(p: argparse.ArgumentParser) -> None:
    """Frameworks, sizes and repetitions."""
    p.add_argument("--frameworks", nargs="+", choices=tuple(FRAMEWORKS), default=["numpy", "torch", "jax"])
    p.add_argument("--qubits", nargs="+", type=int, default=[4, 8, 12])
    p.add_argument("--repeats", type=int, default=40)


def main(options: argparse.Namespace) -> None:
    """Print medians of interleaved calls, in milliseconds."""
    warnings.simplefilter("ignore")
    print(f"hardware_efficient, depth 2, Z, batch {ROWS}, float32; medians in ms, interleaved")
    print(f"{'framework':12} {'qubits':>6} {'mode':28} {'complex':>8} {'real':>8} {'real / complex':>15}")
    for framework in options.frameworks:
        for n in options.qubits:
            layer = QuantumFeatureExtractor(n, seed=0).spec
            program, rng = ArrayProgram(lower(layer.circuit, layer.measurement)), np.random.default_rng(0)
            x = rng.normal(size=(ROWS, 1 << n))
            x /= np.linalg.norm(x, axis=1, keepdims=True)
            theta = rng.uniform(-3, 3, layer.n_weights)
            modes = dict(FRAMEWORKS[framework](program, theta.astype("float32"), x.astype("float32")))
            for mode, medians in _medians(modes, max(5, options.repeats >> max(0, n - 8))).items():
                of_complex, of_real = (1e3 * m for m in medians)
                ratio = of_real / of_complex
                print(f"{framework:12} {n:6} {mode:28} {of_complex:8.3f} {of_real:8.3f} {ratio:15.2f}", flush=True)


Pair = tuple[Callable[[], Any], Callable[[], Any]]
Modes = Iterator[tuple[str, Pair]]


def _medians(modes: dict[str, Pair], repeats: int) -> dict[str, tuple[float, float]]:
    times: dict[tuple[str, int], list[float]] = {}
    for repeat in range(repeats + 2):
        for mode, pair in modes.items():
            for k, call in enumerate(pair):
                begin = time.perf_counter()
                call()
                if repeat >= 2:  # the first calls compile
                    times.setdefault((mode, k), []).append(time.perf_counter() - begin)
    return {m: (float(np.median(times[m, 0])), float(np.median(times[m, 1]))) for m in modes}


def _adjoint(program: ArrayProgram, ops: Any, ones: Callable[[Any], Any], theta: Any, x: Any) -> Any:
    outputs, pull = value_and_vjp(program, ops, theta, x)
    return pull(ones(outputs))


def _numpy(program: ArrayProgram, theta: Any, x: Any) -> Modes:
    from qstore_core.engines.arrays.numpy_ops import NumpyOps

    both = NumpyOps(), PlanesOps(NumpyOps(), double=True)
    yield "forward", tuple(partial(program.forward, ops, theta, x) for ops in both)
    yield "forward + adjoint", tuple(partial(_adjoint, program, ops, np.ones_like, theta, x) for ops in both)


def _torch(program: ArrayProgram, theta: Any, x: Any) -> Modes:
    import torch

    from qstore_torch.engine import TorchOps

    both = TorchOps(), PlanesOps(TorchOps(), double=True)
    t, f = (torch.tensor(v, requires_grad=True) for v in (theta, x))

    def without_grad(call: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: torch.no_grad()(call)(t, f)

    def with_grad(call: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(call(t, f).sum(), (t, f))

    forward = [partial(program.forward, ops) for ops in both]
    yield "eager forward", tuple(map(without_grad, forward))
    adjoint = [partial(_adjoint, program, ops, torch.ones_like) for ops in both]
    yield "eager forward + adjoint", tuple(map(without_grad, adjoint))
    yield "eager forward + autograd", tuple(map(with_grad, forward))
    compiled = []
    for call in forward:  # what inductor is given: operations, as a layer's `as_operations()` gives them
        name = f"qstore_benchmark_{program.plan.n_qubits}_{len(compiled)}"
        compiled.append(torch.compile(_in_graph(name, call)))
    yield "inductor forward", tuple(map(without_grad, compiled))
    yield "inductor forward + autograd", tuple(map(with_grad, compiled))


def _in_graph(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    import torch

    def function(theta: Any, x: Any) -> Any:
        return call(theta, x)

    function.__name__ = name
    torch._dynamo.allow_in_graph(function)
    return lambda theta, x: function(theta, x)


def _tensorflow(program: ArrayProgram, theta: Any, x: Any) -> Modes:
    import tensorflow as tf

    from qstore_tf.engine import TensorflowOps

    both = TensorflowOps(), PlanesOps(TensorflowOps(), double=False)
    t, f = tf.constant(theta), tf.constant(x)

    def with_grad(ops: Any, t: Any, f: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch((t, f))
            y = tf.reduce_sum(program.forward(ops, t, f))
        return tape.gradient(y, (t, f))

    forward = [partial(program.forward, ops) for ops in both]
    yield "eager forward", tuple(partial(call, t, f) for call in forward)
    for title, jit in (("graph", False), ("XLA", True)):
        made = [tf.function(call, jit_compile=jit, autograph=False) for call in forward]
        yield f"{title} forward", tuple(partial(call, t, f) for call in made)
        made = [tf.function(partial(with_grad, ops), jit_compile=jit, autograph=False) for ops in both]
        yield f"{title} forward + gradient", tuple(partial(call, t, f) for call in made)


def _jax(program: ArrayProgram, theta: Any, x: Any) -> Modes:
    import jax
    import jax.numpy as jnp

    from qstore_jax.engine import JaxOps

    both = JaxOps(), PlanesOps(JaxOps(), double=False)

    def jitted(call: Callable[..., Any]) -> Callable[[], Any]:
        made = jax.jit(call)
        return lambda: jax.block_until_ready(made(theta, x))

    forward = [partial(program.forward, ops) for ops in both]
    yield "jit forward", tuple(map(jitted, forward))
    yield "jit forward + adjoint", tuple(jitted(partial(_adjoint, program, ops, jnp.ones_like)) for ops in both)
    gradients = [jax.grad(lambda t, f, call=call: call(t, f).sum(), (0, 1)) for call in forward]
    yield "jit forward + gradient", tuple(map(jitted, gradients))


FRAMEWORKS: dict[str, Callable[[ArrayProgram, Any, Any], Modes]] = {
    "numpy": _numpy,
    "torch": _torch,
    "tensorflow": _tensorflow,
    "jax": _jax,
}
