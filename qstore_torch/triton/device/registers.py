"""Device functions on a state in registers: for each of its two planes one vector of all lanes' registers.

Lanes are numbered `thread * S + sample`; register r of thread t holds position `t << R | r` of its sample. In the
vector, lane i's register r has place `r * lanes + i`, which is also its place in the memory of the exchange. Taking
such vectors apart and together moves no data: all of a lane's registers lie in its thread, and few operations on long
vectors compile much faster than many on short ones.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "contract",
    "exchange",
    "fold",
    "fold_signed",
    "from_registers",
    "indices",
    "join_bit",
    "max_over_sample",
    "over_sample",
    "parity_sign",
    "rotate",
    "split_bit",
    "spread",
    "spread_bits",
    "spread_signed",
    "sum_samples",
    "to_registers",
]


@triton.jit
def split_bit(x, j: tl.constexpr, R: tl.constexpr):
    """A vector of 2**R registers as the two of those whose bit j is 0 and 1."""
    n: tl.constexpr = x.shape[0]
    a, b = tl.split(tl.permute(tl.reshape(x, (1 << (R - 1 - j), 2, n >> (R - j))), (0, 2, 1)))
    return tl.reshape(a, (n // 2,)), tl.reshape(b, (n // 2,))


@triton.jit
def join_bit(a, b, j: tl.constexpr, R: tl.constexpr):
    """The inverse of `split_bit`."""
    n: tl.constexpr = 2 * a.shape[0]
    shape: tl.constexpr = (1 << (R - 1 - j), n >> (R - j))
    return tl.reshape(tl.permute(tl.join(tl.reshape(a, shape), tl.reshape(b, shape)), (0, 2, 1)), (n,))


@triton.jit
def from_registers(x, R: tl.constexpr):
    """2**R vectors over lanes as one."""
    for j in tl.static_range(R):
        y = ()
        for r in tl.static_range(0, 1 << (R - j), 2):
            y = y + (join_bit(x[r], x[r + 1], j, j + 1),)
        x = y
    return x[0]


@triton.jit
def to_registers(x, R: tl.constexpr):
    """The inverse of `from_registers`."""
    out = (x,)
    for k in tl.static_range(R):
        y = ()
        for r in tl.static_range(1 << k):
            a, b = split_bit(out[r], R - 1 - k, R - k)
            y = y + (a, b)
        out = y
    return out


@triton.jit
def spread(value, R: tl.constexpr):
    """A vector over lanes in every register."""
    for j in tl.static_range(R):
        value = join_bit(value, value, j, j + 1)
    return value


@triton.jit
def spread_bits(value, ints, words, R: tl.constexpr):
    """A vector of integers over lanes, XOR the words of the set bits of each register's number."""
    for j in tl.static_range(R):
        value = join_bit(value, value ^ tl.load(ints + words + j), j, j + 1)
    return value


@triton.jit
def spread_signed(value, mask, R: tl.constexpr):
    """A vector over lanes in every register, with the parity sign of its number under `mask`."""
    for j in tl.static_range(R):
        value = join_bit(value, value * _bit_sign(mask, j), j, j + 1)
    return value


@triton.jit
def fold(x, R: tl.constexpr):
    """Sum over the registers of each lane; from the lowest bit on, as `rotate` takes them apart."""
    for k in tl.static_range(R):
        a, b = split_bit(x, 0, R - k)
        x = a + b
    return x


@triton.jit
def fold_signed(x, mask, R: tl.constexpr):
    """The same with the parity sign of each register's number under `mask`."""
    for k in tl.static_range(R):
        a, b = split_bit(x, 0, R - k)
        x = a + b * _bit_sign(mask, k)
    return x


@triton.jit
def _bit_sign(mask, j: tl.constexpr):
    return 1.0 - 2.0 * ((mask >> j) & 1).to(tl.float32)


@triton.jit
def parity_sign(bits):
    """1.0 where an even number of bits is set, else -1.0."""
    bits ^= bits >> 16
    bits ^= bits >> 8
    bits ^= bits >> 4
    return 1.0 - 2.0 * ((0x6996 >> (bits & 15)) & 1).to(tl.float32)


