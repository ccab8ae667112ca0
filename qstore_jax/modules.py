"""The layers as modules of libraries around JAX: `as_nnx` (flax) and `as_equinox`."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax.numpy as jnp

from .layers import JaxLayer

__all__ = ["as_equinox", "as_nnx"]


def as_nnx(layer: JaxLayer, rngs: Any = None) -> Any:
    """A `flax.nnx.Module` with the parameter `theta`.

    Args:
        layer: The layer.
        rngs: `nnx.Rngs`, whose stream `params` draws theta; None: the layer's seed.
    """
    from flax import nnx

    class QuantumModule(nnx.Module):
        def __init__(self) -> None:
            self.theta = nnx.Param(layer.init(None if rngs is None else rngs.params()))
            self.layer = nnx.static(layer) if hasattr(nnx, "static") else layer

        def __call__(self, x: Any) -> Any:
            return layer.apply(self.theta[...], x)

    return QuantumModule()


def as_equinox(layer: JaxLayer, key: Any = None) -> Any:
    """An `equinox.Module` with the leaf `theta`, for one sample (F,), as equinox's own layers are, or for rows (…, F).

    Under `jax.vmap` over samples all of them are computed together.

    Args:
        layer: The layer.
        key: Draws theta; None: the layer's seed.
    """
    return _equinox(layer, layer.init(key))


def _equinox(layer: JaxLayer, theta: Any) -> Any:
    return _equinox_class()(theta, layer)


@cache
def _equinox_class() -> Any:
    import equinox as eqx

    class QuantumModule(eqx.Module):
        __qualname__ = "QuantumModule"  # what is printed
        theta: Any
        layer: JaxLayer = eqx.field(static=True)

        def __call__(self, x: Any, *, key: Any = None) -> Any:
            """`key` is what `equinox.nn.Sequential` gives to every layer; nothing is drawn from it."""
            if jnp.ndim(x) == 1:
                rows = self.layer.apply(self.theta, jnp.asarray(x)[None])
                return jnp.squeeze(rows, -1 - len(self.layer.spec.sample_shape))
            return self.layer.apply(self.theta, x)

        def __reduce__(self) -> Any:
            return _equinox, (self.layer, self.theta)

    return QuantumModule
