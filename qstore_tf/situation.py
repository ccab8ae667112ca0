"""Where a call stands: eager or in which kind of graph, and what is being recorded.

The one place that knows TensorFlow from inside.
"""

from __future__ import annotations

from functools import lru_cache

import tensorflow as tf
from tensorflow.python.eager import forwardprop_util, record
from tensorflow.python.eager.polymorphic_function import concrete_function, polymorphic_function
from tensorflow.python.ops import control_flow_util, gradients_util
from tensorflow.python.ops.parallel_for import control_flow_ops as parallel_for
from tensorflow.python.saved_model import save_context

from qstore_core.runtime.program import LayerProgram
from qstore_core.runtime.route import Route

from .stack import exporter, is_below

__all__ = ["adds_tangents", "has_tangents", "is_recorded", "is_saved", "leaves", "place", "records", "vectorises"]


def place(program: LayerProgram, *tensors: tf.Tensor) -> Route:
    """Where a call with these tensors, from here, computes.

    `tf.saved_model.save` traces every `tf.function` anew, so that a graph on disk is known when it is made. A concrete
    function that was asked for (not called) may be saved later: it is made like one on disk where that is possible.
    """
    device = "gpu" if _has_gpu() else "cpu"
    if has_tangents(*tensors):
        return program.route(device=device, wanted="tangents")
    if tf.executing_eagerly():
        return program.route(device=device)
    if control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        return program.route(mode="xla", device=device)
    if vectorises():
        return program.route(mode="graph", device=device, transform="tf.vectorized_map")
    if leaves():
        where = program.route(mode="file", device=device)
        if where.where != "refused" or is_saved() or exporter() is not None:
            return where
    return program.route(mode="graph", device=device)


def leaves() -> bool:
    """True in a graph that is written to disk, or may be: a concrete function that was asked for, not called."""
    return not tf.executing_eagerly() and (
        is_saved() or is_below(polymorphic_function, "_get_concrete_function_garbage_collected")
    )


def is_saved() -> bool:
    """True inside `tf.saved_model.save`."""
    saved: bool = save_context.in_save_context()
    return saved


def is_recorded(tensor: tf.Tensor) -> bool:
    """Whether a tape or an accumulator records what is done with it."""
    return gradients_util.PossibleTapeGradientTypes([tensor]) != 0


def has_tangents(*tensors: tf.Tensor) -> bool:
    """True in forward mode, where an accumulator has tangents of one of them."""
    return bool(forwardprop_util.pack_tangents(tensors).tangents)


def adds_tangents() -> bool:
    """True where an accumulator outside of a `tf.function` adds tangents to what was traced without."""
    return is_below(concrete_function, "_wrap_forward_function_with_jvps")


def records() -> bool:
    """True inside any tape or accumulator."""
    return record.could_possibly_record()


def vectorises() -> bool:
    """True inside a loop body that TensorFlow is about to vectorise, which it cannot do with host calls."""
    return not tf.executing_eagerly() and is_below(parallel_for, "_pfor_impl")


@lru_cache(maxsize=1)
def _has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))
