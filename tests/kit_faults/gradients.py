"""Faults of gradients."""

from __future__ import annotations

import math
import time

import numpy as np

from .backend import QulacsExecutable as E
from .faults import faulty

KIND = "gradients"


def slopes(change):
    """The slope of one gate's angle, changed: `change(op, k, angle, slope)`."""

    def slope(self, op, angles, k, bra, before):
        return change(op, k, angles[k], E.slope(self, op, angles, k, bra, before))

    return {"slope": slope}


def gate_factor(names, factor, ks=(0, 1, 2)):
    return slopes(lambda op, k, angle, slope: slope * factor if op.gate in names and k in ks else slope)


def pulled(change):
    """Gradients of a call, changed: `change(self, d_theta, d_inputs, inputs, cotangents)`."""

    def value_and_vjp(self, theta, inputs):
        outputs, vjp_fn = E.value_and_vjp(self, theta, inputs)
        return outputs, lambda cotangents: change(self, *vjp_fn(cotangents), inputs, cotangents)

    return {"value_and_vjp": value_and_vjp}


faulty(KIND, "wrong sign for rxx", "gradient: weights", **gate_factor(("rxx",), -1))
faulty(KIND, "half for crz", "gradient: inputs", **gate_factor(("crz",), 0.5))
faulty(KIND, "half-angle rule for p", "gradient: weights", **gate_factor(("p",), 0.5))
faulty(KIND, "half-angle rule for cp", "gradient: weights", **gate_factor(("cp",), 0.5))
faulty(KIND, "half-angle rule for phi and lambda of u3", "gradient: weights", **gate_factor(("u3",), 0.5, (1, 2)))
faulty(KIND, "omega of rot without a gradient", "gradient: inputs", **gate_factor(("rot",), 0, (2,)))
faulty(KIND, "wrong sign for ryy", "gradient: inputs", **gate_factor(("ryy",), -1))
faulty(KIND, "twice for rzz", "gradient: weights", **gate_factor(("rzz",), 2))


def two_term_derivative(self, op, angles, k):
    if op.gate not in ("crx", "cry", "crz"):
        return E.derivative(self, op, angles, k)
    up, down = (self.matrix(op, [a + s * math.pi / 2 * (j == k) for j, a in enumerate(angles)]) for s in (1, -1))
    return (up - down) / 2


faulty(KIND, "two-term rule for controlled rotations", "gradient: weights", derivative=two_term_derivative)
faulty(
    KIND,
    "wrong sign where the control comes after the target",
    "gradient: weights",
    **slopes(lambda op, k, a, s: -s if len(op.qubits) == 2 and op.qubits[0] > op.qubits[1] else s),
)
faulty(
    KIND,
    "no gradient for phi of u3 on qubit 2, as a weight",
    "gradient: weights",
    only=True,
    **slopes(
        lambda op, k, a, s: 0.0 if op.gate == "u3" and op.qubits == (2,) and ("w", 1) in op.params[k].slots else s
    ),
)
faulty(
    KIND,
    "no gradient for an input of ryy on qubits 2, 0",
    "gradient: inputs",
    only=True,
    **slopes(
        lambda op, k, a, s: 0.0 if op.gate == "ryy" and op.qubits == (2, 0) and ("x", 0) in op.params[k].slots else s
    ),
)
faulty(
    KIND, "no gradient at angles near 0", "gradient: weights", **slopes(lambda op, k, a, s: 0.0 if abs(a) < 1e-3 else s)
)
faulty(
    KIND,
    "no gradient beyond a turn",
    "gradient: weights",
    **slopes(lambda op, k, a, s: 0.0 if abs(a) > 2 * math.pi else s),
)
faulty(KIND, "slopes clipped at 1", "gradient: measurements", **slopes(lambda op, k, a, s: max(-1.0, min(1.0, s))))


def chained(rule):
    def chain(self, angle, slope, theta, x, d_theta, d_x):
        rule({"w": theta, "x": x}, {"w": d_theta, "x": d_x}, angle, slope)

    return {"chain": chain}


