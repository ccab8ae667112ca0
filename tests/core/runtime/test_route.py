"""`route` as a table: every framework, device, kind of graph, transform and wish ends in one of three places."""

from __future__ import annotations

import itertools

import pytest

from qstore_core import Capabilities, QuantumEncoder, QuantumFeatureExtractor
from qstore_core.runtime.program import Execution, LayerProgram
from qstore_core.runtime.route import FRAMEWORKS, Places, route
from tests.support.faults import FaultyBackend

AUTO = Places("torch", "numba", "torch")
NAMED = Places("torch", "statevector", "torch", chosen=True)
TENSOR = Places("torch", None, "torch", chosen=True)
ELSEWHERE = Places("torch", "aer", None, chosen=True)
ARRAYS = Places(None, "numba", None)

TABLE = [
    # situation                                   auto      named     tensor    elsewhere  arrays
    ({}, ("host", "host", "tensor", "host", "host")),
    ({"wanted": "gradients"}, ("host", "host", "tensor", "host", "host")),
    ({"device": "cuda"}, ("tensor", "host", "tensor", "host", "host")),
    ({"mode": "graph"}, ("host", "host", "tensor", "host", "host")),
    ({"mode": "graph", "device": "cuda"}, ("tensor", "host", "tensor", "host", "host")),
    ({"mode": "xla"}, ("tensor", "tensor", "tensor", "refused", "host")),
    ({"mode": "file"}, ("tensor", "tensor", "tensor", "refused", "host")),
    ({"transform": "vmap and grad"}, ("host", "host", "tensor", "host", "host")),
    ({"transform": "vmap and grad", "device": "cuda"}, ("tensor", "tensor", "tensor", "refused", "host")),
    ({"transform": "jvp"}, ("tensor", "tensor", "tensor", "refused", "host")),
    ({"wanted": "tangents"}, ("tensor", "tensor", "tensor", "refused", "host")),
    ({"wanted": "second derivatives"}, ("tensor", "tensor", "tensor", "refused", "host")),
]


@pytest.mark.parametrize(("situation", "expected"), TABLE)
def test_table(situation, expected):
    found = tuple(route(places, **situation).where for places in (AUTO, NAMED, TENSOR, ELSEWHERE, ARRAYS))
    assert found == expected


def test_a_refusal_says_what_to_use():
    for framework, wanted in itertools.product(FRAMEWORKS, ("tangents", "second derivatives")):
        refused = route(Places(framework, "aer", None), wanted=wanted)
        assert refused.where == "refused"
        engine = FRAMEWORKS[framework].engine
        assert all(
            part in refused.why for part in (wanted, "'aer'", f'backend="{engine}"', FRAMEWORKS[framework].title)
        )


def test_noise_stays_on_the_host():
    """Also on a GPU, where no engine on tensors computes it; what needs one is refused, naming none."""
    places = Places("torch", "density", None, noisy=True)
    for device, mode in (("cpu", "eager"), ("cuda", "eager"), ("cpu", "graph")):
        found = route(places, device=device, mode=mode)
        assert (found.where, found.why) == ("host", "density, which computes noise")
    refused = route(places, wanted="tangents")
    assert refused.where == "refused"
    assert "noise is computed on the host alone, by backend 'density'" in refused.why


@pytest.mark.parametrize(
    ("execution", "expected"),
    [
        (Execution(backend="statevector"), NAMED),
        (Execution(backend="torch"), TENSOR),
        (Execution(backend="statevector", gradient="parameter-shift"), Places("torch", "statevector", None, True)),
        (Execution(backend="torch", gradient="spsa"), Places("torch", "torch", None, True)),
        (Execution(backend=FaultyBackend("aer", None)), ELSEWHERE),
    ],
)
def test_places_of_a_layer(execution, expected):
    """What computes in the place of the backend gives the same numbers and the gradients that were asked for."""
    pytest.importorskip("torch")
    spec = QuantumFeatureExtractor(2, encoding="angle").spec
    assert LayerProgram(spec, execution, name="it", framework="torch").places == expected


def test_explain_prints_it():
    torch = pytest.importorskip("qstore_torch")
    text = torch.QuantumReadout(2, backend="statevector").explain()
    assert "eager: host (statevector, asked for)" in text
    assert "forward mode: tensor (tangents need a circuit in PyTorch operations: torch computes the same)" in text
    refused = torch.QuantumReadout(2, backend=FaultyBackend("aer", None), fallback=None).explain()
    assert "second derivatives: refused" in refused
    assert "runs no circuit" in QuantumEncoder(2).explain()
    assert "\n" not in QuantumFeatureExtractor(2).explain()


def test_a_third_partys_framework_engine_is_on_the_tensors():
    backend = FaultyBackend("other", None)
    backend.capabilities = Capabilities(vjp=True, framework="torch")
    pytest.importorskip("torch")
    program = LayerProgram(QuantumFeatureExtractor(2).spec, Execution(backend=backend), name="it", framework="torch")
    assert program.places == Places("torch", None, "other", chosen=True)
