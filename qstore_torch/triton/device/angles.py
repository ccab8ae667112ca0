"""Device functions from weights and inputs to rotation matrices, and from gradients of angles back.

A row of scratch holds, for one sample (or for all, where no angle has inputs in it): cos and sin of half of every
angle; then of every rotation a, b of [[a, -conj b], [b, conj a]] as four numbers, and for each of its angles the axis
n' with d(matrix)/d(angle) = -i/2 n'·σ matrix.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..tables import HEADER

__all__ = ["ANGLES", "SCRATCH", "prepare", "pull_inputs", "slot_value", "unused_slots"]

ANGLES = tl.constexpr(HEADER.index("angles"))
ROTATIONS = tl.constexpr(HEADER.index("rotations"))
POLYNOMIALS = tl.constexpr(HEADER.index("polynomials"))
FACTORS = tl.constexpr(HEADER.index("factors"))
COEFFICIENTS = tl.constexpr(HEADER.index("coefficients"))
CONSTANTS = tl.constexpr(HEADER.index("constants"))
SCRATCH = tl.constexpr(HEADER.index("scratch"))
INPUTS = tl.constexpr(HEADER.index("inputs"))
UNUSED = tl.constexpr(HEADER.index("unused"))
N_UNUSED = tl.constexpr(HEADER.index("n_unused"))


@triton.jit
def slot_value(slot, theta, x, row, n_weights, mask):
    """Weight `slot`, or input `slot - n_weights` of the sample whose angles begin at `x + row`; -1 is 1."""
    weight = tl.load(theta + slot, mask=mask & (slot >= 0) & (slot < n_weights), other=1.0)
    value = tl.load(x + row + (slot - n_weights), mask=mask & (slot >= n_weights), other=1.0)
    return weight * value


@triton.jit
def unused_slots(ints, theta, x, row, n_weights, live, t, DTYPE: tl.constexpr):
    """Of each thread's sample, for the slots that no angle has in it: 0, or NaN where one is not finite."""
    total = tl.zeros_like(t).to(DTYPE)
    unused = tl.load(ints + UNUSED)
    for number in range(tl.load(ints + N_UNUSED)):
        slot = tl.load(ints + unused + number) + 0 * t
        total += 0.0 * slot_value(slot, theta, x, row, n_weights, live)
    return total


