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

from qstore_core import GradientError, LayerSpec, SpecError
from qstore_core.backends.allowed import check_allowed
from qstore_core.runtime.program import Execution, LayerProgram

from .engine import full_precision
from .host import to_array, to_tensor

__all__ = ["content_of", "draw_seed", "layer", "layer_vjp"]

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
    if execution.shots is not None or execution.gradient == "spsa":
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


@torch.library.custom_op("qstore::layer", mutates_args=())
def layer(content: str, width: int, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Features `x` (B, F) → outputs (B, width)."""
    program = _program(content)
    if program.route(device=x.device.type, mode="graph").where == "host":
        return to_tensor(program.forward(to_array(theta), to_array(x)), x)
    program.check_shapes(tuple(theta.shape), tuple(x.shape))
    executable = program.on_tensors(x)
    with full_precision(x):
        out, _ = program.record("forward", lambda: executable.apply(theta, x), x)
        return out.clone()  # an operator may not return its input


@layer.register_fake
def _(content: str, width: int, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return x.new_empty((x.shape[0], width))


@torch.library.custom_op("qstore::layer_vjp", mutates_args=())
def layer_vjp(
    content: str, wrt_theta: bool, wrt_inputs: bool, theta: torch.Tensor, x: torch.Tensor, gradient: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pull `gradient` (B, width) back; results that are not wanted are empty."""
    program, nothing = _program(content), x.new_empty((0,))
    if program.route(device=x.device.type, mode="graph").where == "host":
        _, vjp_fn = program.value_and_vjp(to_array(theta), to_array(x), wrt_theta=wrt_theta, wrt_inputs=wrt_inputs)
        host_theta, host_x = vjp_fn(to_array(gradient))
        d_theta = nothing if host_theta is None else to_tensor(host_theta, theta)
        return d_theta, nothing.clone() if host_x is None else to_tensor(host_x, x)
    executable = program.on_tensors(x)
    if wrt_inputs:
        executable.check_input_gradient()
    with full_precision(x):
        (d_theta, d_x), _ = program.record("backward", lambda: executable.apply_and_vjp(theta, x)[1](gradient), x)
    return d_theta.clone() if wrt_theta else nothing, d_x.clone() if wrt_inputs else nothing.clone()


@layer_vjp.register_fake
def _(
    content: str, wrt_theta: bool, wrt_inputs: bool, theta: torch.Tensor, x: torch.Tensor, gradient: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    wanted = ((theta, wrt_theta), (x, wrt_inputs))
    d_theta, d_x = (torch.empty_like(of) if is_wanted else x.new_empty((0,)) for of, is_wanted in wanted)
    return d_theta, d_x


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.content, _, theta, x = inputs
    ctx.save_for_backward(theta, x)


def _pull_back(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    theta, x = ctx.saved_tensors
    wrt_theta, wrt_inputs = ctx.needs_input_grad[2:]
    d_theta, d_x = layer_vjp(ctx.content, wrt_theta, wrt_inputs, theta, x, gradient)
    return None, None, d_theta if wrt_theta else None, d_x if wrt_inputs else None


def _refuse(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
    raise GradientError("second derivatives do not pass a compiled graph. Run the model without torch.compile.")


layer.register_autograd(_pull_back, setup_context=_keep_inputs)
layer_vjp.register_autograd(_refuse)
