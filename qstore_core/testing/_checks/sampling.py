"""Checks of shots: sampled values have no bias, scatter as the shot count says, and are a function of the seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...circuit.circuit import Circuit
from ...circuit.gates.table import GATES
from ...circuit.measurements.measurement import Expectation, Measurement, Pauli, Probabilities
from .. import reference
from ..compare import ConformanceError, same
from ..points import BASES, CLASSES, OBSERVABLES, PROBABILITIES, generic, random_circuit, random_point, scramble
from ..subject import SEED, Compiled, NotDeclared, Subject, arrays, check, each

__all__: list[str] = []

_LIMIT = 5.0  # standard deviations of a statistic
_NO_SHOTS = "it takes no shots"
_MANY, _ROWS = 30_000, 40  # 1.2 million samples of every measurement


def _turned(basis: str, rows: int, low: float = 0.9, high: float = 2.2) -> tuple[Circuit, np.ndarray]:
    """One qubit with ⟨basis⟩ = cos x, and x between `low` and `high`."""
    c = Circuit(1)
    (x,) = c.inputs(1)
    c.append("ry" if basis != "Y" else "rx", (0,), (x,))
    if basis == "X":
        c.append("ry", (0,), (np.pi / 2,))
    if basis == "Y":
        c.append("rx", (0,), (-np.pi / 2,))
    return c, np.linspace(low, high, rows)[:, None]


# -- bias


def _telling_points(circuit: Circuit, measured: Measurement) -> tuple[np.ndarray, np.ndarray]:
    """Theta and rows at which values are far from 0 in units of their deviation: a bias shows there."""
    rng, best = np.random.default_rng(SEED), (-1.0, (np.zeros(0), np.zeros((0, 0))))
    for _ in range(6):
        theta, inputs = rng.uniform(-2, 2, circuit.n_weights), rng.uniform(-2, 2, (3 * _ROWS, circuit.n_inputs))
        values = reference.outputs(circuit, measured, theta, inputs)
        sigma = reference.deviations(circuit, measured, theta, inputs)
        told = np.minimum((values / np.maximum(sigma, 1e-9)) ** 2, 10.0)
        told[sigma < 1e-9] = 0.0
        rows = np.argsort(-told.sum(axis=1))[:_ROWS]
        score = float(told[rows].sum(axis=0).min() + 0.1 * told[rows].sum())
        if score > best[0]:
            best = score, (theta, inputs[rows])
    return best[1]


def _no_bias(subject: Subject, measurements: dict[str, Measurement], text: str) -> None:
    """Over all rows: the mean deviation, the deviation in proportion to the values, and the largest one."""
    subject.need("shots", _NO_SHOTS)
    circuit = generic(3)

    def compare(what: str, measured: Measurement) -> None:
        theta, inputs = _telling_points(circuit, measured)
        many = _MANY if len(getattr(measured, "observables", ())) < 4 else _MANY // 10  # each may be a circuit
        got = subject.compile(circuit, measured, shots=many).forward(theta, inputs)
        want = reference.outputs(circuit, measured, theta, inputs)
        said = f"{text}{what}, {_ROWS} rows of {many} shots"
        same(got, want, subject.tolerance(circuit, measured, theta, inputs, shots=many), said)
        if isinstance(measured, Probabilities):
            same(got.sum(axis=1), np.ones(_ROWS), 1e-6, f"sum of {said}")
        sigma = reference.deviations(circuit, measured, theta, inputs) / np.sqrt(many)
        for output in range(want.shape[1]):
            s, v, z = sigma[:, output], want[:, output], (got - want)[:, output]
            if s.min() < 1e-9:
                continue
            for how, w in (("in proportion to their values", v / s**2), ("all to one side", 1 / s)):
                score = float((z * w).sum() / np.sqrt((w**2 * s**2).sum()))
                if abs(score) > _LIMIT:
                    share = 100 * float((z * w).sum() / np.abs(v * w).sum())
                    raise ConformanceError(
                        f"{said}, output {output}: values are biased by {share:.2g} %, {how}: {abs(score):.1f} "
                        f"standard deviations, expected below {_LIMIT:g}."
                    )

    each(measurements.items(), compare)


@check("shots: bases", "N1")
def _biased_bases(subject: Subject) -> None:
    """Sampled expectation values in every basis against exact ones: a bias of 1 % is seen."""
    _no_bias(subject, BASES, "")


@check("shots: observables", "N2")
def _biased_observables(subject: Subject) -> None:
    """Sampled observables against exact ones: coefficients, identities, a bias of 1 %."""
    _no_bias(subject, OBSERVABLES, "observables ")


@check("shots: probabilities", "N3")
def _biased_probabilities(subject: Subject) -> None:
    """Sampled probabilities and classes against exact ones: order of qubits, sums, a bias of 1 %."""
    _no_bias(subject, PROBABILITIES | CLASSES, "probabilities ")


# -- spread


_SPREAD: dict[str, tuple[str, Measurement]] = {
    "basis Z": ("Z", Expectation()),
    "basis X": ("X", Expectation(("X",))),
    "basis Y": ("Y", Expectation(("Y",))),
    "observable 3·Z": ("Z", Expectation(observables=(3.0 * Pauli("Z"),))),
    "probabilities": ("Z", Probabilities()),
    "2 classes": ("Z", Probabilities(n_classes=2)),
}


def _ratio(deviation: np.ndarray, sigma: np.ndarray) -> float:
    return float(((deviation / sigma) ** 2).mean())


@check("shots: number", "N4")
def _number(subject: Subject) -> None:
    """The variance of sampled values, from 1 to a million shots: as many samples as were asked for."""
    subject.need("shots", _NO_SHOTS)
    cases = [(what, 250, 300) for what in _SPREAD] + [("basis Z", shots, 600) for shots in (1, 5)]
    cases += [("probabilities", 5, 600), ("basis Z", 8192, 120), ("basis X", 1_000_000, 8)]

    def compare(what: str, case: tuple[str, int, int]) -> None:
        name, shots, rows = case
        basis, measured = _SPREAD[name]
        circuit, x = _turned(basis, rows)
        got = subject.compile(circuit, measured, shots=shots).forward(np.zeros(0), x)
        want = reference.outputs(circuit, measured, np.zeros(0), x)
        sigma = reference.deviations(circuit, measured, np.zeros(0), x) / np.sqrt(shots)
        if (np.abs(got - want) < 1e-9).all():
            raise ConformanceError(f"shots are ignored: all {rows} values of {what} are the exact ones.")
        ratio, margin = _ratio((got - want)[:, 0], sigma[:, 0]), _LIMIT * np.sqrt(2 / rows)
        if abs(ratio - 1) > margin:
            raise ConformanceError(
                f"{what}: the variance of values is {ratio:.3g} times that of {shots} samples, expected 1 ± "
                f"{margin:.2g}: as if it took {shots / max(ratio, 1e-9):.3g} samples."
            )

    each(((f"{name} with shots={shots}", (name, shots, rows)) for name, shots, rows in cases), compare)


@check("shots: standard errors", "N5")
def _standard_errors(subject: Subject) -> None:
    """The std_error of every output against the scatter of its values; for one shot it is not 0."""
    subject.need("shots", _NO_SHOTS)
    shots, rows = 400, 200
    pair = Circuit(2)
    scramble(pair, 0.7)
    for qubit, x in enumerate(pair.inputs(2)):
        pair.append("ry", (qubit,), (x,))
    points = np.random.default_rng(SEED).uniform(-0.6, 0.6, (rows, 2))
    kinds: dict[str, Measurement] = {
        "bases Z, X, Y": Expectation(("Z", "X", "Y")),
        "observables ZZ, 3·XZ, IY": Expectation(observables=(Pauli("ZZ"), 3.0 * Pauli("XZ"), Pauli("IY"))),
        "observables ZI - 2·XX + 0.5·II": Expectation(
            observables=(Pauli("ZI") - 2.0 * Pauli("XX") + 0.5 * Pauli("II"),)
        ),
        "probabilities": Probabilities(),
        "3 classes": Probabilities(n_classes=3),
        "probabilities of qubit 1": Probabilities(qubits=(1,)),
    }

    def compare(what: str, measured: Measurement) -> None:
        compiled = subject.compile(pair, measured, shots=shots)
        got, report = compiled.report(np.zeros(0), points)
        if report.std_error is None:
            raise NotDeclared("reports have no standard errors")
        errors = np.asarray(report.std_error, float)
        want = reference.outputs(pair, measured, np.zeros(0), points)
        if errors.shape != want.shape:
            raise ConformanceError(f"{what}: std_error has shape {errors.shape}, expected {want.shape}.")
        if not (np.isfinite(errors).all() and (errors >= 0).all()):
            raise ConformanceError(f"{what}, {shots} shots: std_error has values that are negative or not finite.")
        margin = 0.5
        for output in range(compiled.width):
            scatter = float(((got - want)[:, output] ** 2).mean() ** 0.5)
            said = float((errors[:, output] ** 2).mean() ** 0.5)
            if not (1 - margin / 2) * scatter <= said <= (1 + margin) * scatter:
                raise ConformanceError(
                    f"{what}, output {output}: std_error is {said:.3g} on average, and values scatter by {scatter:.3g}."
                )
        if len(getattr(measured, "observables", ())) != 1:  # with one string per output the deviation is known
            sigma = reference.deviations(pair, measured, np.zeros(0), points) / np.sqrt(shots)
            far = (np.abs(errors - sigma) > 0.5 * sigma + 0.5 / shots**0.75) & (sigma > 0)
            if far.mean() > 0.02:
                row, output = (int(k) for k in np.argwhere(far)[0])
                raise ConformanceError(
                    f"{what}, row {row}, output {output}: std_error is {errors[row, output]:.3g}, the standard "
                    f"deviation is {sigma[row, output]:.3g}."
                )
        single = subject.compile(pair, measured, shots=1).report(np.zeros(0), points[:8])[1].std_error
        if single is not None and np.isfinite(np.asarray(single, float)).all() and not np.any(single):
            raise ConformanceError(f"{what}, shots=1: std_error is 0, where it is unknown (NaN, or None).")

    each(kinds.items(), compare)


# -- seeds and rows


def _seeded(subject: Subject) -> tuple[Compiled, tuple[np.ndarray, np.ndarray]]:
    subject.need("shots", _NO_SHOTS)
    circuit = generic(2)
    theta, inputs = arrays(*random_point(circuit, 6))
    inputs[1:] = inputs[0]  # equal rows, which are sampled apart
    return subject.compile(circuit, Expectation(("Z", "X")), shots=1000), (theta, inputs)


@check("shots: seeds", "N6")
def _seeds(subject: Subject) -> None:
    """Equal seeds give equal samples, whatever was called before; other seeds, large ones too, give others."""
    compiled, point = _seeded(subject)
    if subject.capabilities.remote:
        first, second = (compiled.forward(*point, seed=seed) for seed in (7, 8))
        if np.array_equal(first, second):
            raise ConformanceError("two calls with seeds 7 and 8 returned the very same samples.")
        raise NotDeclared("samples are fresh at every call; capabilities.remote is True: hardware has no seed")
    first = compiled.forward(*point, seed=7)
    compiled.forward(*point, seed=8)
    repeats = {
        "the same call again": compiled.forward(*point, seed=7),
        "the same circuit compiled again": subject.compile(compiled.circuit, compiled.measured, shots=1000).forward(
            *point, seed=7
        ),
    }
    for how, again in repeats.items():
        if not np.array_equal(first, again):
            raise ConformanceError(f"{how}, seed=7: other samples than before. They must be a function of the seed.")
    seeds = (7, 0, 1, 6, 8, 7 + 2**31, 7 + 2**32, 7 + 2**53, 2**63 - 1, 2**63 - 2)
    samples = {seed: compiled.forward(*point, seed=seed) for seed in seeds}
    for number, seed in enumerate(seeds):
        for other in seeds[:number]:
            if np.array_equal(samples[seed], samples[other]):
                raise ConformanceError(f"seeds {other} and {seed} gave the very same samples.")
    for other in (6, 8):
        for row in range(len(first)):
            for place in range(len(first)):
                if np.array_equal(samples[7][row], samples[other][place]):
                    raise ConformanceError(
                        f"row {row} with seed 7 and row {place} with seed {other} have the very same samples: seeds "
                        "overlap."
                    )
    circuit, x = _turned("Z", 400)
    single = subject.compile(circuit, Expectation(), shots=200)
    deviation = [(single.forward(np.zeros(0), x, seed=seed) - np.cos(x))[:, 0] for seed in (20, 21, 20 + 2**32)]
    for a, b, what in ((0, 1, "20 and 21"), (0, 2, "20 and 20 + 2**32")):
        _uncorrelated(deviation[a], deviation[b], f"samples with seeds {what}")


def _uncorrelated(a: np.ndarray, b: np.ndarray, what: str) -> None:
    r = float(np.corrcoef(a, b)[0, 1])
    if not abs(r) < _LIMIT / np.sqrt(len(a)):
        raise ConformanceError(f"{what}: the correlation of deviations is {r:.3g}, expected 0.")


@check("shots: rows", "N7")
def _rows(subject: Subject) -> None:
    """Deviations of neighbouring rows, of equal rows, and of bases are uncorrelated."""
    compiled, point = _seeded(subject)
    got = compiled.forward(*point)
    if (got == got[0]).all():
        raise ConformanceError("6 equal rows got one and the same sample: rows share their random numbers.")
    for row in range(len(got)):
        for other in range(row):
            if np.array_equal(got[row], got[other]):
                raise ConformanceError(f"equal rows {other} and {row} got the very same samples.")
    rows = 500
    circuit = Circuit(2)
    for qubit, x in enumerate(circuit.inputs(2)):
        circuit.append("ry", (qubit,), (x,))
        circuit.append("rz", (qubit,), (0.9,))
    points = np.tile([[0.9, 1.1]], (rows, 1))
    points[::2] += 0.2
    measured = Expectation(("Z", "X", "Y"))
    deviation = subject.compile(circuit, measured, shots=200).forward(np.zeros(0), points)
    deviation = deviation - reference.outputs(circuit, measured, np.zeros(0), points)
    for step in (1, 2, 3, 4, 8, 16, 32, 64, 100, 128, 256):
        _uncorrelated(deviation[:-step, 0], deviation[step:, 0], f"rows and those {step} further on")
    names = [f"⟨{basis}{qubit}⟩" for basis in "ZXY" for qubit in range(2)]
    for a in range(6):
        for b in range(a):
            _uncorrelated(deviation[:, a], deviation[:, b], f"{names[b]} and {names[a]} of a product state")


@check("shots: all circuits", "N8")
def _all_circuits(subject: Subject) -> None:
    """Every gate, many qubits and rows, amplitudes, long circuits and other dtypes, sampled."""
    subject.need("shots", _NO_SHOTS)
    rng = np.random.default_rng(SEED)
    zx = Expectation(("Z", "X"))

    def compare(what: str, case: tuple[Circuit, Measurement, int, int]) -> None:
        circuit, measured, rows, shots = case
        for dtype in ("float64", "float32") if rows == 3 else ("float64",):
            compiled = subject.compile(circuit, measured, dtype, shots=shots)
            subject.expect(
                circuit, measured, random_point(circuit, rows), f"{what}, {shots} shots", dtype=dtype, compiled=compiled
            )

    def cases() -> Any:
        for name, entry in GATES.items():
            c = Circuit(max(2, entry.n_qubits))
            scramble(c, 0.6)
            c.append(name, range(entry.n_qubits), c.inputs(entry.n_params))
            c.append("ry", (0,), (0.4,))
            yield f"gate {name}", (c, Expectation(("X", "Y", "Z")), 2, 20_000)
        for n in subject.sizes(5, 6, 8, 10, 12):
            yield f"{n} qubits", (random_circuit(n, 2 * n, rng), zx, 2, 20_000)
            yield f"probabilities of {n} qubits", (random_circuit(n, n, rng), Probabilities(n_classes=3), 2, 20_000)
        for rows in (130, 300, 1025) if subject.thorough else (150, 260):
            yield f"a batch of {rows} rows", (generic(2), zx, rows, 2000)
        yield "amplitudes, then angles", (generic(2, amplitudes=True), zx, 3, 50_000)
        yield "probabilities of amplitudes", (generic(3, amplitudes=True), Probabilities(qubits=(2, 0)), 3, 50_000)
        yield "a long circuit", (random_circuit(2, 200, rng), zx, 3, 50_000)

    each(cases(), compare)
