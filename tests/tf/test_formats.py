"""Models that leave Keras: SavedModel, ONNX, LiteRT, each run in a process that does not know qstore."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import qstore_tf
from qstore_core import CapabilityError
from tests.support.formats import COMPLEX, DRAWN, EVERYWHERE, run
from tests.support.tolerances import EXPORTED

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # tf2onnx and the converter warn about themselves
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def everything(rows):
    """A layer for each row of the table, on views of the same features."""
    x = keras.Input((4,))
    views = {"amplitudes": x, "angles": x[:, :2], "bits": keras.ops.cast(x[:, :2] > 0.5, "float32")}
    outputs = [row.make(qstore_tf)(views[row.takes]) for row in rows]
    return keras.Model(x, keras.layers.Concatenate()(outputs) if len(outputs) > 1 else outputs[0])


@pytest.fixture(scope="module")
def model():
    return everything(EVERYWHERE)


@pytest.fixture
def data(model, tmp_path):
    x = np.random.default_rng(0).uniform(0, 1, (4, 4)).astype("float32")
    np.savez(tmp_path / "data.npz", x=x, y=model(x))
    return tmp_path / "data.npz"


def dtypes(function):
    """Of all values in a graph."""
    definition = function.graph.as_graph_def()
    nodes = [*definition.node, *(node for inner in definition.library.function for node in inner.node_def)]
    return {tf.as_dtype(node.attr["T"].type) for node in nodes if node.attr["T"].type}


def test_every_layer_leaves_as_a_saved_model_in_one_real_precision_and_as_litert(model, data, tmp_path):
    pytest.importorskip("ai_edge_litert")
    model.export(tmp_path / "model", verbose=False)
    loaded, arrays = tf.saved_model.load(tmp_path / "model"), np.load(data)
    np.testing.assert_allclose(loaded.serve(arrays["x"]), arrays["y"], rtol=0, atol=EXPORTED)
    found = dtypes(loaded.signatures["serving_default"])
    assert tf.float32 in found
    assert not found & {tf.float64, tf.complex64, tf.complex128}
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "model"))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    (tmp_path / "model.tflite").write_bytes(converter.convert())
    run("litert", tmp_path / "model.tflite", data, EXPORTED)


def test_every_layer_leaves_as_onnx(model, data, tmp_path):
    pytest.importorskip("tf2onnx")
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    run("onnx", tmp_path / "model.onnx", data, EXPORTED)
    pytest.importorskip("openvino")
    run("openvino", tmp_path / "model.onnx", data, EXPORTED)


def test_a_model_leaves_for_openvino(tmp_path):
    pytest.importorskip("openvino")
    x = np.random.default_rng(1).uniform(0, 1, (4, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), qstore_tf.QuantumReadout(2, n_classes=3, seed=0)])
    np.savez(tmp_path / "data.npz", x=x, y=model(x))
    model.export(str(tmp_path / "model.xml"), format="openvino", verbose=False)
    run("openvino", tmp_path / "model.xml", tmp_path / "data.npz", EXPORTED)


@pytest.mark.parametrize("row", [*COMPLEX, *DRAWN], ids=lambda row: row.title)
@pytest.mark.parametrize(("runtime", "file"), [("ONNX", "m.onnx"), ("LiteRT", "m.tflite"), ("OpenVINO", "m.xml")])
def test_what_a_runtime_does_not_have_is_refused_when_a_model_is_exported(runtime, file, row, tmp_path):
    pytest.importorskip({"ONNX": "tf2onnx", "LiteRT": "ai_edge_litert", "OpenVINO": "openvino"}[runtime])
    layer = row.make(qstore_tf)
    model = keras.Sequential([keras.Input((2,)), layer])
    model(np.zeros((1, 2), "float32"))
    why = f"measures '{layer.spec.measurement.name}': {runtime} has no"
    with pytest.raises(CapabilityError, match="samples are drawn on the host" if row in DRAWN else re.escape(why)):
        model.export(str(tmp_path / file), format=runtime.lower(), verbose=False)


def test_complex_numbers_leave_as_saved_models_alone(tmp_path):
    inputs = keras.Input((4,))
    rows = [row.make(qstore_tf)(inputs[:, :2]) for row in COMPLEX]
    model, x = keras.Model(inputs, rows), tf.random.stateless_uniform((3, 4), (0, 1))
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    for found, expected in zip(loaded.serve(x), model(x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=EXPORTED)
    assert dtypes(loaded.signatures["serving_default"]) & {tf.complex64}


def test_bits_have_no_gradient_in_a_loaded_model(tmp_path):
    model = keras.Sequential([keras.Input((2,)), qstore_tf.QuantumReadout(2, encoding="basis", seed=0)])
    model.export(tmp_path / "model", verbose=False)
    loaded, bits = tf.saved_model.load(tmp_path / "model"), tf.constant([[0.0, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch(bits)
        y = loaded.serve(bits)
    np.testing.assert_allclose(y, model(bits), rtol=0, atol=EXPORTED)
    assert np.isnan(tape.gradient(y, bits)).all()
