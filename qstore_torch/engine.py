"""The `torch` engine: interprets the Plan in PyTorch operations, on the tensors' own device, differentiable twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from qstore_core import Capabilities, Circuit, hookimpl, lower
from qstore_core.backends.contract import check_exact, check_options
from qstore_core.circuit.measurements.measurement import Measurement
from qstore_core.engines.arrays.adjoint import value_and_vjp
from qstore_core.engines.arrays.ops import Scatter, inverse_index
from qstore_core.engines.arrays.planes import PlanesOps
from qstore_core.engines.arrays.program import ArrayProgram
from qstore_core.engines.memory import check_memory

__all__ = [
    "OPS",
    "TorchBackend",
    "TorchExecutable",
    "TorchOps",
    "full_precision",
    "has_tangent",
    "is_batched",
    "is_plain",
    "is_recorded",
    "surroundings",
]

_innermost_transform = torch._C._functorch.peek_interpreter_stack
_dispatch_modes = torch._C._len_torch_dispatch_stack
_is_tracing = torch._C._is_tracing
_Transform = torch._C._functorch.TransformType
_SUBNORMAL = {torch.float32: (2.0**75, 2.0**74), torch.float64: (2.0**537, 2.0**537)}  # over the smallest number
_LARGEST_SUBNORMAL = {
    dtype: (1.0 - torch.finfo(dtype).eps) * torch.finfo(dtype).smallest_normal for dtype in _SUBNORMAL
}
_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
_NUMPY = {getattr(torch, name): name for name in ("float32", "float64", "complex64", "complex128", "int64")}


class TorchOps:
    """`qstore_core.engines.arrays.ops.Ops` for PyTorch.

    Args:
        recorded: These functions serve one graph that is being recorded: constants are kept for it.
    """

    def __init__(self, *, recorded: bool = False) -> None:
        """Start without kept constants."""
        self._kept: dict[Any, tuple[np.ndarray, torch.Tensor]] = {}
        self._recorded = recorded

    def here(self) -> TorchOps | PlanesOps:
        """Real numbers where operations are recorded: inductor and other runtimes have no complex ones."""
        return PlanesOps(TorchOps(recorded=True), double=True) if is_recorded() else self

    def holds(self, x: torch.Tensor) -> tuple[bool, bool]:
        """Whether `x` is in the host's memory, where it is computed now; and whether autograd keeps what it needs."""
        return x.is_cpu and not is_recorded(), torch.is_grad_enabled() and x.requires_grad

    def _keep(self, value: np.ndarray, device: torch.device, dtype: torch.dtype, part: str = "") -> torch.Tensor:
        if value.flags.writeable:
            return torch.as_tensor(value, dtype=dtype, device=device)
        key, plain = (id(value), device, dtype, part), self._recorded or is_plain()
        if plain and key in self._kept:
            return self._kept[key][1]
        source = inverse_index(value) if part == "inverse" else value
        with torch.inference_mode(mode=False):  # what is made in inference mode cannot take part in training later
            tensor = torch.from_numpy(source.astype(_NUMPY[dtype]))
            if device.type != "cpu":
                tensor = tensor.to(device)
        if plain:
            self._kept[key] = (value, tensor)  # `value` too, so that its id stays its own
        return tensor

    def const(self, value: np.ndarray, like: torch.Tensor) -> torch.Tensor:
        """`value` beside `like`, in its precision."""
        dtype = like.dtype
        if value.dtype.kind == "c":
            dtype = _COMPLEX.get(dtype, dtype)
        elif dtype.is_complex:
            dtype = dtype.to_real()
        return self._keep(value, like.device, dtype)

    def take(self, x: torch.Tensor, index: np.ndarray, axis: int) -> torch.Tensor:
        """Take along an axis."""
        return self._select(x, self._keep(index, x.device, torch.int64), axis)

    def _is_recorded_transform(self) -> bool:
        """Inductor writes what a vmapped `index_add` gives, also as a gradient, to one row in the place of many."""
        return self._recorded and _innermost_transform() is not None

    def _select(self, x: torch.Tensor, index: torch.Tensor, axis: int) -> torch.Tensor:
        if not self._is_recorded_transform():
            return x.index_select(axis, index)
        axis %= x.dim()
        shape = [*x.shape[:axis], len(index), *x.shape[axis + 1 :]]
        return x.gather(axis, index.view(-1, *[1] * (x.dim() - axis - 1)).expand(shape))

    def permute(self, x: torch.Tensor, index: np.ndarray) -> torch.Tensor:
        """Take along the last axis; the gradient is a take by the inverse permutation, not a scatter."""
        forward = self._keep(index, x.device, torch.int64)
        if self._recorded or not x.requires_grad or not is_plain() or forward_ad._current_level >= 0:
            return self._select(x, forward, -1)
        return _Permute.apply(x, forward, self._keep(index, x.device, torch.int64, "inverse"))

    def permute_back(self, x: torch.Tensor, index: np.ndarray) -> torch.Tensor:
        """Take by the inverse permutation."""
        return self._select(x, self._keep(index, x.device, torch.int64, "inverse"), -1)

    def scatter_last(self, x: torch.Tensor, scatter: Scatter) -> torch.Tensor:
        """Add columns of x up where `scatter` says."""
        index = self._keep(scatter.index, x.device, torch.int64)
        zeros = x.new_zeros((*x.shape[:-1], scatter.width + 1))
        if self._is_recorded_transform():
            return zeros.scatter_add(-1, index.expand(x.shape), x)[..., : scatter.width]
        return zeros.index_add(-1, index, x)[..., : scatter.width]

    def stack(self, arrays: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
        """Along a new axis."""
        return torch.stack(list(arrays), dim=axis)

    def scale(self, state: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """Complex times real."""
        return state * factor

    def concat(self, arrays: Sequence[torch.Tensor], axis: int = -1) -> torch.Tensor:
        """Along an axis."""
        return torch.cat(list(arrays), dim=axis)

    reshape = staticmethod(torch.reshape)

    def matmul(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Matrix product; one matrix on many goes to bmm, where torch.matmul would copy the many."""
        if a.dim() == 2 and b.dim() == 3:
            return torch.bmm(a.expand(b.shape[0], -1, -1), b)
        return torch.matmul(a, b)

    cos = staticmethod(torch.cos)
    sin = staticmethod(torch.sin)
    conj = staticmethod(torch.conj)
    real = staticmethod(torch.real)
    imag = staticmethod(torch.imag)
    sqrt = staticmethod(torch.sqrt)
    round = staticmethod(torch.round)

    def function(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """One of `FUNCTIONS`."""
        out: torch.Tensor = getattr(torch, name)(x)
        return out

    log = staticmethod(torch.log)
    eigvalsh = staticmethod(torch.linalg.eigvalsh)

    def maximum(self, x: torch.Tensor, least: float) -> torch.Tensor:
        """The larger of x and a number."""
        return x.clamp(min=least)

    def minimum(self, x: torch.Tensor, most: float) -> torch.Tensor:
        """The smaller of x and a number."""
        return x.clamp(max=most)

    def sum(self, x: torch.Tensor, axis: int | tuple[int, ...], keepdims: bool = False) -> torch.Tensor:
        """Sum along one axis."""
        return x.sum(dim=axis, keepdim=keepdims)

    def swap_last(self, x: torch.Tensor) -> torch.Tensor:
        """Exchange the last two axes."""
        return x.transpose(-1, -2)

    def complex(self, real: torch.Tensor, imag: torch.Tensor | None) -> torch.Tensor:
        """A complex tensor."""
        return real.to(_COMPLEX[real.dtype]) if imag is None else torch.complex(real, imag)

    def zero_column(self, x: torch.Tensor) -> torch.Tensor:
        """(rows of x, 1) of zeros."""
        return x.new_zeros((x.shape[0], 1))

    def max_abs(self, x: torch.Tensor) -> torch.Tensor:
        """Largest magnitude of each row, (rows, 1), a constant for the gradient."""
        return x.detach().abs().amax(dim=-1, keepdim=True)

    def is_below(self, x: torch.Tensor, limit: float) -> torch.Tensor:
        """1.0 where x is below."""
        return (x < limit).to(x.dtype)

    def without_subnormals(self, x: torch.Tensor) -> torch.Tensor:
        """x, and zero where its magnitude is below the smallest normal number; the derivative is that of x."""
        differentiated = x.requires_grad and torch.is_grad_enabled()
        if not (differentiated or self._recorded or surroundings() or torch.compiler.is_compiling()):
            return torch.nn.functional.hardshrink(x, _LARGEST_SUBNORMAL[x.dtype])  # but its derivative at 0 is 0
        up, down = _SUBNORMAL[x.dtype]
        # Forward mode sees through `detach`, not through `round`. Subnormal numbers are multiples of the smallest one.
        constant = torch.round(x * up * down) * (1 / up) * (1 / down)
        return x - constant.masked_fill(x.abs() >= self.smallest_normal(x), 0.0)

    def smallest_normal(self, x: torch.Tensor) -> float:
        """Of the precision of x."""
        return torch.finfo(x.dtype).smallest_normal

    def wide(self, x: torch.Tensor) -> torch.Tensor:
        """In double precision."""
        return x.double()

    excess = None  # there is double precision

    def narrow(self, x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """In the precision of `like`."""
        return x.to(like.dtype)

    def pad_last(self, x: torch.Tensor, width: int) -> torch.Tensor:
        """Zeros up to `width` columns."""
        missing = width - x.shape[-1]
        return torch.nn.functional.pad(x, (0, missing)) if missing else x


OPS = TorchOps()
_NOTHING = nullcontext()
_has_autocast = lru_cache(torch.amp.is_autocast_available)


def is_plain() -> bool:
    """True where tensors are what they seem: outside function transforms, fake tensors and other dispatch modes."""
    return _innermost_transform() is None and not _dispatch_modes()


def is_recorded() -> bool:
    """True where operations may be recorded: by `make_fx`, `torch.jit.trace`, fake tensors, selective checkpointing."""
    return bool(_dispatch_modes()) or _is_tracing()


def surroundings() -> str:
    """What is around a call that a layer has to know of; "" in plain eager mode.

    "vmap and grad" (`torch.func`, one gradient at most), "a function transform" (any other, or one that is recorded:
    values that the host reads there would be constants of the graph), "tangents" (forward mode), or "tracing" (fake
    tensors, `make_fx`, `torch.jit.trace`, selective checkpointing: what is called may be recorded).
    """
    recorded = bool(_dispatch_modes()) or _is_tracing()  # as `is_recorded`: this is asked in every call
    if _innermost_transform() is not None:
        kinds = [level.key() for level in torch._C._functorch.get_interpreter_stack() or ()]
        few = kinds.count(_Transform.Grad) <= 1 and set(kinds) <= {_Transform.Grad, _Transform.Vmap}
        return "vmap and grad" if few and not recorded and forward_ad._current_level < 0 else "a function transform"
    if forward_ad._current_level >= 0:
        return "tangents"
    return "tracing" if recorded else ""


def has_tangent(*tensors: torch.Tensor) -> bool:
    """True where forward mode is carried by one of them."""
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def is_batched(tensor: torch.Tensor) -> bool:
    """True inside `is_grads_batched=True`, by which PyTorch computes Jacobians in one backward pass."""
    return torch._C._functorch.is_legacy_batchedtensor(tensor)


def full_precision(like: torch.Tensor) -> AbstractContextManager[Any]:
    """Autocast must not reach the circuit, forward or backward: bfloat16 amplitudes would lose the physics."""
    kind = like.device.type
    if _has_autocast(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return _NOTHING


class _Permute(torch.autograd.Function):
    """Take by a permutation; differentiable any number of times, since its gradient is one too."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, index: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(index, inverse)
        return x.index_select(-1, index)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        index, inverse = ctx.saved_tensors
        return _Permute.apply(gradient, inverse, index), None, None


class TorchBackend:
    """Exact simulation in PyTorch."""

    name = "torch"
    capabilities = Capabilities(vjp=True, framework="torch", embedded=True, amplitudes=True)

    def compile(
        self,
        circuit: Circuit,
        measurement: Measurement,
        *,
        dtype: str = "float32",
        shots: int | None = None,
    ) -> TorchExecutable:
        """Lower the circuit and lay it out."""
        check_exact(shots, backend=self.name)
        check_memory(circuit.n_qubits, dtype=dtype, backend=self.name)
        return TorchExecutable(ArrayProgram(lower(circuit, measurement)), dtype)


class TorchExecutable:
    """A compiled circuit on tensors (`apply`) and on NumPy arrays (`forward`, `vjp`)."""

    def __init__(self, program: ArrayProgram, dtype: str) -> None:
        """Keep the program; constants are placed on a device when they are first met there."""
        self.program, self.dtype = program, getattr(torch, dtype)
        self.ops = TorchOps()

    def apply(self, theta: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """`theta` (W,), `inputs` (B, I) → outputs (B, O), through autograd."""
        return self.program.forward(self.ops.here(), theta, inputs)

    def apply_and_vjp(
        self, theta: torch.Tensor, inputs: torch.Tensor
    ) -> tuple[torch.Tensor, Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]]:
        """The same outside autograd, with the pull-back of the adjoint method."""
        return value_and_vjp(self.program, self.ops.here(), theta, inputs)

    def forward(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """The same on NumPy arrays."""
        with torch.no_grad():
            return self.apply(torch.as_tensor(theta), torch.as_tensor(inputs)).numpy()

    def value_and_vjp(
        self, theta: np.ndarray, inputs: np.ndarray
    ) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]]:
        """Outputs, and the function that pulls cotangents back."""
        with torch.no_grad():
            outputs, pull = self.apply_and_vjp(torch.as_tensor(theta), torch.as_tensor(inputs))

        def pull_arrays(cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with torch.no_grad():
                d_theta, d_inputs = pull(torch.as_tensor(cotangents))
                return d_theta.numpy(), d_inputs.numpy()

        return outputs.numpy(), pull_arrays

    def vjp(self, theta: np.ndarray, inputs: np.ndarray, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pull `cotangents` (B, O) back to `(d_theta (W,), d_inputs (B, I))`."""
        return self.value_and_vjp(theta, inputs)[1](cotangents)


@hookimpl
def qstore_backend(options: dict[str, Any]) -> TorchBackend:
    """The `torch` backend; it has no options."""
    check_options(options, backend="torch")
    return TorchBackend()
