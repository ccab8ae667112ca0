"""Small random moves, turns and zooms of uint8 images; the same in both frameworks."""

from __future__ import annotations

import numpy as np
from PIL import Image

MAX_SHIFT = 0.08  # of the side
MAX_TURN = np.deg2rad(10)
MAX_ZOOM = 0.10


def augment(images: np.ndarray, rng: np.random.Generator, *, mirror: bool = False) -> np.ndarray:
    """Return each image shifted, rotated and zoomed at random, at most by the limits above.

    Pillow leaves Python's lock while it resamples, so batches prepared on several threads run in parallel.

    Args:
        images: uint8 (B, H, W, C), C being 1 or 3.
        rng: Source of the random moves.
        mirror: Also mirror every second image, on average.
    """
    count, height, width, channels = images.shape
    matrices = affine_matrices(count, height, width, rng, mirror=mirror)
    result = np.empty_like(images)
    for i, matrix in enumerate(matrices):
        image = Image.fromarray(images[i, :, :, 0] if channels == 1 else images[i])
        moved = image.transform(image.size, Image.Transform.AFFINE, tuple(matrix), Image.Resampling.BILINEAR)
        result[i] = np.asarray(moved).reshape(height, width, channels)
    return result


def affine_matrices(
    count: int, height: int, width: int, rng: np.random.Generator, *, mirror: bool = False
) -> np.ndarray:
    """Return (count, 6): the rows (a, b, c), (d, e, f) that map an output pixel to the input pixel it shows."""
    turn = rng.uniform(-MAX_TURN, MAX_TURN, count)
    zoom = rng.uniform(1 - MAX_ZOOM, 1 + MAX_ZOOM, count)
    shift_x = rng.uniform(-MAX_SHIFT, MAX_SHIFT, count) * width
    shift_y = rng.uniform(-MAX_SHIFT, MAX_SHIFT, count) * height
    side = np.where(rng.random(count) < 0.5, -1.0, 1.0) if mirror else np.ones(count)
    a, b = side * zoom * np.cos(turn), -zoom * np.sin(turn)
    d, e = side * zoom * np.sin(turn), zoom * np.cos(turn)
    # The centre stays in place, apart from the shift.
    centre_x, centre_y = width / 2, height / 2
    c = centre_x - a * centre_x - b * centre_y + shift_x
    f = centre_y - d * centre_x - e * centre_y + shift_y
    return np.stack([a, b, c, d, e, f], axis=1)
