"""The network in PyTorch. `nets_keras.py` is the same file for Keras."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager, nullcontext
from itertools import pairwise

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .train import BATCH_NORM, CONV_WIDTHS, Settings, Stage, make_quantum

_NORM = {"momentum": 1 - BATCH_NORM["momentum"], "eps": BATCH_NORM["epsilon"]}  # the same, as PyTorch counts it


class Pixels(nn.Module):
    """uint8 (B, H, W, C) → floats in [-1, 1], (B, C, H, W)."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 3, 1, 2) / 127.5 - 1


class Block(nn.Module):
    """Two separable convolutions that halve the image, and a short cut around them."""

    def __init__(self, channels: int, width: int, *, checkpoint_gradients: bool = False) -> None:
        super().__init__()
        self.checkpoint_gradients = checkpoint_gradients
        self.main = nn.Sequential(
            nn.ReLU(), *separable(channels, width), nn.ReLU(), *separable(width, width), nn.MaxPool2d(2)
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.checkpoint_gradients and self.training and torch.is_grad_enabled():
            return checkpoint(self._both, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _still(self)))
        return self._both(x)

    def _both(self, x: torch.Tensor) -> torch.Tensor:
        return self.main(x) + self.shortcut(x)


@contextmanager
def _still(module: nn.Module):
    """Running means stay as they are while a checkpointed block is computed a second time."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm in norms:
            norm.momentum = _NORM["momentum"]


def separable(channels: int, width: int) -> list[nn.Module]:
    """A 3x3 filter for each channel, then a mix of the channels, then normalisation."""
    return [
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, width, 1, bias=False),
        nn.BatchNorm2d(width, **_NORM),
    ]


def build(settings: Settings, image_shape: tuple[int, int, int], n_outputs: int) -> nn.Sequential:
    """Return the network: uint8 images (B, H, W, C) in, logits (B, n_outputs) out."""
    stem = [
        nn.Conv2d(image_shape[-1], CONV_WIDTHS[0], 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(CONV_WIDTHS[0], **_NORM),
    ]
    parts: OrderedDict[str, nn.Module] = OrderedDict(pixels=Pixels(), stem=nn.Sequential(*stem))
    for channels, width in pairwise(CONV_WIDTHS):
        parts[f"block_{width}"] = Block(channels, width, checkpoint_gradients=settings.checkpoint_gradients)
    parts["average"] = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    features = CONV_WIDTHS[-1]
    for stage in settings.stages:
        parts[f"{stage.name}_dense"] = nn.Sequential(nn.Linear(features, stage.width), nn.ReLU())
        parts[stage.name], features = quantum(stage, settings) if settings.quantum else classical(stage)
        # ⟨Z⟩ of an entangled state is close to 0 for every image: bring its small differences to unit size.
        parts[f"{stage.name}_norm"] = nn.BatchNorm1d(features, **_NORM)
    parts["classes"] = nn.Linear(features, n_outputs)
    model = nn.Sequential(parts)
    model.apply(_initialise)
    return model


def quantum(stage: Stage, settings: Settings) -> tuple[nn.Module, int]:
    """Return the stage's quantum layer and the number of its outputs."""
    import qstore_torch  # only here: --no-quantum works without it

    layer = make_quantum(qstore_torch, stage, settings)
    return layer, layer.output_dim


def classical(stage: Stage) -> tuple[nn.Module, int]:
    """Return what stands in a quantum layer's place: a dense layer with as many outputs."""
    # Without tanh, which saturates here and costs up to 25 points: the comparison is with what trains well.
    return nn.Linear(stage.width, stage.outputs), stage.outputs


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):  # as Keras does by default
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
