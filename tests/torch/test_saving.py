"""PyTorch layers as files and copies."""

from __future__ import annotations

import copy
import io
import json
import pickle

import pytest
import torch
from hypothesis import given
from torch import nn

import qstore_torch
from qstore_core import IQP, HardwareEfficient, LayerSpec, SpecError
from qstore_torch import QuantumEncoder, QuantumFeatureExtractor, QuantumPooling, QuantumReadout
from tests.support.faults import FaultyBackend
from tests.support.strategies import batches, layer_arguments


def model():
    return nn.Sequential(
        nn.Linear(5, 8),
        QuantumFeatureExtractor(3, backend="torch"),
        QuantumEncoder(2),
        QuantumPooling(2, backend="statevector"),
        QuantumReadout(1, encoding=IQP(), ansatz=HardwareEfficient("none"), n_classes=2),
    )


def test_state_dict_round_trip():
    one, two = model(), model()
    x = torch.rand(3, 5)
    parameters = [key for key in one.state_dict() if not key.endswith("._extra_state")]
    assert sorted(parameters) == ["0.bias", "0.weight", "1.theta", "2.theta", "3.theta", "4.theta"]
    assert not torch.allclose(one(x), two(x))
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    two.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    torch.testing.assert_close(one(x), two(x))
    two.load_state_dict({key: one.state_dict()[key] for key in parameters})  # a file without fingerprints


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("other", [QuantumReadout(3), QuantumReadout(2, entanglement="none")])
def test_a_checkpoint_of_another_circuit_does_not_load(other, strict):
    layer = QuantumReadout(2)
    before = layer.theta.detach().clone()
    with pytest.raises(SpecError, match="weights of another circuit"):
        layer.load_state_dict(other.state_dict(), strict=strict)
    torch.testing.assert_close(layer.theta.detach(), before)
    layer.load_state_dict(QuantumReadout(2, seed=3).state_dict())


@pytest.mark.parametrize("extra", [torch.tensor([1, 2], dtype=torch.uint8), torch.full((32,), 300.0), "text", b"", 7])
def test_extra_state_of_any_kind_is_compared(extra):
    layer = QuantumReadout(2)
    with pytest.raises(SpecError, match="weights of another circuit"):
        layer.load_state_dict({**layer.state_dict(), "_extra_state": extra})


def test_loaders_that_set_extra_state_alone_refuse_another_circuit():
    """As `transformers.PreTrainedModel.from_pretrained` does, which loads parameters one by one."""
    layer = QuantumReadout(2)
    layer.set_extra_state(QuantumReadout(2, seed=3).get_extra_state())
    with pytest.raises(SpecError, match="weights of another circuit"):
        layer.set_extra_state(QuantumReadout(2, entanglement="none").get_extra_state())


def test_an_average_of_checkpoints_says_what_to_average():
    one, two = QuantumReadout(2, seed=0), QuantumReadout(2, seed=1)
    states = one.state_dict(), two.state_dict()
    with pytest.raises(SpecError, match="average the tensors that are floating-point, and keep the '_extra_state'"):
        one.load_state_dict({key: (states[0][key] + states[1][key]) / 2 for key in states[0]})
    mean = {key: torch.lerp(a, states[1][key], 0.5) if a.is_floating_point() else a for key, a in states[0].items()}
    expected = (states[0]["theta"] + states[1]["theta"]) / 2
    one.load_state_dict(mean)
    torch.testing.assert_close(one.theta.detach(), expected)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "torch.save": lambda m: torch.load(_saved(m), weights_only=False),
}


def _saved(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("how", COPIES)
def test_copies_compute_the_same_and_live_alone(how):
    one = model()
    x = torch.rand(3, 5)
    one(x)  # compiled circuits must not travel
    two = COPIES[how](one)
    torch.testing.assert_close(one(x), two(x))
    assert two[1].spec == one[1].spec
    assert two[1].get_config() == one[1].get_config()
    two(x)[:, 0].sum().backward()
    assert one[1].theta.grad is None
    with torch.no_grad():
        two[1].theta.add_(0.5)
    assert not torch.allclose(one(x), two(x))


@given(drawn=layer_arguments(), batch=batches(min_rows=1))
def test_config_round_trip(drawn, batch):
    kind, arguments = drawn
    make = getattr(qstore_torch, kind)
    layer = make(**arguments) if kind == "QuantumEncoder" else make(**arguments, backend="torch", seed=3)
    config = json.loads(json.dumps(layer.get_config()))
    again = make(**config)
    assert again.spec == layer.spec == LayerSpec.from_dict(json.loads(json.dumps(layer.spec.to_dict())))
    assert again.get_config() == layer.get_config()
    x = torch.from_numpy(batch.features(layer.spec))
    torch.testing.assert_close(again(x), layer(x))


def test_objects_without_a_name_cannot_be_saved():
    for arguments, message in [
        ({"backend": FaultyBackend("mine", None)}, "backend="),
        ({"init": lambda rng, size: rng.normal(size=size)}, "init="),
    ]:
        with pytest.raises(SpecError, match=f"{message}.*is an object"):
            QuantumReadout(2, **arguments).get_config()


def test_a_layer_on_a_backend_object_can_be_copied():
    layer = QuantumReadout(2, backend=FaultyBackend("mine", None))  # holds a lock, as clients do
    twin = copy.deepcopy(layer)
    x = torch.rand(3, 4)
    torch.testing.assert_close(twin(x), layer(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_checkpoint_that_was_cast_as_a_whole_loads(dtype):
    layer, other = (qstore_torch.QuantumReadout(2, seed=seed) for seed in (1, 2))
    other.load_state_dict({name: value.to(dtype) for name, value in layer.state_dict().items()})
    torch.testing.assert_close(other.theta, layer.theta.to(dtype).to(other.theta.dtype))