def others(values, monomial, place):
    return math.prod(values[k][i] for j, (k, i) in enumerate(monomial) if j != place)


def squares_once(values, out, angle, slope):
    for monomial, c in angle.terms:
        for kind, index in dict.fromkeys(monomial):
            out[kind][index] += c * slope * others(values, monomial, monomial.index((kind, index)))


def factors_left_out(values, out, angle, slope):
    for monomial, c in angle.terms:
        for kind, index in monomial:
            out[kind][index] += c * slope


def coefficients_left_out(values, out, angle, slope):
    for monomial, c in angle.terms:
        for place, (kind, index) in enumerate(monomial):
            out[kind][index] += math.copysign(1.0, c) * slope * others(values, monomial, place)


def first_term_only(values, out, angle, slope):
    for monomial, c in [t for t in angle.terms if t[0]][:1]:
        for place, (kind, index) in enumerate(monomial):
            out[kind][index] += c * slope * others(values, monomial, place)


def overwriting(which):
    def rule(values, out, angle, slope):
        for monomial, c in angle.terms:
            for place, (kind, index) in enumerate(monomial):
                d = c * slope * others(values, monomial, place)
                out[kind][index] = d if kind == which else out[kind][index] + d

    return rule


faulty(KIND, "x·x counted once", "gradient: angle polynomials", only=True, **chained(squares_once))
faulty(KIND, "other factors of a product left out", "gradient: angle polynomials", **chained(factors_left_out))
faulty(KIND, "coefficients of an angle left out", "gradient: angle polynomials", **chained(coefficients_left_out))
faulty(KIND, "only the first slot of an angle", "gradient: angle polynomials", **chained(first_term_only))
faulty(KIND, "a weight that is used twice counted once", "gradient: angle polynomials", **chained(overwriting("w")))
faulty(KIND, "an input that is used twice counted once", "gradient: angle polynomials", **chained(overwriting("x")))

faulty(
    KIND,
    "coefficients of observables ignored",
    "gradient: measurements",
    gradient_terms=lambda self, terms: [(s, 1.0) for s, _ in terms],
)
faulty(
    KIND, "only the first term of an observable", "gradient: measurements", gradient_terms=lambda self, terms: terms[:1]
)
faulty(
    KIND,
    "wrong sign for strings with two Y",
    "gradient: measurements",
    only=True,
    gradient_terms=lambda self, terms: [(s, -c if s.count("Y") == 2 and "I" not in s else c) for s, c in terms],
)


def born_halved(self, state, cotangent):
    return E.pulled(self, state, cotangent * 0.5 if self.is_born else cotangent)


def classes_of_all_qubits(self, state, cotangent):
    if not (self.is_born and self.measurement.n_classes and self.measurement.qubits):
        return E.pulled(self, state, cotangent)
    out = state.copy()
    out.load(state.get_vector() * cotangent[np.arange(1 << self.n) % self.width])
    return out


def clipped_cotangents(self, state, cotangent):
    return E.pulled(self, state, np.clip(cotangent, -5, 5))


faulty(KIND, "probabilities halved", "gradient: measurements", pulled=born_halved)
faulty(KIND, "classes of chosen qubits taken from all", "gradient: measurements", pulled=classes_of_all_qubits)
faulty(KIND, "large cotangents clipped", "gradient: measurements", pulled=clipped_cotangents)


def amplitude_columns_first(self, d_theta, d_inputs, inputs, cotangents):
    width = self.start_width
    if width and d_inputs.shape[1] > width:
        d_inputs = np.concatenate([d_inputs[:, :width], np.roll(d_inputs[:, width:], 1, axis=1)], axis=1)
    return d_theta, d_inputs


