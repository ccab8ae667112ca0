"""Y turns: real 2x2 matrices on pairs of rows, up to four at once, and their gradients.

Three turns of different qubits mix eight rows, which stay in registers: one pass over memory for three gates. Machines
with 32 vector registers hold the sixteen rows of four turns (`tables`). The rows from which the others are
reached are listed by two short tables (`tables.LOW_ROWS`).
"""

from __future__ import annotations

from .common import COEF, D_ANGLE, LAMBDA, PLANE, add_to, inline, jit, place, table_sizes
from .simd import get, lanes, vfma, vfnma, vload, vsplat, vstore

__all__ = ["apply_turns", "turn_gradients"]


@inline
def _turn(a, b, c, s):
    return vfnma(s, b, c * a), vfma(s, a, c * b)


@jit
def _turn_1(x, base, ints, step, c0, s0):
    n, reps, k1 = get(ints, step + 5), get(ints, step + 4), get(ints, get(ints, step + 6) + 1)
    low, high = table_sizes(n)
    for h in range(high):
        first = get(ints, reps + low + h)
        for i in range(low):
            p = first ^ get(ints, reps + i)
            a0, a1 = _turn(vload(x, base + p), vload(x, base + (p ^ k1)), c0, s0)
            vstore(x, base + p, a0)
            vstore(x, base + (p ^ k1), a1)


@jit
def _turn_2(x, base, ints, step, c0, s0, c1, s1):
    n, reps, move = get(ints, step + 5), get(ints, step + 4), get(ints, step + 6)
    k1, k2, k3 = get(ints, move + 1), get(ints, move + 2), get(ints, move + 3)
    low, high = table_sizes(n)
    for h in range(high):
        first = get(ints, reps + low + h)
        for i in range(low):
            p = first ^ get(ints, reps + i)
            p0, p1, p2, p3 = base + p, base + (p ^ k1), base + (p ^ k2), base + (p ^ k3)
            a0, a1 = _turn(vload(x, p0), vload(x, p1), c0, s0)
            a2, a3 = _turn(vload(x, p2), vload(x, p3), c0, s0)
            a0, a2 = _turn(a0, a2, c1, s1)
            a1, a3 = _turn(a1, a3, c1, s1)
            vstore(x, p0, a0)
            vstore(x, p1, a1)
            vstore(x, p2, a2)
            vstore(x, p3, a3)


@inline
def _turn_eight(a0, a1, a2, a3, a4, a5, a6, a7, c0, s0, c1, s1, c2, s2):
    a0, a1 = _turn(a0, a1, c0, s0)
    a2, a3 = _turn(a2, a3, c0, s0)
    a4, a5 = _turn(a4, a5, c0, s0)
    a6, a7 = _turn(a6, a7, c0, s0)
    a0, a2 = _turn(a0, a2, c1, s1)
    a1, a3 = _turn(a1, a3, c1, s1)
    a4, a6 = _turn(a4, a6, c1, s1)
    a5, a7 = _turn(a5, a7, c1, s1)
    a0, a4 = _turn(a0, a4, c2, s2)
    a1, a5 = _turn(a1, a5, c2, s2)
    a2, a6 = _turn(a2, a6, c2, s2)
    a3, a7 = _turn(a3, a7, c2, s2)
    return a0, a1, a2, a3, a4, a5, a6, a7


