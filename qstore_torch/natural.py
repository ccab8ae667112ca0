"""Natural gradients for the layers of a PyTorch model, around any optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from qstore_core import SpecError
from qstore_core.analysis import metric_tensor, natural_gradient

from .layers import TorchLayer

__all__ = ["QuantumNaturalGradient"]


class QuantumNaturalGradient:
    """An optimizer whose gradients of quantum layers' angles are natural ones; all else is as the optimizer has it.

    Before a step, the gradient of each layer's theta is replaced by (g + λ)⁻¹ dL/dθ, with the metric g of the layer at
    the features that it met in training since the last step, averaged over these samples.

    Args:
        optimizer: Any of PyTorch's that takes gradients as they are, usually SGD. Its schedulers stay with it.
        modules: A model, or several modules; the quantum layers in them are meant.
        approx: "block-diag", "diag" or None for the whole metric, see `qstore_core.analysis.metric_tensor`.
        regularisation: λ.
        max_samples: Most samples of a step that enter the metric, the last ones.

    Example:
        >>> from qstore_torch import QuantumFeatureExtractor
        >>> layer = QuantumFeatureExtractor(2, encoding="angle", seed=0)
        >>> optimizer = QuantumNaturalGradient(torch.optim.SGD(layer.parameters(), lr=0.1), layer)
        >>> layer(torch.ones(4, 2)).sum().backward()
        >>> optimizer.step()

    Source:
        Stokes et al., arXiv:1909.02108.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        modules: torch.nn.Module | Iterable[torch.nn.Module],
        *,
        approx: str | None = "block-diag",
        regularisation: float = 1e-3,
        max_samples: int = 256,
    ) -> None:
        roots = [modules] if isinstance(modules, torch.nn.Module) else list(modules)
        found = {id(m): m for root in roots for m in root.modules() if isinstance(m, TorchLayer) and m.theta.numel()}
        if not found:
            raise SpecError("there is no quantum layer with weights in these modules.", argument="modules")
        self.optimizer, self._layers, self._approx = optimizer, list(found.values()), approx
        self._regularisation, self._most = regularisation, max_samples
        self._seen: dict[int, list[torch.Tensor]] = {id(layer): [] for layer in self._layers}
        self._hooks = [layer.register_forward_pre_hook(self._record) for layer in self._layers]

    def _record(self, layer: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        """Keep the features of a call that will be differentiated."""
        if torch.is_grad_enabled() and isinstance(layer, TorchLayer) and layer.theta.requires_grad:
            rows = arguments[0].detach().flatten(0, -2)
            self._seen[id(layer)] = [*self._seen[id(layer)], rows][-self._most :]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the optimizer."""
        return self.optimizer.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget gradients, and the features that they belong to."""
        self.optimizer.zero_grad(set_to_none)
        self._forget()

    def _forget(self) -> None:
        for layer in self._layers:
            self._seen[id(layer)] = []

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Replace the gradients of quantum layers by natural ones, then take the optimizer's step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for layer in self._layers:
            gradient, rows = layer.theta.grad, self._seen[id(layer)]
            if gradient is None or not rows:
                continue
            x = torch.cat([r.to(rows[-1].dtype) for r in rows])[-self._most :]
            metric = metric_tensor(layer, x.double().numpy(force=True), approx=self._approx)
            natural = natural_gradient(metric, gradient.numpy(force=True), regularisation=self._regularisation)
            gradient.copy_(torch.from_numpy(natural))
        self.optimizer.step()
        self._forget()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """That of the optimizer."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Into the optimizer."""
        self.optimizer.load_state_dict(state)

    def close(self) -> None:
        """Stop recording the layers' features."""
        for hook in self._hooks:
            hook.remove()
        self._forget()
