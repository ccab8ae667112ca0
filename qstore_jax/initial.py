"""JAX's initialisers (`jax.nn.initializers`) as the init of a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from qstore_core.circuit.spec.initial import Init, check_init

__all__ = ["JaxInit", "as_init"]


@dataclass(frozen=True)
class JaxInit:
    """A function `(key, shape) → values`, with a key that the layer's generator draws."""

    function: Any

    def __call__(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Angles (size,) by a generator of NumPy's."""
        return np.asarray(self.function(jax.random.key(int(rng.integers(2**31))), (size,)))


def as_init(init: Any) -> Init:
    """`jax.nn.initializers.normal(0.1)`, or what every layer takes.

    What comes from `jax.nn.initializers` has no name, so that a layer with it is saved only where it was registered
    with `register_init`.
    """
    if isinstance(init, JaxInit):
        return init
    if getattr(init, "__module__", "").startswith("jax.") and callable(init):
        return JaxInit(init)
    return check_init(init)
