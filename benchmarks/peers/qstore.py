"""qstore: the layers of each framework, and the engines by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..problem import Problem
from . import Library, Running, _jax, _torch


def numpy_layer(backend: str) -> Callable[[Problem], Running]:
    """The layer on NumPy arrays."""

    def build(problem: Problem) -> Running:
        from qstore_core import QuantumFeatureExtractor

        layer = QuantumFeatureExtractor(**problem.layer(), backend=backend)
        layer.theta = problem.angles().ravel()
        x, program = problem.features(), layer._program

        def step(cotangents: np.ndarray) -> tuple[Any, Any, Any]:
            outputs, vjp_fn = program.value_and_vjp(layer.theta, x)
            return outputs, *vjp_fn(cotangents)

        return Running(lambda: layer(x), step, np.asarray, {"backend": layer.backend_name})

    return build


def engine(backend: str) -> Callable[[Problem], Running]:
    """The compiled circuit by itself: unit rows in, no layer around it."""

    def build(problem: Problem) -> Running:
        from qstore_core import QuantumFeatureExtractor, get_backend

        spec = QuantumFeatureExtractor(**problem.layer(), backend=backend).spec
        executable = get_backend(backend).compile(spec.circuit, spec.measurement, dtype="float32")
        theta, x = problem.angles().ravel(), problem.features()
        x /= np.linalg.norm(x, axis=1, keepdims=True)

        def step(cotangents: np.ndarray) -> tuple[Any, Any, Any]:
            outputs, vjp_fn = executable.value_and_vjp(theta, x)
            return outputs, *vjp_fn(cotangents)

        return Running(lambda: executable.forward(theta, x), step, np.asarray, {"backend": backend, "unit": True})

    return build


def torch_layer(backend: str, device: str = "cpu", **how: bool) -> Callable[[Problem], Running]:
    """The PyTorch layer, through autograd."""

    def build(problem: Problem) -> Running:
        import torch

        from qstore_torch import QuantumFeatureExtractor

        layer = QuantumFeatureExtractor(**problem.layer(), backend=backend).to(device)
        with torch.no_grad():
            layer.theta.copy_(torch.from_numpy(problem.angles().ravel()))
        out = _torch.running(layer, [layer.theta], problem, device, **how)
        out.info["backend"] = layer.backend_name
        return out

    return build


def keras_layer(backend: str, jit_compile: bool) -> Callable[[Problem], Running]:
    """The Keras layer in a compiled step."""

    def build(problem: Problem) -> Running:
        import tensorflow as tf

        from qstore_tf import QuantumFeatureExtractor

        layer = QuantumFeatureExtractor(**problem.layer(), backend=backend)
        x = tf.constant(problem.features())
        layer.build(x.shape)
        layer.theta.assign(problem.angles().ravel())
        jit = jit_compile and layer.supports_jit

        @tf.function(jit_compile=jit)
        def forward(features: Any) -> Any:
            return layer(features)

        @tf.function(jit_compile=jit)
        def step(features: Any, cotangents: Any) -> tuple[Any, Any, Any]:
            with tf.GradientTape() as tape:
                tape.watch(features)
                outputs = layer(features, training=True)  # as in fit(); inference stays in TensorFlow operations
                loss = tf.reduce_sum(outputs * cotangents)
            return outputs, *tape.gradient(loss, [layer.theta.value, features])

        info = {"backend": layer.backend_name, "xla": jit}
        return Running(lambda: forward(x), lambda cotangents: step(x, cotangents), tf.constant, info)

    return build


def jax_layer(backend: str) -> Callable[[Problem], Running]:
    """The JAX layer, jitted."""

    def build(problem: Problem) -> Running:
        from qstore_jax import QuantumFeatureExtractor

        layer = QuantumFeatureExtractor(**problem.layer(), backend=backend)
        out = _jax.running(lambda theta, x: layer.apply(theta.ravel(), x), problem)
        out.info["backend"] = layer.backend_name
        return out

    return build


_TORCH, _TF, _JAX = ("torch", "qstore_torch"), ("qstore_tf",), ("jax", "qstore_jax")


def _ours(name: str, label: str, build: Any, imports: tuple[str, ...], note: str = "", **more: Any) -> Library:
    return Library(name, label, build, "qstore", imports, note, more.pop("kind", "ours"), **more)


def _on_gpu(name: str, label: str, backend: str, note: str, **how: bool) -> Library:
    return _ours(name, label, torch_layer(backend, "cuda", **how), _TORCH, note, device="cuda")


LIBRARIES = (
    _ours(
        "torch-auto",
        "qstore torch",
        torch_layer("auto"),
        _TORCH,
        '`qstore_torch` layer, backend="auto", through autograd',
    ),
    _ours("torch-engine", "qstore torch ops", torch_layer("torch"), _TORCH, '`qstore_torch` layer, backend="torch"'),
    _ours(
        "keras-auto",
        "qstore Keras",
        keras_layer("auto", False),
        _TF,
        '`qstore_tf` layer, backend="auto", in a `tf.function`: host calls when training only',
    ),
    _ours(
        "keras-xla",
        "qstore Keras XLA",
        keras_layer("tensorflow", True),
        _TF,
        '`qstore_tf` layer, backend="tensorflow", in a `tf.function` under XLA',
    ),
    _ours(
        "numpy-numba",
        "qstore numba",
        numpy_layer("numba"),
        ("qstore_core", "numba"),
        '`qstore_core` layer on NumPy arrays, backend="numba"',
    ),
    _ours(
        "numpy",
        "qstore NumPy",
        numpy_layer("statevector"),
        ("qstore_core",),
        '`qstore_core` layer on NumPy arrays, backend="statevector"',
    ),
    _ours("jax-auto", "qstore JAX", jax_layer("auto"), _JAX, '`qstore_jax` layer, backend="auto", under `jit`'),
    _ours("jax-ops", "qstore JAX ops", jax_layer("jax"), _JAX, '`qstore_jax` layer, backend="jax", under `jit`'),
    _ours("keras-numba", "two host calls", keras_layer("numba", False), _TF, kind="variant"),
    _ours("keras-ops", "TensorFlow's operations", keras_layer("tensorflow", False), _TF, kind="variant"),
    _ours("engine-numba", "numba engine", engine("numba"), ("numba", "qstore_core"), kind="engine"),
    _ours("engine-numpy", "NumPy engine", engine("statevector"), ("qstore_core",), kind="engine"),
    _on_gpu("gpu-triton", "qstore triton", "triton", '`qstore_torch` layer, backend="triton"'),
    _on_gpu(
        "gpu-triton-inline",
        "triton, one thread",
        "triton",
        "the same after `torch.autograd.set_multithreading_enabled(False)`",
        inline=True,
    ),
    _on_gpu("gpu-triton-graph", "triton, graph", "triton", "the layer in a CUDA graph", graph=True),
    _on_gpu("gpu-torch", "qstore torch ops", "torch", '`qstore_torch` layer, backend="torch"'),
    _on_gpu("gpu-torch-graph", "torch ops, graph", "torch", "the same in a CUDA graph", graph=True),
    _ours("gpu-jax", "qstore JAX ops", jax_layer("jax"), _JAX, "`qstore_jax` layer under `jit`", device="cuda"),
)
