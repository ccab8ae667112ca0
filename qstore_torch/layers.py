"""The layers as `torch.nn.Module`s. What they compute is in `qstore_core`; here are parameters and tensors."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from qstore_core import CapabilityError, InputError, LayerSpec, SpecError
from qstore_core.backends import runner
from qstore_core.circuit.spec.initial import Init, initial_theta
from qstore_core.engines.memory import check_ensemble
from qstore_core.layers import definition
from qstore_core.layers.definition import LayerDefinition
from qstore_core.layers.numpy import numbered
from qstore_core.runtime.program import Execution, LayerProgram

from .call import LayerCall, as_plain
from .graph import draw_seed
from .initial import as_init

__all__ = [
    "QuantumEncoder",
    "QuantumFeatureExtractor",
    "QuantumLayer",
    "QuantumPooling",
    "QuantumReadout",
    "TorchLayer",
    "as_operations",
]


_WORK = (torch.float32, torch.float64)


class TorchLayer(LayerDefinition, nn.Module):
    """Base of the PyTorch layers. `theta` is a parameter; inputs (…, F) of any float dtype and device.

    NaN and infinity raise an `InputError` on the CPU and on host backends. On a GPU, where looking would wait for the
    device, and in function transforms they propagate: NaN features give NaN outputs.
    """

    theta: torch.Tensor

    _framework_arguments: ClassVar[dict[str, tuple[Any, str]]] = {
        "name": (None, "Name in messages and profiles."),
        "device": (None, "Where theta is created."),
        "dtype": (None, "Of theta; PyTorch's default dtype where None."),
    }

    def _define(  # type: ignore[override]
        self,
        spec: LayerSpec,
        execution: Execution,
        init: Init,
        config: dict[str, Any],
        *,
        name: str | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Module.__init__(self)
        primitive, name = spec.primitive, name or numbered(type(self).__name__)
        program = LayerProgram(primitive, execution, name=name, framework="torch", draw_seed=draw_seed)
        self._program, self._spec, self._config, self._init = program, spec, config, init
        self._postprocesses, self._narrows = spec.postprocesses, self._output_dtype("float16") == "float16"
        self._layer_call = LayerCall(program)
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise SpecError(f"dtype is a floating-point torch.dtype, received {dtype!r}.", argument="dtype")
        theta = torch.empty(spec.n_weights, device=device, dtype=dtype)
        self.theta = nn.Parameter(theta)
        self.reset_parameters()

    @property
    def name(self) -> str:
        """Name in messages and profiles."""
        return self._program.name

    def reset_parameters(self) -> None:
        """Draw theta anew: from `seed`, or where that is None from PyTorch's generator (`torch.manual_seed`)."""
        seed = self._program.execution.seed
        if seed is None:
            seed = draw_seed()
        theta = torch.from_numpy(initial_theta(self._init, self.spec.n_weights, seed))
        with torch.no_grad():
            self.theta.copy_(theta)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features (…, F) → outputs (…, O), in the dtype of `x`."""
        if type(x) is not torch.Tensor and isinstance(x, torch.fx.Proxy):  # a leaf, as PyTorch's own layers are
            return x.tracer.create_proxy("call_module", x.tracer.path_of_module(self), (x,), {})
        if not self._postprocesses:
            return self._values(x)
        half = isinstance(x, torch.Tensor) and x.is_floating_point() and x.dtype not in _WORK
        values = self._values(x.float() if half else x)
        rows = values if values.dim() == 2 else values.flatten(0, -2)
        out: torch.Tensor = self._postprocessed(self._layer_call.functions(), rows, torch.finfo(values.dtype).eps)
        out = out.reshape(*values.shape[:-1], *self._spec.sample_shape)
        return out.to(x.dtype) if half and self._narrows else out

    def _values(self, x: torch.Tensor) -> torch.Tensor:
        """What the circuits give, (…, P)."""
        if type(x) is not torch.Tensor or x.layout is not torch.strided or x.is_nested or x.is_complex():
            x = as_plain(x, self.name)
        theta = self._parameters.get("theta")  # `self.theta` takes longer
        if theta is None and (theta := self.theta) is None:
            raise InputError(f"{self.name} has no theta: it was set to None. Assign an nn.Parameter of its weights.")
        if type(theta) is not nn.Parameter and type(theta) is not torch.Tensor:
            theta = as_plain(theta, self.name)
        if theta.dim() != 1:
            return self._with_each(theta, x)
        work = x.dtype
        if x.dim() == 2 and theta.dtype == work and work in _WORK:
            return self._layer_call(theta, x)
        return self._with(theta, x)

    def _with_each(self, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`theta` (E, W) of an ensemble → (E, …, P)."""
        if theta.dim() != 2 or not len(theta):
            self._program.check_shapes(tuple(theta.shape), tuple(x.shape))
        if not torch.compiler.is_compiling():
            check_ensemble(len(theta), tuple(x.shape), self.output_dim, theta.element_size())
        return torch.stack([self._with(member, x) for member in theta.unbind()])

    def _with(self, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """With angles `theta` (W,)."""
        rows, work = x, x.dtype
        if work not in _WORK:
            if x.is_quantized:
                raise InputError(
                    f"{self.name} takes floating-point features, received a quantized tensor of dtype {work}. "
                    "Put torch.ao.quantization.DeQuantStub() before it, or call it on x.dequantize()."
                )
            work = torch.float32
        if x.dim() != 2:
            if x.dim() < 2:
                self._program.check_shapes(tuple(theta.shape), tuple(x.shape))
            rows = x.flatten(0, -2)
        if x.dtype != work:
            rows = rows.to(work)
        if theta.dtype != work:
            if theta.is_complex():
                raise InputError(f"{self.name} takes real angles, received a theta of dtype {theta.dtype}.")
            theta = theta.to(work)
        out = self._layer_call(theta, rows)
        if x.dim() != 2:
            out = out.reshape(*x.shape[:-1], out.shape[-1])
        return out.to(x.dtype) if x.dtype != work and x.is_floating_point() and self._narrows else out

    def as_operations(self) -> Self:
        """The same layer in PyTorch's own operations, on real numbers: for graphs that leave. Shares `theta`.

        Without it a compiled or exported graph holds one operator of qstore, which is fast, but needs qstore where the
        graph runs. Features are not looked at: NaN gives NaN outputs. `qstore_torch.as_operations` takes whole models.

        Raises:
            CapabilityError: The layer samples, or its backend computes something that operations do not.

        Example:
            >>> layer = QuantumReadout(1, encoding="angle", seed=0)
            >>> x = torch.tensor([[0.3]])
            >>> program = torch.export.export(layer.as_operations(), (x,))
            >>> any("qstore" in str(node.target) for node in program.graph.nodes)
            False
        """
        where = self._program.route(mode="file")
        if where.where == "refused":
            raise CapabilityError(f"{self.name}: {where.why}")
        other = copy.copy(self)
        other._layer_call = LayerCall(self._program, in_operations=True)
        return other

    async def call_async(self, x: torch.Tensor) -> torch.Tensor:
        """The same without blocking the running event loop; gradients flow through the result."""
        enabled = torch.is_grad_enabled()  # a thread has a mode of its own

        def call() -> torch.Tensor:
            with torch.set_grad_enabled(enabled):
                return self(x)

        return await runner.to_thread(call)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return self.config()

    @classmethod
    def _as_init(cls, init: Any) -> Init:
        return as_init(init)

    def _framework_config(self) -> dict[str, Any]:
        return {"name": self.name, "device": self.theta.device, "dtype": self.theta.dtype}

    def _put_theta(self, theta: np.ndarray) -> None:
        with torch.no_grad():
            self.theta.copy_(torch.from_numpy(theta))

    def _take_theta(self, other: Self) -> None:
        with torch.no_grad():
            self.theta.copy_(other.theta)
        self.theta.requires_grad_(other.theta.requires_grad)

    def get_extra_state(self) -> torch.Tensor:
        """The spec's fingerprint, so that a checkpoint of another circuit does not load."""
        return torch.tensor(list(bytes.fromhex(self.spec.fingerprint)), dtype=torch.uint8)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Compares it; where `load_state_dict` is not used (`transformers`), this is what refuses another circuit."""
        self._check_fingerprint(state, "theta")

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, meta: Any, strict: bool, missing: Any, *rest: Any
    ) -> None:
        key = f"{prefix}_extra_state"
        if (saved := state_dict.get(key)) is not None:  # before anything is copied
            self._check_fingerprint(saved, f"{prefix}theta")
        super()._load_from_state_dict(state_dict, prefix, meta, strict, missing, *rest)
        if key in missing:  # a file of an earlier version
            missing.remove(key)

    def _check_fingerprint(self, saved: Any, theta: str) -> None:
        """Refuse the extra state of a checkpoint, which may be anything, where it is not this circuit's."""
        known = isinstance(saved, torch.Tensor) and not saved.is_complex()
        if known and saved.flatten().tolist() == self.get_extra_state().tolist():  # also cast with the weights
            return
        averaged = known and saved.is_floating_point()
        raise SpecError(
            f"{self.name}: the checkpoint holds the weights of another circuit under {theta!r}. Make "
            "the layer with the arguments that it was saved with, or copy theta itself where that is meant: "
            "layer.theta.data.copy_(…)."
            + " Where it is an average of several, average the tensors that are floating-point, and keep the "
            "'_extra_state' of one." * averaged,
            argument="state_dict",
        )

    def __prepare_scriptable__(self) -> Any:
        """What `torch.jit.script` asks for first."""
        raise CapabilityError(
            f"{self.name}: torch.jit.script compiles Python code, which a circuit is not. Use torch.compile, "
            "torch.export.export or torch.jit.trace."
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy draws from seeds of its own."""
        super().__setstate__(state)
        self._layer_call = LayerCall(self._program, self._layer_call.in_operations)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A layer with weights of its own. A backend that was given as an object is shared, with its connections."""
        memo |= {id(backend): backend for backend in self._program.backends}
        other = memo[id(self)] = type(self).__new__(type(self))
        other.__setstate__(copy.deepcopy(self.__dict__, memo))
        return other

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        spec = self.spec
        return f"n_qubits={spec.n_qubits}, depth={spec.depth}, weights={spec.n_weights}, backend={self.backend_name!r}"


def as_operations(module: nn.Module) -> nn.Module:
    """A model whose quantum layers are in PyTorch's own operations; it shares all weights with `module`.

    For graphs that run where qstore is not: `torch.export`, AOTInductor. See docs/exporting.md.

    Raises:
        CapabilityError: A layer samples, or its backend computes something that operations do not.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), QuantumReadout(2, encoding="angle"), nn.Linear(2, 1))
        >>> program = torch.export.export(as_operations(model), (torch.rand(4, 3),))
    """
    seen: dict[nn.Module, nn.Module] = {}

    def converted(module: nn.Module) -> nn.Module:
        if module not in seen:
            seen[module] = other = module.as_operations() if isinstance(module, TorchLayer) else copy.copy(module)
            other._modules = {name: child and converted(child) for name, child in module._modules.items()}
        return seen[module]

    return converted(module)


class QuantumEncoder(definition.QuantumEncoder, TorchLayer):
    __doc__ = definition.QuantumEncoder.__doc__


class QuantumFeatureExtractor(definition.QuantumFeatureExtractor, TorchLayer):
    __doc__ = definition.QuantumFeatureExtractor.__doc__


class QuantumPooling(definition.QuantumPooling, TorchLayer):
    __doc__ = definition.QuantumPooling.__doc__


class QuantumReadout(definition.QuantumReadout, TorchLayer):
    __doc__ = definition.QuantumReadout.__doc__


class QuantumLayer(definition.QuantumLayer, TorchLayer):
    __doc__ = definition.QuantumLayer.__doc__
