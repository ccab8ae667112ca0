"""Signatures and documentation of layer classes, from what is written once.

A class writes its arguments in `__init__`, and in its docstring `{arguments}` where their list belongs; what an
argument means stands in `ARGUMENTS`. A framework's base adds its own (`_framework_arguments`), in place of
`**framework`.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import SpecError, nearest

__all__ = ["ARGUMENTS", "ClassSignature", "check_framework_arguments", "document", "signature_of"]

ARGUMENTS: dict[str, str] = {
    "n_qubits": "Number of qubits.",
    "depth": "Levels of the ansatz.",
    "encoding": '"amplitude" (F ≤ 2**n_qubits), "angle", "basis", "iqp", "zz" (F = n_qubits), a name of '
    "`register_encoding`, or an object.",
    "ansatz": '"hardware_efficient", "strongly_entangling", "real_amplitudes", a name of `register_ansatz`, or an '
    "object.",
    "entanglement": '"linear", "circular", "full" (where None), "none", or (control, target) pairs; only with an '
    "ansatz that is given by name and has one.",
    "measurement_bases": '"Z", or a sequence such as ("Z", "X", "Y"); all bases are read from one state.',
    "reuploading": "Encode again before every level (not with amplitude encoding).",
    "n_features": "Features per sample, checked from now on; None for what the encoding takes. Amplitude encoding pads "
    "fewer features with zeros, and warns once where they fill less than half of the amplitudes and n_features does "
    "not say so.",
    "backend": '"auto", a name, or a `Backend`.',
    "shots": "Samples per circuit; None for exact values.",
    "gradient": '"auto" (exact: the backend\'s own, else parameter-shift), "adjoint", "parameter-shift"; or an '
    'approximation from two sets of circuits that differ a little: "finite-difference" (two circuits per weight and '
    'feature), "spsa" (two circuits in all, along seeded random directions: right on average only).',
    "fallback": 'What computes when the backend fails: "auto" (QSTORE_FALLBACK where it is set; else the local exact '
    "simulator where it computes the same; nothing where the backend is one of ours), None (raise), or names.",
    "init": '"small_normal", "normal", "uniform", "zeros", "identity_blocks" (with the ansatz of that name), a name of '
    "`register_init`, a function (generator, size) → values, the angles themselves, or the framework's initialiser.",
    "seed": "Of the initial theta and of sampling.",
}


class ClassSignature:
    """`__signature__` of a class and not of its instances, which have the signature of their call."""

    def __init__(self, signature: inspect.Signature) -> None:
        self.signature = signature

    def __get__(self, instance: object, owner: type | None = None) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("__signature__")
        return self.signature


def signature_of(cls: type, more: Mapping[str, tuple[Any, str]]) -> inspect.Signature:
    """The signature of a layer class, with `more` arguments `name → (default, meaning)` in place of `**framework`."""
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]
    if more and parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:
        named = {p.name for p in parameters}
        only = inspect.Parameter.KEYWORD_ONLY
        parameters[-1:] = [
            inspect.Parameter(name, only, default=default) for name, (default, _) in more.items() if name not in named
        ]
    return inspect.Signature(parameters)


def document(text: str, own: Mapping[str, str], more: Mapping[str, tuple[Any, str]], names: Iterable[str]) -> str:
    """A docstring with the list of arguments in the place of `{arguments}`.

    Args:
        text: The docstring.
        own: Meanings that differ from those of `ARGUMENTS`.
        more: Arguments of the framework.
        names: Of all arguments, in the order of the signature.
    """
    meanings = ARGUMENTS | {name: meaning for name, (_, meaning) in more.items()} | dict(own)
    lines = ["Args:"]
    for name in names:
        if name in meanings:
            entry = textwrap.wrap(f"{name}: {meanings[name]}", 120 - 8, subsequent_indent="    ")
            lines += [f"        {line}" for line in entry]
    return text.replace("{arguments}", "\n".join(lines))


def check_framework_arguments(
    cls: type, given: Mapping[str, Any], known: Iterable[str], make: Callable[..., Any]
) -> None:
    """Raise `SpecError` for arguments that neither the layer nor its framework has.

    Args:
        cls: The layer's class.
        given: What came as `**framework`.
        known: Names that the framework's base takes.
        make: The function whose arguments the layer has.
    """
    allowed = set(known)
    for name in given:
        if name not in allowed:
            choices = [p for p in inspect.signature(make).parameters if p not in ("self", "framework")] + sorted(
                allowed
            )
            raise SpecError(
                f"{cls.__name__} has no argument {name!r}. It takes {', '.join(choices)}.{nearest(name, choices)}",
                argument=name,
            )
