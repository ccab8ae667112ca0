"""Device functions on start states, features to unit length and gradients back, and on states in memory."""

from __future__ import annotations

import triton
import triton.language as tl

from .registers import fold, max_over_sample, over_sample, spread

__all__ = ["load_state", "norm_part", "pull_features", "start_coset", "start_state", "store_state"]


@triton.jit
def load_state(state, first, place):
    """The amplitudes at places `first + place`: complex numbers of 64 bits, or pairs of float64."""
    if state.dtype.element_ty == tl.int64:
        both = tl.load(state + first + place).to(tl.uint64, bitcast=True)
        re = both.to(tl.uint32).to(tl.float32, bitcast=True)
        im = (both >> 32).to(tl.uint32).to(tl.float32, bitcast=True)
    else:
        at = state + 2 * (first + place)
        re = tl.load(at)
        im = tl.load(at + 1)
    return re, im


@triton.jit
def store_state(re, im, state, first, place):
    """The inverse of `load_state`."""
    if state.dtype.element_ty == tl.int64:
        low = re.to(tl.uint32, bitcast=True).to(tl.uint64)
        high = im.to(tl.uint32, bitcast=True).to(tl.uint64)
        tl.store(state + first + place, (low | (high << 32)).to(tl.int64, bitcast=True))
    else:
        at = state + 2 * (first + place)
        tl.store(at, re)
        tl.store(at + 1, im)


@triton.jit
def _feature_places(stride, first, S: tl.constexpr, K: tl.constexpr):
    """Of every place of the natural layout: the amplitude's index, its sample, and where in memory its feature is."""
    place = tl.arange(0, S << K)
    index = place // S
    sample = first + (place & (S - 1))
    return index, sample, sample.to(tl.int64) * stride + index


@triton.jit
def _unit(values, TINY, S: tl.constexpr, R: tl.constexpr):
    """Of each sample: features to unit length, one over their length, and whether they are a row of zeros.

    Features below the smallest normal number count as zeros.
    """
    values = tl.where(tl.abs(values) < TINY, 0.0, values)
    top = max_over_sample(values, S, R)
    scale = tl.where(top < TINY, 1.0, top)
    y = values / spread(scale, R)
    square = over_sample(fold(y * y, R), S)
    zero = (top < TINY) & (square < 1.0)  # not where a feature is NaN
    inverse = tl.where(zero, 0.0, 1.0 / tl.sqrt(tl.where(zero, 1.0, square)))
    return y * spread(inverse, R), inverse / scale, zero


@triton.jit
def start_state(
    x, stride, first, batch, given, TINY, S: tl.constexpr, K: tl.constexpr, R: tl.constexpr,
    AMPLITUDES: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """The real plane of the start state: |0…0⟩, or features to unit length."""
    index, sample, at = _feature_places(stride, first, S, K)
    one = tl.where(index == 0, 1.0, 0.0).to(DTYPE)
    if AMPLITUDES:
        values = tl.load(x + at, mask=(sample < batch) & (index < given), other=0.0)
        y, _, zero = _unit(values, TINY, S, R)
        return y + one * spread(tl.where(zero, 1.0, 0.0).to(DTYPE), R)
    return one


@triton.jit
def pull_features(
    lam_re, x, d_x, stride, first, batch, given, TINY, S: tl.constexpr, K: tl.constexpr, R: tl.constexpr
):  # fmt: skip
    """Re λ at the start → gradients of the features: (g - (g·y) y) / |x| with g = 2 Re λ; 0 for a row of zeros."""
    index, sample, at = _feature_places(stride, first, S, K)
    live = (sample < batch) & (index < given)
    y, inverse, zero = _unit(tl.load(x + at, mask=live, other=0.0), TINY, S, R)
    inner = over_sample(fold(y * lam_re, R), S)
    factor = tl.where(zero, 0.0, 2.0 * inverse)
    tl.store(d_x + at, (lam_re - spread(inner, R) * y) * spread(factor, R), mask=live)


@triton.jit
def norm_part(x, top, square, first, chunk, given, TINY, SIZE: tl.constexpr):
    """Of one chunk of a row of features: the largest magnitude, and the sum of squares on its scale."""
    index = chunk * SIZE + tl.arange(0, SIZE)
    values = tl.load(x + first + index, mask=index < given, other=0.0)
    values = tl.where(tl.abs(values) < TINY, 0.0, values)
    largest = tl.max(tl.abs(values), axis=0)
    y = values / tl.where(largest < TINY, 1.0, largest)
    tl.store(top, largest)
    tl.store(square, tl.sum(y * y, axis=0))


@triton.jit
def start_coset(
    x, norms, first, sample, given, amplitude, TINY, AMPLITUDES: tl.constexpr, DTYPE: tl.constexpr
):  # fmt: skip
    """The real plane of the start state at some amplitudes: |0…0⟩, or features times what `norms` has for the row."""
    one = tl.where(amplitude == 0, 1.0, 0.0).to(DTYPE)
    if AMPLITUDES:
        values = tl.load(x + first + amplitude, mask=amplitude < given, other=0.0)
        values = tl.where(tl.abs(values) < TINY, 0.0, values)
        inverse = tl.load(norms + 2 * sample + 1)
        return values / tl.load(norms + 2 * sample) * inverse + tl.where(inverse == 0.0, one, 0.0)
    return one
