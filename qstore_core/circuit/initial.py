"""Initial values of `theta`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ..errors import SpecError, nearest

__all__ = ["Init", "check_init", "initial_theta"]

Init: TypeAlias = str | Callable[[np.random.Generator, int], Any]

_BY_NAME: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "small_normal": lambda rng, size: rng.normal(0.0, 0.1, size),
    "normal": lambda rng, size: rng.normal(0.0, 1.0, size),
    "uniform": lambda rng, size: rng.uniform(0.0, 2 * math.pi, size),
    "zeros": lambda rng, size: np.zeros(size),
}


def check_init(init: Init) -> Init:
    """Raise `SpecError` for an unknown name."""
    if callable(init) or (isinstance(init, str) and init in _BY_NAME):
        return init
    raise SpecError(
        f"no init {init!r}. Known: {', '.join(_BY_NAME)}, or a function (generator, size) → values."
        f"{nearest(str(init), _BY_NAME)}",
        argument="init",
    )


def initial_theta(init: Init, size: int, seed: int | None = None) -> np.ndarray:
    """Initial angles in radians, float64 (size,).

    "small_normal" (σ = 0.1) starts near the identity, where gradients of deep circuits do not vanish; "normal" has
    σ = 1, "uniform" covers [0, 2π).

    Example:
        >>> initial_theta("zeros", 2)
        array([0., 0.])

    Source:
        Zhang et al., arXiv:2203.09376 (Gaussian initialisation).
    """
    check_init(init)
    make = _BY_NAME[init] if isinstance(init, str) else init
    theta = np.array(make(np.random.default_rng(seed), size), dtype=np.float64)
    if theta.shape != (size,) or not np.isfinite(theta).all():
        raise SpecError(f"init must return {size} finite values, received shape {theta.shape}.", argument="init")
    return theta
