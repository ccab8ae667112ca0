"""A layer as one PyTorch operator, `qstore::layer`: what compiled, exported and traced graphs hold.

A graph holds content: the layer's spec and execution as text. The operator finds the compiled circuit by it, after the
layer is gone, and in another process that has imported `qstore_torch`.
"""

from __future__ import annotations

import itertools
import json
import weakref
from functools import lru_cache
from typing import Any

import torch

from qstore_core import CapabilityError, GradientError, LayerSpec, SpecError
from qstore_core.backends.allowed import check_allowed
from qstore_core.runtime.program import Execution, LayerProgram

from .engine import full_precision, is_batched, is_plain, surroundings
from .host import check_second, to_tensor
from .tensor import refuse_gradient, vjp_by_autograd

__all__ = ["content_of", "draw_seed", "exports_to_onnx", "in_graph", "layer", "layer_vjp", "operations"]

_objects: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def content_of(spec: LayerSpec, execution: Execution) -> str:
    """A layer as text. A backend that was given as an object has a number in this process, never used again.

    So has a layer that samples: what finds its circuit by the text must not go on with another layer's seeds.
    """

    def named(backend: Any) -> Any:
        if isinstance(backend, str) or backend is None:
            return backend
        if isinstance(backend, tuple | list):
            return [named(one) for one in backend]
        number = next((n for n, known in _objects.items() if known is backend), None)
        if number is None:
            _objects[number := next(_numbers)] = backend
        return {"object": number, "name": backend.name}

    how = {
        "backend": named(execution.backend),
        "shots": execution.shots,
        "gradient": execution.gradient,
        "fallback": named(execution.fallback),
    }
    if execution.draws(spec.measurement):
        how |= {"seed": execution.seed, "stream": next(_numbers)}
    return json.dumps([spec.portable.to_dict(), how])


@lru_cache(maxsize=1024)
def _program(content: str) -> LayerProgram:
    """The layer that a text describes."""
    spec, how = json.loads(content)
    name = f"{spec['kind']} in a graph"

    def found(backend: Any) -> Any:
        if isinstance(backend, list):
            return tuple(found(one) for one in backend)
        if not isinstance(backend, dict):
            return backend
        if (known := _objects.get(backend["object"])) is None:
            raise SpecError(
                f"{name}: its backend {backend['name']!r} was given as an object, which is gone or was in another "
                "process. Give the layer a backend by name, for example one registered with register_backend, and "
                "compile or export it again.",
                argument="backend",
            )
        return known

    fallback = how["fallback"] if isinstance(how["fallback"], list) else [how["fallback"]]
    check_allowed([how["backend"], *fallback], name)
    how.pop("stream", None)
    how |= {key: found(how[key]) for key in ("backend", "fallback")}
    return LayerProgram(LayerSpec.from_dict(spec), Execution(**how), name=name, framework="torch", draw_seed=draw_seed)


def draw_seed() -> int:
    """A seed from PyTorch's generator, for layers without one of their own."""
    return int(torch.randint(2**31, (), device="cpu"))