@triton.jit
def prepare(
    ints, floats, theta, x, scratch, first, batch, stride, given, n_weights, i,
    monomials, degree, ROWS: tl.constexpr, LANES: tl.constexpr, FACTORS_MOST: tl.constexpr,
):  # fmt: skip
    """Fill `ROWS` rows of scratch from row `first` on; `i` numbers the threads, `LANES` of them."""
    n_angles = tl.load(ints + ANGLES)
    n_rotations = tl.load(ints + ROTATIONS)
    polynomials = tl.load(ints + POLYNOMIALS)
    coefficients = tl.load(ints + COEFFICIENTS)
    size = tl.load(ints + SCRATCH)
    for begin in range(0, ROWS * n_angles, LANES):
        k = begin + i
        live = k < ROWS * n_angles
        sample = first + k // n_angles
        a = k % n_angles
        row = tl.minimum(sample, batch - 1).to(tl.int64) * stride + given
        angle = tl.zeros_like(tl.load(floats + a))
        for m in range(monomials):
            term = tl.load(floats + coefficients + a * monomials + m, mask=live, other=0.0)
            for d in range(degree):
                slot = tl.load(ints + polynomials + (a * monomials + m) * degree + d, mask=live, other=-1)
                term *= slot_value(slot, theta, x, row, n_weights, live)
            angle += term
        at = scratch + sample.to(tl.int64) * size + 2 * a
        tl.store(at, tl.cos(0.5 * angle), mask=live)
        tl.store(at + 1, tl.sin(0.5 * angle), mask=live)
    tl.debug_barrier()
    factors = tl.load(ints + FACTORS)
    constants = tl.load(ints + CONSTANTS)
    width: tl.constexpr = 4 + 3 * FACTORS_MOST
    for begin in range(0, ROWS * n_rotations, LANES):
        k = begin + i
        live = k < ROWS * n_rotations
        row = scratch + (first + k // n_rotations).to(tl.int64) * size
        rotation = k % n_rotations
        constant = floats + constants + rotation * width
        qw = tl.load(constant, mask=live, other=1.0)
        qx = tl.load(constant + 1, mask=live, other=0.0)
        qy = tl.load(constant + 2, mask=live, other=0.0)
        qz = tl.load(constant + 3, mask=live, other=0.0)
        ex = ()
        ey = ()
        ez = ()
        for f in tl.static_range(FACTORS_MOST):
            a = tl.load(ints + factors + rotation * FACTORS_MOST + f, mask=live, other=-1)
            c = tl.load(row + 2 * a, mask=live & (a >= 0), other=1.0)
            s = tl.load(row + 2 * a + 1, mask=live & (a >= 0), other=0.0)
            nx = tl.load(constant + 4 + 3 * f, mask=live, other=0.0)
            ny = tl.load(constant + 5 + 3 * f, mask=live, other=0.0)
            nz = tl.load(constant + 6 + 3 * f, mask=live, other=0.0)
            w = c * qw - s * (nx * qx + ny * qy + nz * qz)
            vx = c * qx + s * (nx * qw + ny * qz - nz * qy)
            vy = c * qy + s * (ny * qw + nz * qx - nx * qz)
            qz = c * qz + s * (nz * qw + nx * qy - ny * qx)
            qw = w
            qx = vx
            qy = vy
            cos = c * c - s * s
            sin = 2.0 * c * s
            new_x = ()
            new_y = ()
            new_z = ()
            for g in tl.static_range(f):
                along = (nx * ex[g] + ny * ey[g] + nz * ez[g]) * (2.0 * s * s)
                new_x = new_x + (ex[g] * cos + (ny * ez[g] - nz * ey[g]) * sin + nx * along,)
                new_y = new_y + (ey[g] * cos + (nz * ex[g] - nx * ez[g]) * sin + ny * along,)
                new_z = new_z + (ez[g] * cos + (nx * ey[g] - ny * ex[g]) * sin + nz * along,)
            ex = new_x + (nx,)
            ey = new_y + (ny,)
            ez = new_z + (nz,)
        out = row + 2 * n_angles + rotation * width
        tl.store(out, qw, mask=live)
        tl.store(out + 1, -qz, mask=live)
        tl.store(out + 2, qy, mask=live)
        tl.store(out + 3, -qx, mask=live)
        for f in tl.static_range(FACTORS_MOST):
            tl.store(out + 4 + 3 * f, ex[f], mask=live)
            tl.store(out + 5 + 3 * f, ey[f], mask=live)
            tl.store(out + 6 + 3 * f, ez[f], mask=live)
    tl.debug_barrier()


@triton.jit
def pull_inputs(
    ints, floats, theta, x, d_angles, d_x, first, batch, stride, given, n_weights, n_inputs, i,
    entries, degree, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """From gradients of angles (rows of `d_angles`) to those of inputs: the last columns of `d_x`."""
    n_angles = tl.load(ints + ANGLES)
    table = tl.load(ints + INPUTS)
    coefficients = tl.load(ints + table)
    for begin in range(0, ROWS * n_inputs, LANES):
        k = begin + i
        sample = first + k // n_inputs
        live = (k < ROWS * n_inputs) & (sample < batch)
        column = k % n_inputs
        row = sample.to(tl.int64) * stride + given
        total = tl.zeros_like(tl.load(floats + column * 0))
        for e in range(entries):
            entry = column * entries + e
            at = ints + table + 1 + entry * degree
            term = tl.load(floats + coefficients + entry, mask=live, other=0.0)
            used = live & (term != 0.0)
            a = tl.load(at, mask=used, other=0)
            for d in range(1, degree):
                slot = tl.load(at + d, mask=used, other=-1)
                term *= slot_value(slot, theta, x, row, n_weights, used)
            total += tl.where(
                used, term * tl.load(d_angles + sample.to(tl.int64) * n_angles + a, mask=used, other=0.0), 0.0
            )
        tl.store(d_x + row + column, total, mask=live)
