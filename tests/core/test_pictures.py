"""Pictures show every gate of a circuit, whatever its length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from qstore_core import Circuit, QuantumFeatureExtractor, SpecError
from qstore_core.circuit.drawing import labels
from qstore_core.pictures import plot_amplitudes, plot_bloch, plot_circuit, svg
from tests.support.strategies import circuits


@given(circuits(max_qubits=3))
def test_every_label_of_every_gate_is_drawn(circuit):
    expected = sorted(
        text
        for op in circuit.operations
        for text in labels(op).values()
        if text != "●" and not (text == "X" and len(op.qubits) > 1)
    )
    ax = plot_circuit(circuit, width=5.0)
    drawn = sorted(text.get_text() for text in ax.texts if not text.get_text().split()[-1].startswith("q"))
    assert drawn == expected


def test_a_long_circuit_goes_on_below():
    layer = QuantumFeatureExtractor(3, 4)
    narrow, wide = plot_circuit(layer, width=6.0), plot_circuit(layer, width=100.0)
    assert narrow.get_ylim()[0] < wide.get_ylim()[0]
    assert narrow.get_xlim()[1] < wide.get_xlim()[1]


def test_features_and_weights_have_colours_of_their_own():
    c = Circuit(1)
    (x,), (w,) = c.inputs(1), c.weights(1)
    for angle in (x, w, x * w, 0.5):
        c.ry(angle, 0)
    colours = [patch.get_facecolor() for patch in plot_circuit(c).patches]
    assert len(set(colours)) == 4


def test_svg_is_svg():
    c = Circuit(2)
    c.h(0)
    c.cnot(0, 1)
    assert svg(c).rstrip().endswith("</svg>")


def test_a_state_and_a_bloch_vector_are_drawn():
    bars = plot_amplitudes(np.array([1, 1j, 0, -1]) / np.sqrt(3)).patches
    assert [round(bar.get_height(), 4) for bar in bars] == [0.5774, 0.5774, 0.0, 0.5774]
    assert "|0⟩" in [text.get_text() for text in plot_bloch([0.0, 0.6, 0.8]).texts]


@pytest.mark.parametrize(
    "call",
    [
        lambda: plot_circuit("circuit"),
        lambda: plot_amplitudes([1.0, 0.0, 0.0]),
        lambda: plot_bloch([1.0, 1.0, 1.0]),
        lambda: plot_bloch([1.0]),
    ],
)
def test_what_cannot_be_drawn_is_refused(call):
    with pytest.raises(SpecError):
        call()
