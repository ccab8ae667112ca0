"""Device functions on a state in registers: a tuple of 2**R vectors over threads, for each of its two planes.

Threads are numbered `sample << (k - R) | thread`; register r of thread t holds position `t << R | r` of its sample.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "add_signed",
    "contract",
    "exchange",
    "indices",
    "max_over_sample",
    "over_sample",
    "pack",
    "parity_sign",
    "phase",
    "rotate",
    "signed_sum",
    "sum_samples",
    "unpack",
]


@triton.jit
def pack(x, R: tl.constexpr):
    """2**R vectors (n) as one (n * 2**R), register after register of each thread: no data moves."""
    if R == 1:
        y = tl.join(x[0], x[1])
    elif R == 2:
        y = tl.join(tl.join(x[0], x[2]), tl.join(x[1], x[3]))
    else:
        even = tl.join(tl.join(x[0], x[4]), tl.join(x[2], x[6]))
        odd = tl.join(tl.join(x[1], x[5]), tl.join(x[3], x[7]))
        y = tl.join(even, odd)
    return tl.reshape(y, (x[0].shape[0] * (1 << R),))


@triton.jit
def unpack(z, R: tl.constexpr):
    """The inverse of `pack`."""
    n: tl.constexpr = z.shape[0] // (1 << R)
    if R == 1:
        x0, x1 = tl.split(tl.reshape(z, (n, 2)))
        out = (x0, x1)
    elif R == 2:
        even, odd = tl.split(tl.reshape(z, (n, 2, 2)))
        x0, x2 = tl.split(even)
        x1, x3 = tl.split(odd)
        out = (x0, x1, x2, x3)
    else:
        even, odd = tl.split(tl.reshape(z, (n, 2, 2, 2)))
        even0, even1 = tl.split(even)
        odd0, odd1 = tl.split(odd)
        x0, x4 = tl.split(even0)
        x2, x6 = tl.split(even1)
        x1, x5 = tl.split(odd0)
        x3, x7 = tl.split(odd1)
        out = (x0, x1, x2, x3, x4, x5, x6, x7)
    return out


@triton.jit
def indices(ints, words, i, K: tl.constexpr, R: tl.constexpr):
    """Where every position of this layout is in another one: XOR of the words of its set bits."""
    t = i & ((1 << (K - R)) - 1)
    at = (i >> (K - R)) << K
    for bit in tl.static_range(K - R):
        at ^= ((t >> bit) & 1) * tl.load(ints + words + R + bit)
    out = (at,)
    for bit in tl.static_range(R):
        word = tl.load(ints + words + bit)
        moved = ()
        for r in tl.static_range(1 << bit):
            moved = moved + (out[r] ^ word,)
        out = out + moved
    return pack(out, R)


@triton.jit
def exchange(re, im, index, R: tl.constexpr):
    """Take both planes from the positions in `index`."""
    if re[0].dtype == tl.float32:  # both planes as one array of 64-bit numbers: half the barriers
        low = pack(re, R).to(tl.uint32, bitcast=True).to(tl.uint64)
        high = pack(im, R).to(tl.uint32, bitcast=True).to(tl.uint64)
        both = tl.gather(low | (high << 32), index, 0)
        new_re = both.to(tl.uint32).to(tl.float32, bitcast=True)
        new_im = (both >> 32).to(tl.uint32).to(tl.float32, bitcast=True)
        return unpack(new_re, R), unpack(new_im, R)
    return unpack(tl.gather(pack(re, R), index, 0), R), unpack(tl.gather(pack(im, R), index, 0), R)


@triton.jit
def rotate(re, im, ar, ai, br, bi, j: tl.constexpr, R: tl.constexpr):
    """[[a, -conj b], [b, conj a]] on registers that differ in bit j."""
    new_re = ()
    new_im = ()
    for r in tl.static_range(1 << R):
        if (r >> j) & 1:
            new_re = new_re + (br * re[r ^ (1 << j)] - bi * im[r ^ (1 << j)] + ar * re[r] + ai * im[r],)
            new_im = new_im + (br * im[r ^ (1 << j)] + bi * re[r ^ (1 << j)] + ar * im[r] - ai * re[r],)
        else:
            new_re = new_re + (ar * re[r] - ai * im[r] - br * re[r ^ (1 << j)] - bi * im[r ^ (1 << j)],)
            new_im = new_im + (ar * im[r] + ai * re[r] - br * im[r ^ (1 << j)] + bi * re[r ^ (1 << j)],)
    return new_re, new_im


@triton.jit
def contract(re, im, lam_re, lam_im, j: tl.constexpr, R: tl.constexpr):
    """Im⟨λ|σ ψ⟩ of the thread's pairs along bit j, for σ = X, Y, Z."""
    x = tl.zeros_like(re[0])
    y = tl.zeros_like(x)
    z = tl.zeros_like(x)
    for r in tl.static_range(1 << R):
        if ((r >> j) & 1) == 0:
            x += lam_re[r] * im[r ^ (1 << j)] - lam_im[r] * re[r ^ (1 << j)]
            x += lam_re[r ^ (1 << j)] * im[r] - lam_im[r ^ (1 << j)] * re[r]
            y += lam_re[r ^ (1 << j)] * re[r] + lam_im[r ^ (1 << j)] * im[r]
            y -= lam_re[r] * re[r ^ (1 << j)] + lam_im[r] * im[r ^ (1 << j)]
            z += lam_re[r] * im[r] - lam_im[r] * re[r]
            z -= lam_re[r ^ (1 << j)] * im[r ^ (1 << j)] - lam_im[r ^ (1 << j)] * re[r ^ (1 << j)]
    return x, y, z


