"""What Keras computes on one of its backends, in a process of its own, since a process has one:

    KERAS_BACKEND=jax python -m tests.support.keras_worker FOLDER

writes FOLDER/jax.npz (arrays by name) and FOLDER/jax.keras, and reads FOLDER/tensorflow.keras.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np

import qstore_core
from qstore_core import Circuit, Pauli

STEPS = 12


def circuit():
    c = Circuit(2, amplitudes=True)
    (x,), w = c.inputs(1), c.weights(3)
    c.ry(w[0] + 0.5 * x, 0)
    c.crx(w[1], 0, 1)
    c.rot(w[2], 0.3, x, 1)
    return c


# Every layer, with its number of features. Theta is far from what it starts with.
CASES = {
    "encoder": ("QuantumEncoder", {"n_qubits": 2}, 3),
    "extractor": ("QuantumFeatureExtractor", {"n_qubits": 3, "measurement_bases": ("Z", "X")}, 8),
    "pooling": ("QuantumPooling", {"n_qubits": 4, "encoding": "angle"}, 4),
    "readout": ("QuantumReadout", {"n_qubits": 2, "n_classes": 3, "encoding": "iqp"}, 2),
    "logarithms": ("QuantumReadout", {"n_qubits": 2, "n_classes": 2, "log": True, "encoding": "angle"}, 2),
    "circuit": ("QuantumLayer", {"circuit": circuit(), "measurement": (Pauli("ZX"), Pauli("IY"))}, 5),
}
DTYPES = ("float32", "float64")


def make(module, case, **more):
    name, arguments, _ = CASES[case]
    more = {key: value for key, value in more.items() if name != "QuantumEncoder" or key in ("dtype", "name")}
    return getattr(module, name)(**arguments, **more)


def data(case, dtype="float64"):
    """`(theta, x, cotangents)`."""
    rng, spec = np.random.default_rng(len(case)), make(qstore_core, case).spec
    arrays = (
        rng.uniform(-2, 2, spec.n_weights),
        rng.uniform(-1, 1, (4, CASES[case][2])),
        rng.normal(size=(4, spec.output_dim)),
    )
    return tuple(array.astype(dtype) for array in arrays)


def targets(case):
    """What training is to bring the outputs to: those of another theta."""
    theta, x, _ = data(case)
    layer = make(qstore_core, case)
    layer.theta = theta + 0.3
    return x.astype("float32"), layer(x).astype("float32")


def model_of_all_layers(keras, module):
    inputs = keras.Input((8,))
    features = make(module, "extractor", seed=0)(inputs)
    readout = module.QuantumReadout(2, 3, encoding="angle", theta_initializer="ones", theta_regularizer="l2")
    heads = [
        make(module, "pooling", seed=1)(keras.layers.Dense(4)(features)),
        readout(keras.layers.Dense(2)(features)),
        make(module, "circuit", seed=2)(keras.layers.Dense(5)(features)),
        make(module, "encoder")(keras.layers.Dense(3)(features)),
    ]
    return keras.Model(inputs, keras.layers.Concatenate()(heads))


def rows(seed=3):
    return np.random.default_rng(seed).normal(size=(6, 8)).astype("float32")


def values_and_gradients(keras, layer, x, cotangents):
    """Outputs, d_theta and d_x, by the backend's own way."""
    backend, theta = keras.config.backend(), layer.theta
    if backend == "tensorflow":
        import tensorflow as tf

        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch([x, theta.value])
            outputs = layer(x)
        gradients = tape.gradient(outputs, [theta.value, x], cotangents, unconnected_gradients="zero")
    elif backend == "torch":
        import torch

        x = torch.from_numpy(x).requires_grad_()
        outputs = layer(x)
        leaves = [theta.value, x] if theta.value.requires_grad else [x]
        gradients = torch.autograd.grad(outputs, leaves, torch.from_numpy(cotangents).to(outputs.device))
        gradients = [torch.zeros_like(theta.value), *gradients][-2:]  # an encoder has no theta
    else:
        import jax

        other = [variable.value for variable in layer.non_trainable_variables]

        def call(theta, x):
            trained = [theta] if layer.trainable_variables else []
            return layer.stateless_call(trained, other if trained else [theta], x)[0]

        outputs, vjp_fn = jax.vjp(jax.jit(call), theta.value, x)
        gradients = vjp_fn(cotangents)
    return [keras.ops.convert_to_numpy(array) for array in (outputs, *gradients)]


def computed_and_trained(keras, module, case, found):
    """Values and gradients of a case in both precisions, and its training, into `found`; returns the last layer."""
    for dtype in DTYPES:
        theta, x, cotangents = data(case, dtype)
        layer = make(module, case, dtype=dtype)
        layer.build(x.shape)
        layer.theta.assign(theta)
        arrays = values_and_gradients(keras, layer, x, cotangents)
        found |= {f"{case} {dtype} {what}": a for what, a in zip(("y", "theta", "x"), arrays, strict=True)}
    if layer.spec.n_weights:
        x, y = targets(case)
        layer = make(module, case, init="zeros")
        model = keras.Sequential([keras.Input(x.shape[1:]), layer])
        layer.theta.assign(theta.astype("float32"))
        model.compile(keras.optimizers.SGD(0.2), "mse")
        found[f"{case} losses"] = model.fit(x, y, epochs=STEPS, batch_size=4, verbose=0).history["loss"]
        found[f"{case} predictions"] = model.predict(x, verbose=0) - keras.ops.convert_to_numpy(model(x))
    return layer


