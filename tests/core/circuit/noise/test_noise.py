"""Noise models: which channels stand behind which gates, as a value."""

from __future__ import annotations

import json
import pickle

import pytest

from qstore_core import Channel, Circuit, NoiseModel, NoiseRule, SpecError

DEPOLARISED, DAMPED, FLIPPED = Channel.depolarizing(0.1, 2), Channel.amplitude_damping(0.2), Channel.bit_flip(0.3)


def applied(model, *operations):
    c = Circuit(3)
    for name, qubits in operations:
        c.append(name, qubits)
    return [str(op) for op in model.applied(c).operations]


def test_channels_come_behind_their_gate():
    model = NoiseModel().after("cx", DEPOLARISED, DAMPED).after("h", FLIPPED)
    assert applied(model, ("h", [0]), ("x", [1]), ("cnot", [2, 0])) == [
        "h 0",
        "bit_flip(0.3) 0",
        "x 1",
        "cnot 2 0",
        "depolarizing(0.1) 2 0",
        "amplitude_damping(0.2) 2",
        "amplitude_damping(0.2) 0",
    ]


def test_the_narrowest_rule_holds():
    model = NoiseModel().after("*", DAMPED).after("x", FLIPPED).after("x", Channel.phase_flip(0.4), qubits=[1])
    assert applied(model, ("x", [0]), ("x", [1]), ("h", [1])) == [
        "x 0",
        "bit_flip(0.3) 0",
        "x 1",
        "phase_flip(0.4) 1",
        "h 1",
        "amplitude_damping(0.2) 1",
    ]
    elsewhere = NoiseModel().after("*", DAMPED).after("x", FLIPPED, qubits=[1])
    assert applied(elsewhere, ("x", [0])) == ["x 0", "amplitude_damping(0.2) 0"]  # no rule names X on this qubit
    none = NoiseModel().after("*", DAMPED).after("x")
    assert applied(none, ("x", [0]), ("h", [0])) == ["x 0", "h 0", "amplitude_damping(0.2) 0"]
    there = NoiseModel().after("*", DAMPED, qubits=[2])
    assert applied(there, ("x", [0]), ("h", [2])) == ["x 0", "h 2", "amplitude_damping(0.2) 2"]


def test_rules_for_one_gate_add_up():
    both = NoiseModel().after(["x", "h"], DAMPED).after("x", FLIPPED)
    assert applied(both, ("x", [0])) == ["x 0", "amplitude_damping(0.2) 0", "bit_flip(0.3) 0"]


def test_readout_errors_come_last():
    model = NoiseModel().readout_error(0.1, 0.2).readout_error(0.3, 0.4, qubits=[1])
    assert applied(model, ("x", [0])) == [
        "x 0",
        "readout_error(0.1, 0.2) 0",
        "readout_error(0.3, 0.4) 1",
        "readout_error(0.1, 0.2) 2",
    ]
    assert "readout_error(0.3, 0.4)" in str(model)


def test_a_model_is_a_value():
    model = NoiseModel().after("cnot", DEPOLARISED, qubits=[0, 1]).after("*", DAMPED).readout_error(0.1, 0.2, [2])
    again = NoiseModel.from_dict(json.loads(json.dumps(model.to_dict())))
    assert again == model
    assert hash(again) == hash(model)
    assert pickle.loads(pickle.dumps(model)) == model
    assert model.after("x", DAMPED) != model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: m.after("cnott", DAMPED), "Did you mean"),
        (lambda m: m.after("h", DEPOLARISED), "is on 2 qubits, h on 1"),
        (lambda m: m.after("ccx", DEPOLARISED), "is on 2 qubits, ccx on 3"),
        (lambda m: m.after("cnot", DAMPED, qubits=[0]), "cnot is on 2"),
        (lambda m: m.after("h", 0.1), "channels such as"),
        (lambda m: m.after("h", Channel.readout_error(0.1, 0.1)), "those of the model"),
        (lambda m: m.after("h", DAMPED, qubits=[-1]), "at least 0"),
        (lambda m: m.readout_error(0.1, 1.1), "p_10 is a probability"),
        (lambda m: NoiseModel.from_dict({"rules": []}), "'readout'"),
        (lambda m: NoiseModel.from_dict({"rules": [["h", None]], "readout": []}), "saved as"),
        (lambda m: NoiseModel.from_dict({"rules": [["h", None, [["bit_flip", [2.0], 1]]]], "readout": []}), "from 0"),
        (lambda m: m.after("*", DEPOLARISED).applied(one_gate()), "cannot come behind h 0"),
        (lambda m: m.applied(None), "a Circuit, received None"),
        (lambda m: NoiseModel((1,)), "tuple of NoiseRule"),
        (lambda m: NoiseRule("hh", None, (DAMPED,)), "no gate named"),
        (lambda m: NoiseRule("h", (0, 1), (DAMPED,)), "h is on 1"),
        (lambda m: NoiseRule("h", None, (DEPOLARISED,)), "is on 2 qubits, h on 1"),
        (lambda m: NoiseRule("h", None, ("bit_flip",)), "channels such as"),
        (lambda m: NoiseRule("h", None, DAMPED), "expected a sequence"),
        (lambda m: NoiseModel((NoiseRule("h", None, (DAMPED,)),) * 2), "two rules for h"),
        (lambda m: NoiseModel((NoiseRule("cx", (0, 1), ()), NoiseRule("cnot", (0, 1), ()))), r"on qubits \(0, 1\)"),
        (lambda m: NoiseModel(readout=((0, 0.1, 0.1), (0, 0.2, 0.2))), "two readout errors of qubit 0"),
        (lambda m: NoiseModel(readout=((None, 0.1, 0.1), (None, 0.2, 0.2))), "two readout errors of all qubits"),
        (lambda m: NoiseModel(readout=(1,)), "p_01, p_10"),
        (lambda m: NoiseModel(readout=((0, 0.1, 1.5),)), "p_10 is a probability"),
        (lambda m: NoiseModel(readout=((-1, 0.1, 0.1),)), "a qubit"),
    ],
)
def test_what_makes_no_model_is_refused(make, message):
    with pytest.raises(SpecError, match=message):
        make(NoiseModel())


def one_gate():
    c = Circuit(1)
    c.h(0)
    return c