@jit
def _turn_3(x, base, ints, step, c0, s0, c1, s1, c2, s2):
    n, reps, move = get(ints, step + 5), get(ints, step + 4), get(ints, step + 6)
    k1, k2, k3, k4 = get(ints, move + 1), get(ints, move + 2), get(ints, move + 3), get(ints, move + 4)
    k5, k6, k7 = get(ints, move + 5), get(ints, move + 6), get(ints, move + 7)
    low, high = table_sizes(n)
    for h in range(high):
        first = get(ints, reps + low + h)
        for i in range(low):
            p = first ^ get(ints, reps + i)
            p0, p1, p2, p3 = base + p, base + (p ^ k1), base + (p ^ k2), base + (p ^ k3)
            p4, p5, p6, p7 = base + (p ^ k4), base + (p ^ k5), base + (p ^ k6), base + (p ^ k7)
            a0, a1, a2, a3 = vload(x, p0), vload(x, p1), vload(x, p2), vload(x, p3)
            a4, a5, a6, a7 = vload(x, p4), vload(x, p5), vload(x, p6), vload(x, p7)
            a0, a1, a2, a3, a4, a5, a6, a7 = _turn_eight(a0, a1, a2, a3, a4, a5, a6, a7, c0, s0, c1, s1, c2, s2)
            vstore(x, p0, a0)
            vstore(x, p1, a1)
            vstore(x, p2, a2)
            vstore(x, p3, a3)
            vstore(x, p4, a4)
            vstore(x, p5, a5)
            vstore(x, p6, a6)
            vstore(x, p7, a7)


@jit
def _turn_4(x, base, ints, step, c0, s0, c1, s1, c2, s2, c3, s3):
    n, reps, move = get(ints, step + 5), get(ints, step + 4), get(ints, step + 6)
    k1, k2, k3, k4 = get(ints, move + 1), get(ints, move + 2), get(ints, move + 3), get(ints, move + 4)
    k5, k6, k7, k8 = get(ints, move + 5), get(ints, move + 6), get(ints, move + 7), get(ints, move + 8)
    low, high = table_sizes(n)
    for h in range(high):
        first = get(ints, reps + low + h)
        for i in range(low):
            p = first ^ get(ints, reps + i)
            q = p ^ k8
            p0, p1, p2, p3 = base + p, base + (p ^ k1), base + (p ^ k2), base + (p ^ k3)
            p4, p5, p6, p7 = base + (p ^ k4), base + (p ^ k5), base + (p ^ k6), base + (p ^ k7)
            q0, q1, q2, q3 = base + q, base + (q ^ k1), base + (q ^ k2), base + (q ^ k3)
            q4, q5, q6, q7 = base + (q ^ k4), base + (q ^ k5), base + (q ^ k6), base + (q ^ k7)
            a0, a1, a2, a3 = vload(x, p0), vload(x, p1), vload(x, p2), vload(x, p3)
            a4, a5, a6, a7 = vload(x, p4), vload(x, p5), vload(x, p6), vload(x, p7)
            b0, b1, b2, b3 = vload(x, q0), vload(x, q1), vload(x, q2), vload(x, q3)
            b4, b5, b6, b7 = vload(x, q4), vload(x, q5), vload(x, q6), vload(x, q7)
            a0, a1, a2, a3, a4, a5, a6, a7 = _turn_eight(a0, a1, a2, a3, a4, a5, a6, a7, c0, s0, c1, s1, c2, s2)
            b0, b1, b2, b3, b4, b5, b6, b7 = _turn_eight(b0, b1, b2, b3, b4, b5, b6, b7, c0, s0, c1, s1, c2, s2)
            a0, b0 = _turn(a0, b0, c3, s3)
            a1, b1 = _turn(a1, b1, c3, s3)
            a2, b2 = _turn(a2, b2, c3, s3)
            a3, b3 = _turn(a3, b3, c3, s3)
            a4, b4 = _turn(a4, b4, c3, s3)
            a5, b5 = _turn(a5, b5, c3, s3)
            a6, b6 = _turn(a6, b6, c3, s3)
            a7, b7 = _turn(a7, b7, c3, s3)
            vstore(x, p0, a0)
            vstore(x, p1, a1)
            vstore(x, p2, a2)
            vstore(x, p3, a3)
            vstore(x, p4, a4)
            vstore(x, p5, a5)
            vstore(x, p6, a6)
            vstore(x, p7, a7)
            vstore(x, q0, b0)
            vstore(x, q1, b1)
            vstore(x, q2, b2)
            vstore(x, q3, b3)
            vstore(x, q4, b4)
            vstore(x, q5, b5)
            vstore(x, q6, b6)
            vstore(x, q7, b7)