def main(folder):
    import keras

    backend, found = keras.config.backend(), {}
    if backend == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    import qstore_tf

    make(qstore_tf, "extractor")(rows())
    other = "torch" if backend == "tensorflow" else "tensorflow"
    assert other not in sys.modules, f"Keras on {backend} needs no {other}"
    from keras.src.testing import TestCase

    for case, (name, arguments, features) in CASES.items():
        layer = computed_and_trained(keras, qstore_tf, case, found)
        if backend != "tensorflow":  # where it is a test of its own
            TestCase().run_layer_test(
                getattr(qstore_tf, name),
                arguments,
                input_shape=(3, features),
                expected_output_shape=(3, layer.output_dim),
                expected_num_trainable_weights=int(bool(layer.spec.n_weights)),
                supports_masking=True,
            )

    # Files: written here, and on TensorFlow.
    x, model = rows(), model_of_all_layers(keras, qstore_tf)
    model.save(folder / f"{backend}.keras")
    found["saved"] = model.predict(x, verbose=0)
    if backend != "tensorflow":
        found["loaded"] = keras.saving.load_model(folder / "tensorflow.keras").predict(x, verbose=0)

    # Habits.
    half = make(qstore_tf, "extractor", seed=0, dtype="mixed_bfloat16")
    found["half"] = keras.ops.convert_to_numpy(keras.ops.cast(half(x), "float32"))
    found["whole"] = keras.ops.convert_to_numpy(make(qstore_tf, "extractor", seed=0)(x))
    assert keras.backend.standardize_dtype(half(x).dtype) == half.compute_output_spec(keras.KerasTensor((6, 8))).dtype
    steps = np.random.default_rng(0).uniform(0.1, 1, (2, 3, 4)).astype("float32")
    padded = np.concatenate([steps, np.zeros((2, 2, 4), "float32")], 1)
    pooling, lstm = make(qstore_tf, "pooling", seed=0), keras.layers.LSTM(2, seed=0)
    masked = keras.Sequential([keras.Input((None, 4)), keras.layers.Masking(), pooling, lstm])
    found["masked"], found["short"] = masked.predict(padded, verbose=0), masked.predict(steps, verbose=0)

    # What is not finite.
    bad = x.copy()
    bad[2, 1] = np.nan
    try:
        half(bad)
    except qstore_core.InputError as error:
        found["refused row"] = error.row
    model = keras.Sequential([keras.Input((8,)), make(qstore_tf, "extractor", seed=0), keras.layers.Dense(1)])
    for eager in (False, True):
        model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=eager)
        found[f"nan {eager}"] = model.predict(bad, verbose=0)
        stop = keras.callbacks.TerminateOnNaN()
        history = model.fit(bad, x[:, :1], epochs=3, batch_size=6, verbose=0, callbacks=[stop], validation_data=(x, x))
        found[f"epochs {eager}"] = len(history.epoch)
        assert np.isnan(keras.ops.convert_to_numpy(model.layers[0].theta)).all()  # the loss was NaN, so are its slopes
        model.layers[0].theta.assign(np.ones_like(model.layers[0].theta))
        model.layers[1].set_weights([np.ones((6, 1)), np.zeros(1)])
    if backend == "jax":
        on_two_devices(keras, qstore_tf)
    if backend != "tensorflow":
        found |= exported(keras, qstore_tf, folder)
    np.savez(folder / f"{backend}.npz", **found)


def exported(keras, module, folder):
    """What Keras writes on PyTorch and on JAX, and where it stops."""
    model, x = keras.Sequential([keras.Input((8,)), make(module, "extractor", seed=0)]), rows()
    found = {"to export": model.predict(x, verbose=0)}
    if keras.config.backend() == "torch":
        import torch

        model.export(folder / "of_torch.onnx", format="onnx", verbose=False)
        free = {0: torch.export.Dim("rows")}
        model.export(folder / "of_torch.pt2", format="torch", dynamic_shapes=free, verbose=False)
        program = torch.export.load(folder / "of_torch.pt2")
        assert not any("qstore" in str(node.target) for node in program.graph.nodes)
        return found | {"exported": program.module()(torch.from_numpy(x)).detach().numpy()}
    import tensorflow as tf

    model.export(folder / "of_jax", verbose=False)
    loaded = tf.saved_model.load(folder / "of_jax")
    found["exported"] = loaded.serve(x).numpy()
    entropy = module.QuantumLayer(circuit(), qstore_core.Entropy([0]), seed=0)
    for refused, format_, file in ((entropy, "tf_saved_model", "no"), (model.layers[0], "openvino", "no.xml")):
        refused = keras.Sequential([keras.Input((5 if refused is entropy else 8,)), refused])
        try:
            refused.export(str(folder / file), format=format_, verbose=False)
        except Exception as error:  # noqa: BLE001 - OpenVINO wraps ours
            found[f"no {format_}"] = str(error)
    return found


def on_two_devices(keras, module):
    """`keras.distribution` on two devices trains as one does."""
    import jax

    assert len(jax.devices()) == 2
    x, losses = rows(), []
    for distribution in (None, keras.distribution.DataParallel()):
        keras.distribution.set_distribution(distribution)
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((8,)), make(module, "extractor", seed=0), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        losses.append(model.fit(x, x[:, :1], epochs=3, batch_size=6, verbose=0, shuffle=False).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)


if __name__ == "__main__":
    warnings.simplefilter("error", qstore_core.FallbackWarning)
    main(Path(sys.argv[1]))
