"""A layer in a file: theta as safetensors, and how the layer is made as metadata.

No pickle, so that a file runs nothing. A layer trained in one framework is loaded in another: outputs are equal to
rounding.
"""

from __future__ import annotations

import importlib
import json
import math
import os
from typing import Any

import numpy as np

from ..circuit.checks import MAX_SLOTS, parsed, shown
from ..errors import BackendUnavailableError, FileError, QstoreError, SpecError
from ..layers import numpy as numpy_layers
from ..layers.definition import LayerDefinition
from ..runtime.route import FRAMEWORKS

__all__ = ["as_array", "load", "save"]

_FORMAT = "1"
_KEYS = ("qstore_format", "kind", "config", "fingerprint")


def save(path: str | os.PathLike[str], layer: Any, *, theta: Any = None) -> None:
    """Write a layer to a safetensors file.

    Args:
        path: Where; by custom with the suffix ".safetensors".
        layer: A layer of any framework.
        theta: (W,); for a JAX layer, which holds none.

    Raises:
        SpecError: an argument of the layer is an object that no file can hold.
        FileError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> layer = numpy_layers.QuantumReadout(3, n_classes=2, seed=0)
        >>> path = os.path.join(tempfile.mkdtemp(), "readout.safetensors")
        >>> save(path, layer)
        >>> bool((load(path).theta == layer.theta).all())
        True
    """
    if not isinstance(layer, LayerDefinition):
        raise FileError(
            f"expected a quantum layer, received {type(layer).__name__}. Models are saved by their framework."
        )
    path, config = _path(path), layer.config()
    values = as_array(getattr(layer, "theta", None) if theta is None else theta)
    if values.shape != (layer.spec.n_weights,):
        raise FileError(
            f"theta has shape ({layer.spec.n_weights},), received {values.shape}. A JAX layer holds no weights: "
            "save(path, layer, theta=theta)."
        )
    metadata = {
        "qstore_format": _FORMAT,
        "kind": layer.spec.kind,
        "config": json.dumps(config),
        "fingerprint": layer.spec.fingerprint,
    }
    library = _safetensors()
    try:
        library.save_file({"theta": np.ascontiguousarray(values)}, path, metadata=metadata)
    except (OSError, library.SafetensorError) as error:
        raise FileError(f"{path!r} cannot be written: {error}.") from error


def _path(path: Any) -> str:
    try:
        return os.fsdecode(path)
    except TypeError as error:
        raise FileError(f"expected the path of a file, received {shown(path)}.") from error


def load(path: str | os.PathLike[str], framework: str | None = None) -> Any:
    """Read a layer that `save` wrote.

    Args:
        path: The file.
        framework: "torch", "tensorflow" or "jax"; None: a layer on NumPy arrays.

    Returns:
        The layer with its weights; for JAX `(layer, theta)`.

    Raises:
        FileError: no such file, or it is damaged, newer than this version of qstore, or not one of `save`.
        SpecError: it names a backend that is not allowed; see `qstore_core.allow_backends`.
    """
    name, module = _path(path), _layers_of(framework)
    library = _safetensors()
    try:
        with library.safe_open(path, "numpy") as file:
            metadata, keys = file.metadata() or {}, list(file.keys())
            small = keys == ["theta"] and math.prod(file.get_slice("theta").get_shape()) <= MAX_SLOTS
            theta = file.get_tensor("theta") if small else None
    except OSError as error:
        raise FileError(f"{name!r} cannot be read: {error.strerror or error}.") from error
    except library.SafetensorError as error:
        raise FileError(f"{name!r} is damaged, or not a safetensors file: {error}.") from error
    if keys == ["theta"] and theta is None:
        raise FileError(f"{name!r} holds more weights than the {MAX_SLOTS} that a circuit has at most.")
    if theta is None or not all(isinstance(metadata.get(key), str) for key in _KEYS):
        raise FileError(f"{name!r} is a safetensors file, but not of a qstore layer: it holds {', '.join(keys[:5])}.")
    if metadata["qstore_format"] != _FORMAT:
        raise FileError(
            f"{name!r} has format {metadata['qstore_format']!r}, this version of qstore reads {_FORMAT!r}. "
            "Upgrade qstore to read it."
        )
    kind = getattr(module, metadata["kind"], None) if metadata["kind"] in numpy_layers.__all__ else None
    if not isinstance(kind, type) or not issubclass(kind, LayerDefinition):
        raise FileError(f"{name!r} holds a layer of kind {metadata['kind']!r}, which this version of qstore has not.")
    try:
        config = parsed(metadata["config"], "the configuration of a layer")
    except SpecError as error:
        raise FileError(f"{name!r} is damaged: {error}") from error
    try:
        layer = kind.from_config(config)
    except QstoreError as error:
        error.add_note(f"in {name!r}")
        raise
    if layer.spec.fingerprint != metadata["fingerprint"] or theta.shape != (layer.spec.n_weights,):
        raise FileError(
            f"{name!r} holds weights {theta.shape} of another circuit than its configuration describes: it was "
            "changed, or an encoding, ansatz or gate is registered differently here."
        )
    if theta.dtype.kind != "f" or not np.isfinite(theta).all():
        raise FileError(f"{name!r} holds weights that are not finite floating-point numbers.")
    if framework == "jax":
        return layer, theta
    layer._put_theta(theta)
    return layer


def _layers_of(framework: str | None) -> Any:
    if framework is None:
        return numpy_layers
    if not isinstance(framework, str) or framework not in FRAMEWORKS:
        raise FileError(f"framework is None or one of {', '.join(FRAMEWORKS)}, received {shown(framework)}.")
    return importlib.import_module(FRAMEWORKS[framework].ops.partition(".")[0])


def as_array(theta: Any) -> np.ndarray:
    """Weights of any framework as an array."""
    for method in ("detach", "cpu", "numpy"):
        theta = getattr(theta, method)() if hasattr(theta, method) else theta
    return np.asarray(theta)


class _Safetensors:
    """The three names that are used here."""

    def __init__(self) -> None:
        from safetensors import SafetensorError, safe_open
        from safetensors.numpy import save_file

        self.SafetensorError, self.safe_open, self.save_file = SafetensorError, safe_open, save_file


def _safetensors() -> _Safetensors:
    try:
        return _Safetensors()
    except ImportError as error:
        raise BackendUnavailableError(
            'files of layers need safetensors. Install it with: pip install "qstore[files]"', name="safetensors"
        ) from error
