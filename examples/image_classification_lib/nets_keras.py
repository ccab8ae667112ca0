"""The network in Keras. `nets_torch.py` is the same file for PyTorch."""

from __future__ import annotations

import keras
from keras import layers

from .train import BATCH_NORM, CONV_WIDTHS, Settings, Stage, make_quantum


@keras.saving.register_keras_serializable("qstore_example")
class Block(layers.Layer):
    """Two separable convolutions that halve the image, and a short cut around them."""

    def __init__(self, width: int, **options) -> None:
        """Lead to `width` channels."""
        super().__init__(**options)
        self.width = width
        self.main = keras.Sequential(
            [layers.ReLU(), *separable(width), layers.ReLU(), *separable(width), layers.MaxPooling2D(2)]
        )
        self.shortcut = keras.Sequential([layers.AveragePooling2D(2), layers.Conv2D(width, 1)])

    def build(self, input_shape) -> None:
        """Create the weights."""
        self.main.build(input_shape)
        self.shortcut.build(input_shape)

    def call(self, x, training=None):
        """Return (B, H // 2, W // 2, width)."""
        return self.main(x, training=training) + self.shortcut(x)

    def get_config(self) -> dict:
        """Return the arguments that make this block again."""
        return {**super().get_config(), "width": self.width}


def separable(width: int) -> list[layers.Layer]:
    """A 3x3 filter for each channel, then a mix of the channels, then normalisation."""
    return [
        layers.DepthwiseConv2D(3, padding="same", use_bias=False),
        layers.Conv2D(width, 1, use_bias=False),
        layers.BatchNormalization(**BATCH_NORM),
    ]


def build(settings: Settings, image_shape: tuple[int, int, int], n_outputs: int) -> keras.Sequential:
    """Return the network: uint8 images (B, H, W, C) in, logits (B, n_outputs) out."""
    stem = [
        layers.ZeroPadding2D(1),
        layers.Conv2D(CONV_WIDTHS[0], 3, strides=2, use_bias=False),
        layers.BatchNormalization(**BATCH_NORM),
    ]
    parts = [layers.Rescaling(1 / 127.5, offset=-1, name="pixels"), keras.Sequential(stem, name="stem")]
    parts += [Block(width, name=f"block_{width}") for width in CONV_WIDTHS[1:]]
    parts.append(keras.Sequential([layers.ReLU(), layers.GlobalAveragePooling2D()], name="average"))
    for stage in settings.stages:
        parts.append(layers.Dense(stage.width, activation="relu", name=f"{stage.name}_dense"))
        parts.append(quantum(stage, settings) if settings.quantum else classical(stage))
        # ⟨Z⟩ of an entangled state is close to 0 for every image: bring its small differences to unit size.
        parts.append(layers.BatchNormalization(**BATCH_NORM, name=f"{stage.name}_norm"))
    parts.append(layers.Dense(n_outputs, name="classes", dtype="float32"))  # logits in full precision
    return keras.Sequential([keras.Input(image_shape, dtype="uint8"), *parts])


def quantum(stage: Stage, settings: Settings) -> layers.Layer:
    """Return the stage's quantum layer."""
    import qstore_tf  # only here: --no-quantum works without it

    return make_quantum(qstore_tf, stage, settings)


def classical(stage: Stage) -> layers.Layer:
    """Return what stands in a quantum layer's place: a dense layer with as many outputs."""
    # Without tanh, which saturates here and costs up to 25 points: the comparison is with what trains well.
    return layers.Dense(stage.outputs, name=stage.name)