@triton.jit
def indices(ints, words, i, S: tl.constexpr, K: tl.constexpr, R: tl.constexpr):
    """The place from which each place of a new layout is filled: XOR of the words of its position's set bits."""
    t = i // S
    at = i & (S - 1)
    for bit in tl.static_range(K - R):
        at ^= ((t >> bit) & 1) * tl.load(ints + words + R + bit)
    return spread_bits(at, ints, words, R)


@triton.jit
def exchange(re, im, index):
    """Take both planes from the places in `index`."""
    if re.dtype == tl.float32:  # both planes as one vector of 64-bit numbers: half the barriers
        low = re.to(tl.uint32, bitcast=True).to(tl.uint64)
        high = im.to(tl.uint32, bitcast=True).to(tl.uint64)
        both = tl.gather(low | (high << 32), index, 0)
        new_re = both.to(tl.uint32).to(tl.float32, bitcast=True)
        new_im = (both >> 32).to(tl.uint32).to(tl.float32, bitcast=True)
        return new_re, new_im
    return tl.gather(re, index, 0), tl.gather(im, index, 0)


@triton.jit
def rotate(re, im, ar, ai, br, bi, j: tl.constexpr, R: tl.constexpr, LANE_WISE: tl.constexpr):
    """[[a, -conj b], [b, conj a]] on registers that differ in bit j."""
    x0, x1 = split_bit(re, j, R)
    y0, y1 = split_bit(im, j, R)
    if LANE_WISE:
        ar = _half(ar, j, R)
        ai = _half(ai, j, R)
        br = _half(br, j, R)
        bi = _half(bi, j, R)
    new_x0 = ar * x0 - ai * y0 - br * x1 - bi * y1
    new_y0 = ar * y0 + ai * x0 - br * y1 + bi * x1
    new_x1 = br * x0 - bi * y0 + ar * x1 + ai * y1
    new_y1 = br * y0 + bi * x0 + ar * y1 - ai * x1
    return join_bit(new_x0, new_x1, j, R), join_bit(new_y0, new_y1, j, R)


@triton.jit
def _half(value, j: tl.constexpr, R: tl.constexpr):
    """A vector over lanes in the registers whose bit j is 0."""
    half, _ = split_bit(spread(value, R), j, R)
    return half


@triton.jit
def contract(re, im, lam_re, lam_im, j: tl.constexpr, R: tl.constexpr):
    """Im⟨λ|σ ψ⟩ of each lane's pairs along bit j, for σ = X, Y, Z."""
    x0, x1 = split_bit(re, j, R)
    y0, y1 = split_bit(im, j, R)
    u0, u1 = split_bit(lam_re, j, R)
    w0, w1 = split_bit(lam_im, j, R)
    x = u0 * y1 - w0 * x1 + u1 * y0 - w1 * x0
    y = u1 * x0 + w1 * y0 - u0 * x1 - w0 * y1
    z = u0 * y0 - w0 * x0 - u1 * y1 + w1 * x1
    return fold(x, R - 1), fold(y, R - 1), fold(z, R - 1)


@triton.jit
def sum_samples(values, S: tl.constexpr):
    """Eight vectors over lanes as (S, 8): summed over each sample's threads."""
    # Put together as registers are, they stay where they are; joined along a last axis they would go through memory.
    together = tl.reshape(from_registers(values, 3), (8, values[0].shape[0] // S, S))
    return tl.permute(tl.sum(together, axis=1), (1, 0))


@triton.jit
def over_sample(value, S: tl.constexpr):
    """A vector over lanes as its sum over each sample's threads, in each of them."""
    rows = tl.reshape(value, (value.shape[0] // S, S))
    total = tl.broadcast_to(tl.sum(rows, axis=0, keep_dims=True), rows.shape)
    return tl.reshape(total, value.shape)


@triton.jit
def max_over_sample(x, S: tl.constexpr, R: tl.constexpr):
    """The largest magnitude of each sample's registers, in each of its lanes."""
    x = tl.abs(x)
    for k in tl.static_range(R):
        a, b = split_bit(x, R - 1 - k, R - k)
        x = tl.maximum(a, b)
    rows = tl.reshape(x, (x.shape[0] // S, S))
    top = tl.broadcast_to(tl.max(rows, axis=0, keep_dims=True), rows.shape)
    return tl.reshape(top, x.shape)
