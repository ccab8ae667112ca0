"""Nothing: what a framework takes for a call by itself."""

from __future__ import annotations

from typing import Any

from ..problem import Problem
from . import Library, Running, _torch


def torch_nothing(problem: Problem, device: str = "cpu") -> Running:
    """An autograd function that returns tensors of the layer's shapes without writing to them."""
    import torch

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, theta: Any, x: Any) -> Any:
            ctx.save_for_backward(theta, x)
            return x.new_empty(problem.batch, problem.n_outputs)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> tuple[Any, Any]:
            theta, x = ctx.saved_tensors
            return torch.empty_like(theta), torch.empty_like(x)

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = torch.nn.Parameter(torch.from_numpy(problem.angles().ravel()))

        def forward(self, x: Any) -> Any:
            return Nothing.apply(self.theta, x)

    module = Module().to(device)
    return _torch.running(module, [module.theta], problem, device)


def gpu_nothing(problem: Problem) -> Running:
    """The same with tensors on the GPU."""
    return torch_nothing(problem, "cuda")


def gpu_linear(problem: Problem) -> Running:
    """PyTorch's own layer of the same features and outputs."""
    import torch

    module = torch.nn.Linear(1 << problem.n_qubits, problem.n_outputs, device="cuda")
    return _torch.running(module, [module.weight], problem, "cuda")


def tensorflow_nothing(problem: Problem) -> Running:
    """A `tf.function` that adds one to each of its arguments."""
    import tensorflow as tf

    x, theta = tf.constant(problem.features()), tf.Variable(problem.angles().ravel())
    forward = tf.function(lambda features: features + 1.0)
    step = tf.function(lambda features, cotangents: (cotangents + 1.0, theta + 1.0, features + 1.0))
    return Running(lambda: forward(x), lambda cotangents: step(x, cotangents), tf.constant)


def jax_nothing(problem: Problem) -> Running:
    """A jitted function that adds one to each of its arguments."""
    import jax

    theta, x = jax.numpy.asarray(problem.angles()), jax.numpy.asarray(problem.features())
    forward = jax.jit(lambda theta, x: x + 1.0)
    step = jax.jit(lambda theta, x, cotangents: (cotangents + 1.0, theta + 1.0, x + 1.0))
    return Running(
        lambda: forward(theta, x),
        lambda cotangents: step(theta, x, cotangents),
        jax.numpy.asarray,
        finish=jax.block_until_ready,
    )


LIBRARIES = tuple(
    Library(f"nothing-{name}", label, build, module, (module,), note, "nothing")
    for name, label, build, module, note in (
        ("torch", "PyTorch", torch_nothing, "torch", "an autograd function that does nothing"),
        ("keras", "TensorFlow", tensorflow_nothing, "tensorflow", "a `tf.function` that adds one to its arguments"),
        ("jax", "JAX", jax_nothing, "jax", "a jitted function that adds one to its arguments"),
    )
)
LIBRARIES += tuple(
    Library(f"gpu-{name}", "PyTorch", build, "torch", ("torch",), note, "nothing", "cuda")
    for name, build, note in (
        ("nothing", gpu_nothing, "an autograd function that does nothing, on the GPU"),
        ("linear", gpu_linear, "`torch.nn.Linear` of as many features and outputs, on the GPU"),
    )
)
