"""Faults in how backends treat channels: passed over, half known, misread, and gradients that forget them."""

from __future__ import annotations

from qstore_core import Capabilities, CapabilityError, get_backend

from .backend import QulacsExecutable
from .faults import fault, faulty

KIND = "noise"


def without(circuit, keep=lambda op: op.channel is None):
    """The circuit without some of its operations."""
    out = circuit._like()
    out.extend(op for op in circuit.operations if keep(op))
    return out


def passing_over(self, circuit, measurement, dtype, shots):
    QulacsExecutable.__init__(self, without(circuit), measurement, dtype, shots)


faulty(KIND, "channels passed over", "noise: channels", only=True, __init__=passing_over)


class Density:
    """The density engine under another name, with one thing wrong."""

    name = "density_of_mine"
    capabilities = Capabilities(vjp=True, channels=True, max_qubits=10)

    def __init__(self, change=lambda circuit: circuit, pull=lambda d: d):
        self.change, self.pull = change, pull

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        make = get_backend("density").compile
        right = make(circuit, measurement, dtype=dtype, shots=shots)
        values = make(self.change(circuit), measurement, dtype=dtype, shots=shots) if circuit.noisy else right
        return Executable(values, right, self.pull if circuit.noisy else lambda d: d)


class Executable:
    """Values of one executable, gradients of another."""

    def __init__(self, values, gradients, pull):
        self.values, self.gradients, self.pull = values, gradients, pull

    def forward(self, theta, inputs):
        return self.values.forward(theta, inputs)

    def value_and_vjp(self, theta, inputs):
        vjp_fn = self.gradients.value_and_vjp(theta, inputs)[1]
        return self.forward(theta, inputs), lambda cotangents: tuple(map(self.pull, vjp_fn(cotangents)))


def no_readout(circuit):
    return without(circuit, lambda op: op.gate != "readout_error")


def reversed_pairs(circuit):
    out = circuit._like()
    for op in circuit.operations:
        out.append(op.channel or op.gate, op.qubits[::-1] if op.gate == "kraus" else op.qubits, op.params)
    return out


def halved(circuit):
    out = circuit._like()
    for op in circuit.operations:
        if op.gate == "depolarizing":
            out.append(op.gate, op.qubits, [op.channel.numbers[0] / 2])
        else:
            out.append(op.channel or op.gate, op.qubits, op.params)
    return out


def after_gates(circuit):
    """All channels at the end."""
    out = without(circuit)
    out.extend(op for op in circuit.operations if op.channel is not None)
    return out


class Partial(Density):
    """Channels are declared, and some are refused."""

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        if any(op.gate == "kraus" for op in circuit.operations):
            raise CapabilityError("no Kraus operators")
        return super().compile(circuit, measurement, dtype=dtype, shots=shots)


for name, change in (
    ("readout errors passed over", no_readout),
    ("qubits of Kraus operators reversed", reversed_pairs),
    ("depolarising by half", halved),
    ("channels after all gates", after_gates),
):
    fault(KIND, name, "noise: channels", lambda change=change: Density(change), only=True)


class Sampling(Density):
    """Exact values have the channels, samples have not."""

    capabilities = Capabilities(vjp=True, shots=True, channels=True, max_qubits=10)

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        if shots is None:
            return super().compile(circuit, measurement, dtype=dtype)
        if circuit.n_qubits > 10:
            raise CapabilityError("at most 10 qubits")
        return get_backend("trajectories").compile(without(circuit), measurement, dtype=dtype, shots=shots)


fault(KIND, "channels passed over under shots", "noise: channels", Sampling, only=True)
fault(KIND, "channels declared, some refused", "noise: channels", Partial)
fault(
    KIND, "gradients without the channels' loss", "noise: gradients", lambda: Density(pull=lambda d: 1.1 * d), only=True
)