def in_graph(content: str, width: int, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A layer where calls are recorded: `theta` (W,), `x` (B, F) → (B, width).

    One operator stands for it, whose content is text; inside function transforms its operations, which these can take
    apart.
    """
    if torch.compiler.is_compiling() and _is_transformed():
        return operations(content, theta, x, "a function transform")
    if exports_to_onnx():
        return operations(content, theta, x)
    return torch.ops.qstore.layer(content, width, theta, x)[0]


@torch.compiler.assume_constant_result
def exports_to_onnx() -> bool:
    """True while PyTorch's exporter to ONNX traces a model."""
    return bool(torch.onnx.is_in_onnx_export())


@torch.compiler.assume_constant_result
def _is_transformed() -> bool:
    return surroundings() in ("vmap and grad", "a function transform", "tangents")


@torch._dynamo.allow_in_graph
def operations(content: str, theta: torch.Tensor, x: torch.Tensor, transform: str | None = None) -> torch.Tensor:
    """A layer in PyTorch's own operations: for graphs that leave, and for transforms, which take them apart."""
    program = _program(content)
    program.check_shapes(tuple(theta.shape), tuple(x.shape))
    where = program.route(device=x.device.type, mode="graph" if transform else "file", transform=transform)
    if where.where == "refused":
        raise (GradientError if transform else CapabilityError)(f"{program.name}: {where.why}")
    executable = program.on_tensors(x, leaves=transform is None)
    with full_precision(x):
        return executable.apply(theta, refuse_gradient(executable, x))


# Which gradients are wanted is known where autograd meets the operator: when a graph that is compiled is made, when one
# that was exported or traced runs. The operator's second result is, on the CPU, the copy of theta that the host reads,
# and empty elsewhere. What the forward pass leaves for the backward pass hangs on it, as in `tensor.keep`; where
# a graph does not keep the tensor itself, the backward pass starts anew.
_library = torch.library.Library("qstore", "FRAGMENT")
_library.define(
    "layer(str content, int width, Tensor theta, Tensor x, bool wrt_theta=False, bool wrt_x=False) -> (Tensor, Tensor)"
)
_library.define(
    "layer_vjp(str content, bool wrt_theta, bool wrt_x, Tensor theta, Tensor x, Tensor left, Tensor gradient)"
    " -> (Tensor, Tensor)"
)


def layer(
    content: str, width: int, theta: torch.Tensor, x: torch.Tensor, wrt_theta: bool = False, wrt_x: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features `x` (B, F) → outputs (B, width)."""
    left = theta.clone() if theta.is_cpu else theta.new_empty((0,))
    outputs, left.vjp_fn = _begin(content, wrt_theta, wrt_x, left if theta.is_cpu else theta, x)
    return outputs, left


def _begin(
    content: str, wrt_theta: bool, wrt_x: bool, theta: torch.Tensor, x: torch.Tensor
) -> tuple[torch.Tensor, Any]:
    """Outputs, and the function that pulls tensors back, where gradients are wanted. None of them is an input."""
    program = _program(content)
    if program.route(device=x.device.type, mode="graph").where != "host":
        return _begin_on_tensors(program, wrt_theta, wrt_x, theta, x)
    arrays = theta.numpy(force=True), x.numpy(force=True)
    if not (wrt_theta or wrt_x):
        return to_tensor(program.forward(*arrays), x), None
    values, vjp_fn = program.value_and_vjp(*arrays, wrt_theta=wrt_theta, wrt_inputs=wrt_x, copied=True)

    def vjp_of_tensors(gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        d_theta, d_x = vjp_fn(gradient.numpy(force=True))
        return (
            x.new_empty((0,)) if d_theta is None else to_tensor(d_theta, x),
            x.new_empty((0,)) if d_x is None else to_tensor(d_x, x),
        )

    return to_tensor(values, x), vjp_of_tensors


def _begin_on_tensors(
    program: LayerProgram, wrt_theta: bool, wrt_x: bool, theta: torch.Tensor, x: torch.Tensor
) -> tuple[torch.Tensor, Any]:
    program.check_shapes(tuple(theta.shape), tuple(x.shape))
    executable = program.on_tensors(x)
    if wrt_x:
        executable.check_input_gradient()
    with torch.no_grad(), full_precision(x):
        if not (wrt_theta or wrt_x):
            return program.record("forward", lambda: executable.apply(theta, x), executable.settings)[0], None
        (outputs, vjp), record = program.record(
            "forward", lambda: executable.apply_and_vjp(theta, x), executable.settings
        )

    def recorded_vjp(gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.no_grad(), full_precision(x):
            both, _ = program.record("backward", lambda: vjp(gradient), executable.settings, record)
        wanted = zip(both, (wrt_theta, wrt_x), strict=True)
        return tuple(d.clone() if is_wanted else x.new_empty((0,)) for d, is_wanted in wanted)

    return outputs, recorded_vjp


def _layer_fake(
    content: str, width: int, theta: torch.Tensor, x: torch.Tensor, wrt_theta: bool = False, wrt_x: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    return x.new_empty((x.shape[0], width)), theta.new_empty(theta.shape if theta.is_cpu else (0,))


def layer_vjp(
    content: str,
    wrt_theta: bool,
    wrt_x: bool,
    theta: torch.Tensor,
    x: torch.Tensor,
    left: torch.Tensor,
    gradient: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pull `gradient` (B, width) back; results that are not wanted are empty."""
    vjp_fn = getattr(left, "vjp_fn", None) or _begin(content, wrt_theta, wrt_x, theta, x)[1]
    both: tuple[torch.Tensor, torch.Tensor] = vjp_fn(gradient)
    return both


def _vjp_fake(
    content: str, wrt_theta: bool, wrt_x: bool, theta: torch.Tensor, x: torch.Tensor, *_: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    d_theta = torch.empty_like(theta) if wrt_theta else x.new_empty((0,))
    return d_theta, torch.empty_like(x) if wrt_x else x.new_empty((0,))


class _Layer(torch.autograd.Function):
    """The operator `layer` where its gradient is wanted."""

    @staticmethod
    def forward(
        ctx: Any, content: str, width: int, theta: torch.Tensor, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.content, wanted = content, ctx.needs_input_grad[2:]
        with torch._C._AutoDispatchBelowAutograd():
            outputs, left = torch.ops.qstore.layer(content, width, theta, x, *wanted)
        ctx.mark_non_differentiable(left)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(theta, x, left)
        return outputs, left

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor | None, _: Any) -> tuple[Any, ...]:
        """One operator again."""
        (theta, x, left), wanted = ctx.saved_tensors, ctx.needs_input_grad[2:]
        if gradient is None:
            return None, None, None, None
        if is_batched(gradient):
            return None, None, *vjp_by_autograd(_program(ctx.content), theta, x, wanted, gradient)
        both = torch.ops.qstore.layer_vjp(ctx.content, *wanted, theta, x, left, gradient)
        return None, None, *(d if w else None for d, w in zip(both, wanted, strict=True))


# Kernels for autograd. Those of `torch.library.register_autograd` dispatch again where nothing is recorded, as in
# compiled graphs, which takes longer than a small circuit. Where the vjp is to be differentiated it is in operations.


def _differentiable_layer(
    content: str, width: int, theta: torch.Tensor, x: torch.Tensor, wrt_theta: bool = False, wrt_x: bool = False
) -> Any:
    if torch.is_grad_enabled() and (theta.requires_grad or x.requires_grad):
        return _Layer.apply(content, width, theta, x)
    if _have_values(theta, x):
        return layer(content, width, theta, x, wrt_theta, wrt_x)
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.qstore.layer(content, width, theta, x, wrt_theta, wrt_x)


def _differentiable_vjp(*arguments: Any) -> Any:
    """Of what `layer_vjp` takes."""
    content, wrt_theta, wrt_x, theta, x, _, gradient = arguments
    if torch.is_grad_enabled() and (theta.requires_grad or x.requires_grad or gradient.requires_grad):
        program = _program(content)
        check_second(program)
        theta, x = (t if t.requires_grad else t.detach().requires_grad_() for t in (theta, x))
        both = vjp_by_autograd(program, theta, x, (wrt_theta, wrt_x), gradient)
        return tuple(x.new_empty((0,)) if d is None else d for d in both)
    if _have_values(x, gradient):
        return layer_vjp(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.qstore.layer_vjp(*arguments)


def _have_values(*tensors: torch.Tensor) -> bool:
    """True for tensors that are what they seem."""
    for tensor in tensors:
        kind = tensor.__class__
        if not (kind is torch.Tensor or kind is torch.nn.Parameter) or tensor.is_meta:
            return False
    return is_plain()


for _compute, _fake, _differentiable in (
    (layer, _layer_fake, _differentiable_layer),
    (layer_vjp, _vjp_fake, _differentiable_vjp),
):
    _library.impl(_compute.__name__, _compute, "CompositeExplicitAutograd")
    _library.impl(_compute.__name__, _differentiable, "Autograd")
    torch.library.register_fake(f"qstore::{_compute.__name__}", _fake, lib=_library)
