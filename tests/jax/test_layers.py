"""The JAX layers: the values of the NumPy layers, and every transform right or refused."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import qstore_core
import qstore_jax
from qstore_core import CapabilityError, Circuit, Expectation, FallbackWarning, GradientError, InputError, ShapeError
from tests.support.faults import OtherEngine
from tests.support.strategies import layer_arguments
from tests.support.tolerances import EXACT, GRADIENT, SIGMAS, VALUE


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def pair(backend="auto", **options):
    """A layer on the host and the same in JAX operations, theta, features."""
    arguments = {"n_qubits": 2, "depth": 1, "encoding": "angle", "measurement_bases": ("Z", "X"), "seed": 1} | options
    layer = qstore_jax.QuantumFeatureExtractor(**arguments, backend=backend)
    twin = qstore_jax.QuantumFeatureExtractor(**arguments, backend="jax")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))
    return layer, twin, layer.init(jax.random.key(3)), x


def loss(layer):
    return lambda theta, x: (layer.apply(theta, x) ** 2).sum()


@settings(max_examples=10)
@given(drawn=layer_arguments(max_qubits=3))
@pytest.mark.parametrize("backend", ["auto", "jax"])
def test_values_and_gradients_are_those_of_the_numpy_layer(backend, drawn):
    name, arguments = drawn
    chosen = {} if name == "QuantumEncoder" else {"backend": backend}
    layer = getattr(qstore_jax, name)(**arguments, **chosen)
    plain = getattr(qstore_core, name)(**arguments)
    rng = np.random.default_rng(0)
    bits = layer.spec.encoding.name == "basis"
    x = rng.integers(0, 2, (3, layer.spec.n_features)) if bits else rng.normal(size=(3, layer.spec.n_features))
    x = x.astype(np.float64)
    if name != "QuantumEncoder":
        plain.theta = rng.normal(size=layer.spec.n_weights)
    out, vjp_fn = jax.vjp(jax.jit(layer.apply), jnp.asarray(plain.theta), x) if not bits else (
        jax.jit(layer.apply)(plain.theta, x), None
    )  # fmt: skip
    assert np.abs(out - plain(x)).max() < VALUE["float64"]
    if vjp_fn is not None:
        cotangents = rng.normal(size=out.shape)
        for found, expected in zip(vjp_fn(jnp.asarray(cotangents)), plain.vjp(x, cotangents), strict=True):
            assert np.abs(np.asarray(found) - expected).max(initial=0.0) < GRADIENT["float64"]


TRANSFORMS = {
    "grad": lambda f, t, x: jax.grad(f, (0, 1))(t, x),
    "jit": lambda f, t, x: jax.jit(jax.value_and_grad(f, (0, 1)))(t, x),
    "jvp": lambda f, t, x: jax.jvp(f, (t, x), (jnp.ones_like(t), x)),
    "jvp of features alone": lambda f, t, x: jax.jvp(lambda x: f(t, x), (x,), (x,)),
    "jacfwd": lambda f, t, x: jax.jacfwd(f)(t, x),
    "linearize": lambda f, t, x: jax.linearize(f, t, x)[1](t, x),
    "hessian": lambda f, t, x: jax.hessian(f)(t, x),
    "reverse over reverse": lambda f, t, x: jax.jacrev(jax.grad(f))(t, x),
    "forward over forward": lambda f, t, x: jax.jacfwd(jax.jacfwd(f))(t, x),
    "vmap over features": lambda f, t, x: jax.vmap(f, (None, 0))(t, jnp.stack([x, 2 * x])),
    "vmap over theta": lambda f, t, x: jax.vmap(f, (0, None))(jnp.stack([t, 2 * t]), x),
    "vmap over both": lambda f, t, x: jax.jit(jax.vmap(f))(jnp.stack([t, 2 * t]), jnp.stack([x, 2 * x])),
    "per-sample gradients": lambda f, t, x: jax.vmap(jax.grad(f), (None, 0))(t, x[:, None]),
    "vmap of jvp": lambda f, t, x: jax.vmap(lambda v: jax.jvp(lambda t: f(t, x), (t,), (v,))[1])(jnp.eye(len(t))),
    "scan": lambda f, t, x: jax.lax.scan(lambda t, _: (t - 0.1 * jax.grad(f)(t, x), f(t, x)), t, None, length=3),
    "checkpoint": lambda f, t, x: jax.grad(jax.checkpoint(f))(t, x),
    "cond": lambda f, t, x: jax.jit(lambda t: jax.lax.cond(t[0] > 0, lambda: f(t, x), lambda: 2 * f(t, x)))(t),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_on_the_host_gives_what_jax_gives_on_its_own_operations(name):
    layer, twin, theta, x = pair()
    found, expected = (jax.tree.leaves(TRANSFORMS[name](loss(one), theta, x)) for one in (layer, twin))
    assert layer.backend_name != twin.backend_name
    for a, b in zip(found, expected, strict=True):
        assert jnp.abs(a - b).max() < GRADIENT["float64"]
    assert any(jnp.abs(b).max() > 0 for b in expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_second_derivatives_of_amplitudes(dtype):
    """RY(w) on features (a, b) / r: ⟨Z⟩ = (cos w (a² - b²) - 2 sin w a b) / r²."""
    circuit = qstore_core.Circuit(1, amplitudes=True)
    circuit.ry(circuit.weights(1)[0], 0)
    layer = qstore_jax.QuantumLayer(circuit, qstore_core.Pauli("Z"))
    theta, x = jnp.array([0.4], dtype), jnp.array([[0.9, 0.8]], dtype)

    def closed(x):
        a, b = x[0]
        return (jnp.cos(theta[0]) * (a * a - b * b) - 2 * jnp.sin(theta[0]) * a * b) / (a * a + b * b)

    found, expected = jax.jit(lambda x: [jax.hessian(f)(x) for f in (lambda x: layer.apply(theta, x)[0, 0], closed)])(x)
    assert jnp.abs(expected).max() > 0.01
    assert jnp.abs(found - expected).max() < GRADIENT[dtype]


@pytest.mark.parametrize("how", ["auto", "jax", "as_operations"])
def test_bits_have_no_derivative(how):
    layer = qstore_jax.QuantumReadout(2, encoding="basis", backend="auto" if how == "as_operations" else how, seed=0)
    layer = layer.as_operations() if how == "as_operations" else layer
    theta, bits = layer.init(), jnp.array([[0.0, 1.0], [1.0, 1.0]])
    for transformed in (
        lambda x: jax.jvp(lambda x: layer.apply(theta, x), (x,), (x,)),
        jax.grad(lambda x: layer.apply(theta, x).sum()),
        jax.hessian(lambda x: layer.apply(theta, x).sum()),
    ):
        with pytest.raises(GradientError, match="basis encoding has no gradient"):
            jax.make_jaxpr(transformed)(bits)
    jax.make_jaxpr(jax.hessian(lambda theta: layer.apply(theta, bits)[0, 0]))(theta)  # that of theta is there


def test_tangents_are_the_slope():
    """One qubit: d cos(x + w)/dt = -sin(x + w) (dx + dw)."""
    circuit = qstore_core.Circuit(1)
    (x,), (w,) = circuit.inputs(1), circuit.weights(1)
    circuit.ry(x + w, 0)
    layer = qstore_jax.QuantumLayer(circuit, qstore_core.Pauli("Z"))
    _, moved = jax.jvp(layer.apply, (jnp.array([0.2]), jnp.array([[0.1]])), (jnp.array([2.0]), jnp.array([[3.0]])))
    assert moved[0, 0] == pytest.approx(-5 * np.sin(0.3), abs=VALUE["float64"])


def test_a_graph_is_compiled_once_for_equal_layers():
    first, again = (qstore_jax.QuantumReadout(3, 2, encoding="angle") for _ in range(2))
    theta, x = first.init(jax.random.key(0)), jnp.ones((2, 3))
    graphs = {str(jax.make_jaxpr(layer.apply)(theta, x)) for layer in (first, again)}
    assert len(graphs) == 1


def test_training_brings_the_loss_down():
    layer = qstore_jax.QuantumFeatureExtractor(2, 2, encoding="angle", seed=0)
    theta, x = layer.init(), jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (16, 2)))
    step = jax.jit(jax.value_and_grad(lambda theta: ((layer.apply(theta, x)[:, 0] - jnp.sin(x[:, 0])) ** 2).mean()))
    losses = []
    for _ in range(40):
        value, gradient = step(theta)
        theta = theta - 0.3 * gradient
        losses.append(float(value))
    assert losses[-1] < losses[0] / 3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_outputs_have_the_dtype_of_the_features(dtype):
    layer, _, theta, x = pair()
    out = layer.apply(theta, x.astype(dtype))
    assert out.dtype == dtype
    assert jnp.abs(out.astype(float) - layer.apply(theta, x)).max() < 0.05


def test_leading_dimensions_are_kept():
    layer, _, theta, x = pair()
    assert jnp.array_equal(layer.apply(theta, x.reshape(2, 2, 2)).reshape(4, -1), layer.apply(theta, x))
    assert layer.apply(theta, x[:0]).shape == (0, 4)


def test_samples_come_from_the_seed_and_differ_from_call_to_call():
    def sampled():
        layer = qstore_jax.QuantumFeatureExtractor(2, 1, encoding="angle", backend="aer", shots=500, seed=4)
        call = jax.jit(layer.apply)
        return [np.asarray(call(jnp.zeros(4) + 0.3, jnp.ones((2, 2)))) for _ in range(2)]

    first = sampled()
    for one, other in zip(first, sampled(), strict=True):  # equal layers do not take each other's seeds
        assert np.array_equal(one, other)
    exact = qstore_jax.QuantumFeatureExtractor(2, 1, encoding="angle").apply(jnp.zeros(4) + 0.3, jnp.ones((2, 2)))
    assert not np.array_equal(first[0], first[1])
    assert all(np.abs(values - exact).max() < SIGMAS / np.sqrt(500) for values in first)


def test_tangents_and_second_derivatives_of_a_backend_on_the_host_are_refused():
    layer = qstore_jax.QuantumFeatureExtractor(2, 1, encoding="angle", backend="aer", shots=100, seed=4)
    theta, x = layer.init(), jnp.ones((1, 2))
    with pytest.raises(GradientError, match='backend="jax"'):
        jax.jvp(layer.apply, (theta, x), (theta, x))


def test_wrong_arguments_are_named():
    layer, _, theta, x = pair()
    for bad_theta, bad_x, error in [
        (theta[:3], x, ShapeError), (theta[:, None], x, ShapeError), (theta, x[:, :1], ShapeError),
        (theta, x[0], ShapeError), (theta, x + 0j, InputError), (theta, x.at[1, 0].set(jnp.nan), InputError),
        (theta + 0j, x, InputError), (theta > 0, x, InputError), (None, x, InputError), (theta, "abc", InputError),
        (theta, None, InputError), ({"theta": theta}, x, InputError), (theta, jax.random.key(0), InputError),
        (theta, np.ma.MaskedArray(x, mask=x > 0), InputError),
    ]:  # fmt: skip
        with pytest.raises(error):
            layer.apply(bad_theta, bad_x)
    assert layer.apply(theta, x).shape == (4, 4)


@pytest.mark.parametrize("backend", ["auto", "jax"])
@pytest.mark.parametrize(("encoding", "bad"), [("angle", np.nan), ("amplitude", np.inf), ("basis", 2.0)])
def test_rows_that_eager_calls_refuse_give_nan_in_graphs(backend, encoding, bad):
    layer = qstore_jax.QuantumFeatureExtractor(2, 1, encoding=encoding, backend=backend, seed=0)
    theta, x = layer.init(), jnp.ones((3, 2))
    with pytest.raises(InputError, match="row 1"):
        layer.apply(theta, x.at[1, 0].set(bad))
    out = jax.jit(layer.apply)(theta, x.at[1, 0].set(bad))
    right = layer.apply(theta, x)
    assert jnp.isnan(out[1]).all()
    assert jnp.abs(out - right)[jnp.array([0, 2])].max() < VALUE["float64"]
    gradient = jax.jit(jax.grad(lambda t: layer.apply(t, x.at[1, 0].set(bad)).sum()))(theta)
    assert jnp.isnan(gradient).any()
    assert jnp.isnan(jax.jit(layer.apply)(theta.at[0].set(jnp.nan), x)).any()


@pytest.mark.parametrize("transform", [jax.hessian, lambda f: jax.jacfwd(jax.jacfwd(f)), jax.jacfwd])
def test_tangents_on_a_host_backend_that_is_not_ours_are_refused(transform):
    pytest.importorskip("pennylane")
    layer = qstore_jax.QuantumFeatureExtractor(2, 1, encoding="angle", backend="pennylane", seed=0)
    with pytest.raises(GradientError, match="tangents need a circuit in JAX operations"):
        transform(lambda t: layer.apply(t, jnp.ones((1, 2))).sum())(layer.init())


def test_an_exported_function_needs_no_host():
    """With a batch size of its own; in JAX operations, since a file cannot call this process."""
    layer, twin, theta, x = pair()
    (rows,) = jax.export.symbolic_shape("rows")
    shapes = jax.ShapeDtypeStruct(theta.shape, theta.dtype), jax.ShapeDtypeStruct((rows, 2), x.dtype)
    file = jax.export.export(jax.jit(layer.apply))(*shapes).serialize(vjp_order=1)
    again = jax.export.deserialize(file)
    assert jnp.abs(again.call(theta, x) - twin.apply(theta, x)).max() < VALUE["float64"]
    sampling = qstore_jax.QuantumFeatureExtractor(2, 1, encoding="angle", backend="aer", shots=10)
    with pytest.raises(CapabilityError, match="a graph on disk cannot call the host"):
        jax.export.export(jax.jit(sampling.apply))(*shapes)


def test_a_layer_is_drawn_pickled_and_explained():
    layer, _, theta, x = pair()
    other = pickle.loads(pickle.dumps(layer))
    assert jnp.array_equal(other.apply(theta, x), layer.apply(theta, x))
    assert "RY" in layer.draw()
    assert "numba" in layer.explain()
    assert layer.last_run.backend == "numba"


def test_initialisers_of_jax_draw_theta():
    layer = qstore_jax.QuantumFeatureExtractor(3, init=jax.nn.initializers.constant(0.25), seed=0)
    assert (layer.init() == 0.25).all()
    drawn = qstore_jax.QuantumFeatureExtractor(3, init=jax.nn.initializers.normal(0.1), seed=0)
    assert jnp.array_equal(drawn.init(), drawn.init())
    assert not jnp.array_equal(drawn.init(), drawn.init(jax.random.key(5)))


def test_functions_of_angles_under_jit_and_grad():
    circuit = Circuit(1)
    (x,), (w,) = circuit.inputs(1), circuit.weights(1)
    circuit.ry(2 * np.arccos(x) + np.exp(w * x), 0)
    layer = qstore_jax.QuantumLayer(circuit, Expectation("Z"), init=jnp.array([0.4]))
    theta, x = layer.init(), jnp.array([[0.3], [-0.6]])

    def expected(t, x):
        return jnp.cos(2 * jnp.arccos(x) + jnp.exp(t * x))

    np.testing.assert_allclose(jax.jit(layer.apply)(theta, x), expected(theta, x), atol=VALUE["float32"])
    got, wanted = (jax.grad(lambda t, x, f=f: f(t, x).sum(), (0, 1))(theta, x) for f in (layer.apply, expected))
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=GRADIENT["float32"])


def test_a_circuit_of_pennylane_comes_with_its_weights():
    qml = pytest.importorskip("pennylane")

    def function(inputs, weights):
        qml.RY(inputs[0] + weights[0], wires=0)
        return qml.expval(qml.Z(0))

    layer = qstore_jax.QuantumLayer.from_pennylane(function, weights={"weights": [0.25]})
    out = layer.apply(layer.init(), jnp.array([[0.5]]))
    np.testing.assert_allclose(out, [[np.cos(0.75)]], atol=VALUE["float32"])


def test_flax_and_equinox_train_it():
    nnx, eqx = pytest.importorskip("flax.nnx"), pytest.importorskip("equinox")
    from qstore_jax.modules import as_equinox, as_nnx

    layer, _, _, x = pair()
    module = as_nnx(layer, nnx.Rngs(params=0))
    gradients = nnx.grad(lambda m: (m(x) ** 2).sum())(module)
    assert jnp.abs(jax.tree.leaves(gradients)[0]).max() > 0
    tree = as_equinox(layer, jax.random.key(0))
    gradients = eqx.filter_jit(eqx.filter_grad(lambda m: (m(x) ** 2).sum()))(tree)
    assert jnp.abs(gradients.theta).max() > 0


def test_an_eager_hessian_compiles_the_circuit_as_a_whole():
    """One by one the operations of this circuit are more than two hundred programs."""
    compiled = []

    def count(name, *_, **__):
        if name.endswith("backend_compile_duration"):
            compiled.append(name)

    layer = qstore_jax.QuantumFeatureExtractor(1, depth=1, encoding="angle", seed=0)
    theta, x = layer.init(), jnp.full((2, 1), 0.3)
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        jax.hessian(lambda theta: layer.apply(theta, x).sum())(theta)
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert 0 < len(compiled) < 60


@pytest.mark.parametrize(
    "init",
    ["uniform", lambda rng, size: rng.normal(size=size), jax.nn.initializers.normal(0.3)],
    ids=["name", "own", "jax"],
)
def test_theta_is_drawn_in_graphs_and_transforms_as_in_eager_calls(init):
    layer = qstore_jax.QuantumFeatureExtractor(2, depth=1, init=init)
    keys = jax.random.split(jax.random.key(2), 3)
    one = layer.init(keys[1])
    assert float(jnp.abs(one - layer.init(keys[2])).min()) > 0
    np.testing.assert_allclose(jax.jit(layer.init)(keys[1]), one, rtol=0, atol=EXACT)  # JAX's own rounding
    np.testing.assert_allclose(jax.vmap(layer.init)(keys)[1], one, rtol=0, atol=EXACT)  # JAX's own rounding
    np.testing.assert_allclose(jax.lax.map(layer.init, keys)[1], one, rtol=0, atol=EXACT)  # JAX's own rounding
    assert jax.eval_shape(layer.init, keys[0]) == jax.ShapeDtypeStruct(one.shape, one.dtype)


def test_an_initialiser_of_jax_gets_the_key_itself():
    normal, key = jax.nn.initializers.normal(0.3), jax.random.key(5)
    layer = qstore_jax.QuantumReadout(2, n_classes=2, init=normal)
    np.testing.assert_array_equal(layer.init(key), normal(key, (layer.spec.n_weights,), layer.init(key).dtype))


@pytest.mark.parametrize("key", [0, None, "key", jax.random.split(jax.random.key(0), 2)], ids=["0", "-", "text", "two"])
def test_what_is_no_key_is_named(key):
    layer = qstore_jax.QuantumReadout(2, n_classes=2)
    if key is None:
        assert layer.init(key).shape == (4,)
        return
    with pytest.raises(InputError, match=r"takes one key, jax\.random\.key\(0\), received"):
        layer.init(key)


def test_a_parameter_of_linen_is_drawn_by_init():
    linen = pytest.importorskip("flax.linen")
    layer = qstore_jax.QuantumFeatureExtractor(2, depth=1, encoding="angle", init="uniform")

    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            return layer.apply(self.param("theta", layer.init), x)

    x = jnp.ones((3, 2))
    model = Model()
    variables = model.init(jax.random.key(0), x)
    np.testing.assert_array_equal(jax.jit(model.apply)(variables, x), layer.apply(variables["params"]["theta"], x))


def test_a_model_of_nnx_is_made_in_transforms():
    nnx = pytest.importorskip("flax.nnx")
    from qstore_jax.modules import as_nnx

    layer = qstore_jax.QuantumFeatureExtractor(2, depth=1, encoding="angle", init="uniform")
    x = jnp.ones((3, 2))
    abstract = nnx.eval_shape(lambda: as_nnx(layer, nnx.Rngs(0)))  # as a checkpoint is restored
    assert abstract.theta.shape == (4,)
    keys = jax.random.split(jax.random.key(0), 2)
    many = nnx.vmap(lambda key: as_nnx(layer, nnx.Rngs(params=key)))(keys)
    assert nnx.vmap(lambda module, x: module(x), in_axes=(0, None))(many, x).shape == (2, 3, 2)


def test_a_module_of_equinox_is_one_of_its_own_layers():
    eqx = pytest.importorskip("equinox")
    from qstore_jax.modules import as_equinox

    layer, _, _, x = pair()
    module = as_equinox(layer, jax.random.key(0))
    rows = module(x)
    np.testing.assert_allclose(module(x[1]), rows[1], atol=VALUE["float64"])
    np.testing.assert_allclose(jax.vmap(module)(x), rows, atol=VALUE["float64"])
    model = eqx.nn.Sequential([eqx.nn.Linear(3, 2, key=jax.random.key(1)), module])
    assert jax.vmap(model)(jnp.ones((5, 3))).shape == (5, 4)
    other = as_equinox(layer, jax.random.key(1))
    mean = jax.tree.map(lambda one, two: (one + two) / 2, module, other)
    np.testing.assert_array_equal(mean.theta, (module.theta + other.theta) / 2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(module)).theta, module.theta)
    many = eqx.filter_vmap(lambda key: as_equinox(layer, key))(jax.random.split(jax.random.key(0), 2))
    assert many.theta.shape == (2, layer.spec.n_weights)


def test_a_module_of_equinox_takes_one_sample_of_what_has_two_axes():
    pytest.importorskip("equinox")
    from qstore_jax.modules import as_equinox

    circuit = Circuit(1)
    circuit.ry(circuit.inputs(1)[0], 0)
    module = as_equinox(qstore_jax.QuantumLayer(circuit, qstore_core.DensityMatrix([0])))
    np.testing.assert_allclose(module(jnp.zeros(1)), [[1, 0], [0, 0]], atol=VALUE["float64"])


@pytest.mark.slow
def test_two_devices_equal_one():
    code = """