@jit
def apply_turns(x, start, ints, step, work, real, back):
    """Apply a block of turns, or its inverse, to both planes."""
    size, coef, plane = lanes(work), place(ints, COEF), get(ints, PLANE)
    bits = get(ints, step + 3)
    sign = vsplat(work, -1.0 if back else 1.0)
    t0, t1 = coef + 2 * size * get(ints, step + 7), coef + 2 * size * get(ints, step + 8)
    t2, t3 = coef + 2 * size * get(ints, step + 9), coef + 2 * size * get(ints, step + 10)
    c0, s0 = vload(work, t0), vload(work, t0 + size) * sign
    for part in range(1 if real else 2):
        base = start + part * plane
        if bits == 1:
            _turn_1(x, base, ints, step, c0, s0)
        else:
            c1, s1 = vload(work, t1), vload(work, t1 + size) * sign
            if bits == 2:
                _turn_2(x, base, ints, step, c0, s0, c1, s1)
            else:
                c2, s2 = vload(work, t2), vload(work, t2 + size) * sign
                if bits == 3:
                    _turn_3(x, base, ints, step, c0, s0, c1, s1, c2, s2)
                else:
                    c3, s3 = vload(work, t3), vload(work, t3 + size) * sign
                    _turn_4(x, base, ints, step, c0, s0, c1, s1, c2, s2, c3, s3)


@inline
def _cross(plus, minus, l0, l1, p0, p1):
    """Adds λ1 ψ0 to `plus` and λ0 ψ1 to `minus`."""
    return vfma(l1, p0, plus), vfma(l0, p1, minus)


@jit
def _cross_1(psi, at_p, lam, at_l, ints, step, zero):
    n, reps, k1 = get(ints, step + 5), get(ints, step + 4), get(ints, get(ints, step + 6) + 1)
    plus, minus = zero, zero
    low, high = table_sizes(n)
    for h in range(high):
        first = get(ints, reps + low + h)
        for i in range(low):
            p = first ^ get(ints, reps + i)
            q = p ^ k1
            plus, minus = _cross(
                plus, minus, vload(lam, at_l + p), vload(lam, at_l + q), vload(psi, at_p + p), vload(psi, at_p + q)
            )
    return plus - minus


@jit
def _cross_2(psi, at_p, lam, at_l, ints, step, zero):
    n, reps, move = get(ints, step + 5), get(ints, step + 4), get(ints, step + 6)
    k1, k2, k3 = get(ints, move + 1), get(ints, move + 2), get(ints, move + 3)
    u0, m0, u1, m1 = zero, zero, zero, zero
    low, high = table_sizes(n)
    for h in range(high):
        first = get(ints, reps + low + h)
        for i in range(low):
            p = first ^ get(ints, reps + i)
            q, r, t = p ^ k1, p ^ k2, p ^ k3
            l0, l1, l2, l3 = vload(lam, at_l + p), vload(lam, at_l + q), vload(lam, at_l + r), vload(lam, at_l + t)
            a0, a1, a2, a3 = vload(psi, at_p + p), vload(psi, at_p + q), vload(psi, at_p + r), vload(psi, at_p + t)
            u0, m0 = _cross(u0, m0, l0, l1, a0, a1)
            u1, m1 = _cross(u1, m1, l0, l2, a0, a2)
            u0, m0 = _cross(u0, m0, l2, l3, a2, a3)
            u1, m1 = _cross(u1, m1, l1, l3, a1, a3)
    return u0 - m0, u1 - m1


