"""The host function: a layer's backend on NumPy arrays as three JAX primitives, so that every transform has a rule.

`values` calls the host; its tangents are those of the same circuit in JAX operations; their transpose, which reverse
mode asks for, calls the host again. Under vmap rows go to the host together as long as they share theta.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from qstore_core import CapabilityError, GradientError, LayerSpec
from qstore_core.runtime.graph_values import forward_or_nan, value_and_vjp_or_nan
from qstore_core.runtime.program import Execution, LayerProgram

from .tensor import tangents_on_tensors, values_on_tensors, vjp_on_tensors

__all__ = ["Content", "Wanted", "content_of", "draw_seed", "on_host", "program_of"]

# What a graph holds: equal layers are one graph. A layer that samples has a number besides: its seeds are its own.
Content = tuple[LayerSpec, Execution, int | None]
Wanted = tuple[bool, bool]  # gradients of theta, of features
_numbers = itertools.count()


def content_of(program: LayerProgram) -> Content:
    """What stands for a layer in a graph."""
    draws = program.execution.draws(program.spec.measurement)
    return program.spec, program.execution, next(_numbers) if draws else None


def draw_seed() -> int:
    """A seed from NumPy's global generator, for layers without one of their own."""
    return int(np.random.randint(2**31 - 1))  # noqa: NPY002 - JAX has no generator of its own; this is the one people seed


@lru_cache(maxsize=1024)
def program_of(content: Content) -> LayerProgram:
    """The layer that a graph's content describes."""
    spec, execution, _ = content
    name = f"{spec.kind} in a graph"
    return LayerProgram(spec, execution, name=name, framework="jax", draw_seed=draw_seed)


def on_host(content: Content, theta: jax.Array, x: jax.Array) -> jax.Array:
    """`theta` (W,), `x` (B, F) of one dtype → (B, O)."""
    out: jax.Array = _values.bind(theta, x, content=content)
    return out


# -- calls of the host ------------------------------------------------------------------------------------------------


def _values_on_host(content: Content, theta: Any, x: Any) -> np.ndarray:
    return forward_or_nan(program_of(content), np.asarray(theta), np.asarray(x))


def _vjp_on_host(content: Content, wanted: Wanted, theta: Any, x: Any, cotangents: Any) -> list[np.ndarray]:
    arrays = np.asarray(theta), np.asarray(x)
    _, vjp_fn = value_and_vjp_or_nan(program_of(content), *arrays, wrt_theta=wanted[0], wrt_inputs=wanted[1])
    # What is not there, nobody may mistake for numbers.
    return [
        np.full_like(of, np.nan) if gradient is None else np.asarray(gradient, of.dtype)
        for gradient, of in zip(vjp_fn(np.asarray(cotangents)), arrays, strict=True)
    ]


def _callback(content: Content, call: Callable[..., Any], shapes: Any, *arguments: Any) -> Any:
    """A call that a graph may repeat or drop where it always gives the same; not so where it samples."""
    call_host = jax.pure_callback if content[2] is None else io_callback
    return call_host(call, shapes, *arguments)


# -- primitives -------------------------------------------------------------------------------------------------------

_values, _tangents, _vjp = (Primitive(f"qstore_{name}") for name in ("values", "tangents", "vjp"))
_vjp.multiple_results = True


def _like(x: Any, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, x.dtype)


def _outputs(content: Content, x: Any) -> jax.ShapeDtypeStruct:
    return _like(x, x.shape[0], content[0].output_dim)


def _values_graph(theta: Any, x: Any, *, content: Content) -> Any:
    return _callback(content, partial(_values_on_host, content), _outputs(content, x), theta, x)


def _vjp_graph(theta: Any, x: Any, cotangents: Any, *, content: Content, wanted: Wanted) -> Any:
    shapes = [_like(theta, *theta.shape), _like(x, *x.shape)]
    return _callback(content, partial(_vjp_on_host, content, wanted), shapes, theta, x, cotangents)


def _on_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """A tensor function as the graph of a primitive, or the refusal where JAX operations do not compute the same."""

    def graph(*arguments: Any, content: Content, wanted: Wanted | None = None, exported: bool = False) -> Any:
        program = program_of(content)
        where = program.route(mode="file") if exported else program.route(wanted="tangents")
        if where.where == "refused":
            raise (CapabilityError if exported else GradientError)(f"{program.name}: {where.why}")
        return function(program, *arguments)

    # Compiled as a whole: an eager Hessian would compile each of its thousands of operations for itself.
    return jax.jit(graph, static_argnames=("content", "wanted", "exported"))


def _register(
    primitive: Primitive, host: Callable[..., Any], device: Callable[..., Any], abstract: Any, *options: str
) -> None:
    primitive.def_abstract_eval(abstract)
    primitive.def_impl(jax.jit(host, static_argnames=("content", *options)))
    several = primitive.multiple_results
    for_host, for_device = mlir.lower_fun(host, several), mlir.lower_fun(device, several)
    for_file = mlir.lower_fun(partial(device, exported=True), several)

    def on_cpu(context: Any, *arguments: Any, **parameters: Any) -> Any:
        exported = context.module_context.lowering_parameters.for_export
        return (for_file if exported else for_host)(context, *arguments, **parameters)

    mlir.register_lowering(primitive, on_cpu, platform="cpu")
    for platform in ("cuda", "rocm", "tpu"):
        mlir.register_lowering(primitive, for_device, platform=platform)


