"""Arguments of layers: signatures, help, unknown and meaningless ones, features, presets, configurations."""

from __future__ import annotations

import inspect
import json
import pickle
import pydoc
import re
import warnings
from functools import partial

import keras
import numpy as np
import pytest
import torch

import qstore_core
import qstore_tf
import qstore_torch
from qstore_core import (
    HardwareEfficient,
    PaddingWarning,
    QstoreError,
    QuantumEncoder,
    QuantumFeatureExtractor,
    QuantumPooling,
    QuantumReadout,
    ShapeError,
    SpecError,
)
from qstore_core.circuit.spec import layer_spec as specs
from tests.support.strategies import KINDS

MODULES = (qstore_core, qstore_torch, qstore_tf)
OWN = {qstore_core: {"name"}, qstore_torch: {"name", "device", "dtype"}, qstore_tf: {"name", "dtype", "trainable"}}
everywhere = pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
each_kind = pytest.mark.parametrize("kind", KINDS)


@everywhere
@each_kind
def test_help_reads_whole(module, kind):
    """Every argument is in the signature and has a meaning; nothing refers elsewhere for one."""
    cls = getattr(module, kind)
    parameters = inspect.signature(cls).parameters
    assert set(parameters) >= OWN[module]
    assert not [p for p in parameters.values() if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    text = pydoc.plain(pydoc.render_doc(cls))
    for name in parameters:
        assert re.search(rf"^ \|\s+{name}: \S", text, re.MULTILINE), name
    assert "See there" not in text
    assert "{arguments}" not in text


@each_kind
def test_a_layer_and_its_spec_have_the_same_arguments(kind):
    """The signature is written where the layer is, and its defaults are those of the spec."""
    makes = (specs.encoder, specs.feature_extractor, specs.pooling, specs.readout, specs.custom)
    ours = inspect.signature(dict(zip(KINDS, makes, strict=True))[kind]).parameters
    layer = inspect.signature(getattr(qstore_core, kind)).parameters
    assert {name: p.default for name, p in ours.items()} == {name: layer[name].default for name in ours}


@everywhere
def test_an_instance_has_the_signature_of_its_call(module):
    layer = module.QuantumReadout(2)
    assert "x" in inspect.signature(layer.__call__ if module is qstore_core else layer.forward
                                    if module is qstore_torch else layer.call).parameters  # fmt: skip
    assert not hasattr(layer, "__signature__")


@everywhere
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depht": 2}, r"no argument 'depht'.*Did you mean 'depth'\?"),
        ({"nclasses": 2}, "Did you mean 'n_classes'"),
        ({"backnd": "numba"}, "Did you mean 'backend'"),
        ({"nme": "a"}, "Did you mean 'name'"),
        ({"measurement_bases": "X", "n_classes": 2}, "measurement_bases='X' means nothing with n_classes"),
        ({"measurement_bases": ("Z", "X"), "n_classes": 2}, "means nothing with n_classes"),
        ({"measurement_bases": "Q", "n_classes": 2}, "measurement_bases"),
        ({"entanglement": "linear", "ansatz": "strongly_entangling"}, "entanglement of its own"),
        ({"entanglement": "linear", "ansatz": HardwareEfficient("full")}, "given as an object"),
        ({"reuploading": 1}, "reuploading is True or False"),
        ({"n_features": 17}, "n_features=17"),
        ({"n_features": 3, "encoding": "angle"}, "takes 4 features; received n_features=3"),
        ({"log": True}, "n_classes"),
    ],
)
def test_arguments_that_are_unknown_or_mean_nothing(module, arguments, message):
    with pytest.raises(SpecError, match=message):
        module.QuantumReadout(4, **arguments)


def test_arguments_of_other_frameworks_are_unknown():
    for module, argument in ((qstore_core, "device"), (qstore_core, "dtype"), (qstore_torch, "trainable")):
        with pytest.raises(SpecError, match=f"no argument '{argument}'"):
            module.QuantumReadout(2, **{argument: None})


def test_arguments_of_the_framework():
    layer = qstore_torch.QuantumReadout(2, name="mine", device="cpu", dtype=torch.float64)
    assert (layer.name, layer.theta.dtype) == ("mine", torch.float64)
    layer = qstore_tf.QuantumReadout(2, name="mine", dtype="float64", trainable=False)
    layer.build((None, 4))
    assert (layer.name, layer.theta.dtype, layer.trainable_weights) == ("mine", "float64", [])
    assert nn_skip_init(2).theta.is_meta is False


def nn_skip_init(n):
    return torch.nn.utils.skip_init(qstore_torch.QuantumReadout, n)


