"""Explicit SIMD for numba: a value of type `Vec` is one vector register of samples.

numba's own vectoriser has to prove that the rows of a state do not overlap, and gives up or checks at run time. With
vectors as values there is nothing to prove: what is written is what runs.
Indices are elements, signed, and not wrapped: `get` and `put` read and write scalars the same way.
With NUMBA_BOUNDSCHECK=1 in the environment every access is checked, as numba's own are.
An array of shape (N,) holds vectors as wide as the machine has them; one of shape (1, N) holds vectors of one lane, for
kernels that are compiled a second time for single samples.
"""

from __future__ import annotations

import operator
from functools import cache
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model
from numba.np.arrayobj import make_array

__all__ = [
    "Vec", "fma", "fnma", "get", "get_item", "lane_count", "lanes", "load", "put", "store",
    "transpose", "vfloor", "vfma", "vfnma", "vlane", "vlike", "vload", "vmax_abs", "vnarrow", "vnormal", "vround",
    "vsplat", "vstore", "vsum", "vwide", "wide_type",
]  # fmt: skip

_I32 = ir.IntType(32)


class Vec(types.Type):
    """A vector of `lanes` numbers of `dtype`."""

    def __init__(self, dtype: types.Float, lanes: int) -> None:
        """Name it."""
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vec({dtype}x{lanes})")

    @staticmethod
    def of(array_type: Any) -> Vec:
        """The vectors that an array holds."""
        lanes = 1 if array_type.ndim == 2 else lane_count(array_type.dtype.bitwidth)
        return Vec(array_type.dtype, lanes)


def wide_type(vec: Vec) -> Vec:
    """As many lanes in double precision."""
    return Vec(types.float64, vec.lanes)


@register_model(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Vec) -> None:
        super().__init__(manager, fe_type, ir.VectorType(_element(fe_type.dtype), fe_type.lanes))


@cache
def lane_count(bits: int) -> int:
    """Numbers of `bits` bits in the widest vector register of this machine; asked of LLVM once."""
    features = binding.get_host_cpu_features()
    register = 512 if features.get("avx512f") else 256
    return register // bits


def _element(dtype: types.Float) -> ir.Type:
    return ir.FloatType() if dtype == types.float32 else ir.DoubleType()


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, count: int = 1) -> Any:
    view = make_array(array_type)(context, builder, array)
    if config.BOUNDSCHECK:
        last = builder.add(index, ir.Constant(ir.IntType(64), count - 1))
        outside = builder.or_(
            builder.icmp_signed("<", index, ir.Constant(ir.IntType(64), 0)),
            builder.icmp_signed(">=", last, view.nitems),
        )
        with builder.if_then(outside, likely=False):
            context.call_conv.return_user_exc(builder, IndexError, ("a kernel reads or writes beside an array",))
    return builder.gep(view.data, [index])


def _vector_pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, vec: Any = None) -> Any:
    llty = context.get_value_type(vec or Vec.of(array_type))
    pointer = _pointer(context, builder, array_type, array, index, llty.count)
    return builder.bitcast(pointer, llty.as_pointer())


