"""Device functions on a whole round, rotations or phases: applied, and un-applied with the gradients of its angles."""

from __future__ import annotations

import triton
import triton.language as tl

from .evolve import apply_phases, apply_rotations, undo_rotations
from .measure import store_sums

__all__ = ["apply_round", "undo_round"]


@triton.jit
def apply_round(
    re, im, m, ints, record, row, t, R: tl.constexpr, TERMS: tl.constexpr, LANE_WISE: tl.constexpr
):  # fmt: skip
    """Rotations by the matrices m, or terms."""
    if TERMS:
        count = tl.load(ints + record + 1)
        if count > 0:
            re, im = apply_phases(re, im, ints, row, tl.load(ints + record), count, t, 1.0, R, LANE_WISE)
        else:
            re, im = apply_rotations(re, im, m, R, LANE_WISE)
    else:
        re, im = apply_rotations(re, im, m, R, LANE_WISE)
    return re, im


@triton.jit
def undo_round(
    re, im, lam_re, lam_im, m, e, ints, record, row, d_angles, n_angles, first, batch, t,
    S: tl.constexpr, K: tl.constexpr, R: tl.constexpr, FACTORS: tl.constexpr, TERMS: tl.constexpr,
    LANE_WISE: tl.constexpr,
):  # fmt: skip
    """Inverses on ψ and λ; gradients of the angles to rows `first` and on of `d_angles` (batch, n_angles)."""
    columns = record + 2 + 2 * K
    if TERMS:
        count = tl.load(ints + record + 1)
        if count > 0:
            terms = tl.load(ints + record)
            slopes = lam_re * im - lam_im * re
            store_sums(slopes, slopes, ints, terms, count, d_angles, n_angles, first, batch, t, False, S, R)
            re, im = apply_phases(re, im, ints, row, terms, count, t, -1.0, R, LANE_WISE)
            lam_re, lam_im = apply_phases(lam_re, lam_im, ints, row, terms, count, t, -1.0, R, LANE_WISE)
        else:
            re, im, lam_re, lam_im = undo_rotations(
                re, im, lam_re, lam_im, m, e, ints, columns, d_angles, n_angles, first, batch, S, R, FACTORS, LANE_WISE
            )  # fmt: skip
    else:
        re, im, lam_re, lam_im = undo_rotations(
            re, im, lam_re, lam_im, m, e, ints, columns, d_angles, n_angles, first, batch, S, R, FACTORS, LANE_WISE
        )  # fmt: skip
    return re, im, lam_re, lam_im
