"""Layers in files: from every framework to every other, and nothing but layers."""

from __future__ import annotations

import json
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qstore_core
from qstore_core import FileError, QuantumFeatureExtractor, QuantumReadout, load, save
from tests.support.tolerances import VALUE

FRAMEWORKS = [None, "torch", "tensorflow", "jax"]


def layer_of(framework, **options):
    """`(layer, theta or None, function of features)`."""
    arguments = {"n_qubits": 3, "n_classes": 2, "depth": 2, "encoding": "angle", "seed": 3} | options
    if framework is None:
        layer = QuantumReadout(**arguments)
        return layer, None, layer
    module = pytest.importorskip({"torch": "qstore_torch", "tensorflow": "qstore_tf", "jax": "qstore_jax"}[framework])
    layer = module.QuantumReadout(**arguments)
    if framework == "jax":
        theta = layer.init()
        return layer, theta, lambda x: layer.apply(theta, x)
    return layer, None, function_of(layer, framework)


def function_of(layer, framework):
    if framework == "torch":
        import torch

        return lambda x: layer(torch.as_tensor(x)).detach().numpy()
    return layer


@pytest.mark.parametrize("into", FRAMEWORKS)
@pytest.mark.parametrize("source", FRAMEWORKS)
def test_a_layer_of_one_framework_is_loaded_in_another(source, into, tmp_path):
    layer, theta, outputs = layer_of(source)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    expected = np.asarray(outputs(x))
    path = tmp_path / "layer.safetensors"
    save(path, layer, theta=theta)
    loaded = load(path, framework=into)
    if into == "jax":
        other, weights = loaded
        found = other.apply(weights, x)
    else:
        found = function_of(loaded, into)(x)
    assert np.abs(np.asarray(found) - expected).max() < VALUE["float32"]


def test_a_file_names_no_backend_that_the_user_has_not_allowed(tmp_path):
    """In a process of its own, since a backend that the user has loaded is allowed."""
    path = tmp_path / "layer.safetensors"
    save(path, QuantumReadout(2, 2, encoding="angle"))
    change(path, lambda config: config | {"backend": "dask"})
    code = (
        f"import sys, qstore_core\ntry: qstore_core.load({str(path)!r})\nexcept qstore_core.SpecError as e: print(e)\n"
    )
    code += "print('distributed' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "allow_backends" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def change(path, edit):
    """Edit the configuration in a file's header."""
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    edited = edit(json.loads(header["__metadata__"]["config"]))
    header["__metadata__"]["config"] = edited if isinstance(edited, str) else json.dumps(edited)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])


def test_what_is_no_path_is_named():
    layer = QuantumReadout(2, 2)
    for wrong in (None, 5, object()):
        with pytest.raises(FileError, match="expected the path of a file"):
            load(wrong)
        with pytest.raises(FileError, match="expected the path of a file"):
            save(wrong, layer)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "damaged"),
        (lambda path: path.write_bytes(b"PK\x03\x04 a zip file, as pickles are kept in"), "damaged"),
        (lambda path: change(path, lambda config: config | {"depth": 3}), "another circuit"),
        (lambda path: change(path, lambda config: "{"), "not JSON"),
        (lambda path: change(path, lambda config: "[" * 100_000), "nested too deep"),
        (lambda path: change(path, lambda config: "1" * 5_000), "not JSON"),
        (lambda path: more_weights(path), "more weights than the 1000000"),
    ],
    ids=["missing", "empty", "cut off", "foreign", "changed", "no JSON", "deep", "long", "large"],
)
def test_a_bad_file_is_named(damage, said, tmp_path):
    path = tmp_path / "layer.safetensors"
    save(path, QuantumReadout(2, 2, depth=2, encoding="angle"))
    damage(path)
    with pytest.raises(FileError, match=said):
        load(path)


def more_weights(path):
    """A theta that is read whole before it is compared takes what the file says."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    save_file({"theta": np.zeros(1_000_001, "float16")}, path, metadata=metadata)


def test_a_framework_is_named():
    for wrong in ("theano", ["torch"], 5):
        with pytest.raises(FileError, match="framework is None or one of"):
            load("layer.safetensors", framework=wrong)


def test_files_of_others_and_of_newer_versions_are_named(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(FileError, match="not of a qstore layer: it holds weight"):
        load(path)
    metadata = {"qstore_format": "7", "kind": "QuantumReadout", "config": "{}", "fingerprint": ""}
    save_file({"theta": np.zeros(3)}, path, metadata=metadata)
    with pytest.raises(FileError, match="Upgrade qstore"):
        load(path)
    save_file({"theta": np.zeros(3)}, path, metadata=metadata | {"qstore_format": "1", "kind": "numbered"})
    with pytest.raises(FileError, match="has not"):
        load(path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_byte_gives_a_layer_or_a_named_error(tmp_path, data):
    path = tmp_path / "layer.safetensors"
    save(path, QuantumReadout(2, 2, encoding="angle", seed=0))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        layer = load(path)
    except qstore_core.QstoreError:
        return
    assert np.isfinite(layer(np.ones((1, 2)))).all()


def test_what_is_no_layer_is_refused(tmp_path):
    with pytest.raises(FileError, match="received dict"):
        save(tmp_path / "x", {})
    with pytest.raises(FileError, match="one of"):
        load(tmp_path / "x", framework="keras")
    with pytest.raises(FileError, match="cannot be written"):
        save(tmp_path / "no" / "folder", QuantumFeatureExtractor(2))
    jax_layers = pytest.importorskip("qstore_jax")
    with pytest.raises(FileError, match="theta=theta"):
        save(tmp_path / "x", jax_layers.QuantumFeatureExtractor(2))