faulty(
    KIND, "the wrong column after amplitudes", "gradient: angles after amplitudes", **pulled(amplitude_columns_first)
)
faulty(
    KIND,
    "the wrong column after amplitudes, for probabilities",
    "gradient: angles after amplitudes",
    only=True,
    **pulled(lambda self, t, d, x, c: amplitude_columns_first(self, t, d, x, c) if self.is_born else (t, d)),
)
faulty(
    KIND, "no gradient for amplitudes", "gradient: amplitudes", amplitude_slopes=lambda self, bra: np.zeros(1 << self.n)
)
faulty(
    KIND,
    "half a gradient for amplitudes",
    "gradient: amplitudes",
    amplitude_slopes=lambda self, bra: bra.get_vector().real,
)
faulty(
    KIND,
    "gradient for amplitudes in the order of another library",
    "gradient: amplitudes",
    only=True,
    amplitude_slopes=lambda self, bra: E.amplitude_slopes(self, bra)[
        ([int(f"{k:03b}"[::-1], 2) for k in range(8)] if self.n == 3 and not self.circuit.n_inputs else slice(None))
    ],
)


def buffered(which, rows=None):
    def value_and_vjp(self, theta, inputs):
        outputs, vjp_fn = E.value_and_vjp(self, theta, inputs)
        if rows not in (None, len(inputs)):
            return outputs, vjp_fn

        def again(cotangents):
            parts = list(vjp_fn(cotangents))
            kept = self.__dict__.setdefault("buffers", {}).setdefault(parts[which].shape, np.zeros_like(parts[which]))
            kept[...] = parts[which]
            parts[which] = kept
            return tuple(parts)

        return outputs, again

    return {"value_and_vjp": value_and_vjp}


faulty(KIND, "a buffer used again for theta", "gradient: nothing kept", **buffered(0))
faulty(KIND, "a buffer used again for inputs", "gradient: nothing kept", **buffered(1))
faulty(KIND, "a buffer used again for three rows", "gradient: nothing kept", only=True, **buffered(0, 3))


def racing_vjp(self, theta, inputs, cotangents):
    self.racing = cotangents
    time.sleep(0.0005)
    return E.value_and_vjp(self, theta, inputs)[1](self.racing)


faulty(KIND, "a race in vjp only", "gradient: threads", only=True, vjp=racing_vjp)


def racing_sweep(self, theta, row, final, cotangent):
    self.row = row
    time.sleep(0)
    return E.sweep(self, theta, self.row, final, cotangent)


faulty(KIND, "a race inside the backward sweep", "gradient: threads", sweep=racing_sweep)
faulty(KIND, "mean over rows", "gradient: batches", over_rows=lambda self, rows: np.mean(rows, axis=0))
faulty(KIND, "the first row alone", "gradient: batches", over_rows=lambda self, rows: np.asarray(rows[0]))
faulty(KIND, "rows of inputs reversed", "gradient: inputs", **pulled(lambda self, t, d, x, c: (t, d[::-1])))
faulty(
    KIND,
    "cotangents of the first row for all",
    "gradient: measurements",
    value_and_vjp=lambda self, theta, inputs: (
        lambda pair: (pair[0], lambda c: pair[1](np.repeat(c[:1], len(c), axis=0)))
    )(E.value_and_vjp(self, theta, inputs)),
)
faulty(
    KIND,
    "float32 inside",
    "gradient: weights",
    **slopes(lambda op, k, a, s: float(np.float32(s))),
)
faulty(KIND, "wrong from 5 qubits on", "gradient: qubits", **pulled(lambda s, t, d, x, c: (t * (1 - 2 * (s.n > 4)), d)))
faulty(
    KIND,
    "wrong from 9 qubits on",
    "gradient: qubits",
    only=True,
    **pulled(lambda s, t, d, x, c: (t, d * (1 - 2 * (s.n > 8)))),
)
faulty(
    KIND,
    "rows past 128 left out",
    "gradient: batches",
    only=True,
    **pulled(lambda self, t, d, x, c: (t, d * (np.arange(len(d)) < 128)[:, None])),
)
faulty(
    KIND,
    "theta summed over 128 rows at most",
    "gradient: batches",
    only=True,
    over_rows=lambda self, rows: np.sum(rows[:128], axis=0),
)


