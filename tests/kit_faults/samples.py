"""Faults of samples."""

from __future__ import annotations

import numpy as np

from qstore_core import RunReport

from .backend import QulacsExecutable as E
from .faults import faulty
from .structure import KIND as STRUCTURE  # noqa: F401 - their faults come first in the table

KIND = "samples"


def drawn(change):
    """Means and variances of one row, changed: `change(self, means, variances)`."""

    def draw(self, state, rng):
        means, variances = E.draw(self, state, rng)
        return change(self, np.array(means, float), np.array(variances, float))

    return {"draw": draw}


def string(change):
    """The Pauli string that is sampled, changed: `change(string)`."""
    return {"sample_term": lambda self, s, state, rng: E.sample_term(self, change(s), state, rng)}


def counted(change):
    """Counts of one circuit, changed: `change(self, counts, rng)`."""
    return {"counts": lambda self, state, s, rng: change(self, E.counts(self, state, s, rng), rng)}


def shots_of(number):
    """Another number of samples than was asked for."""

    def draw(self, state, rng):
        asked, self.shots = self.shots, number(self.shots)
        try:
            return E.draw(self, state, rng)
        finally:
            self.shots = asked

    return {"draw": draw}


def generators(rule):
    """Where random numbers come from: `rule(self, seed, row)`."""
    return {"generators": lambda self, seed, rows: [rule(self, seed, row) for row in range(rows)]}


def new(*seed):
    return np.random.default_rng(seed)


faulty(KIND, "Y measured as X", "shots: bases", **string(lambda s: s.replace("Y", "X")))
faulty(
    KIND,
    "Y with the other sign",
    "shots: bases",
    sample_term=lambda self, s, state, rng: (lambda m, v: (m * (-1) ** s.count("Y"), v))(
        *E.sample_term(self, s, state, rng)
    ),
)


def without_coefficients(self, state, rng):
    if self.is_born:
        return E.draw(self, state, rng)
    pairs = [[self.sample_term(s, state, rng) for s, _ in terms] for terms in self.observables]
    return [sum(m for m, _ in t) for t in pairs], [sum(v for _, v in t) for t in pairs]


faulty(KIND, "coefficients ignored", "shots: observables", draw=without_coefficients)
faulty(
    KIND,
    "identity worth 0",
    "shots: observables",
    sample_term=lambda self, s, state, rng: (0.0, 0.0) if set(s) == {"I"} else E.sample_term(self, s, state, rng),
)
faulty(
    KIND,
    "three letters of a string measured as two",
    "shots: observables",
    only=True,
    **string(lambda s: "I" + s[1:] if s == "YYX" else s),
)


def sorted_qubits(self):
    m = self.measurement
    if self.shots is None or m.qubits is None:
        return E.classes(self)
    return E.classes(type(self)(self.circuit, type(m)(tuple(sorted(m.qubits)), m.n_classes), "float64", None))


faulty(KIND, "chosen qubits in the wrong order", "shots: probabilities", classes=sorted_qubits)
faulty(
    KIND,
    "chosen qubits of a basis in the wrong order",
    "shots: bases",
    only=True,
    strings=lambda self: (
        E.strings(self)
        if self.shots is None or self.circuit.n_qubits != 3 or getattr(self.measurement, "qubits", None) is None
        else tuple(sorted(E.strings(self)))
    ),
)
faulty(
    KIND,
    "a bias of 1 % of bases",
    "shots: bases",
    only=True,
    **drawn(lambda self, m, v: (m * 0.99 if self.n == 3 and not self.is_born and self.measurement.bases else m, v)),
)
faulty(
    KIND,
    "a bias of 1 % of observables",
    "shots: observables",
    **drawn(lambda self, m, v: (m * 0.99, v) if not self.is_born and self.measurement.observables else (m, v)),
)
faulty(
    KIND,
    "a bias of 1 % of probabilities",
    "shots: probabilities",
    **drawn(lambda self, m, v: (0.99 * m + 0.01 / self.width if self.is_born else m, v)),
)
faulty(
    KIND,
    "a bias of 1 % of probabilities of three qubits",
    "shots: probabilities",
    only=True,
    **drawn(
        lambda self, m, v: (
            0.99 * m + 0.01 / self.width if self.is_born and self.n == 3 and self.circuit.n_weights else m,
            v,
        )
    ),
)
faulty(KIND, "values shifted by 0.01", "shots: bases", **drawn(lambda self, m, v: (m + 0.01 * (not self.is_born), v)))
faulty(
    KIND,
    "readout errors of 1 %",
    "shots: bases",
    **counted(lambda self, c, rng: flipped(self, c, rng)),
)


def flipped(self, counts, rng):
    wrong = rng.binomial(counts, 0.01)
    out = counts - wrong
    out += np.roll(wrong, 1)
    return out