@jit
def _cross_3(psi, at_p, lam, at_l, ints, step, zero):
    n, reps, move = get(ints, step + 5), get(ints, step + 4), get(ints, step + 6)
    k1, k2, k3, k4 = get(ints, move + 1), get(ints, move + 2), get(ints, move + 3), get(ints, move + 4)
    k5, k6, k7 = get(ints, move + 5), get(ints, move + 6), get(ints, move + 7)
    u0, m0, u1, m1, u2, m2 = zero, zero, zero, zero, zero, zero
    low, high = table_sizes(n)
    for h in range(high):
        first = get(ints, reps + low + h)
        for i in range(low):
            p = first ^ get(ints, reps + i)
            p1, p2, p3, p4, p5, p6, p7 = p ^ k1, p ^ k2, p ^ k3, p ^ k4, p ^ k5, p ^ k6, p ^ k7
            l0, l1, l2, l3 = (
                vload(lam, at_l + p),
                vload(lam, at_l + p1),
                vload(lam, at_l + p2),
                vload(lam, at_l + p3),
            )
            l4, l5, l6, l7 = (
                vload(lam, at_l + p4),
                vload(lam, at_l + p5),
                vload(lam, at_l + p6),
                vload(lam, at_l + p7),
            )
            a0, a1, a2, a3 = (
                vload(psi, at_p + p),
                vload(psi, at_p + p1),
                vload(psi, at_p + p2),
                vload(psi, at_p + p3),
            )
            a4, a5, a6, a7 = (
                vload(psi, at_p + p4),
                vload(psi, at_p + p5),
                vload(psi, at_p + p6),
                vload(psi, at_p + p7),
            )
            u0, m0 = _cross(u0, m0, l0, l1, a0, a1)
            u1, m1 = _cross(u1, m1, l0, l2, a0, a2)
            u2, m2 = _cross(u2, m2, l0, l4, a0, a4)
            u0, m0 = _cross(u0, m0, l2, l3, a2, a3)
            u1, m1 = _cross(u1, m1, l1, l3, a1, a3)
            u2, m2 = _cross(u2, m2, l1, l5, a1, a5)
            u0, m0 = _cross(u0, m0, l4, l5, a4, a5)
            u1, m1 = _cross(u1, m1, l4, l6, a4, a6)
            u2, m2 = _cross(u2, m2, l2, l6, a2, a6)
            u0, m0 = _cross(u0, m0, l6, l7, a6, a7)
            u1, m1 = _cross(u1, m1, l5, l7, a5, a7)
            u2, m2 = _cross(u2, m2, l3, l7, a3, a7)
    return u0 - m0, u1 - m1, u2 - m2


@inline
def _cross_row(a, l0, l1, l2, l3, g0, g1, g2, g3):
    """Adds λ of the four rows that a turn each reaches from this row of ψ, times it."""
    return vfma(l0, a, g0), vfma(l1, a, g1), vfma(l2, a, g2), vfma(l3, a, g3)


