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

    Raises:
        SpecError: an unknown gate, something that is no channel, or one that does not fit the gate.
    """

    gate: str
    qubits: tuple[int, ...] | None
    channels: tuple[Channel, ...]

    def __post_init__(self) -> None:
        """Check that gate, qubits and channels fit each other."""
        name, size = EVERY, None
        if not isinstance(self.gate, str) or self.gate != EVERY:
            name, size = gate(self.gate).name, gate(self.gate).n_qubits
        where = None if self.qubits is None else _qubits(self.qubits)
        if where is not None and size is not None and len(where) != size:
            raise SpecError(f"{name} is on {size} qubit(s), received qubits={where}.", argument="qubits")
        channels = check_items(self.channels, "channels behind a gate", MAX_OPERATIONS)
        for channel in channels:
            if not isinstance(channel, Channel) or channel.is_readout:
                raise SpecError(
                    f"behind a gate come channels such as Channel.depolarizing(0.01), received {shown(channel)}. "
                    "Readout errors are those of the model: model.readout_error(p_01, p_10)."
                )
            if size is not None and channel.n_qubits > 1 and channel.n_qubits != size:
                raise SpecError(f"{channel} is on {channel.n_qubits} qubits, {name} on {size}.")
        object.__setattr__(self, "gate", name)
        object.__setattr__(self, "qubits", where)
        object.__setattr__(self, "channels", channels)


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
        """Check that there are rules and readout errors, one for each gate and qubit."""
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
        _check_count(sum(len(rule.channels) for rule in self.rules))
        seen: set[Any] = set()
        for rule in self.rules:
            if (key := (rule.gate, rule.qubits)) in seen:
                where = "" if rule.qubits is None else f" on qubits {rule.qubits}"
                raise SpecError(
                    f"there are two rules for {rule.gate}{where}. Put the channels of both into one, or add them with "
                    "model.after(…).",
                    argument="rules",
                )
            seen.add(key)
        for qubit, p_01, p_10 in self.readout:
            Channel.readout_error(p_01, p_10)
            if qubit is not None:
                check_whole(qubit, "a qubit", 0, MAX_QUBITS - 1)
            if (qubit,) in seen:
                raise SpecError(
                    f"there are two readout errors of {'all qubits' if qubit is None else f'qubit {qubit}'}; give one.",
                    argument="readout",
                )
            seen.add((qubit,))

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
        return self._with(NoiseRule(name, where, channels) for name in names)

    def _with(self, more: Iterable[NoiseRule]) -> NoiseModel:
        """The same with more rules: channels of one gate and its qubits are one rule's."""
        found: dict[tuple[str, tuple[int, ...] | None], list[Channel]] = {}
        for rule in (*self.rules, *more):
            found.setdefault((rule.gate, rule.qubits), []).extend(rule.channels)
        rules = tuple(NoiseRule(name, qubits, tuple(channels)) for (name, qubits), channels in found.items())
        return NoiseModel(rules, self.readout)

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
        for op in circuit.operations:
            out.append(op.channel or op.gate, op.qubits, op.params)
            if op.channel is None:
                self._append(out, op, _of(rules, op))
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
        entries = [
            _items(entry, 3, "[gate, qubits, channels]")
            for entry in check_items(fields["rules"], "rules of a noise model", MAX_OPERATIONS)
        ]
        saved = [check_items(channels, "channels of a rule", MAX_OPERATIONS) for _, _, channels in entries]
        _check_count(sum(map(len, saved)))
        rules = []
        for (name, qubits, _), channels in zip(entries, saved, strict=True):
            if not isinstance(name, str):
                raise SpecError(f"a rule is saved with the name of a gate, received {shown(name)}.")
            form = "[name, numbers, number of qubits]"
            rules.append(NoiseRule(name, qubits, tuple(Channel(*_items(one, 3, form)) for one in channels)))
        readout = [
            _items(entry, 3, "[qubit, p_01, p_10]")
            for entry in check_items(fields["readout"], "readout errors", MAX_QUBITS + 1)
        ]
        return NoiseModel(readout=tuple(readout))._with(rules)

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


def _of(rules: Mapping[tuple[str, tuple[int, ...] | None], tuple[Channel, ...]], op: Operation) -> tuple[Channel, ...]:
    for key in ((op.gate, op.qubits), (op.gate, None), (EVERY, op.qubits), (EVERY, None)):
        if key in rules:
            return rules[key]
    return ()


def _check_count(channels: int) -> None:
    if channels > MAX_OPERATIONS:
        raise SpecError(f"a noise model has at most {MAX_OPERATIONS} channels, received {channels}.", argument="rules")


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