def _shaped(struct: jax.ShapeDtypeStruct) -> Any:
    return jax.core.ShapedArray(struct.shape, struct.dtype)


_tangents_graph = _on_device(tangents_on_tensors)
_register(
    _values,
    _values_graph,
    _on_device(values_on_tensors),
    lambda theta, x, *, content: _shaped(_outputs(content, x)),
)
_register(
    _tangents,
    _tangents_graph,
    _tangents_graph,
    lambda theta, x, d_theta, d_x, *, content: _shaped(_outputs(content, x)),
)
_register(
    _vjp,
    _vjp_graph,
    _on_device(vjp_on_tensors),
    lambda theta, x, cotangents, *, content, wanted: (_shaped(theta), _shaped(x)),
    "wanted",
)

# -- derivatives ------------------------------------------------------------------------------------------------------


def _instantiate(tangent: Any, primal: Any) -> Any:
    return jnp.zeros_like(primal) if type(tangent) is ad.Zero else tangent


def _values_jvp(primals: Sequence[Any], tangents: Sequence[Any], *, content: Content) -> tuple[Any, Any]:
    theta, x = primals
    program = program_of(content)
    if program.no_gradient:
        raise GradientError(program.no_gradient)
    if type(tangents[1]) is not ad.Zero and program.no_input_gradient:
        raise GradientError(program.no_input_gradient)
    moved = (_instantiate(t, p) for t, p in zip(tangents, primals, strict=True))
    return _values.bind(theta, x, content=content), _tangents.bind(theta, x, *moved, content=content)


def _tangents_transpose(cotangents: Any, theta: Any, x: Any, d_theta: Any, d_x: Any, *, content: Content) -> Any:
    """Tangents are linear in d_theta and d_x: their transpose is the vjp."""
    if type(cotangents) is ad.Zero:
        return None, None, None, None
    wanted = (ad.is_undefined_primal(d_theta), ad.is_undefined_primal(d_x))  # no circuits run for the others
    pulled = _vjp.bind(theta, x, cotangents, content=content, wanted=wanted)
    return None, None, *(g if w else None for g, w in zip(pulled, wanted, strict=True))


def _jvp_by_operations(graph: Callable[..., Any]) -> Callable[..., Any]:
    """Higher derivatives are those of JAX operations."""

    def rule(primals: Sequence[Any], tangents: Sequence[Any], *, content: Content, **_: Any) -> Any:
        moved = tuple(_instantiate(t, p) for t, p in zip(tangents, primals, strict=True))
        return jax.jvp(lambda *arguments: graph(*arguments, content=content), tuple(primals), moved)

    return rule


ad.primitive_jvps[_values] = _values_jvp
ad.primitive_transposes[_tangents] = _tangents_transpose
ad.primitive_jvps[_tangents] = _jvp_by_operations(_tangents_graph)
ad.primitive_jvps[_vjp] = _jvp_by_operations(_on_device(vjp_on_tensors))

# -- vmap -------------------------------------------------------------------------------------------------------------


def _values_batched(arguments: Sequence[Any], axes: Sequence[Any], *, content: Content) -> tuple[Any, int]:
    theta, x = arguments
    if axes[0] is not None:  # several sets of weights: one call of the host for each
        return _one_by_one(lambda t, f: _values.bind(t, f, content=content), arguments, axes)
    x = jnp.moveaxis(x, axes[1], 0)
    out = _values.bind(theta, x.reshape(-1, x.shape[-1]), content=content)
    return out.reshape(*x.shape[:2], -1), 0


def _one_by_one(function: Callable[..., Any], arguments: Sequence[Any], axes: Sequence[Any]) -> tuple[Any, Any]:
    size = next(a.shape[axis] for a, axis in zip(arguments, axes, strict=True) if axis is not None)
    moved = [
        jnp.broadcast_to(a, (size, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0)
        for a, axis in zip(arguments, axes, strict=True)
    ]
    out = jax.lax.map(lambda one: function(*one), tuple(moved))
    return out, jax.tree.map(lambda _: 0, out)


def _batched_by_operations(graph: Callable[..., Any], several: bool) -> Callable[..., Any]:
    """Per-sample gradients: all at once in JAX operations, where the circuit has them; else one by one."""

    def rule(arguments: Sequence[Any], axes: Sequence[Any], *, content: Content, **options: Any) -> tuple[Any, Any]:
        if not several or program_of(content).route(transform="vmap").where == "tensor":  # or refused, by the graph
            out = jax.vmap(lambda *a: graph(*a, content=content), in_axes=tuple(axes))(*arguments)
        else:
            out, _ = _one_by_one(lambda *a: _vjp.bind(*a, content=content, **options), arguments, axes)
        return (out, (0, 0)) if several else (out, 0)

    return rule


batching.primitive_batchers[_values] = _values_batched
batching.primitive_batchers[_tangents] = _batched_by_operations(_tangents_graph, several=False)
batching.primitive_batchers[_vjp] = _batched_by_operations(_on_device(vjp_on_tensors), several=True)