@jit
def _cross_4(psi, at_p, lam, at_l, ints, step, zero):
    """Sixteen rows of λ stay in registers, rows of ψ pass by."""
    n, reps, move = get(ints, step + 5), get(ints, step + 4), get(ints, step + 6)
    k1, k2, k3, k4 = get(ints, move + 1), get(ints, move + 2), get(ints, move + 3), get(ints, move + 4)
    k5, k6, k7, k8 = get(ints, move + 5), get(ints, move + 6), get(ints, move + 7), get(ints, move + 8)
    u0, m0, u1, m1, u2, m2, u3, m3 = zero, zero, zero, zero, zero, zero, zero, zero
    low, high = table_sizes(n)
    for h in range(high):
        first = get(ints, reps + low + h)
        for i in range(low):
            p = first ^ get(ints, reps + i)
            p1, p2, p3, p4, p5, p6, p7 = p ^ k1, p ^ k2, p ^ k3, p ^ k4, p ^ k5, p ^ k6, p ^ k7
            q = p ^ k8
            q1, q2, q3, q4, q5, q6, q7 = q ^ k1, q ^ k2, q ^ k3, q ^ k4, q ^ k5, q ^ k6, q ^ k7
            l0, l1, l2, l3 = vload(lam, at_l + p), vload(lam, at_l + p1), vload(lam, at_l + p2), vload(lam, at_l + p3)
            l4, l5, l6, l7 = vload(lam, at_l + p4), vload(lam, at_l + p5), vload(lam, at_l + p6), vload(lam, at_l + p7)
            r0, r1, r2, r3 = vload(lam, at_l + q), vload(lam, at_l + q1), vload(lam, at_l + q2), vload(lam, at_l + q3)
            r4, r5, r6, r7 = vload(lam, at_l + q4), vload(lam, at_l + q5), vload(lam, at_l + q6), vload(lam, at_l + q7)
            u0, u1, u2, u3 = _cross_row(vload(psi, at_p + p), l1, l2, l4, r0, u0, u1, u2, u3)
            m0, u1, u2, u3 = _cross_row(vload(psi, at_p + p1), l0, l3, l5, r1, m0, u1, u2, u3)
            u0, m1, u2, u3 = _cross_row(vload(psi, at_p + p2), l3, l0, l6, r2, u0, m1, u2, u3)
            m0, m1, u2, u3 = _cross_row(vload(psi, at_p + p3), l2, l1, l7, r3, m0, m1, u2, u3)
            u0, u1, m2, u3 = _cross_row(vload(psi, at_p + p4), l5, l6, l0, r4, u0, u1, m2, u3)
            m0, u1, m2, u3 = _cross_row(vload(psi, at_p + p5), l4, l7, l1, r5, m0, u1, m2, u3)
            u0, m1, m2, u3 = _cross_row(vload(psi, at_p + p6), l7, l4, l2, r6, u0, m1, m2, u3)
            m0, m1, m2, u3 = _cross_row(vload(psi, at_p + p7), l6, l5, l3, r7, m0, m1, m2, u3)
            u0, u1, u2, m3 = _cross_row(vload(psi, at_p + q), r1, r2, r4, l0, u0, u1, u2, m3)
            m0, u1, u2, m3 = _cross_row(vload(psi, at_p + q1), r0, r3, r5, l1, m0, u1, u2, m3)
            u0, m1, u2, m3 = _cross_row(vload(psi, at_p + q2), r3, r0, r6, l2, u0, m1, u2, m3)
            m0, m1, u2, m3 = _cross_row(vload(psi, at_p + q3), r2, r1, r7, l3, m0, m1, u2, m3)
            u0, u1, m2, m3 = _cross_row(vload(psi, at_p + q4), r5, r6, r0, l4, u0, u1, m2, m3)
            m0, u1, m2, m3 = _cross_row(vload(psi, at_p + q5), r4, r7, r1, l5, m0, u1, m2, m3)
            u0, m1, m2, m3 = _cross_row(vload(psi, at_p + q6), r7, r4, r2, l6, u0, m1, m2, m3)
            m0, m1, m2, m3 = _cross_row(vload(psi, at_p + q7), r6, r5, r3, l7, m0, m1, m2, m3)
    return u0 - m0, u1 - m1, u2 - m2, u3 - m3


@jit
def turn_gradients(psi, start, ints, step, work, real):
    """Add dL/dangle of a block of turns."""
    size, plane, lam = lanes(work), get(ints, PLANE), place(ints, LAMBDA)
    d_angle, bits = place(ints, D_ANGLE), get(ints, step + 3)
    zero = vsplat(work, 0.0)
    for part in range(1 if real else 2):
        at_p, at_l = start + part * plane, lam + part * plane
        if bits == 1:
            add_to(work, d_angle + size * get(ints, step + 7), _cross_1(psi, at_p, work, at_l, ints, step, zero))
        elif bits == 2:
            g0, g1 = _cross_2(psi, at_p, work, at_l, ints, step, zero)
            add_to(work, d_angle + size * get(ints, step + 7), g0)
            add_to(work, d_angle + size * get(ints, step + 8), g1)
        elif bits == 3:
            g0, g1, g2 = _cross_3(psi, at_p, work, at_l, ints, step, zero)
            add_to(work, d_angle + size * get(ints, step + 7), g0)
            add_to(work, d_angle + size * get(ints, step + 8), g1)
            add_to(work, d_angle + size * get(ints, step + 9), g2)
        else:
            g0, g1, g2, g3 = _cross_4(psi, at_p, work, at_l, ints, step, zero)
            add_to(work, d_angle + size * get(ints, step + 7), g0)
            add_to(work, d_angle + size * get(ints, step + 8), g1)
            add_to(work, d_angle + size * get(ints, step + 9), g2)
            add_to(work, d_angle + size * get(ints, step + 10), g3)