@triton.jit
def parity_sign(bits):
    """1.0 where an even number of bits is set, else -1.0."""
    bits ^= bits >> 16
    bits ^= bits >> 8
    bits ^= bits >> 4
    return 1.0 - 2.0 * ((0x6996 >> (bits & 15)) & 1).to(tl.float32)


@triton.jit
def phase(re, im, c, s, mask, R: tl.constexpr):
    """Multiply by c - i s sign, where sign is the parity of the register's bits under `mask`."""
    new_re = ()
    new_im = ()
    for r in tl.static_range(1 << R):
        t = s * parity_sign(mask & r)
        new_re = new_re + (re[r] * c + im[r] * t,)
        new_im = new_im + (im[r] * c - re[r] * t,)
    return new_re, new_im


@triton.jit
def signed_sum(values, mask, R: tl.constexpr):
    """Sum of a thread's registers with the parity signs of `mask`."""
    total = tl.zeros_like(values[0])
    for r in tl.static_range(1 << R):
        total += values[r] * parity_sign(mask & r)
    return total


@triton.jit
def add_signed(weights, weight, mask, R: tl.constexpr):
    """Add a thread's weight to its registers, with the parity signs of `mask`."""
    out = ()
    for r in tl.static_range(1 << R):
        out = out + (weights[r] + weight * parity_sign(mask & r),)
    return out


@triton.jit
def sum_samples(values, S: tl.constexpr):
    """Eight vectors over threads as (S, 8): summed over each sample's threads."""
    both = pack(values, 3)
    return tl.sum(tl.reshape(both, (S, both.shape[0] // (8 * S), 8)), axis=1)


@triton.jit
def over_sample(value, S: tl.constexpr):
    """A vector over threads as its sum over each sample's threads, in each of them."""
    if S == 1:
        return tl.zeros_like(value) + tl.sum(value, axis=0)
    rows = tl.reshape(value, (S, value.shape[0] // S))
    total = tl.broadcast_to(tl.sum(rows, axis=1, keep_dims=True), rows.shape)
    return tl.reshape(total, value.shape)


@triton.jit
def max_over_sample(value, S: tl.constexpr):
    """The same for the largest."""
    if S == 1:
        return tl.zeros_like(value) + tl.max(value, axis=0)
    rows = tl.reshape(value, (S, value.shape[0] // S))
    top = tl.broadcast_to(tl.max(rows, axis=1, keep_dims=True), rows.shape)
    return tl.reshape(top, value.shape)
