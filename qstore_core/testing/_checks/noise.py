"""Checks of circuits with channels: computed as their Kraus operators say, or refused, never passed over."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...circuit.circuit import Circuit
from ...circuit.measurements.measurement import Expectation, Measurement, Pauli, Probabilities
from ...circuit.noise.channels import CHANNELS, Channel
from ...errors import CapabilityError
from .. import reference
from ..compare import ConformanceError, same
from ..points import cotangents, random_point, ring, scramble
from ..subject import SEED, SLOPES, NotDeclared, Subject, arrays, check

__all__: list[str] = []

_CLOSE = 1e-6  # simulators of noise normalise channels to about 1e-8
_MEASURED: dict[str, Measurement] = {
    "bases X, Y, Z": Expectation(("X", "Y", "Z")),
    "observables": Expectation(observables=(Pauli("ZZI") - 0.5 * Pauli("XIY"), Pauli("IZZ"))),
    "probabilities": Probabilities((2, 0)),
}


def _isometry(rng: np.random.Generator, size: int) -> np.ndarray:
    """Kraus operators of a random channel."""
    entries = rng.normal(size=(3 * size, size)) + 1j * rng.normal(size=(3 * size, size))
    kraus: np.ndarray = np.linalg.qr(entries)[0].reshape(3, size, size)
    return kraus


def _one_of_each() -> Iterator[tuple[str, Channel, tuple[int, ...]]]:
    rng = np.random.default_rng(SEED)
    for name, kind in CHANNELS.items():
        for n, qubits in ((1, (1,)), (2, (2, 0)))[: kind.most_qubits]:
            if name == "kraus":
                yield f"kraus operators on {n} qubit(s)", Channel.kraus(_isometry(rng, 1 << n)), qubits
            else:
                numbers = (0.15, 0.05, 0.1)[: len(kind.numbers)]
                yield f"{name} on {n} qubit(s)", Channel(name, numbers, n), qubits


def _with(channel: Channel, qubits: tuple[int, ...], *, amplitudes: bool = False) -> Circuit:
    """A channel between gates with angles; a readout error at the end."""
    c = Circuit(3, amplitudes=amplitudes)
    x, w = c.inputs(1), c.weights(1)
    scramble(c, 0.6)
    c.append("ry", (1,), x)
    if not channel.is_readout:
        c.append(channel, qubits)
    if channel.n_qubits == 2:
        c.append("crx", (1, 2), w)
    else:  # nothing that a simulator takes only with its angle put in, which copies the channel too
        c.append("rx", (2,), w)
    ring(c)
    if channel.is_readout:
        c.append(channel, qubits)
    return c


def _refuses(subject: Subject, circuit: Circuit, what: str) -> bool:
    """Whether it refuses a circuit, which it may unless it declares channels."""
    try:
        for shots in subject.both_ways():
            subject.compile(circuit, Expectation(), shots=shots).forward(*arrays(*random_point(circuit, 2)))
    except CapabilityError as error:
        if subject.capabilities.channels:
            raise ConformanceError(f"{what}: capabilities.channels is declared, and it says: {error}") from error
        return True
    return False


@check("noise: channels", "B9")
def _channels(subject: Subject) -> None:
    """Each channel, and readout errors, under every measurement: as Kraus operators say, or refused."""
    computed = 0
    for what, channel, qubits in _one_of_each():
        circuit = _with(channel, qubits)
        if _refuses(subject, circuit, what):
            continue
        computed += 1
        theta, inputs = arrays(*random_point(circuit, 2))
        for text, measured in _MEASURED.items():
            want = reference.outputs(circuit, measured, theta, inputs)
            for shots in subject.both_ways(20_000):
                compiled = subject.compile(circuit, measured, shots=shots)
                got = compiled.forward(theta, inputs)
                tolerance = subject.tolerance(circuit, measured, theta, inputs, shots=shots)
                how = f"{what}, {text}" if shots is None else f"{what}, {text}, {shots} shots"
                same(got, want, np.maximum(tolerance, _CLOSE), how, bits=isinstance(measured, Probabilities))
    if not computed:
        raise NotDeclared("capabilities.channels is False: it refuses circuits with channels")


@check("noise: gradients", "G14")
def _gradients(subject: Subject) -> None:
    """The vjp of circuits with channels, for weights, inputs and amplitudes."""
    subject.need("vjp", "qstore computes gradients with the parameter-shift rule")
    subject.need("channels", "it refuses circuits with channels")
    for what, channel, qubits in _one_of_each():
        for amplitudes in (False, True):
            circuit = _with(channel, qubits, amplitudes=amplitudes)
            theta, inputs = arrays(*random_point(circuit, 2))
            for text, measured in _MEASURED.items():
                compiled = subject.compile(circuit, measured)
                d = cotangents(len(inputs), compiled.width)
                want = reference.slopes(circuit, measured, theta, inputs, d)
                for k, got in enumerate(compiled.vjp(theta, inputs, d)):
                    name = ("theta", "inputs")[k]
                    size = max(1.0, float(np.abs(want[k]).max(initial=0.0)) / 10)
                    same(got, want[k], SLOPES["float64"] * size, f"gradient for {name}: {what}, {text}")
