"""What notebooks show."""

from __future__ import annotations

import html
import re

import numpy as np

import qstore_core
from qstore_core import Circuit, QuantumReadout
from qstore_core.notebook import drawing, table


def test_objects_show_themselves():
    layer = QuantumReadout(2, n_classes=2, seed=0, backend="statevector")
    layer(np.ones((3, 4)))
    shown = layer._repr_html_()
    assert "QuantumReadout" in shown
    assert layer.draw() in html.unescape(shown)
    assert "<td>statevector</td>" in layer.last_run._repr_html_()
    listed = qstore_core.list_backends()._repr_html_()
    assert all(f"<td>{info.name}</td>" in listed for info in qstore_core.list_backends())
    assert listed.count("<tr>") == len(qstore_core.list_backends()) + 1


def test_text_is_escaped():
    """A reason or a name may hold anything."""
    assert "<b>" not in table([{"<b>": "<b>"}])
    assert "<b>" not in drawing("<b>")


def test_a_circuit_is_drawn():
    c = Circuit(2)
    c.cnot(0, 1)
    assert re.search(r"<pre[^>]*>0: ─●─\n1: ─X─</pre>", c._repr_html_())
