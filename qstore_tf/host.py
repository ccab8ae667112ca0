"""The host function: a layer's backend on NumPy arrays, differentiable by TensorFlow."""

from __future__ import annotations

import copy
import itertools
import secrets
import weakref
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

from qstore_core import CapabilityError, GradientError
from qstore_core.runtime.graph_values import forward_or_nan, value_and_vjp_or_nan
from qstore_core.runtime.program import LayerProgram

from .situation import adds_tangents, has_tangents, is_recorded, records, vectorises
from .tensor import refuse_gradient

__all__ = ["HostFunction"]


class HostFunction:
    """A layer on `theta` (W,), `x` (B, F) → (B, O), computed by its backend.

    Its gradient is the core's vjp, from what the forward pass has computed. Second derivatives and tangents go through
    the layer's engine in TensorFlow operations, where it has one.

    Args:
        program: The layer.
    """

    def __init__(self, program: LayerProgram) -> None:
        self.program = program

    def __deepcopy__(self, memo: dict[int, Any]) -> HostFunction:
        """Without what was traced."""
        return HostFunction(copy.deepcopy(self.program, memo))

    def __call__(self, theta: tf.Tensor, x: tf.Tensor, *, keep: bool = True, frozen: bool = False) -> tf.Tensor:
        """Run the layer.

        Args:
            theta: Angles.
            x: Features.
            keep: In a graph, whether the forward pass keeps what a backward pass needs; without it a backward pass
                runs the circuit again.
            frozen: Whether theta is not trained. A tape records it all the same; an eager tape then runs no circuits
                for it, and its gradient is None. (In a graph circuits run only for gradients that are asked for.)
        """
        if self.program.no_gradient:
            theta, x = (refuse_gradient(t, self.program.no_gradient) for t in (theta, x))
        elif self.program.no_input_gradient:
            x = refuse_gradient(x, self.program.no_input_gradient)
        return self._eager(theta, x, frozen) if tf.executing_eagerly() else self._in_graph(theta, x, keep)

    def _eager(self, theta: tf.Tensor, x: tf.Tensor, frozen: bool) -> tf.Tensor:
        """Only what a tape or an accumulator records is differentiated."""
        program = self.program
        recorded = [is_recorded(theta), is_recorded(x)]
        if not any(recorded):
            return tf.constant(program.forward(theta.numpy(), x.numpy()), x.dtype)

        @tf.custom_gradient
        def call(theta_: tf.Tensor, x_: tf.Tensor) -> tuple[tf.Tensor, Any]:
            skipped = recorded[0] and frozen and program.method != "vjp"
            has_inputs = not program.no_input_gradient
            wanted = {"wrt_theta": recorded[0] and not skipped, "wrt_inputs": recorded[1] and has_inputs}
            y, vjp_fn = program.value_and_vjp(theta_.numpy(), x_.numpy(), **wanted)

            def vjp(theta_: tf.Tensor, x_: tf.Tensor, upstream: tf.Tensor) -> list[Any]:
                if not tf.executing_eagerly():  # `tape.jacobian` differentiates eager calls in a graph
                    return _GraphCall(program, keep=False).vjp(theta_, x_, upstream, tf.zeros(1, tf.int64))
                cotangents = tf.convert_to_tensor(upstream).numpy()
                d_theta, d_x = vjp_fn(cotangents)
                if skipped and not records():
                    return [None, tf.zeros_like(x_) if d_x is None else tf.constant(d_x, x_.dtype)]
                if skipped:  # may be differentiated once more
                    again = program.value_and_vjp(theta_.numpy(), x_.numpy(), wrt_inputs=False)[1]
                    d_theta = again(cotangents)[0]
                pair = zip((d_theta, d_x), (theta_, x_), strict=True)
                # What is None was recorded by nobody.
                return [
                    tf.zeros_like(of) if gradient is None else tf.constant(gradient, of.dtype) for gradient, of in pair
                ]

            return tf.constant(y, x_.dtype), lambda upstream: self._differentiable(vjp, theta_, x_, upstream)

        return call(theta, x)

    def _in_graph(self, theta: tf.Tensor, x: tf.Tensor, keep: bool) -> tf.Tensor:
        here = _GraphCall(self.program, keep)
        tf.identity(_only_here())

        @tf.custom_gradient
        def call(theta_: tf.Tensor, x_: tf.Tensor) -> tuple[tf.Tensor, Any]:
            y, token = here.forward(theta_, x_)

            def vjp(theta_: tf.Tensor, x_: tf.Tensor, upstream: tf.Tensor) -> list[tf.Tensor]:
                return here.vjp(theta_, x_, tf.convert_to_tensor(upstream), token)

            return y, lambda upstream: self._differentiable(vjp, theta_, x_, upstream)

        return call(theta, x)

    def _differentiable(self, vjp: Any, theta: tf.Tensor, x: tf.Tensor, upstream: tf.Tensor) -> list[tf.Tensor]:
        """The vjp as a function of its own: a second derivative is never lost, also of a constant `upstream`."""
        if tf.executing_eagerly() and not records():
            return vjp(theta, x, upstream)

        def of_vjp(theta_: tf.Tensor, x_: tf.Tensor, upstream_: tf.Tensor, more: tuple[tf.Tensor, ...]) -> Any:
            where = self.program.route(wanted="second derivatives")
            if where.where == "refused":
                raise GradientError(where.why)
            if adds_tangents():
                raise GradientError(
                    f"{self.program.name} computes on the host in this tf.function, which was traced before it met a "
                    "tf.autodiff.ForwardAccumulator: TensorFlow cannot add tangents to it. Put the accumulator inside "
                    'of the function, or use backend="tensorflow".'
                )
            return self._vjp_of_vjp(theta_, x_, upstream_, *more)

        @tf.custom_gradient
        def call(theta_: tf.Tensor, x_: tf.Tensor, upstream_: tf.Tensor) -> tuple[list[tf.Tensor], Any]:
            return vjp(theta_, x_, upstream_), lambda *more: of_vjp(theta_, x_, upstream_, more)

        return call(theta, x, upstream)

    @cached_property
    def _vjp_of_vjp(self) -> Any:
        """In TensorFlow operations. A graph of its own: inside forward mode tapes do not record."""

        def of_vjp(*tensors: tf.Tensor) -> list[tf.Tensor]:
            # Aliases: in a graph `upstream` may depend on the others, and its derivative ends here.
            theta, x, upstream, *more = map(tf.identity, tensors)
            gradients = _vjp_on_tensors(self.program, theta, x, upstream)
            return tf.gradients(gradients, [theta, x, upstream], more, unconnected_gradients="zero")

        traced = tf.function(of_vjp, autograph=False, reduce_retracing=True)
        return lambda *tensors: traced(*tensors) if tf.executing_eagerly() else of_vjp(*tensors)


