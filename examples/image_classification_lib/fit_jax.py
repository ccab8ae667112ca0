"""Train, predict and time in JAX, with flax and optax. `fit_torch.py` is the same file for PyTorch."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from .data import Batches, ImageData, prefetch
from .nets_jax import Network, build
from .train import ADAM, Monitor, Settings, median_seconds, n_outputs

VERSION = f"JAX {jax.__version__}, flax {flax.__version__}"
_OPTIMIZER = optax.scale_by_adam(**ADAM)


def make(settings: Settings, data: ImageData) -> Network:
    """Return the network for these images."""
    return build(settings, data.images.shape[1:], n_outputs(len(data.class_names)))


def fit(model: Network, batches: Batches, validation: ImageData, settings: Settings, monitor: Monitor) -> None:
    """Train; the model ends up with the weights of its best epoch."""
    model.train()
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    moments = _OPTIMIZER.init(params)
    saved = None if monitor.progress is None else monitor.progress.folder / "training.npz"
    if monitor.history:
        (params, rest, moments), monitor.best_weights = _load(saved, ((params, rest, moments), (params, rest)))
    begin, steps = len(monitor.history), batches.steps_per_epoch
    stream = prefetch(batches.__getitem__, range(begin * steps, settings.epochs * steps))
    for _ in range(begin, settings.epochs):
        total = correct = seen = 0
        for _ in range(steps):
            images, labels = next(stream)
            now = params, rest, moments
            (params, rest, moments), loss, right = _step(graph, *now, monitor.learning_rate, images, labels)
            total += float(loss) * len(labels)
            correct += int(right)
            seen += len(labels)
            monitor.step_done(total / seen, correct / seen)
        nnx.update(model, params, rest)
        logits = predict(model, validation.images)
        weights = params, rest  # arrays that nothing changes

        def keep(now: Any = (params, rest, moments)) -> None:
            _save(saved, (now, monitor.best_weights))

        if not monitor.epoch_done(logits, validation.labels, lambda weights=weights: weights, keep):
            break
    stream.close()
    nnx.update(model, *monitor.best_weights)


@partial(jax.jit, static_argnums=0)
def _step(graph: Any, params: Any, rest: Any, moments: Any, rate: Any, images: Any, labels: Any) -> Any:
    """One step: `(params, rest, moments)`, the loss, and how many labels are right."""

    def of(params: Any) -> Any:
        model = nnx.merge(graph, params, rest, copy=True)
        logits = model(images).astype(jnp.float32)
        return _loss(logits, labels), (logits, nnx.split(model, nnx.Param, ...)[2])

    (loss, (logits, rest)), slopes = jax.value_and_grad(of, has_aux=True)(params)
    updates, moments = _OPTIMIZER.update(slopes, moments)
    params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
    return (params, rest, moments), loss, (_classes(logits) == labels).sum()


def predict(model: Network, images: np.ndarray, *, batch_size: int = 128) -> np.ndarray:
    """Return logits (N, n_outputs)."""
    model.eval()
    graph, state = nnx.split(model)
    parts = [_forward(graph, state, images[i : i + batch_size]) for i in range(0, len(images), batch_size)]
    return np.concatenate(parts)


@partial(jax.jit, static_argnums=0)
def _forward(graph: Any, state: Any, images: Any) -> jax.Array:
    return nnx.merge(graph, state, copy=True)(images).astype(jnp.float32)


def parameter_count(model: Network) -> int:
    """Return the number of trained numbers."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def quantum_layers(model: Network) -> dict[str, Any]:
    """Return the quantum layers by name."""
    return {name: part.layer for name, part in model.parts().items() if hasattr(part, "layer")}


def time_parts(model: Network, images: np.ndarray) -> dict[str, float]:
    """Return the seconds that each part takes alone, forward and backward, on the batch that reaches it."""
    model.eval()  # leaves the running means of the batch normalisation alone
    x, times = jnp.asarray(images), {}
    for name, part in model.parts().items():
        graph, params, rest = nnx.split(part, nnx.Param, ...)

        @jax.jit
        def both_ways(params: Any, x: jax.Array, graph: Any = graph, rest: Any = rest) -> Any:
            def call(params: Any, x: jax.Array) -> jax.Array:
                return nnx.merge(graph, params, rest, copy=True)(x)

            if not jnp.issubdtype(x.dtype, jnp.floating):
                return call(params, x)
            outputs, vjp_fn = jax.vjp(call, params, x)
            return vjp_fn(jnp.ones_like(outputs))

        times[name] = median_seconds(lambda run=both_ways, p=params, x=x: jax.block_until_ready(run(p, x)))
        x = part(x)
    return times


def _loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    if logits.shape[1] == 1:
        return optax.sigmoid_binary_cross_entropy(logits[:, 0], labels.astype(logits.dtype)).mean()
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _classes(logits: jax.Array) -> jax.Array:
    return (logits[:, 0] > 0).astype(int) if logits.shape[1] == 1 else logits.argmax(1)


def _save(path: Any, tree: Any) -> None:
    np.savez(path, *jax.tree.leaves(tree))


def _load(path: Any, like: Any) -> Any:
    with np.load(path) as file:
        return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(file[name]) for name in file.files])