faulty(
    KIND,
    "samples that do not sum to all",
    "shots: probabilities",
    **drawn(lambda self, m, v: (m * (1 + 1e-3) if self.is_born else m, v)),
)
faulty(KIND, "twice the shots", "shots: number", **shots_of(lambda n: 2 * n))
faulty(KIND, "half the shots", "shots: number", **shots_of(lambda n: max(1, n // 2)))
faulty(KIND, "at least 100 shots", "shots: number", **shots_of(lambda n: max(n, 100)))
faulty(KIND, "at most 100,000 shots", "shots: number", only=True, **shots_of(lambda n: min(n, 100_000)))
faulty(
    KIND,
    "shots rounded up to a power of two",
    "shots: number",
    **shots_of(lambda n: 1 << (n - 1).bit_length() if n < 8 else n),
)
faulty(
    KIND,
    "shots ignored",
    "shots: number",
    sampled=lambda self, theta, inputs, seed: (E.exact(self, theta, inputs), np.zeros((len(inputs), self.width))),
)
faulty(
    KIND,
    "shots ignored for probabilities",
    "shots: number",
    draw=lambda self, state, rng: (
        (E.probabilities(self, state), np.zeros(self.width)) if self.is_born else E.draw(self, state, rng)
    ),
)


def errors(change):
    """Standard errors, changed: `change(self, errors)`."""

    def value_and_report(self, theta, inputs, *, seed=None):
        outputs, report = E.value_and_report(self, theta, inputs, seed=seed)
        return outputs, report if self.shots is None else RunReport(std_error=change(self, report.std_error))

    return {"value_and_report": value_and_report}


faulty(KIND, "standard errors 0", "shots: standard errors", only=True, **errors(lambda self, e: 0 * e))
faulty(KIND, "standard errors halved", "shots: standard errors", only=True, **errors(lambda self, e: e / 2))
faulty(KIND, "standard errors tenfold", "shots: standard errors", only=True, **errors(lambda self, e: e * 10))
faulty(KIND, "standard errors of one shot", "shots: standard errors", **errors(lambda self, e: e * self.shots**0.5))
faulty(KIND, "standard errors of other rows", "shots: standard errors", **errors(lambda self, e: np.roll(e, 1, axis=0)))
faulty(KIND, "variances for standard errors", "shots: standard errors", **errors(lambda self, e: e**2))
faulty(
    KIND,
    "one shot with a standard error of 0",
    "shots: standard errors",
    only=True,
    **errors(lambda self, e: np.nan_to_num(e)),
)


def plain_errors(self, state, rng):
    means, variances = E.draw(self, state, rng)
    if not self.is_born:
        variances = [
            sum(self.sample_term(s, state, np.random.default_rng(0))[1] for s, _ in t) for t in self.observables
        ]
    return means, variances


faulty(KIND, "standard errors without coefficients", "shots: standard errors", only=True, draw=plain_errors)
faulty(KIND, "the same samples at every call", "shots: seeds", **generators(lambda self, seed, row: new(1, row)))
faulty(
    KIND,
    "samples that no seed fixes",
    "shots: seeds",
    generators=lambda self, seed, rows: [np.random.default_rng()] * rows,
)
faulty(
    KIND,
    "a stream that goes on from call to call",
    "shots: seeds",
    generators=lambda self, seed, rows: [self.__dict__.setdefault("rng", new(seed))] * rows,
)
faulty(
    KIND,
    "seeds cut to 32 bits",
    "shots: seeds",
    only=True,
    **generators(lambda self, seed, row: new(seed % 2**32, row)),
)
faulty(
    KIND,
    "seeds cut to 31 bits",
    "shots: seeds",
    only=True,
    generators=lambda self, seed, rows: [new(seed % 2**31)] * rows,
)
faulty(KIND, "seed plus row", "shots: seeds", **generators(lambda self, seed, row: new(seed + row)))
faulty(KIND, "seed 0 taken as none", "shots: seeds", generators=lambda self, seed, rows: [new(seed or 1)] * rows)
faulty(
    KIND,
    "large seeds refused",
    "shots: seeds",
    only=True,
    generators=lambda self, seed, rows: [np.random.default_rng(seed if seed < 2**62 else -1)] * rows,
)
faulty(KIND, "rows that share random numbers", "shots: rows", **generators(lambda self, seed, row: new(seed)))
faulty(
    KIND,
    "every other row shares random numbers",
    "shots: rows",
    **generators(lambda self, seed, row: new(seed, row // 2)),
)
faulty(
    KIND,
    "a stream that begins anew every 256 rows",
    "shots: rows",
    only=True,
    **generators(lambda self, seed, row: new(seed, row % 256)),
)


def one_stream_per_basis(self, state, rng):
    if self.is_born:
        return E.draw(self, state, rng)
    seed = rng.integers(2**60)
    drawn = [(c, *self.sample_term(s, state, new(seed))) for terms in self.observables for s, c in terms[:1]]
    return [c * m for c, m, _ in drawn], [c**2 * v for c, _, v in drawn]


def bases_together(self, state, rng):
    return (
        E.draw(self, state, rng)
        if self.is_born or self.measurement.observables
        else one_stream_per_basis(self, state, rng)
    )


faulty(KIND, "bases that share random numbers", "shots: rows", draw=bases_together)
faulty(
    KIND,
    "sampled from another circuit: ccx on other qubits",
    "shots: all circuits",
    only=True,
    targets=lambda self, q: E.targets(self, q if self.shots is None or len(q) < 3 else (q[1], q[2], q[0])),
)
faulty(
    KIND,
    "sampled rows past 128 mixed up",
    "shots: all circuits",
    sampled=lambda self, theta, inputs, seed: E.sampled(
        self, theta, np.concatenate([inputs[:128], inputs[128:][::-1]]), seed
    ),
)
faulty(
    KIND,
    "sampled from 9 qubits on with another order of qubits",
    "shots: all circuits",
    only=True,
    counts=lambda self, state, s, rng: E.counts(self, state, s, rng)[:: -1 if self.n > 8 else 1],
)
faulty(
    KIND,
    "amplitudes ignored under shots",
    "shots: all circuits",
    only=True,
    start=lambda self, row: E.start(
        self, row if self.shots is None or not self.start_width else np.eye(1, len(row))[0]
    ),
)
