"""A layer as it is written on a command line: `QuantumReadout n_qubits=4 n_classes=3`, or a JSON file."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..circuit.checks import check_choice, parsed
from ..circuit.spec import layer_spec as specs
from ..circuit.spec.layer_spec import LayerSpec
from ..errors import SpecError, nearest
from ..layers.presets import PRESETS

__all__ = ["described", "value"]

_MAKERS = {
    "QuantumEncoder": specs.encoder,
    "QuantumFeatureExtractor": specs.feature_extractor,
    "QuantumPooling": specs.pooling,
    "QuantumReadout": specs.readout,
}


def described(words: Sequence[str]) -> LayerSpec:
    """The spec that words describe.

    Args:
        words: A layer's name and arguments `key=value`, of which `preset=` stands for several; or the path of a JSON
            file with `spec.to_dict()`; "-" reads it from standard input.

    Raises:
        SpecError: no such layer, argument or file.

    Example:
        >>> described(["QuantumReadout", "n_qubits=4", "n_classes=3"]).output_dim
        3
    """
    name, *arguments = words
    if name in _MAKERS:
        given = dict(value(word) for word in arguments)
        known = list(inspect.signature(_MAKERS[name]).parameters)
        if "preset" in given:
            preset = PRESETS[check_choice(given.pop("preset"), "preset", PRESETS, "preset")]
            size = {"n_qubits": preset.n_qubits} if name == "QuantumFeatureExtractor" else {}
            given = size | {key: v for key, v in preset.arguments().items() if key in known} | given
        for key in given:
            if key not in known:
                advice = f" Write --{key} NAME." if key == "backend" else nearest(key, known)
                raise SpecError(f"{name} has no argument {key!r}. Arguments: {', '.join(known)}.{advice}", argument=key)
        if "n_qubits" not in given:
            raise SpecError(f"{name} needs n_qubits=, for example: {name} n_qubits=4", argument="n_qubits")
        return _MAKERS[name](**given)
    if name == "-" or name.endswith(".json"):
        try:
            content = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        except OSError as error:
            raise SpecError(f"{name} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise SpecError(f"{name} is not JSON: it is no text in UTF-8.") from None
        return LayerSpec.from_dict(parsed(content, name))
    raise SpecError(
        f"no layer {name!r}. Write one of {', '.join(_MAKERS)} with key=value arguments, or a .json file with "
        f"spec.to_dict().{nearest(name, list(_MAKERS))}"
    )


def value(word: str) -> tuple[str, Any]:
    """One `key=value`; the value is a Python literal where it reads as one, else text.

    Example:
        >>> value("depth=3"), value("encoding=angle")
        (('depth', 3), ('encoding', 'angle'))
    """
    key, equals, content = word.partition("=")
    if not equals or not key.isidentifier():
        raise SpecError(f"expected key=value, received {word!r}.")
    try:
        return key, ast.literal_eval(content)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the latter two of what is nested too deep
        return key, content
