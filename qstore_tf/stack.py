"""What called a layer, where nothing but the call stack tells."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType

__all__ = ["exporter", "in_a_loop_of_keras", "is_below"]

# Modules that write files, and the runtime they are for where it has neither complex numbers nor eigenvalues.
_EXPORTERS = {
    "keras.src.export.onnx": "ONNX",
    "tf2onnx.": "ONNX",
    "keras.src.export.litert": "LiteRT",
    "tensorflow.lite.python.lite": "LiteRT",
    "keras.src.export.openvino": "OpenVINO",
    "keras.src.export.torch": "",
    "keras.src.backend.torch.export": "",
    "keras.src.backend.jax.export": "",
}


def _frames() -> Iterator[FrameType]:
    """Callers, the nearest first."""
    frame = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back  # type: ignore[assignment]


def _modules() -> Iterator[str]:
    for frame in _frames():
        yield frame.f_globals.get("__name__", "")


def is_below(module: object, function: str) -> bool:
    """True where `function` of `module` is on the call stack."""
    scope = vars(module)
    return any(frame.f_code.co_name == function and frame.f_globals is scope for frame in _frames())


def in_a_loop_of_keras() -> bool:
    """Whether the call comes from `fit`, `evaluate`, `predict` or one of their steps."""
    return any(name.startswith("keras.src.backend.") and name.endswith(".trainer") for name in _modules())


def exporter() -> str | None:
    """The runtime that the graph being made is written for, "" for one that has complex numbers; None: for none."""
    found = {runtime for name in _modules() for module, runtime in _EXPORTERS.items() if name.startswith(module)}
    return max(found, default=None)
