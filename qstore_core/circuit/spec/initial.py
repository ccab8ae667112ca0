"""Initial values of `theta`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from ...errors import SpecError, nearest
from ..checks import MAX_SLOTS, check_finite_number, check_items, read_fields, shown

__all__ = ["Init", "check_init", "init_to_config", "initial_theta", "register_init", "unregister_init"]

Init: TypeAlias = str | tuple[float, ...] | Callable[["np.random.Generator", int], Any]

_BY_NAME: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "small_normal": lambda rng, size: rng.normal(0.0, 0.1, size),
    "normal": lambda rng, size: rng.normal(0.0, 1.0, size),
    "uniform": lambda rng, size: rng.uniform(0.0, 2 * math.pi, size),
    "zeros": lambda rng, size: np.zeros(size),
    "identity_blocks": lambda rng, size: np.repeat(rng.uniform(0.0, 2 * math.pi, (size + 1) // 2), 2)[:size],
}
_OWN = frozenset(_BY_NAME)


def register_init(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: an init function of yours, by its name from now on, also in saved layers.

    Example:
        >>> @register_init("example_ones")
        ... def ones(rng, size):
        ...     return np.ones(size)
        >>> initial_theta("example_ones", 2)
        array([1., 1.])
        >>> unregister_init("example_ones")
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w.-]*", name):
        raise SpecError(f"the name of an init has letters, digits, '_', '-' and '.'; received {shown(name)}.")

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        if not callable(function):
            raise SpecError(f"register_init takes a function (generator, size) → values, received {shown(function)}.")
        taken = _BY_NAME.get(name)
        if taken is not None and (name in _OWN or _origin(taken) != _origin(function)):
            raise SpecError(f"an init named {name!r} exists already. Choose another name.")
        _BY_NAME[name] = function
        return function

    return add


def unregister_init(name: str) -> None:
    """Remove what `register_init` added."""
    if name not in _BY_NAME or name in _OWN:
        raise SpecError(f"no init {shown(name)} was registered in this process.")
    del _BY_NAME[name]


def check_init(init: Any) -> Init:
    """An init by name, as a function, as the angles themselves, or in its saved form.

    Raises:
        SpecError: no such name, or angles that are not finite.
    """
    module = None
    if hasattr(init, "__array__") and not isinstance(init, np.ndarray | type):  # a tensor or variable
        init = np.asarray(init.detach().cpu().double() if hasattr(init, "detach") else init)
    if isinstance(init, tuple | list | np.ndarray):
        angles = check_items(init, "init", MAX_SLOTS, "init")
        if all(isinstance(angle, Real) for angle in angles):
            return tuple(check_finite_number(angle, "an initial angle") for angle in angles)
    if isinstance(init, Mapping):
        fields = read_fields(init, "an init", ["name"], {"module": None})
        init, module = fields["name"], fields["module"]
    if (callable(init) and not isinstance(init, type)) or (isinstance(init, str) and init in _BY_NAME):
        return init
    hint = nearest(init, _BY_NAME) if isinstance(init, str) and len(init) <= 80 else ""
    if isinstance(module, str):
        hint = f" It was registered by module {shown(module)}: import that first."
    raise SpecError(
        f"no init {shown(init)}. Known: {', '.join(_BY_NAME)}, a function (generator, size) → values, or the angles."
        f"{hint}",
        argument="init",
    )


def init_to_config(init: Init) -> Any:
    """The form of an init that files hold; `check_init` takes it back.

    Raises:
        SpecError: a function that is not registered.
    """
    if isinstance(init, tuple):
        return list(init)
    name = init if isinstance(init, str) else next((n for n, function in _BY_NAME.items() if function is init), None)
    if name is None:
        raise SpecError(
            f"init={shown(init)} is an object and cannot be saved. Register it, with "
            '@qstore_core.register_init("name"), in a module that is imported before anything is loaded.',
            argument="init",
        )
    return name if name in _OWN else {"name": name, "module": _origin(_BY_NAME[name])[0]}


def _origin(function: Callable[..., Any]) -> tuple[str, str]:
    return getattr(function, "__module__", ""), getattr(function, "__qualname__", repr(function))


def initial_theta(init: Init, size: int, seed: int | None = None) -> np.ndarray:
    """Initial angles in radians, float64 (size,).

    "small_normal" (σ = 0.1) starts near the identity, where gradients of deep circuits do not vanish; "normal" has
    σ = 1, "uniform" covers [0, 2π). "identity_blocks" draws pairs of equal angles: with the ansatz of that name every
    level is the identity.

    Example:
        >>> initial_theta("zeros", 2)
        array([0., 0.])

    Source:
        Zhang et al., arXiv:2203.09376 (Gaussian initialisation); Grant et al., arXiv:1903.05076 (identity blocks).
    """
    init = check_init(init)
    make = _BY_NAME[init] if isinstance(init, str) else init
    values = make(np.random.default_rng(seed), size) if callable(make) else make
    try:
        theta = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SpecError(f"init must return {size} finite values, received {shown(values)}.", argument="init") from error
    if theta.shape != (size,) or not np.isfinite(theta).all():
        raise SpecError(f"init must return {size} finite values, received shape {theta.shape}.", argument="init")
    return theta
