"""The network in JAX, with flax. `nets_torch.py` is the same file for PyTorch."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from .train import BATCH_NORM, CONV_WIDTHS, Settings, Stage, make_quantum

_INIT = nnx.initializers.xavier_uniform()  # as Keras does by default


class Pixels(nnx.Module):
    """uint8 (B, H, W, C) → floats in [-1, 1]."""

    def __call__(self, images: jax.Array) -> jax.Array:
        return images / 127.5 - 1


class Stem(nnx.Module):
    """The first convolution, which halves the image."""

    def __init__(self, channels: int, **options: Any) -> None:
        padding = ((1, 1), (1, 1))
        self.conv = _conv(channels, CONV_WIDTHS[0], 3, strides=2, padding=padding, use_bias=False, **options)
        self.norm = nnx.BatchNorm(CONV_WIDTHS[0], **BATCH_NORM, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.conv(x))


class Separable(nnx.Module):
    """A 3x3 filter for each channel, then a mix of the channels, then normalisation."""

    def __init__(self, channels: int, width: int, **options: Any) -> None:
        self.filters = _conv(channels, channels, 3, feature_group_count=channels, use_bias=False, **options)
        self.mix = _conv(channels, width, 1, use_bias=False, **options)
        self.norm = nnx.BatchNorm(width, **BATCH_NORM, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.mix(self.filters(nnx.relu(x))))


class Block(nnx.Module):
    """Two separable convolutions that halve the image, and a short cut around them."""

    def __init__(self, channels: int, width: int, *, checkpoint_gradients: bool, **options: Any) -> None:
        self.checkpoint_gradients = checkpoint_gradients
        self.first, self.second = Separable(channels, width, **options), Separable(width, width, **options)
        self.shortcut = _conv(channels, width, 1, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.remat(Block._both)(self, x) if self.checkpoint_gradients else self._both(x)

    def _both(self, x: jax.Array) -> jax.Array:
        main = nnx.max_pool(self.second(self.first(x)), (2, 2), (2, 2))
        return main + self.shortcut(nnx.avg_pool(x, (2, 2), (2, 2)))


class Average(nnx.Module):
    """One number for each channel."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(x).mean((1, 2))


class Dense(nnx.Module):
    """A dense layer, with ReLU unless it is not `bent`."""

    def __init__(self, features: int, width: int, *, bent: bool = True, **options: Any) -> None:
        self.linear, self.bent = nnx.Linear(features, width, kernel_init=_INIT, **options), bent

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.linear(x)) if self.bent else self.linear(x)


class Network(nnx.Module):
    """Parts one after the other, by name: uint8 images (B, H, W, C) in, logits (B, n_outputs) out."""

    def __init__(self, parts: dict[str, nnx.Module]) -> None:
        self.names = tuple(parts)
        for name, part in parts.items():
            setattr(self, name, part)

    def parts(self) -> dict[str, nnx.Module]:
        """The parts, in order."""
        return {name: getattr(self, name) for name in self.names}

    def __call__(self, x: jax.Array) -> jax.Array:
        for part in self.parts().values():
            x = part(x)
        return x


def build(settings: Settings, image_shape: tuple[int, int, int], n_outputs: int) -> Network:
    """Return the network."""
    rngs = nnx.Rngs(settings.seed)
    options = {"dtype": jnp.bfloat16 if settings.mixed_precision else jnp.float32, "rngs": rngs}
    parts: dict[str, nnx.Module] = {"pixels": Pixels(), "stem": Stem(image_shape[-1], **options)}
    for channels, width in pairwise(CONV_WIDTHS):
        parts[f"block_{width}"] = Block(channels, width, checkpoint_gradients=settings.checkpoint_gradients, **options)
    parts["average"] = Average()
    features = CONV_WIDTHS[-1]
    for stage in settings.stages:
        parts[f"{stage.name}_dense"] = Dense(features, stage.width, **options)
        features = stage.outputs
        parts[stage.name] = quantum(stage, settings) if settings.quantum else classical(stage, **options)
        # ⟨Z⟩ of an entangled state is close to 0 for every image: bring its small differences to unit size.
        parts[f"{stage.name}_norm"] = nnx.BatchNorm(features, **BATCH_NORM, **options)
    parts["classes"] = Dense(features, n_outputs, bent=False, rngs=rngs)  # logits in full precision
    return Network(parts)


def quantum(stage: Stage, settings: Settings) -> nnx.Module:
    """Return the stage's quantum layer, as a module."""
    import qstore_jax  # only here: --no-quantum works without it
    from qstore_jax.modules import as_nnx

    return as_nnx(make_quantum(qstore_jax, stage, settings))


def classical(stage: Stage, **options: Any) -> nnx.Module:
    """Return what stands in a quantum layer's place: a dense layer with as many outputs."""
    # Without tanh, which saturates here and costs up to 25 points: the comparison is with what trains well.
    return Dense(stage.width, stage.outputs, bent=False, **options)


def _conv(channels: int, width: int, size: int, **options: Any) -> nnx.Conv:
    return nnx.Conv(channels, width, (size, size), kernel_init=_INIT, **options)
