"""Hypothesis strategies for circuits, layers, batches and faults, shared by all tests.

Circuits and arguments are drawn by hypothesis, so that a failure shrinks to few gates on few qubits; features and
amplitudes come from a drawn seed, where shrinking would tell nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from qstore_core import (
    IQP,
    ZZ,
    AngleEncoding,
    Channel,
    Circuit,
    Expectation,
    HardwareEfficient,
    Pauli,
    Probabilities,
    RealAmplitudes,
)
from qstore_core.circuit.gates.table import GATES
from qstore_core.circuit.spec import layer_spec as specs

from .faults import ERRORS, PLACES, TROUBLES, Fault

# Where sines vanish, matrices degenerate and rotations close.
SPECIAL_ANGLES = (0.0, math.pi / 2, -math.pi / 2, math.pi, -math.pi, 2 * math.pi, 1e-9)


def angles():
    """One angle in radians, special values among them."""
    return st.one_of(st.sampled_from(SPECIAL_ANGLES), st.floats(-2 * math.pi, 2 * math.pi, allow_subnormal=False))


def vectors(size, elements=None):
    """A float64 vector of `size` angles."""
    drawn = st.lists(angles() if elements is None else elements, min_size=size, max_size=size)
    return drawn.map(lambda values: np.array(values, dtype=np.float64))


# -- circuits ---------------------------------------------------------------------------------------------------------


def expressions(slots):
    """A gate angle: a number, a slot, or a polynomial of slots of degree at most 2."""
    constants = angles()
    if not slots:
        return constants
    slot = st.sampled_from(list(slots))
    factor = st.sampled_from((-1.0, 0.5, 2.0, 3.0))
    return st.one_of(
        slot,
        slot,
        constants,
        st.builds(lambda c, s: c * s, factor, slot),
        st.builds(lambda c, s, t: s + c * t, factor, slot, slot),
        st.builds(lambda s, t: s * t, slot, slot),
        st.builds(lambda c, s, t, k: c * s * t - k, factor, slot, slot, constants),
    )


@st.composite
def circuits(draw, min_qubits=1, max_qubits=4, max_gates=12, gates=None, amplitudes=None, max_inputs=3, max_weights=4):
    """A `Circuit` of any gates (`gates`: of these names), with or without amplitude inputs."""
    n = draw(st.integers(min_qubits, max_qubits))
    circuit = Circuit(n, amplitudes=draw(st.booleans()) if amplitudes is None else amplitudes)
    slots = [
        *circuit.inputs(draw(st.integers(0, max_inputs))),
        *circuit.weights(draw(st.integers(0, max_weights))),
    ]
    fitting = sorted(name for name in (gates or GATES) if GATES[name].n_qubits <= n)
    for name in draw(st.lists(st.sampled_from(fitting), max_size=max_gates)):
        entry = GATES[name]
        qubits = draw(st.permutations(range(n)))[: entry.n_qubits]
        circuit.append(name, qubits, [draw(expressions(slots)) for _ in range(entry.n_params)])
    return circuit


@st.composite
def points(draw, circuit, min_rows=1, max_rows=3):
    """`(theta (W,), inputs (B, I))` in float64 for a circuit; amplitudes are unit rows, some of them sparse."""
    theta = draw(vectors(circuit.n_weights))
    rows = draw(st.integers(min_rows, max_rows))
    x = draw(vectors(rows * circuit.n_inputs)).reshape(rows, circuit.n_inputs)
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    amplitudes = rng.normal(size=(rows, circuit.n_amplitudes))
    if circuit.n_amplitudes:
        amplitudes *= rng.uniform(size=amplitudes.shape) < draw(st.sampled_from((1.0, 0.3)))
        amplitudes[~amplitudes.any(axis=1), -1] = 1.0
        amplitudes /= np.linalg.norm(amplitudes, axis=1, keepdims=True)
    return theta, np.ascontiguousarray(np.concatenate([amplitudes, x], axis=1))


# -- measurements -----------------------------------------------------------------------------------------------------


def bases():
    """`measurement_bases`: one letter, or several in any order."""
    several = st.lists(st.sampled_from("XYZ"), min_size=1, max_size=3, unique=True).map(tuple)
    return st.one_of(st.sampled_from("XYZ"), several)


def _some_qubits(n_qubits):
    return st.lists(st.integers(0, n_qubits - 1), min_size=1, max_size=n_qubits, unique=True).map(tuple)


@st.composite
def observables(draw, n_qubits):
    """A weighted sum of one to three Pauli strings."""
    total = None
    for _ in range(draw(st.integers(1, 3))):
        term = Pauli(
            draw(st.text("IXYZ", min_size=n_qubits, max_size=n_qubits)),
            draw(st.sampled_from((1.0, -0.5, 0.25, 2.0))),
        )
        total = term if total is None else total + term
    return total


def measurements(n_qubits):
    """Any measurement that fits `n_qubits`."""
    qubits = _some_qubits(n_qubits)
    return st.one_of(
        st.builds(Expectation, bases()),
        st.builds(Expectation, bases(), qubits=qubits),
        st.lists(observables(n_qubits), min_size=1, max_size=3).map(lambda o: Expectation(observables=tuple(o))),
        st.builds(Probabilities, qubits=st.one_of(st.none(), qubits)),
        qubits.flatmap(lambda q: st.builds(Probabilities, qubits=st.just(q), n_classes=st.integers(1, 1 << len(q)))),
    )


@dataclass(frozen=True, eq=False)
class Problem:
    """A circuit, what is measured, and the numbers to run it with."""

    circuit: Circuit
    measurement: Expectation | Probabilities
    theta: np.ndarray
    inputs: np.ndarray

    def __repr__(self):
        return f"{self.circuit}\n{self.measurement}\ntheta={self.theta!r}\ninputs={self.inputs!r}"


@st.composite
def problems(draw, max_rows=3, **circuit_arguments):
    """A `Problem`; arguments as in `circuits`."""
    circuit = draw(circuits(**circuit_arguments))
    return Problem(circuit, draw(measurements(circuit.n_qubits)), *draw(points(circuit, max_rows=max_rows)))


# -- layers -----------------------------------------------------------------------------------------------------------

KINDS = ("QuantumEncoder", "QuantumFeatureExtractor", "QuantumPooling", "QuantumReadout", "QuantumLayer")
_GATE_ENCODINGS = ("angle", "iqp", "zz", AngleEncoding("x"), AngleEncoding("z"), IQP(2), ZZ(1))
_SPECS = {
    "QuantumEncoder": specs.encoder,
    "QuantumFeatureExtractor": specs.feature_extractor,
    "QuantumPooling": specs.pooling,
    "QuantumReadout": specs.readout,
    "QuantumLayer": specs.custom,
}


@st.composite
def layer_arguments(draw, kinds=KINDS, max_qubits=4, max_depth=3, encodings=None):
    """`(name of the layer's class, its keyword arguments)`, the same for every framework.

    `encodings` restricts the encodings, for example to those with an input gradient on every backend.
    """
    kind = draw(st.sampled_from(kinds))
    if kind == "QuantumLayer":
        circuit = draw(circuits(max_qubits=max_qubits))
        if circuit.n_amplitudes + circuit.n_inputs == 0:  # a layer has features
            circuit.ry(circuit.inputs(1)[0], 0)
        return kind, {"circuit": circuit, "measurement": draw(measurements(circuit.n_qubits))}
    n = draw(st.integers(1, max_qubits))
    if kind == "QuantumEncoder":
        return kind, {"n_qubits": n}
    encoding = draw(st.sampled_from(encodings or ("amplitude", "amplitude", "basis", *_GATE_ENCODINGS)))
    gates = encoding != "amplitude"
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    patterns = st.sampled_from(("linear", "circular", "full", "none"))
    entanglements = st.one_of(patterns, st.lists(st.sampled_from(pairs), max_size=4)) if pairs else patterns
    ansatze = ("hardware_efficient", "strongly_entangling", "real_amplitudes", HardwareEfficient("circular"),
               RealAmplitudes("linear"))  # fmt: skip
    arguments = {
        "n_qubits": n,
        "depth": draw(st.integers(0, max_depth)),
        "encoding": encoding,
        "ansatz": draw(st.sampled_from(ansatze)),
        "measurement_bases": draw(bases()),
        "reuploading": draw(st.booleans()) if gates else False,
    }
    if arguments["ansatz"] in ("hardware_efficient", "real_amplitudes"):
        arguments["entanglement"] = draw(entanglements)
    if kind == "QuantumPooling":
        arguments["pool_size"] = draw(st.sampled_from([d for d in range(1, n + 1) if n % d == 0]))
        arguments["mode"] = draw(st.sampled_from(("measurement", "partial_trace")))
    if kind == "QuantumReadout":
        arguments["n_classes"] = draw(st.one_of(st.none(), st.integers(2, 1 << n)))
        if arguments["n_classes"] is not None:
            del arguments["measurement_bases"]
            arguments["log"] = draw(st.booleans())
    return kind, arguments


def layer_specs(**arguments):
    """A `LayerSpec` that backends compute (logarithms come after); arguments as in `layer_arguments`."""
    return layer_arguments(**arguments).map(lambda drawn: _SPECS[drawn[0]](**drawn[1]).primitive)


@dataclass(frozen=True)
class Batch:
    """Leading dimensions, dtype and seed of a batch; `features(spec)` makes it for a layer."""

    lead: tuple[int, ...]
    dtype: str
    seed: int

    def features(self, spec):
        """Finite features (…, F); bits for basis encoding, at times fewer than the most for amplitude encoding."""
        rng = np.random.default_rng(self.seed)
        width = int(rng.integers(1, spec.n_features + 1)) if spec.pads else spec.n_features
        shape = (*self.lead, width)
        if not spec.encoding.differentiable:
            return rng.integers(0, 2, shape).astype(self.dtype)
        return rng.uniform(-math.pi, math.pi, shape).astype(self.dtype)

    def theta(self, spec):
        """Weights (W,), float64."""
        return np.random.default_rng(self.seed + 1).uniform(-math.pi, math.pi, spec.n_weights)

    def cotangents(self, spec):
        """dL/d(outputs), (…, O)."""
        return np.random.default_rng(self.seed + 2).normal(size=(*self.lead, spec.output_dim)).astype(self.dtype)


def batches(dtypes=("float32", "float64"), min_rows=0):
    """A `Batch` of one to three leading dimensions; some are empty unless `min_rows` is 1."""
    lead = st.lists(st.integers(min_rows, 4), min_size=1, max_size=3).map(tuple)
    return st.builds(Batch, lead, st.sampled_from(dtypes), st.integers(0, 999))


# -- faults -----------------------------------------------------------------------------------------------------------


def faults(places=PLACES):
    """What goes wrong in a `faults.FaultyBackend`, and where. Compiling returns no numbers: it can only raise."""
    possible = [Fault(t, p) for p in places for t in TROUBLES if p != "compile" or t in ERRORS]
    return st.sampled_from(possible)


# -- noise ------------------------------------------------------------------------------------------------------------


def channels(n_qubits=1):
    """A `Channel` on one or two qubits, its extremes among them."""
    p = st.one_of(st.sampled_from((0.0, 1.0)), st.floats(0.001, 0.5))
    by_name = [p.map(lambda value: Channel.depolarizing(value, n_qubits))]
    by_name.append(st.integers(0, 99).map(lambda seed: Channel.kraus(random_kraus(seed, n_qubits))))
    if n_qubits == 1:
        named = (Channel.amplitude_damping, Channel.phase_damping, Channel.bit_flip, Channel.phase_flip)
        by_name += [p.map(make) for make in named]
        by_name.append(st.tuples(*[st.floats(0, 1 / 3)] * 3).map(lambda values: Channel.pauli_channel(*values)))
    return st.one_of(by_name)


def random_kraus(seed, n_qubits, count=3):
    """Kraus operators of a random channel, (count, 2**n, 2**n); first qubit most significant."""
    rng, size = np.random.default_rng(seed), 1 << n_qubits
    entries = rng.normal(size=(count * size, size)) + 1j * rng.normal(size=(count * size, size))
    return np.linalg.qr(entries)[0].reshape(count, size, size)


@st.composite
def noisy_circuits(draw, max_qubits=3, max_gates=10, amplitudes=None):
    """A circuit with channels among its gates, some of its qubits read with errors."""
    plain = draw(circuits(max_qubits=max_qubits, max_gates=max_gates, amplitudes=amplitudes))
    noisy, n = plain._like(), plain.n_qubits
    for op in plain.operations:
        noisy.append(op.gate, op.qubits, op.params)
        if draw(st.booleans()):
            size = draw(st.integers(1, min(2, n)))
            noisy.append(draw(channels(size)), draw(st.permutations(range(n)))[:size])
    noisy.append(draw(channels()), [0])
    for qubit in range(n):
        if draw(st.booleans()):
            noisy.readout_error(draw(st.floats(0, 0.5)), draw(st.floats(0, 0.5)), qubit)
    return noisy