# -- features ---------------------------------------------------------------------------------------------------------


def batches(module, *shape):
    x = np.ones(shape, "float32")
    return (
        torch.from_numpy(x) if module is qstore_torch else keras.ops.convert_to_tensor(x) if module is qstore_tf else x
    )


@everywhere
def test_features_that_fill_little_are_warned_of_once(module):
    """As after a forgotten Flatten: (32, 1, 28, 28) into 10 qubits."""
    specs._warn_of_padding.cache_clear()
    layer = module.QuantumFeatureExtractor(10, 1)
    with pytest.warns(
        PaddingWarning, match=r"28 features fill less than half.*Flatten.*5 qubit.*n_features=28"
    ) as said:
        assert tuple(layer(batches(module, 2, 1, 28, 28)).shape) == (2, 1, 28, 10)
    assert said[0].filename == __file__  # the caller's line, past those of the framework
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(batches(module, 2, 1, 28, 28))
        module.QuantumFeatureExtractor(5, 1)(batches(module, 3, 16))  # half
        module.QuantumFeatureExtractor(10, 1, n_features=28)(batches(module, 2, 28))  # said


@everywhere
@each_kind
def test_n_features_is_checked(module, kind):
    circuit = qstore_core.Circuit(3, amplitudes=True)
    arguments = (
        {"circuit": circuit, "measurement": qstore_core.Pauli("ZZZ")} if kind == "QuantumLayer" else {"n_qubits": 3}
    )
    if kind == "QuantumPooling":
        arguments["pool_size"] = 3
    layer = getattr(module, kind)(**arguments, n_features=3)
    assert layer.spec.n_features == 3
    assert len(layer(batches(module, 2, 3))) == 2
    for width in (2, 4, 8):
        with pytest.raises(ShapeError, match=rf"n_features=3, received inputs of shape \(2, {width}\)") as caught:
            layer(batches(module, 2, width))
        assert (caught.value.expected, caught.value.received) == (3, width)
    same = type(layer).from_config(layer.get_config())
    assert same.spec == layer.spec
    assert qstore_core.LayerSpec.from_dict(layer.spec.to_dict()) == layer.spec


# -- presets, configurations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["speed", "accuracy", "research"])
@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (QuantumEncoder, {}), (QuantumFeatureExtractor, {}), (QuantumPooling, {}), (QuantumReadout, {}),
        (QuantumReadout, {"n_classes": 3}), (QuantumFeatureExtractor, {"ansatz": "strongly_entangling"}),
        (QuantumFeatureExtractor, {"ansatz": HardwareEfficient("none")}),
    ],
)  # fmt: skip
def test_presets_leave_out_what_a_layer_does_not_have(cls, arguments, preset):
    layer = cls.from_preset(preset, 4, **arguments)
    assert layer.spec.n_qubits == 4
    if "n_classes" in arguments:
        assert layer.output_dim == 3


@pytest.mark.parametrize(
    "change",
    [
        {"n_qubits": -1}, {"n_qubits": "4"}, {"n_qubits": 10**9}, {"depth": 10**9}, {"more": 1}, {"backend": 3},
        {"backend": {"a": 1}}, {"backend": []}, {"fallback": 3}, {"fallback": [3]}, {"fallback": {"a": 1}},
        {"shots": -1}, {"shots": "3"}, {"shots": 1.5}, {"gradient": 3}, {"gradient": []}, {"init": 3}, {"init": []},
        {"init": {"name": 3}}, {"init": {}}, {"init": {"name": "zeros", "more": 1}},
        {"init": "nobody"}, {"seed": -1}, {"seed": "a"}, {"encoding": 3}, {"encoding": {"name": ["x"]}}, {"ansatz": {}},
        {"entanglement": [[0, 9]]}, {"entanglement": 3}, {"measurement_bases": [1, 2]}, {"n_classes": 10**6},
        {"n_classes": -3}, {"reuploading": "no"}, {"name": 3}, {"log": None}, {"n_features": 0},
    ],
)  # fmt: skip
def test_a_configuration_from_a_file_is_refused_by_name(change):
    config = QuantumReadout(4, seed=1).get_config()
    with pytest.raises(QstoreError):
        QuantumReadout.from_config(config | change)
    with pytest.raises(QstoreError):
        qstore_torch.QuantumReadout.from_config(config | change)
    with pytest.raises(QstoreError):
        qstore_tf.QuantumReadout.from_config(qstore_tf.QuantumReadout(4).get_config() | change)


