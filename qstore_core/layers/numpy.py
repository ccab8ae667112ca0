"""The layers on NumPy arrays.

Example:
    >>> import numpy as np
    >>> layer = QuantumFeatureExtractor(2, depth=1, encoding="angle", init="zeros")
    >>> layer(np.array([[0.0, np.pi]])).round(6)   # ⟨Z⟩ = cos x, and the CNOT leaves parities
    array([[ 1., -1.]])
"""

from __future__ import annotations

import itertools
from typing import Any, ClassVar, Self

import numpy as np

from ..backends.forking import new_lock
from ..circuit.spec.initial import Init, initial_theta
from ..circuit.spec.layer_spec import LayerSpec
from ..engines.arrays.numpy_ops import NumpyOps
from ..engines.memory import check_ensemble
from ..errors import ShapeError
from ..runtime.profiling import timed
from ..runtime.program import Execution, LayerProgram
from . import definition
from .definition import LayerDefinition

__all__ = [
    "NumpyLayer",
    "QuantumEncoder",
    "QuantumFeatureExtractor",
    "QuantumLayer",
    "QuantumPooling",
    "QuantumReadout",
    "numbered",
]

_OPS = NumpyOps()


def _epsilon(values: np.ndarray) -> float:
    return float(np.finfo(values.dtype).eps)


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])


_numbers: dict[str, itertools.count[int]] = {}
_numbers_lock = new_lock(__name__, "_numbers_lock")


