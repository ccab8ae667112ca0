"""Device functions on a round: its rotations or phases, forward and in reverse, and the gradients of its angles."""

from __future__ import annotations

import triton
import triton.language as tl

from ..tables import TERM_FIELDS
from .registers import contract, parity_sign, rotate, spread, spread_signed, sum_samples

__all__ = [
    "FIELDS",
    "apply_phases",
    "apply_rotations",
    "axes",
    "coset_signs",
    "matrices",
    "signed_axes",
    "signed_matrices",
    "undo_rotations",
]

FIELDS = tl.constexpr(TERM_FIELDS)


@triton.jit
def matrices(at, R: tl.constexpr, FACTORS: tl.constexpr):
    """The a and b of a round's rotations, four numbers each."""
    out = ()
    for j in tl.static_range(R):
        for k in tl.static_range(4):
            out = out + (tl.load(at + j * (4 + 3 * FACTORS) + k),)
    return out


@triton.jit
def axes(at, R: tl.constexpr, FACTORS: tl.constexpr):
    """The axes of a round's angles, three numbers each."""
    out = ()
    for j in tl.static_range(R):
        for k in tl.static_range(3 * FACTORS):
            out = out + (tl.load(at + j * (4 + 3 * FACTORS) + 4 + k),)
    return out


@triton.jit
def coset_signs(ints, words, coset, R: tl.constexpr):
    """Of each rotation of a round: -1 where the roles of |0⟩ and |1⟩ are exchanged in a coset."""
    out = ()
    for j in tl.static_range(R):
        out = out + (parity_sign(coset & tl.load(ints + words + j)),)
    return out


@triton.jit
def signed_matrices(m, signs, R: tl.constexpr):
    """`matrices` as they act in a coset: X U X in the place of U where the sign is -1."""
    out = ()
    for j in tl.static_range(R):
        out = out + (m[4 * j], m[4 * j + 1] * signs[j], m[4 * j + 2] * signs[j], m[4 * j + 3])
    return out


@triton.jit
def signed_axes(e, signs, R: tl.constexpr, FACTORS: tl.constexpr):
    """`axes` in a coset."""
    out = ()
    for k in tl.static_range(R * FACTORS):
        sign = signs[k // FACTORS]
        out = out + (e[3 * k], e[3 * k + 1] * sign, e[3 * k + 2] * sign)
    return out


@triton.jit
def apply_rotations(re, im, m, R: tl.constexpr, LANE_WISE: tl.constexpr):
    """All rotations of a round."""
    for j in tl.static_range(R):
        re, im = rotate(re, im, m[4 * j], m[4 * j + 1], m[4 * j + 2], m[4 * j + 3], j, R, LANE_WISE)
    return re, im


@triton.jit
def apply_phases(re, im, ints, row, terms, count, t, sign, R: tl.constexpr, LANE_WISE: tl.constexpr):
    """All terms of a diagonal round, or with sign -1 their inverses: c - i s (±1) for every angle."""
    for k in range(count):
        record = ints + terms + FIELDS * k
        a = tl.load(record + 2)
        mask = tl.load(record + 1)
        c = tl.load(row + 2 * a)
        s = tl.load(row + 2 * a + 1) * parity_sign(t & tl.load(record)) * sign
        if LANE_WISE:
            c = spread(c, R)
        signed = spread_signed(s, mask, R)
        new_re = re * c + im * signed
        im = im * c - re * signed
        re = new_re
    return re, im


@triton.jit
def undo_rotations(
    re, im, lam_re, lam_im, m, e, ints, columns, d_angles, width, first, batch,
    S: tl.constexpr, R: tl.constexpr, FACTORS: tl.constexpr, LANE_WISE: tl.constexpr,
):  # fmt: skip
    """Inverses of a round's rotations on ψ and λ; gradients of their angles to columns of `d_angles` (batch, width).

    They act on different qubits, so that those already undone change none of the other contractions. Rotation by
    rotation, since what is read along several registers' bits at once is fetched from memory for each of them.
    """
    sums = ()
    for j in tl.static_range(R):
        x, y, z = contract(re, im, lam_re, lam_im, j, R)
        re, im = rotate(re, im, m[4 * j], -m[4 * j + 1], -m[4 * j + 2], -m[4 * j + 3], j, R, LANE_WISE)
        lam_re, lam_im = rotate(
            lam_re, lam_im, m[4 * j], -m[4 * j + 1], -m[4 * j + 2], -m[4 * j + 3], j, R, LANE_WISE
        )  # fmt: skip
        for f in tl.static_range(FACTORS):
            n = e[3 * (j * FACTORS + f) : 3 * (j * FACTORS + f) + 3]
            sums = sums + (x * n[0] + y * n[1] + z * n[2],)
    for _ in tl.static_range((8 - R * FACTORS % 8) % 8):
        sums = sums + (tl.zeros_like(sums[0]),)
    sample = first + tl.arange(0, S)[:, None]
    eight = tl.arange(0, 8)[None, :]
    for part in tl.static_range((R * FACTORS + 7) // 8):
        total = sum_samples(sums[8 * part : 8 * part + 8], S)
        column = tl.load(ints + columns + 8 * part + eight)
        tl.store(d_angles + sample.to(tl.int64) * width + column, total, mask=(column >= 0) & (sample < batch))
    return re, im, lam_re, lam_im
