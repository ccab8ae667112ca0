"""Natural gradients for the layers of a Keras model, in any optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from qstore_core import SpecError
from qstore_core.analysis import metric_tensor, natural_gradient

from .layers import KerasLayer, keras_backend

__all__ = ["natural"]


def natural(
    optimizer: keras.optimizers.Optimizer,
    model: keras.Layer | Sequence[keras.Layer],
    *,
    approx: str | None = "block-diag",
    regularisation: float = 1e-3,
    max_samples: int = 256,
) -> keras.optimizers.Optimizer:
    """The same optimizer, with natural gradients for the angles of quantum layers; all else is as it was.

    Before a step, the gradient of each layer's theta is replaced by (g + λ)⁻¹ dL/dθ, with the metric g of the layer at
    the features of its last call, averaged over these samples. It is computed on the host: in eager mode and in graphs
    of this process, `fit` among them, not in XLA (`jit_compile=False`) and not across replicas.

    Args:
        optimizer: Any of Keras's, usually SGD; made anew from its configuration.
        model: A model, or layers; the quantum layers in them are meant. Their calls are recorded from now on.
        approx: "block-diag", "diag" or None for the whole metric, see `qstore_core.analysis.metric_tensor`.
        regularisation: λ.
        max_samples: Most samples of a call that enter the metric, the last ones.

    Source:
        Stokes et al., arXiv:1909.02108.
    """
    if keras.config.backend() == "jax":  # an optimizer is outside of what JAX differentiates: it sees no features there
        raise SpecError(
            "natural gradients in Keras need TensorFlow or PyTorch. On JAX use qstore_jax with "
            "qstore_core.analysis.metric_tensor and natural_gradient.",
            argument="optimizer",
        )
    roots = list(model) if isinstance(model, Sequence) else [model]
    layers = [layer for root in roots for layer in root._flatten_layers() if isinstance(layer, KerasLayer)]
    layers = [layer for layer in layers if layer.spec.n_weights]
    if not layers:
        raise SpecError("there is no quantum layer with weights in this model.", argument="model")
    recorded: dict[int, Any] = {}
    for layer in layers:
        _record(layer, recorded)
    options = {"approx": approx}

    class Natural(type(optimizer)):  # type: ignore[misc]
        def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
            given = self._trainable_variables if trainable_variables is None else list(trainable_variables)
            of_layer = {id(layer.theta): layer for layer in layers if layer.built}
            new = []
            for gradient, variable in zip(grads, given, strict=True):
                layer = of_layer.get(id(variable))
                x = recorded.pop(id(layer), None)
                if layer is not None and x is not None and gradient is not None:
                    gradient = step(layer, x, gradient)
                new.append(gradient)
            return super().apply(new, trainable_variables)

    def step(layer: KerasLayer, x: Any, gradient: Any) -> Any:
        def on_host(theta: np.ndarray, rows: np.ndarray, slope: np.ndarray) -> np.ndarray:
            kept = rows.reshape(-1, rows.shape[-1])[-max_samples:].astype(np.float64)
            metric = metric_tensor(layer, kept, theta=theta, **options)
            return natural_gradient(metric, slope, regularisation=regularisation).astype(slope.dtype)

        return keras_backend().call_host(on_host, ops.convert_to_tensor(layer.theta), x, gradient)

    Natural.__name__ = Natural.__qualname__ = f"Natural{type(optimizer).__name__}"
    return Natural.from_config(optimizer.get_config())


def _record(layer: KerasLayer, recorded: dict[int, Any]) -> None:
    """Keep what the layer is called with: a tensor, or one of the graph that is being made."""
    call = layer.call

    def recording(x: Any, *arguments: Any, **named: Any) -> Any:
        recorded[id(layer)] = ops.stop_gradient(ops.convert_to_tensor(x))
        return call(x, *arguments, **named)

    layer.call = recording  # type: ignore[method-assign]