def get_item(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Code for `get`, for other intrinsics."""
    value = builder.load(_pointer(context, builder, array_type, array, index))
    narrow = isinstance(array_type.dtype, types.Integer) and value.type.width < 64
    return builder.sext(value, ir.IntType(64)) if narrow else value


def load(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Code for `vload`."""
    pointer = _vector_pointer(context, builder, array_type, array, index)
    return builder.load(pointer, align=array_type.dtype.bitwidth // 8)


def store(context: Any, builder: Any, array_type: Any, array: Any, index: Any, value: Any) -> None:
    """Code for `vstore`."""
    pointer = _vector_pointer(context, builder, array_type, array, index)
    builder.store(value, pointer, align=array_type.dtype.bitwidth // 8)


@intrinsic
def lanes(typingctx, array):  # noqa: D103 - numba intrinsics take types
    count = Vec.of(array).lanes

    def codegen(context, builder, sig, args):
        return ir.Constant(ir.IntType(64), count)

    return types.int64(array), codegen


@intrinsic
def get(typingctx, array, index):
    """`array[index]`; integers come as int64."""
    integer = isinstance(array.dtype, types.Integer)

    def codegen(context, builder, sig, args):
        return get_item(context, builder, sig.args[0], *args)

    return (types.int64 if integer else array.dtype)(array, types.int64), codegen


@intrinsic
def put(typingctx, array, index, value):
    """Store `value` at `array[index]`."""

    def codegen(context, builder, sig, args):
        value = context.cast(builder, args[2], sig.args[2], sig.args[0].dtype)
        builder.store(value, _pointer(context, builder, sig.args[0], args[0], args[1]))
        return context.get_dummy_value()

    return types.void(array, types.int64, value), codegen


@intrinsic
def vload(typingctx, array, index):
    """The vector that starts at element `index`."""

    def codegen(context, builder, sig, args):
        return load(context, builder, sig.args[0], *args)

    return Vec.of(array)(array, types.int64), codegen


@intrinsic
def vstore(typingctx, array, index, value):
    """Store a vector at element `index`."""

    def codegen(context, builder, sig, args):
        store(context, builder, sig.args[0], *args)
        return context.get_dummy_value()

    return types.void(array, types.int64, value), codegen


def _splat(builder: Any, scalar: Any, llty: Any) -> Any:
    undefined = ir.Constant(llty, ir.Undefined)
    zeros = ir.Constant(ir.VectorType(_I32, llty.count), [0] * llty.count)
    return builder.shuffle_vector(builder.insert_element(undefined, scalar, ir.Constant(_I32, 0)), undefined, zeros)


@intrinsic
def vsplat(typingctx, array, x):
    """A vector of `x`, in the precision of `array`."""
    vec = Vec.of(array)

    def codegen(context, builder, sig, args):
        scalar = context.cast(builder, args[1], sig.args[1], sig.args[0].dtype)
        return _splat(builder, scalar, context.get_value_type(vec))

    return vec(array, x), codegen


@intrinsic
def vlike(typingctx, a, x):
    """A vector of `x`, like `a`."""

    def codegen(context, builder, sig, args):
        scalar = context.cast(builder, args[1], sig.args[1], a.dtype)
        return _splat(builder, scalar, context.get_value_type(a))

    return a(a, x), codegen


def _call(builder: Any, name: str, args: Any) -> Any:
    llty = args[0].type
    full = f"llvm.{name}.v{llty.count}f{32 if isinstance(llty.element, ir.FloatType) else 64}"
    kind = ir.FunctionType(llty, [llty] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, full), args)


def fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Code for `vfma`."""
    return _call(builder, "fma", [a, b, c])


def fnma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Code for `vfnma`."""
    return _call(builder, "fma", [builder.fneg(a), b, c])


@intrinsic
def vfma(typingctx, a, b, c):
    """`a * b + c`, rounded once."""

    def codegen(context, builder, sig, args):
        return fma(builder, *args)

    return c(c, c, c), codegen


@intrinsic
def vfnma(typingctx, a, b, c):
    """`c - a * b`, rounded once."""

    def codegen(context, builder, sig, args):
        return fnma(builder, *args)

    return c(c, c, c), codegen


@intrinsic
def vround(typingctx, a):
    """Nearest whole numbers."""

    def codegen(context, builder, sig, args):
        return _call(builder, "rint", args)

    return a(a), codegen


@intrinsic
def vfloor(typingctx, a):
    """Whole numbers below."""

    def codegen(context, builder, sig, args):
        return _call(builder, "floor", args)

    return a(a), codegen


@intrinsic
def vmax_abs(typingctx, a, b):
    """The larger of `a` and `|b|`, lane by lane; a NaN counts for nothing."""

    def codegen(context, builder, sig, args):
        return _call(builder, "maxnum", [args[0], _call(builder, "fabs", [args[1]])])

    return a(a, a), codegen


@intrinsic
def vlane(typingctx, a, index):
    """One lane."""

    def codegen(context, builder, sig, args):
        return builder.extract_element(args[0], args[1])

    return a.dtype(a, types.int64), codegen


@intrinsic
def vnormal(typingctx, a):
    """`a`, and zero in the lanes whose magnitude is below the smallest normal number."""

    def codegen(context, builder, sig, args):
        least = context.get_constant(a.dtype, 2.0 ** (-126 if a.dtype == types.float32 else -1022))
        vector = _splat(builder, least, args[0].type)
        small = builder.fcmp_ordered("<", _call(builder, "fabs", [args[0]]), vector)
        return builder.select(small, ir.Constant(args[0].type, None), args[0])

    return a(a), codegen


@intrinsic
def vwide(typingctx, a):
    """The same numbers in double precision."""
    wide = wide_type(a)

    def codegen(context, builder, sig, args):
        return args[0] if wide == a else builder.fpext(args[0], context.get_value_type(wide))

    return wide(a), codegen


@intrinsic
def vnarrow(typingctx, array, a):
    """A wide vector, rounded to the precision of `array`."""
    narrow = Vec.of(array)

    def codegen(context, builder, sig, args):
        return args[1] if narrow == a else builder.fptrunc(args[1], context.get_value_type(narrow))

    return narrow(array, a), codegen


def _halve(builder: Any, v: Any, combine: Any) -> Any:
    count = v.type.count
    while count > 1:
        count //= 2
        low, high = (ir.Constant(ir.VectorType(_I32, count), list(range(s, s + count))) for s in (0, count))
        v = combine(builder.shuffle_vector(v, v, low), builder.shuffle_vector(v, v, high))
    return builder.extract_element(v, ir.Constant(_I32, 0))


@intrinsic
def vsum(typingctx, a):
    """Sum of the lanes, in a fixed order."""

    def codegen(context, builder, sig, args):
        return _halve(builder, args[0], builder.fadd)

    return a.dtype(a), codegen


@intrinsic
def transpose(typingctx, source, start, stride, target, offset, target_stride):
    """Transpose a square of lanes x lanes elements from `source` to `target`; rows are `stride` elements apart."""
    vec = min(Vec.of(source), Vec.of(target), key=lambda v: v.lanes)
    count = vec.lanes

    def codegen(context, builder, sig, args):
        i64 = ir.IntType(64)
        align = sig.args[0].dtype.bitwidth // 8

        def pointer(which, base, step, row):
            index = builder.add(base, builder.mul(step, ir.Constant(i64, row)))
            return _vector_pointer(context, builder, sig.args[which], args[which], index, vec)

        rows = [builder.load(pointer(0, args[1], args[2], r), align=align) for r in range(count)]
        half = 1
        while half < count:
            for i in range(count):
                if i & half:
                    continue
                a, b = rows[i], rows[i | half]
                low = [(lane ^ half) + count if lane & half else lane for lane in range(count)]
                high = [lane + count if lane & half else lane ^ half for lane in range(count)]
                for row, mask in ((i, low), (i | half, high)):
                    rows[row] = builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, count), mask))
            half *= 2
        for r in range(count):
            builder.store(rows[r], pointer(3, args[4], args[5], r), align=align)
        return context.get_dummy_value()

    sig = types.void(source, types.int64, types.int64, target, types.int64, types.int64)
    return sig, codegen


def _operator(op: Any, method: str) -> None:
    @infer_global(op)
    class _Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], Vec) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    @lower_builtin(op, Vec, Vec)
    def _lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, method)(*args)


for _op, _method in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_op, _method)