class NumpyLayer(LayerDefinition):
    """Base of the NumPy layers: callable, with `vjp` for gradients."""

    _framework_arguments: ClassVar[dict[str, tuple[Any, str]]] = {"name": (None, "Name in messages and profiles.")}

    def _define(  # type: ignore[override]
        self,
        spec: LayerSpec,
        execution: Execution,
        init: Init,
        config: dict[str, Any],
        *,
        name: str | None = None,
    ) -> None:
        self.name = name or numbered(type(self).__name__)
        self._spec, self._config, primitive = spec, config, spec.primitive
        self._postprocesses, self._sample_shape = spec.postprocesses, spec.sample_shape
        self._complex = self._output_dtype("float64") == "complex128"
        self._program = LayerProgram(primitive, execution, name=self.name)
        self._theta = initial_theta(init, spec.n_weights, execution.seed)

    @property
    def theta(self) -> np.ndarray:
        """The trainable angles, float64 (W,), radians. Assign to set them; (E, W) for an ensemble of E."""
        return self._theta

    @theta.setter
    def theta(self, value: Any) -> None:
        array = np.array(self._program.real_array(value, "a theta"), dtype=np.float64)
        expected = (self._spec.n_weights,)
        if array.shape[-1:] != expected or array.ndim > 2 or not array.size >= self._spec.n_weights:
            raise ShapeError(
                f"{self.name}: theta has shape {expected}, or (E, {expected[0]}) for an ensemble of E, at least one; "
                f"received {array.shape}.",
                expected=expected,
                received=array.shape,
            )
        self._theta = array

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return self.config()

    def __call__(self, x: Any) -> np.ndarray:
        """Features (…, F) → outputs (…, O), of an ensemble (E, …, O)."""
        if self._theta.ndim == 1 and not self._postprocesses:
            return self._program.forward(self._theta, x)
        if self._theta.ndim == 2:
            check_ensemble(len(self._theta), np.shape(x), self.output_dim, self._theta.itemsize)
            return np.stack([self._values(member, x) for member in self._theta])
        return self._values(self._theta, x)

    def _values(self, theta: np.ndarray, x: Any) -> np.ndarray:
        values = self._program.forward(theta, x)
        if not self._postprocesses:
            return values
        with timed(self.name, "forward", "measure"):
            out = self._postprocessed(_OPS, _rows(values), _epsilon(values))
        return out.reshape(*values.shape[:-1], *self._sample_shape)

    async def call_async(self, x: Any) -> np.ndarray:
        """The same without blocking the running event loop."""
        from ..backends import runner  # imports asyncio

        return await runner.to_thread(self, np.array(x))

    def vjp(self, x: Any, cotangents: Any) -> tuple[np.ndarray, np.ndarray]:
        """Pull output cotangents back to weights and inputs.

        Args:
            x: Features (…, F).
            cotangents: dL/d(output), (…, O); of complex outputs dL/dRe + i dL/dIm.

        Returns:
            `(d_theta (W,), d_inputs like x)`. Of an ensemble cotangents are (E, …, O) and `d_theta` (E, W).

        Example:
            >>> layer = QuantumFeatureExtractor(1, depth=1, encoding="angle", init="zeros")
            >>> layer.vjp(np.array([[0.3]]), np.array([[1.0]]))[1].round(4)   # d cos(x) = -sin(0.3)
            array([[-0.2955]])
        """
        if self._theta.ndim == 1:
            return self._vjp(self._theta, x, cotangents)
        cotangents = self._cotangents(cotangents)
        if not cotangents.ndim or len(cotangents) != len(self._theta):
            raise ShapeError(
                f"{self.name}: cotangents of an ensemble of {len(self._theta)} are (E, …, O), received "
                f"{np.shape(cotangents)}.",
                received=np.shape(cotangents),
            )
        pairs = [self._vjp(member, x, own) for member, own in zip(self._theta, cotangents, strict=True)]
        return np.stack([pair[0] for pair in pairs]), np.sum([pair[1] for pair in pairs], axis=0)

    def _cotangents(self, cotangents: Any) -> np.ndarray:
        """An array of numbers, which are complex only where outputs are."""
        if self._complex and (array := np.asarray(cotangents)).dtype.kind == "c":
            return array
        return self._program.real_array(cotangents, "cotangents")

    def _vjp(self, theta: np.ndarray, x: Any, cotangents: Any) -> tuple[np.ndarray, np.ndarray]:
        values, vjp_fn = self._program.value_and_vjp(theta, x)
        cotangents = self._cotangents(cotangents)
        shape = (*values.shape[:-1], *self._sample_shape) if self._postprocesses else values.shape
        if cotangents.shape != shape:
            raise ShapeError(
                f"{self.name}: cotangents have the outputs' shape {shape}, received {cotangents.shape}.",
                expected=shape,
                received=cotangents.shape,
            )
        if self._postprocesses:
            measured, resolution = self._spec.measurement, self._resolution(_epsilon(values))
            assert measured is not None
            dtype = measured.output_dtype(values.dtype.name)
            cotangents = cotangents.reshape(-1, *self._sample_shape).astype(dtype)
            cotangents = measured.postprocess_vjp(_rows(values), cotangents, resolution).reshape(values.shape)
        d_theta, d_x = vjp_fn(cotangents)
        assert d_theta is not None
        assert d_x is not None
        return d_theta, d_x

    def _framework_config(self) -> dict[str, Any]:
        return {"name": self.name}

    def _put_theta(self, theta: np.ndarray) -> None:
        self.theta = theta

    def _take_theta(self, other: Self) -> None:
        self.theta = other.theta

    def __repr__(self) -> str:
        return f"<{self.name}: {self.spec.n_qubits} qubits, {self.spec.n_weights} weights, backend {self.backend_name}>"


def numbered(class_name: str) -> str:
    """Name a layer that was given none: "QuantumReadout", then "QuantumReadout_1" and so on."""
    with _numbers_lock:
        number = next(_numbers.setdefault(class_name, itertools.count()))
    return class_name if number == 0 else f"{class_name}_{number}"


class QuantumEncoder(definition.QuantumEncoder, NumpyLayer):
    __doc__ = definition.QuantumEncoder.__doc__


class QuantumFeatureExtractor(definition.QuantumFeatureExtractor, NumpyLayer):
    __doc__ = definition.QuantumFeatureExtractor.__doc__


class QuantumPooling(definition.QuantumPooling, NumpyLayer):
    __doc__ = definition.QuantumPooling.__doc__


class QuantumReadout(definition.QuantumReadout, NumpyLayer):
    __doc__ = definition.QuantumReadout.__doc__


class QuantumLayer(definition.QuantumLayer, NumpyLayer):
    __doc__ = definition.QuantumLayer.__doc__
