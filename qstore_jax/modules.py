"""The layers as modules of libraries around JAX: `as_nnx` (flax) and `as_equinox`."""

from __future__ import annotations

from typing import Any

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
    """An `equinox.Module` with the leaf `theta`, for one batch of features.

    Args:
        layer: The layer.
        key: Draws theta; None: the layer's seed.
    """
    import equinox as eqx

    class QuantumModule(eqx.Module):
        theta: Any
        layer: JaxLayer = eqx.field(static=True)

        def __call__(self, x: Any) -> Any:
            return self.layer.apply(self.theta, x)

    return QuantumModule(layer.init(key), layer)
