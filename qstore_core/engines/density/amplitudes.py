"""Pauli components of pure states with real amplitudes, and the vjp of that.

tr(P ρ) = (-1)**(n_y / 2) Σ_i ψ(i) ψ(i ^ x) (-1)**parity(i & z) for the word P with X or Y where x has a bit, and Z or Y
where z has one: a fast Walsh–Hadamard transform for every x. Words with an odd number of Y have the value 0.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

__all__ = ["components", "components_vjp", "ground_state"]


@lru_cache(maxsize=16)
def _tables(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`i ^ x` as (x, i); signs (x, z), 0 where n_y is odd; component number of (x, z)."""
    size = 1 << n
    i = np.arange(size)
    both = np.bitwise_count(i[:, None] & i).astype(np.int64)
    signs = np.where(both % 2, 0.0, 1.0 - both % 4)
    spread = np.zeros(size, np.int64)  # bit k of i as digit k
    for k in range(n):
        spread |= (i >> k & 1) << 2 * k
    x, z = spread[:, None], spread[None, :]
    place = 2 * z + (z ^ x)  # digit 0 I, 1 X, 2 Y, 3 Z; of bits (x, z): 00 → 0, 10 → 1, 11 → 2, 01 → 3
    return i[:, None] ^ i, signs, place.reshape(-1)


def _transformed(rows: np.ndarray) -> np.ndarray:
    """Σ_i rows[..., i] (-1)**parity(i & z)."""
    shape, width = rows.shape, 1
    while width < shape[-1]:
        blocks = rows.reshape(-1, shape[-1] // (2 * width), 2, width)
        rows = np.stack([blocks[:, :, 0] + blocks[:, :, 1], blocks[:, :, 0] - blocks[:, :, 1]], axis=2)
        width *= 2
    return rows.reshape(shape)


def components(amplitudes: np.ndarray) -> np.ndarray:
    """Real unit rows (B, 2**n) → components (4**n, B), float64.

    Example:
        >>> components(np.array([[0.6, 0.8]])).T.round(4)    # 1, ⟨X⟩, ⟨Y⟩, ⟨Z⟩
        array([[ 1.  ,  0.96,  0.  , -0.28]])
    """
    rows = np.asarray(amplitudes, np.float64)
    partner, signs, place = _tables(rows.shape[1].bit_length() - 1)
    values = _transformed(rows[:, None, :] * rows[:, partner]) * signs
    out = np.empty((len(place), len(rows)))
    out[place] = values.reshape(len(rows), -1).T
    return out


def components_vjp(amplitudes: np.ndarray, cotangents: np.ndarray) -> np.ndarray:
    """Cotangents (4**n, B) of the components → of the amplitudes (B, 2**n), float64."""
    rows = np.asarray(amplitudes, np.float64)
    partner, signs, place = _tables(rows.shape[1].bit_length() - 1)
    back = _transformed(cotangents[place].T.reshape(len(rows), *signs.shape) * signs)
    both = back + np.take_along_axis(back, np.broadcast_to(partner, back.shape), axis=2)
    return (both * rows[:, partner]).sum(axis=1)


def ground_state(n: int) -> np.ndarray:
    """Components (4**n,) of |0…0⟩."""
    out: np.ndarray = np.ones(1)
    for _ in range(n):
        out = np.kron(out, [1.0, 0.0, 0.0, 1.0])
    return out