def once(self, theta, inputs):
    outputs, vjp_fn = E.value_and_vjp(self, theta, inputs)
    left = [1.0]

    def vjp(cotangents):
        d_theta, d_inputs = vjp_fn(cotangents)
        factor, left[0] = left[0], 0.0
        return d_theta * factor, d_inputs * factor

    return outputs, vjp


faulty(KIND, "vjp_fn good for one call", "gradient: value_and_vjp", only=True, value_and_vjp=once)


def latest(self, theta, inputs):
    outputs, self.latest = E.value_and_vjp(self, theta, inputs)

    def vjp(cotangents):
        if cotangents.shape[0] != 3:
            return E.value_and_vjp(self, theta, inputs)[1](cotangents)
        return self.latest(cotangents[: len(cotangents)])

    return outputs, vjp


faulty(KIND, "vjp_fn of the latest call", "gradient: value_and_vjp", value_and_vjp=latest)
faulty(
    KIND,
    "value_and_vjp with outputs of its own",
    "gradient: value_and_vjp",
    only=True,
    value_and_vjp=lambda self, theta, inputs: (lambda pair: (pair[0].astype(np.float16).astype(self.dtype), pair[1]))(
        E.value_and_vjp(self, theta, inputs)
    ),
    vjp=lambda self, theta, inputs, cotangents: E.value_and_vjp(self, theta, inputs)[1](cotangents),
)


def writes_cotangents(self, theta, inputs, cotangents):
    answer = E.value_and_vjp(self, theta, inputs)[1](cotangents)
    cotangents *= 0.5
    return answer


def writes_theta(self, theta, inputs, cotangents):
    answer = E.value_and_vjp(self, theta, inputs)[1](cotangents)
    theta %= 2 * math.pi
    return answer


faulty(KIND, "writes to cotangents", "gradient: arguments", only=True, vjp=writes_cotangents)
faulty(KIND, "writes to theta", "gradient: arguments", vjp=writes_theta)
faulty(
    KIND,
    "more than ten slots sorted as text",
    "gradient: qubits",
    only=True,
    **pulled(lambda self, t, d, x, c: (t[sorted(range(len(t)), key=str)] if len(t) > 10 else t, d)),
)
faulty(
    KIND,
    "no column for amplitudes",
    "gradient: amplitudes",
    **pulled(lambda self, t, d, x, c: (t, d[:, self.start_width :])),
)
faulty(
    KIND,
    "complex gradients",
    "gradient: shapes",
    **pulled(lambda self, t, d, x, c: (t.astype(complex), d)),
)
faulty(
    KIND,
    "half in float32",
    "gradient: shapes",
    **pulled(lambda self, t, d, x, c: (t, d / 2) if self.dtype == np.float32 else (t, d)),
)
faulty(
    KIND,
    "half in float32 on three qubits",
    "gradient: shapes",
    only=True,
    **pulled(lambda self, t, d, x, c: (t, d / 2) if self.dtype == np.float32 and self.n == 3 else (t, d)),
)
faulty(
    KIND,
    "without weights a gradient of shape (1,)",
    "gradient: shapes",
    only=False,
    **pulled(lambda self, t, d, x, c: (t if len(t) else np.zeros(1), d)),
)
faulty(
    KIND,
    "single rows without their axis",
    "gradient: shapes",
    **pulled(lambda self, t, d, x, c: (t, d[0] if len(d) == 1 else d)),
)


def by_identity(self, theta, inputs):
    if self.__dict__.get("seen") != (id(theta), len(inputs)):
        self.seen, self.values = (id(theta), len(inputs)), theta.copy()
    return E.value_and_vjp(self, self.values, inputs)


faulty(KIND, "theta kept by identity", "gradient: nothing kept", value_and_vjp=by_identity)


def truncated(self, theta, row, final, cotangent):
    d_theta, d_row = E.sweep(self, theta, row, final, cotangent)
    return (d_theta * 0.0, d_row) if len(self.operations) > 64 else (d_theta, d_row)


faulty(KIND, "no gradient in circuits of more than 64 gates", "gradient: qubits", only=True, sweep=truncated)
