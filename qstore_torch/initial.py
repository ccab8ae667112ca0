"""PyTorch's initialisers (`torch.nn.init`) as the init of a layer."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qstore_core import SpecError
from qstore_core.circuit.checks import check_choice, read_fields
from qstore_core.circuit.spec.initial import Init, check_init

__all__ = ["as_init"]

_KNOWN = ("uniform_", "normal_", "trunc_normal_", "constant_", "ones_", "zeros_")  # what makes sense of one axis


@dataclass(frozen=True)
class _TorchInit:
    """A function of `torch.nn.init` with its arguments; it draws from a generator of its own, seeded by the layer."""

    name: str
    arguments: tuple[tuple[str, Any], ...]

    def __call__(self, rng: np.random.Generator, size: int) -> np.ndarray:
        theta = torch.empty(size, dtype=torch.float64, device="cpu")
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(int(rng.integers(2**63)))
            try:
                getattr(torch.nn.init, self.name)(theta, **dict(self.arguments))
            except (TypeError, ValueError) as error:
                raise SpecError(f"init {self.name!r} of torch.nn.init: {error}", argument="init") from error
        return theta.numpy()

    def to_config(self) -> dict[str, Any]:
        """The form that files hold."""
        return {"torch": self.name, "arguments": dict(self.arguments)}


def as_init(init: Any) -> Init:
    """`torch.nn.init.uniform_`, `functools.partial(torch.nn.init.normal_, std=0.1)`, or what every layer takes."""
    if isinstance(init, _TorchInit):
        return init
    if isinstance(init, Mapping) and "torch" in init:
        fields = read_fields(init, "an init of PyTorch", ["torch"], {"arguments": {}})
        arguments = fields["arguments"]
        if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
            raise SpecError("the arguments of an init of PyTorch are saved as a mapping.", argument="init")
        return _named(fields["torch"], arguments)
    function, given, positional = init, {}, ()
    if isinstance(init, functools.partial):
        function, given, positional = init.func, init.keywords, init.args
    if getattr(function, "__module__", None) != "torch.nn.init":
        return check_init(init)
    if positional:
        raise SpecError("init: give the arguments of functools.partial by name, as in std=0.1.", argument="init")
    return _named(function.__name__, given)


def _named(name: Any, arguments: Mapping[str, Any]) -> _TorchInit:
    check_choice(name, "init of torch.nn.init for a vector of angles", _KNOWN, "init")
    for key, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SpecError(f"init {name!r} of torch.nn.init: {key} is a number, received {value!r}.", argument="init")
    return _TorchInit(name, tuple(sorted(arguments.items())))