import jax, jax.numpy as jnp, numpy as np, qstore_jax
from jax.sharding import Mesh, PartitionSpec as P
layer = qstore_jax.QuantumFeatureExtractor(3, 2, encoding="angle", seed=0)
theta, x = layer.init(), jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
mesh = Mesh(np.array(jax.devices()), ("rows",))
assert mesh.size == 2
one = jax.grad(lambda t: (layer.apply(t, x) ** 2).sum())(theta)
part = lambda t, x: jax.lax.psum((layer.apply(t, x) ** 2).sum(), "rows")
whole = jax.shard_map(part, mesh=mesh, in_specs=(P(), P("rows")), out_specs=P(), check_vma=False)
two = jax.jit(jax.grad(lambda t: whole(t, x)))(theta)
assert jnp.abs(one - two).max() < 1e-5, (one, two)
"""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_leading_axis_of_theta_is_an_ensemble():
    layer, _, theta, x = pair()
    thetas = jnp.stack([theta, 2 * theta])
    out = layer.apply(thetas, x)
    np.testing.assert_array_equal(out, jnp.stack([layer.apply(theta, x), layer.apply(2 * theta, x)]))
    gradient = jax.grad(lambda t: layer.apply(t, x)[1].sum())(thetas)
    assert not gradient[0].any()
    np.testing.assert_allclose(
        gradient[1], jax.grad(lambda t: layer.apply(t, x).sum())(2 * theta), rtol=GRADIENT["float64"]
    )


@pytest.mark.parametrize("fault", [None, RuntimeError("out of memory")])
def test_an_engine_of_somebody_else_and_where_it_fails_the_host(fault):
    """On JAX arrays as ours; the default fallback takes its place, and says so."""
    layer = qstore_jax.QuantumReadout(1, encoding="angle", backend=(backend := OtherEngine("jax")), seed=0)
    ours = qstore_jax.QuantumReadout(1, encoding="angle", seed=0)
    theta, x = layer.init(), jnp.array([[0.3], [0.8]])
    backend.fault = fault
    with contextlib.nullcontext() if fault is None else pytest.warns(FallbackWarning, match="out of memory"):
        found = layer.apply(theta, x), jax.jit(jax.grad(loss(layer)))(theta, x)
    assert jnp.abs(found[0] - ours.apply(theta, x)).max() < VALUE["float64"]
    assert jnp.abs(found[1] - jax.jit(jax.grad(loss(ours)))(theta, x)).max() < GRADIENT["float64"]
    assert layer.last_run.backend == ("other-jax" if fault is None else "statevector")
    assert sum(layer.fallbacks.values()) == (0 if fault is None else 2)
