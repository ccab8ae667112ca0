"""The short way through a layer: small batches on an engine of ours, past all that a small circuit would notice.

What is out of the ordinary (other dtypes and shapes, values that are not finite, another backend) is not treated here:
`Direct` answers None, and the long way (`program`) computes or raises.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, time
from typing import Any

import numpy as np

from ..circuit.spec import LayerSpec
from .cache import cache_generation
from .profiling import note
from .record import Brief, Runs

__all__ = ["Direct"]

_MOST_AMPLITUDES = 1 << 22  # of a batch: its memory need not be checked
_MOST_SHAPES = 64
_NAMES = {np.dtype("float32"): "float32", np.dtype("float64"): "float64"}

Pullback = Callable[[np.ndarray], tuple[np.ndarray, "np.ndarray | None"]]


class Direct:
    """One layer on an engine that normalises features and looks for NaN itself (`numba`), with adjoint gradients.

    Args:
        spec: What is computed; features are amplitudes, or angles that the circuit takes as they are.
        layer: Name of the layer, for profiles.
        backend: Name of the engine, for records.
        seed: Of the layer, for records.
        runs: Where records go.
        executable: The compiled circuit for "float32" or "float64".
    """

    def __init__(
        self, spec: LayerSpec, layer: str, backend: str, seed: int | None, runs: Runs, executable: Callable[[str], Any]
    ) -> None:
        """Compile nothing yet."""
        self._layer, self._backend, self._seed, self.runs = layer, backend, seed, runs
        self._executable, self._kept = executable, {}  # type: ignore[var-annotated]
        self._raw = spec.encoding.is_amplitude
        self._n_weights = spec.circuit.n_weights
        self._least = 1 if self._raw else spec.circuit.n_inputs
        self._most = 1 << spec.n_qubits if self._raw else spec.circuit.n_inputs
        self._rows = _MOST_AMPLITUDES >> spec.n_qubits

    def _engine(self, theta: Any, x: Any) -> Any:
        """The compiled circuit; None where the arrays are not what this way is for."""
        if type(x) is not np.ndarray or type(theta) is not np.ndarray:
            return None
        key = x.dtype, x.shape, theta.shape
        kept = self._kept.get(key)
        if kept is None or kept[0] != cache_generation():  # the circuit cache was cleared: compile anew
            kept = self._keep(*key)
        return kept[1] if x.flags.c_contiguous else None

    def _keep(self, dtype: np.dtype, shape: tuple[int, ...], weights: tuple[int, ...]) -> tuple[int, Any]:
        """Look once at arrays of these shapes."""
        generation, engine = cache_generation(), None
        if len(shape) == 2 and dtype in _NAMES and weights == (self._n_weights,):
            rows, features = shape
            if 0 < rows <= self._rows and self._least <= features <= self._most:
                engine = self._executable(_NAMES[dtype])
        if len(self._kept) >= _MOST_SHAPES:
            self._kept = {}
        kept = self._kept[dtype, shape, weights] = generation, engine
        return kept

    def forward(self, theta: Any, x: Any) -> np.ndarray | None:
        """Features (B, F) → outputs (B, O)."""
        engine = self._engine(theta, x)
        if engine is None:
            return None
        start, begin = time(), perf_counter()
        if theta.dtype != x.dtype:
            theta = theta.astype(x.dtype)
        outputs: np.ndarray
        outputs, finite = engine.forward_checked(theta, x, x.shape[1] if self._raw else 0)
        if not finite:
            return None
        self.runs.trail = Brief(self._backend, self._seed, start, seconds := perf_counter() - begin)
        note(self._layer, "forward", seconds)
        return outputs

    def value_and_vjp(self, theta: Any, x: Any) -> tuple[np.ndarray, Pullback] | None:
        """Outputs, and the function that pulls cotangents (B, O) back."""
        engine = self._engine(theta, x)
        if engine is None:
            return None
        start, begin = time(), perf_counter()
        if theta.dtype != x.dtype:
            theta = theta.astype(x.dtype)
        outputs, pull, finite = engine.value_and_vjp_checked(theta, x, x.shape[1] if self._raw else 0)
        if not finite:
            return None
        trail = self.runs.trail = Brief(self._backend, self._seed, start, seconds := perf_counter() - begin)
        note(self._layer, "forward", seconds)

        def pullback(cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
            start, begin = time(), perf_counter()
            gradients: tuple[np.ndarray, np.ndarray | None] = pull(cotangents)
            trail.backward = Brief(self._backend, self._seed, start, seconds := perf_counter() - begin, "vjp")
            self.runs.trail = trail
            note(self._layer, "backward", seconds)
            return gradients

        return outputs, pullback