@pytest.mark.parametrize("change", [{"dtype": 3}, {"dtype": "float3"}, {"trainable": "yes"}, {"dtype": {"module": 3}}])
def test_what_keras_itself_refuses_in_a_configuration(change):
    with pytest.raises(SpecError, match="configuration of a QuantumReadout"):
        qstore_tf.QuantumReadout.from_config(qstore_tf.QuantumReadout(4).get_config() | change)


def test_equal_layers_have_equal_fingerprints():
    layer = QuantumReadout(3, 2, seed=0)
    prints = {
        layer.spec.fingerprint,
        qstore_torch.QuantumReadout(3, 2, seed=5).spec.fingerprint,
        qstore_tf.QuantumReadout(3, 2, backend="statevector").spec.fingerprint,
        qstore_core.LayerSpec.from_dict(layer.spec.to_dict()).fingerprint,
    }
    assert len(prints) == 1
    assert re.fullmatch("[0-9a-f]{64}", layer.spec.fingerprint)
    others = [QuantumReadout(3, 3), QuantumReadout(3), QuantumReadout(3, 2, depth=2), QuantumReadout(3, 2, log=True),
              QuantumReadout(3, 2, entanglement="linear"), QuantumReadout(3, 2, encoding="angle")]  # fmt: skip
    assert len({other.spec.fingerprint for other in others} | prints) == len(others) + 1


# -- initialisers of the frameworks -----------------------------------------------------------------------------------


def test_initialisers_of_pytorch():
    normal, constant = partial(torch.nn.init.normal_, std=0.3), partial(torch.nn.init.constant_, val=0.25)
    layers = [qstore_torch.QuantumReadout(3, depth=5, init=normal, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(layers[0].theta, layers[1].theta)
    assert not torch.equal(layers[0].theta, layers[2].theta)
    assert 0.1 < layers[0].theta.std() < 0.6
    assert (qstore_torch.QuantumReadout(2, init=constant).theta == 0.25).all()
    for init in (normal, constant, torch.nn.init.uniform_):
        layer = qstore_torch.QuantumReadout(3, init=init, seed=4)
        config = json.loads(json.dumps(layer.get_config()))
        assert torch.equal(qstore_torch.QuantumReadout.from_config(config).theta, layer.theta)
        assert torch.equal(pickle.loads(pickle.dumps(layer)).theta, layer.theta)
    before = torch.get_rng_state()
    qstore_torch.QuantumReadout(3, init=normal, seed=4)
    assert torch.equal(torch.get_rng_state(), before)


def test_initialisers_of_keras(tmp_path):
    for init in (
        keras.initializers.RandomUniform(-1, 1),
        keras.initializers.Constant(0.25),
        keras.initializers.Zeros(),
    ):
        layers = [qstore_tf.QuantumReadout(3, init=init, seed=seed) for seed in (1, 1, 2)]
        for layer in layers:
            layer.build((None, 8))
        np.testing.assert_array_equal(layers[0].theta, layers[1].theta)
        random = isinstance(init, keras.initializers.RandomUniform)
        assert np.array_equal(layers[0].theta, layers[2].theta) is not random
        again = qstore_tf.QuantumReadout.from_config(json.loads(json.dumps(layers[0].get_config())))
        again.build((None, 8))
        np.testing.assert_array_equal(again.theta, layers[0].theta)


@pytest.mark.parametrize(
    "init",
    [
        {"torch": "os.system"}, {"torch": "normal_", "arguments": {"std": "a"}}, {"torch": 3},
        {"torch": "normal_", "a": 1},
        {"torch": "normal_", "arguments": {"nobody": 1.0}}, {"torch": "kaiming_normal_"},
        {"torch": "normal_", "arguments": 3},
    ],
)  # fmt: skip
def test_initialisers_of_pytorch_from_a_file(init):
    with pytest.raises(SpecError, match="init"):
        qstore_torch.QuantumReadout.from_config({"n_qubits": 2, "init": init})


@pytest.mark.parametrize(
    "init",
    [
        {"class_name": "system", "module": "os", "config": {}}, {"class_name": "Zeros", "module": "os"},
        {"class_name": 3}, {"class_name": "RandomUniform", "config": {"nobody": 3}},
        {"class_name": "Zeros", "config": 3},
        {"class_name": "deserialize", "module": "keras.initializers"}, {"class_name": "A", "registered_name": "b>A"},
    ],
)  # fmt: skip
def test_initialisers_of_keras_from_a_file(init):
    with pytest.raises(SpecError, match="nitialiser"):
        qstore_tf.QuantumReadout.from_config({"n_qubits": 2, "init": init})