def _vjp_on_tensors(program: LayerProgram, theta: tf.Tensor, x: tf.Tensor, upstream: tf.Tensor) -> list[tf.Tensor]:
    """The vjp in the operations of a graph; zeros where outputs do not depend on theta or on x."""
    y = program.on_tensors(x).apply(theta, x)
    return tf.gradients(y, [theta, x], upstream, unconnected_gradients="zero")


class _GraphCall:
    """One call of a layer in a graph: the functions that its nodes run on the host.

    A forward node hands a token to the backward nodes: what it computed is kept as long as TensorFlow keeps the token.

    Args:
        program: The layer.
        keep: Whether to keep anything.
    """

    _numbers = itertools.count(1)

    def __init__(self, program: LayerProgram, keep: bool) -> None:
        self.program, self.keep = program, keep
        self.kept: dict[int, Any] = {}
        self.mark = secrets.randbits(62)  # TensorFlow finds functions by a number that other processes use as well

    def forward(self, theta: tf.Tensor, x: tf.Tensor) -> list[tf.Tensor]:
        """Outputs and the token."""
        program = self.program

        def values(theta_: np.ndarray, x_: np.ndarray) -> list[np.ndarray]:
            return [forward_or_nan(program, theta_, x_)]

        def run(theta_: np.ndarray, x_: np.ndarray) -> list[np.ndarray]:
            y, vjp_fn = value_and_vjp_or_nan(program, theta_, x_)
            number = next(self._numbers)
            token = _token(number)
            self.kept[number] = vjp_fn, weakref.ref(token, lambda _: self.kept.pop(number, None))
            return [y, token]

        shapes = [((x.shape[0], program.spec.output_dim), x.dtype), ((1,), tf.int64)]
        draws = program.execution.draws(program.spec.measurement)
        if not self.keep:
            return [*self._node("forward", values, [theta, x], shapes[:1], draws), tf.zeros(1, tf.int64)]
        return self._node("forward", run, [theta, x], shapes, draws)

    def vjp(self, theta: tf.Tensor, x: tf.Tensor, upstream: tf.Tensor, token: tf.Tensor) -> list[tf.Tensor]:
        """Gradients of theta and x."""
        program = self.program
        tangents = has_tangents(upstream)  # TensorFlow's forward mode loses those of `tf.custom_gradient` in a graph
        if tangents or vectorises():
            where = program.route(transform=None if tangents else _PFOR, wanted="tangents" if tangents else "gradients")
            if where.where == "refused":
                raise GradientError(where.why if tangents else f"{where.why} Or give experimental_use_pfor=False.")
            return _vjp_on_tensors(program, tf.identity(theta), tf.identity(x), upstream)

        def run(*less: bool) -> Any:
            def gradients(
                theta_: np.ndarray, x_: np.ndarray, upstream_: np.ndarray, token_: np.ndarray
            ) -> list[np.ndarray]:
                kept = self.kept.get(int(token_[0]))
                vjp_fn = kept[0] if kept else value_and_vjp_or_nan(program, theta_, x_)[1]
                pair = vjp_fn(upstream_, *less)
                if less:
                    return [gradient for gradient, wanted in zip(pair, less, strict=True) if wanted]
                # Zeros that `refuse_gradient` keeps from anyone.
                return [
                    np.zeros_like(of) if gradient is None else gradient
                    for gradient, of in zip(pair, (theta_, x_), strict=True)
                ]

            return gradients

        inputs = [theta, x, upstream, token]
        results = [(theta.shape, theta.dtype), (x.shape, x.dtype)]
        if program.no_input_gradient or program.method not in ("parameter-shift", "finite-difference"):
            return self._node("vjp", run(), inputs, results)
        # Circuits of their own each: a node that nobody asks for does not run.
        by_theta = self._node("vjp_theta", run(True, False), inputs, results[:1])
        return by_theta + self._node("vjp_features", run(False, True), inputs, results[1:])

    def _node(
        self, name: str, function: Any, tensors: list[tf.Tensor], results: list[Any], stateful: bool = False
    ) -> list[tf.Tensor]:
        """`function` of arrays as a node; stateless ones are left out where nobody wants their results."""
        layer = self.program.name

        def call(mark: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
            if int(mark) != self.mark:
                raise CapabilityError(_SAVED.format(layer=layer))
            out = zip(function(*arrays), results, strict=True)
            return [np.ascontiguousarray(array, dtype.as_numpy_dtype) for array, (_, dtype) in out]

        mark = tf.constant(self.mark, tf.int64)
        dtypes = [dtype for _, dtype in results]
        out = tf.numpy_function(call, [mark, *tensors], dtypes, stateful=stateful, name=f"{layer}_{name}")
        for tensor, (shape, _) in zip(out, results, strict=True):
            tensor.set_shape(shape)  # tf.numpy_function forgets it
        return list(out)


def _token(number: int) -> np.ndarray:
    """An array (1,) that TensorFlow takes without a copy, so that it lives as long as the tensor."""
    buffer = np.empty(2 * _ALIGNMENT, np.uint8)
    offset = -buffer.ctypes.data % _ALIGNMENT
    token = buffer[offset : offset + 8].view(np.int64)
    token[0] = number
    return token


_ALIGNMENT = 64
_PFOR = "tape.jacobian(…, experimental_use_pfor=True)"


# -- refusals ----------------------------------------------------------------------------------------------------

_SAVED = (
    "this graph was traced in another process, where layer {layer!r} computed on the host, and holds no circuit. Save "
    "the tf.function, or the Keras model: then the graph on disk is in TensorFlow operations."
)


@lru_cache(maxsize=1)
def _only_here() -> tf.Tensor:
    """A resource that a graph refers to which runs on the host: TensorFlow does not save such a graph."""

    def refuse() -> None:
        raise CapabilityError(
            "this concrete function was traced by a call, so that its layers compute on the host, in this process. "
            "Save the tf.function itself, or the Keras model: it is traced anew, in TensorFlow operations."
        )

    with tf.init_scope():
        handle = tf.raw_ops.VarHandleOp(dtype=tf.bool, shape=(), shared_name="qstore_host")
    handle._parent_trackable = refuse  # asked for by `tf.saved_model.save` when it finds what it cannot save
    return handle
