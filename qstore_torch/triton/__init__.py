"""The `triton` engine: a circuit in one fused GPU kernel, forward and backward, from PyTorch's CUDA builds alone.

Module by module: `layout` orders a Plan's steps in rounds of rotations on registers, and `passes` those of many qubits
in passes over memory; `tables` writes them as integers; `device` has the kernels, compiled once per size and precision
whatever the circuit; `launch` and `wide` run them on tensors; `backend` is what layers meet.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

import torch

from qstore_core import BackendUnavailableError, hookimpl
from qstore_core.backends.contract import check_options

__all__ = ["qstore_backend", "why_not"]


def why_not() -> str:
    """Why the engine cannot run in this process, and what to do; "" where it can.

    Nothing is imported: with TensorFlow loaded first, importing Triton ends the process, since both register the same
    options with LLVM.
    """
    if "triton" not in sys.modules and "tensorflow" in sys.modules:
        return (
            "TensorFlow was imported before Triton, and the two end the process in this order. "
            'Import triton before tensorflow, or use backend="torch".'
        )
    if importlib.util.find_spec("triton") is None:
        return (
            "Triton, which comes with PyTorch's builds for CUDA, is not installed. "
            'Install such a build (https://pytorch.org), or use backend="torch".'
        )
    if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET", "0") != "1":
        return 'PyTorch finds no CUDA device. Use backend="torch", or "auto", which takes what there is.'
    return ""


@hookimpl
def qstore_backend(options: dict[str, Any]) -> Any:
    """The `triton` backend; it has no options."""
    check_options(options, backend="triton")
    if reason := why_not():
        raise BackendUnavailableError(f"backend 'triton' is not available: {reason}", backend="triton")
    from .backend import TritonBackend

    return TritonBackend()
