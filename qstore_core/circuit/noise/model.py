"""`NoiseModel`: channels behind gates, by the gate's name, and readout errors; a frozen value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import OptionError, SpecError
from ..checks import MAX_OPERATIONS, MAX_QUBITS, check_items, check_whole, read_fields, shown
from ..circuit import Circuit, Operation
from ..gates.table import gate
from .channels import Channel

__all__ = ["NoiseModel", "NoiseRule", "check_noise_model"]

EVERY = "*"


@dataclass(frozen=True, slots=True)
class NoiseRule:
    """The channels behind one gate.

    Attributes:
        gate: Name of a gate; "*" for every gate that no rule names.
        qubits: The gate's qubits, in its order; None for all.
        channels: First to last. One on a single qubit acts on each qubit of the gate; one on two qubits needs a gate
            of two.
    """

    gate: str
    qubits: tuple[int, ...] | None
    channels: tuple[Channel, ...]


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """Noise by gate, apart from any circuit. Frozen, hashable; `to_dict` and `from_dict` make the JSON round trip.

    A circuit runs as it is written: the channels come behind the whole gate, and nothing is cancelled, merged or
    decomposed past them. The preparation of amplitudes has no noise. Of several rules the narrowest holds: the gate's
    name on these qubits, then its name, then "*" on these qubits, then "*".

    Attributes:
        rules: What comes behind gates.
        readout: `(qubit or None for all, p_01, p_10)`; a qubit's own errors hold in place of those of all.

    Example:
        >>> model = (
        ...     NoiseModel()
        ...     .after("cnot", Channel.depolarizing(0.02, 2))
        ...     .after("*", Channel.amplitude_damping(0.001))
        ...     .readout_error(0.01, 0.03)
        ... )
        >>> c = Circuit(2)
        >>> c.h(0); c.cnot(0, 1)
        >>> print(model.applied(c))
        Circuit on 2 qubits, 0 inputs, 0 weights
          h 0
          amplitude_damping(0.001) 0
          cnot 0 1
          depolarizing(0.02) 0 1
          readout_error(0.01, 0.03) 0
          readout_error(0.01, 0.03) 1
    """

    rules: tuple[NoiseRule, ...] = ()
    readout: tuple[tuple[int | None, float, float], ...] = ()

    def __post_init__(self) -> None:
        """Check what was given by hand; `after` and `readout_error` check the rest."""
        if not isinstance(self.rules, tuple) or not all(isinstance(rule, NoiseRule) for rule in self.rules):
            raise SpecError(
                f"rules are a tuple of NoiseRule, received {shown(self.rules)}. Make a model of them: "
                'NoiseModel().after("cnot", Channel.depolarizing(0.01, 2)).',
                argument="rules",
            )
        if not isinstance(self.readout, tuple) or not all(isinstance(e, tuple) and len(e) == 3 for e in self.readout):
            raise SpecError(
                f"readout is a tuple of (qubit or None, p_01, p_10), received {shown(self.readout)}.",
                argument="readout",
            )
        for qubit, p_01, p_10 in self.readout:
            Channel.readout_error(p_01, p_10)
            if qubit is not None:
                check_whole(qubit, "a qubit", 0, MAX_QUBITS - 1)

    def after(self, gates: str | Iterable[str], *channels: Channel, qubits: Iterable[int] | None = None) -> NoiseModel:
        """The same with channels behind gates, after those that are there already.

        Args:
            gates: A name, or several; "*" for every gate that no rule names.
            *channels: First to last.
            qubits: The gate's qubits, in its order; all by default.

        Raises:
            SpecError: an unknown gate, something that is no channel, or one that does not fit the gate.
        """
        names = (gates,) if isinstance(gates, str) else check_items(gates, "names of gates", MAX_OPERATIONS)
        where = None if qubits is None else _qubits(qubits)
        for channel in channels:
            if not isinstance(channel, Channel) or channel.is_readout:
                raise SpecError(
                    f"behind a gate come channels such as Channel.depolarizing(0.01), received {shown(channel)}. "
                    "Readout errors are those of the model: model.readout_error(p_01, p_10)."
                )
        rules = {(rule.gate, rule.qubits): rule for rule in self.rules}
        for given in names:
            name, size = (EVERY, None) if given == EVERY else (gate(given).name, gate(given).n_qubits)
            if where is not None and size is not None and len(where) != size:
                raise SpecError(f"{name} is on {size} qubit(s), received qubits={where}.", argument="qubits")
            for channel in channels:
                if size is not None and channel.n_qubits > 1 and channel.n_qubits != size:
                    raise SpecError(f"{channel} is on {channel.n_qubits} qubits, {name} on {size}.")
            old = rules.get((name, where), NoiseRule(name, where, ()))
            rules[name, where] = NoiseRule(name, where, (*old.channels, *channels))
        return NoiseModel(tuple(rules.values()), self.readout)

    def readout_error(self, p_01: float, p_10: float, qubits: Iterable[int] | None = None) -> NoiseModel:
        """The same with qubits that are misread: 0 as 1 with probability p_01, 1 as 0 with p_10; all by default."""
        a, b = Channel.readout_error(p_01, p_10).numbers
        where = (None,) if qubits is None else _qubits(qubits)
        kept = [entry for entry in self.readout if entry[0] not in where]
        return NoiseModel(self.rules, (*kept, *((qubit, a, b) for qubit in where)))

    def applied(self, circuit: Circuit) -> Circuit:
        """The circuit with this noise in it, behind every gate, and readout errors at the end.

        Raises:
            SpecError: a channel of two qubits behind a gate of another number, by a rule for "*".
        """
        if not isinstance(circuit, Circuit):
            raise SpecError(f"noise is put into a Circuit, received {shown(circuit)}. A layer's is layer.circuit.")
        out = circuit._like()
        rules = {(rule.gate, rule.qubits): rule.channels for rule in self.rules}
        named = {rule.gate for rule in self.rules}
        for op in circuit.operations:
            out.append(op.channel or op.gate, op.qubits, op.params)
            if op.channel is None:
                self._append(out, op, _of(rules, op, op.gate if op.gate in named else EVERY))
        errors = {qubit: (a, b) for qubit, a, b in self.readout}
        for qubit in range(circuit.n_qubits):
            numbers = errors.get(qubit, errors.get(None))
            if numbers is not None:
                out.append("readout_error", [qubit], numbers)
        return out

    def _append(self, out: Circuit, op: Operation, channels: tuple[Channel, ...]) -> None:
        for channel in channels:
            if channel.n_qubits == len(op.qubits):
                out.append(channel, op.qubits)
            elif channel.n_qubits == 1:
                for qubit in op.qubits:
                    out.append(channel, [qubit])
            else:
                raise SpecError(f"{channel} is on {channel.n_qubits} qubits, and cannot come behind {op}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `from_dict` is its inverse."""
        return {
            "rules": [
                [rule.gate, None if rule.qubits is None else list(rule.qubits), [_saved(c) for c in rule.channels]]
                for rule in self.rules
            ],
            "readout": [list(entry) for entry in self.readout],
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> NoiseModel:
        """Inverse of `to_dict`.

        Raises:
            SpecError: `data` is not the form that `to_dict` gives.
        """
        fields = read_fields(data, "a noise model", ("rules", "readout"))
        model = NoiseModel()
        for entry in check_items(fields["rules"], "rules of a noise model", MAX_OPERATIONS):
            name, qubits, channels = _items(entry, 3, "[gate, qubits, channels]")
            loaded = [
                Channel(kind, numbers, n_qubits)
                for kind, numbers, n_qubits in (
                    _items(one, 3, "[name, numbers, number of qubits]")
                    for one in check_items(channels, "channels of a rule", MAX_OPERATIONS)
                )
            ]
            if not isinstance(name, str):
                raise SpecError(f"a rule is saved with the name of a gate, received {shown(name)}.")
            model = model.after(name, *loaded, qubits=qubits)
        for entry in check_items(fields["readout"], "readout errors", MAX_QUBITS + 1):
            qubit, p_01, p_10 = _items(entry, 3, "[qubit, p_01, p_10]")
            model = model.readout_error(p_01, p_10, None if qubit is None else [qubit])
        return model

    def __str__(self) -> str:
        lines = []
        for rule in self.rules:
            where = "" if rule.qubits is None else f" on {', '.join(map(str, rule.qubits))}"
            what = "every other gate" if rule.gate == EVERY else rule.gate
            lines.append(f"  {what}{where}: {', '.join(map(str, rule.channels)) or 'nothing'}")
        for qubit, a, b in self.readout:
            lines.append(f"  {'qubits' if qubit is None else f'qubit {qubit}'}: {Channel.readout_error(a, b)}")
        return "\n".join(["NoiseModel", *lines])


def check_noise_model(value: Any, backend: str) -> NoiseModel | None:
    """The option `noise_model` of a backend: a model, its saved form, or None."""
    model = NoiseModel.from_dict(value) if isinstance(value, Mapping) else value
    if model is not None and not isinstance(model, NoiseModel):
        raise OptionError(
            f"noise_model is a qstore_core.NoiseModel, received {type(value).__name__}.",
            argument="noise_model",
            backend=backend,
        )
    return model


def _of(rules: Mapping[tuple[str, tuple[int, ...] | None], tuple[Channel, ...]], op: Operation, name: str) -> Any:
    for key in ((name, op.qubits), (name, None)):
        if key in rules:
            return rules[key]
    return ()


def _qubits(qubits: Any) -> tuple[int, ...]:
    items = check_items(qubits, "qubits", MAX_QUBITS, "qubits")
    where = tuple(check_whole(qubit, "a qubit", 0, MAX_QUBITS - 1, "qubits") for qubit in items)
    if len(set(where)) != len(where) or not where:
        raise SpecError(f"qubits differ from each other, and there is one at least; received {shown(where)}.")
    return where


def _saved(channel: Channel) -> list[Any]:
    return [channel.name, list(channel.numbers), channel.n_qubits]


def _items(value: Any, count: int, form: str) -> tuple[Any, ...]:
    items = check_items(value, "a part of a noise model", count)
    if len(items) != count:
        raise SpecError(f"a part of a noise model is saved as {form}, received {shown(value)}.")
    return items
