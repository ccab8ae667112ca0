"""Shapes, dtypes, arguments and seeds of the PyTorch layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import qstore_torch
from qstore_core import (
    CapabilityError,
    Circuit,
    Counts,
    InputError,
    MemoryLimitError,
    Pauli,
    ShapeError,
    SpecError,
    UnknownBackendError,
)
from qstore_torch import (
    QuantumEncoder,
    QuantumFeatureExtractor,
    QuantumLayer,
    QuantumPooling,
    QuantumReadout,
)
from tests.support.strategies import Batch, batches, layer_arguments
from tests.support.tolerances import FLOAT32_SUM, angle_stretch

BACKENDS = ("torch", "statevector", "auto")
# One of each kind, for what hypothesis would be too slow for: (name, arguments, features).
EACH_KIND = [
    ("QuantumEncoder", {"n_qubits": 3}, 6),
    ("QuantumFeatureExtractor", {"n_qubits": 3, "measurement_bases": ("Z", "X")}, 8),
    ("QuantumPooling", {"n_qubits": 4, "encoding": "angle"}, 4),
    ("QuantumReadout", {"n_qubits": 3, "n_classes": 5}, 7),
    ("QuantumReadout", {"n_qubits": 2, "encoding": "zz", "reuploading": True, "depth": 2}, 2),
]


def build(kind, arguments, **more):
    if kind == "QuantumEncoder":
        more.pop("backend", None), more.pop("seed", None)
    return getattr(qstore_torch, kind)(**arguments, **more)


def each_kind(**more):
    return [(build(kind, arguments, **more), features) for kind, arguments, features in EACH_KIND]


# -- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["torch", "statevector"])
@given(drawn=layer_arguments(), batch=batches())
def test_the_promised_shape_is_the_actual_one(backend, drawn, batch):
    layer = build(*drawn, backend=backend)
    x = torch.from_numpy(batch.features(layer.spec))
    outputs = layer(x)
    assert tuple(outputs.shape) == layer.compute_output_shape(x.shape) == (*batch.lead, layer.output_dim)
    assert outputs.dtype == x.dtype
    assert outputs.isfinite().all()


def test_theta_is_the_only_parameter_and_has_the_promised_size():
    layer = QuantumFeatureExtractor(3, depth=2)
    assert [name for name, _ in layer.named_parameters()] == ["theta"]
    assert layer.theta.shape == (layer.spec.n_weights,) == (12,)
    assert layer.theta.requires_grad


def test_the_theta_of_a_layer_without_weights_behaves_as_a_weight():
    for layer in (QuantumEncoder(2), QuantumPooling(2, depth=0, mode="partial_trace")):
        assert [name for name, _ in layer.named_parameters()] == ["theta"]
        assert (layer.theta.shape, layer.theta.requires_grad) == ((0,), True)
        x = torch.randn(3, 4, requires_grad=True)
        layer(x).sum().backward()
        assert x.grad.shape == x.shape
        assert layer.theta.grad.shape == (0,)  # DistributedDataParallel waits for the gradient of each parameter
        torch.optim.Adam(layer.parameters()).step()


def test_layers_compose_in_a_sequential_module():
    model = nn.Sequential(
        nn.Linear(5, 8), QuantumFeatureExtractor(3), QuantumPooling(3, 3, encoding="angle"), nn.Linear(1, 2),
        QuantumEncoder(1), QuantumReadout(1, n_classes=2),
    )  # fmt: skip
    probabilities = model(torch.randn(7, 5))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(7))
    probabilities[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model[0].parameters())


def test_non_contiguous_inputs_give_the_same_outputs():
    for layer, features in each_kind(seed=0):
        x = torch.randn(features, 6).t()
        assert not x.is_contiguous()
        torch.testing.assert_close(layer(x), layer(x.contiguous()))


def test_a_circuit_without_inputs_takes_batches_without_features():
    circuit = Circuit(1)
    circuit.ry(circuit.weights(1)[0], 0)
    layer = QuantumLayer(circuit, Pauli("Z"), init=lambda rng, size: np.full(size, 0.3), backend="torch")
    torch.testing.assert_close(layer(torch.zeros(4, 0)), torch.full((4, 1), math.cos(0.3)))
    assert layer(torch.zeros(2, 3, 0)).shape == (2, 3, 1)


# -- dtypes and devices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_output_has_the_dtype_of_the_input(backend, dtype):
    for layer, features in each_kind(backend=backend, seed=0):
        x = torch.rand(3, features).to(dtype).requires_grad_()
        y = layer(x)
        assert y.dtype == dtype
        y.sum().backward()
        assert x.grad.dtype == dtype
        # Half precision is rounding at the border only: inside there are 24 bits.
        wide = x.detach().double()
        atol = FLOAT32_SUM * angle_stretch(layer.spec, layer.theta.detach().numpy(), wide.numpy())
        torch.testing.assert_close(y.detach().double(), layer(wide), rtol=torch.finfo(dtype).eps, atol=atol)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_counts_stay_whole_in_half_precision(backend, dtype):
    circuit = Circuit(1)
    circuit.h(0)
    counts = QuantumLayer(circuit, Counts(5001), backend=backend, seed=0)(torch.zeros(3, 0, dtype=dtype))
    assert counts.dtype == torch.float32
    assert (counts.sum(1) == 5001).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_function_has_no_value_for_is_refused(backend):
    circuit = Circuit(1)
    circuit.ry(circuit.inputs(1)[0].arccos(), 0)
    layer = QuantumLayer(circuit, Pauli("Z"), backend=backend)
    with pytest.raises(InputError, match=r"row 1: arccos\(x0\)"):
        layer(torch.tensor([[0.3], [5.0]]))
    torch.testing.assert_close(layer(torch.tensor([[0.3]])), torch.tensor([[0.3]]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_whole_numbers_are_taken_as_numbers(backend, dtype):
    layer = QuantumReadout(2, n_classes=3, encoding="basis", backend=backend, seed=0)
    bits = torch.tensor([[0, 1], [1, 1]])
    outputs = layer(bits.to(dtype))
    assert outputs.dtype == torch.float32
    torch.testing.assert_close(outputs, layer(bits.float()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_does_not_reach_the_circuit(backend):
    layer = QuantumFeatureExtractor(3, backend=backend, seed=0)
    model = nn.Sequential(nn.Linear(4, 8), layer)
    x = torch.randn(5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        features = model[0](x)
        y = model(x)
        alone = layer(x[:, :3])
    assert features.dtype == y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(features.float()), rtol=0, atol=2**-8)
    torch.testing.assert_close(alone, layer(x[:, :3]))  # float32 comes and float32 goes
    y.float().sum().backward()
    assert layer.theta.grad.dtype == torch.float32
    assert model[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_does_not_reach_the_backward_pass(backend):
    layer = QuantumReadout(4, n_classes=5, backend=backend, seed=0)
    x = torch.rand(3, 16)
    layer(x).square().sum().backward()
    expected, layer.theta.grad = layer.theta.grad, None
    with torch.autocast("cpu", torch.bfloat16):  # PyTorch advises against it, and people do it
        layer(x).square().sum().backward()
    torch.testing.assert_close(layer.theta.grad, expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64, torch.bool, "float64", float])
def test_a_dtype_that_is_no_floating_point_one_is_named(dtype):
    with pytest.raises(SpecError, match=r"dtype is a floating-point torch\.dtype, received"):
        QuantumFeatureExtractor(2, dtype=dtype)


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor:UserWarning")
def test_quantized_features_are_refused_by_name():
    features = torch.quantize_per_tensor(torch.rand(3, 4), 0.1, 0, torch.quint8)
    layer = QuantumFeatureExtractor(2, seed=0)
    with pytest.raises(InputError, match=r"received a quantized tensor of dtype torch\.quint8.*dequantize"):
        layer(features)
    assert layer(features.dequantize()).shape == (3, 2)


def test_device_and_dtype_arguments():
    layer = QuantumFeatureExtractor(2, dtype=torch.float64, device="cpu")
    assert layer.theta.dtype == torch.float64
    assert QuantumFeatureExtractor(2).to(torch.float64).theta.dtype == torch.float64
    with torch.device("meta"):
        assert QuantumFeatureExtractor(2).theta.is_meta


def test_deferred_initialisation():
    layer = QuantumFeatureExtractor(3, seed=4, device="meta")
    assert layer(torch.empty(5, 8, device="meta")).shape == (5, 3)
    layer.to_empty(device="cpu").reset_parameters()
    torch.testing.assert_close(layer.theta, QuantumFeatureExtractor(3, seed=4).theta)


# -- theta ------------------------------------------------------------------------------------------------------------


def test_manual_seed_decides_theta_where_seed_is_none():
    def draw():
        torch.manual_seed(7)
        return QuantumFeatureExtractor(3).theta, QuantumFeatureExtractor(3).theta

    first, second = draw(), draw()
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], first[1])


def test_a_seed_of_its_own_wins_and_leaves_the_generator_alone():
    torch.manual_seed(1)
    one, after = QuantumReadout(3, seed=5).theta, torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(one, QuantumReadout(3, seed=5).theta)
    assert not torch.equal(one, QuantumReadout(3, seed=6).theta)


def test_reset_parameters_draws_anew():
    layer = QuantumFeatureExtractor(3)
    before = layer.theta.detach().clone()
    layer.reset_parameters()
    assert not torch.equal(before, layer.theta)
    fixed = QuantumFeatureExtractor(3, seed=1)
    before = fixed.theta.detach().clone()
    nn.init.zeros_(fixed.theta)
    fixed.reset_parameters()
    assert torch.equal(before, fixed.theta)


def test_presets_and_representation():
    layer = QuantumFeatureExtractor.from_preset("research", 4, seed=0, backend="torch")
    assert layer.output_dim == 12
    assert repr(layer) == "QuantumFeatureExtractor(n_qubits=4, depth=3, weights=24, backend='torch')"
    assert layer.draw().count("\n") >= 3


# -- bad input --------------------------------------------------------------------------------------------------------


def usable(layer, features):
    outputs = layer(torch.rand(2, features))
    return outputs.shape == (2, layer.output_dim) and bool(outputs.isfinite().all())


BAD_VALUES = {
    "NaN": lambda x: x.index_put((torch.tensor(2), torch.tensor(1)), torch.tensor(math.nan)),
    "infinity": lambda x: x.index_put((torch.tensor(2), torch.tensor(1)), torch.tensor(-math.inf)),
    "NaN in a later row too": lambda x: torch.cat([x[:2], torch.full_like(x[2:], math.nan)]),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", BAD_VALUES)
def test_what_is_not_finite_names_its_row(backend, what):
    for layer, features in each_kind(backend=backend):
        bad = BAD_VALUES[what](torch.rand(4, features))
        with pytest.raises(InputError, match="row 2") as caught:
            layer(bad)
        assert caught.value.row == 2
        with pytest.raises(InputError, match="row 2"):  # with gradients too
            layer(bad.requires_grad_())
        assert usable(layer, features)


@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_shapes_say_what_to_do(backend):
    layer = QuantumFeatureExtractor(3, backend=backend)
    for shape, advice in [
        ((4, 9), "n_qubits=4"), ((4, 300), "Linear layer to 8"), ((4, 0), "at least one feature"),
        ((8,), r"x\[None, :\]"), ((), "scalar"),
    ]:  # fmt: skip
        with pytest.raises(ShapeError, match=advice):
            layer(torch.zeros(shape))
    assert usable(layer, 8)
    angles = QuantumFeatureExtractor(3, encoding="angle", backend=backend)
    for features in (2, 4):
        with pytest.raises(ShapeError, match="takes 3 features"):
            angles(torch.zeros(4, features))
    assert usable(angles, 3)


def test_wrong_kinds_of_input():
    layer = QuantumFeatureExtractor(2)
    with pytest.raises(InputError, match=r"complex64"):
        layer(torch.zeros(2, 4, dtype=torch.complex64))
    with pytest.raises(InputError, match=r"ndarray. Use torch.as_tensor"):
        layer(np.zeros((2, 4)))
    assert usable(layer, 4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_kinds_of_theta(backend):
    layer, x = QuantumFeatureExtractor(2, 1, backend=backend), torch.rand(2, 4)
    theta = layer.theta.detach()
    with pytest.raises(InputError, match="real angles, received a theta of dtype"):
        torch.func.functional_call(layer, {"theta": theta + 0j}, x)
    with pytest.raises(InputError, match=r"has no values.*to_empty"):
        torch.func.functional_call(layer, {"theta": theta.to("meta")}, x)
    layer.theta = None
    with pytest.raises(InputError, match="no theta"):
        layer(x)
    layer.theta = nn.Parameter(theta)
    assert usable(layer, 4)


@pytest.mark.filterwarnings("ignore:.*jit.script. is deprecated:DeprecationWarning")
def test_scripting_is_refused():
    with pytest.raises(CapabilityError, match=r"torch.compile, torch.export"):
        torch.jit.script(nn.Sequential(QuantumFeatureExtractor(2), nn.Linear(2, 1)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_basis_encoding_takes_bits_only(backend):
    layer = QuantumReadout(2, encoding="basis", backend=backend)
    with pytest.raises(InputError, match=r"row 1 has 0.5 in feature 0"):
        layer(torch.tensor([[0.0, 1.0], [0.5, 1.0]]))
    assert layer(torch.tensor([[0, 1], [1, 1]])).shape == (2, 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_rows_and_empty_batches_are_fine(backend):
    for layer, features in each_kind(backend=backend, seed=0):
        x = torch.rand(3, features)
        x[1] = 0
        x.requires_grad_()
        y = layer(x)
        (grad,) = torch.autograd.grad(y.square().sum(), x)
        assert y.isfinite().all()
        assert grad.isfinite().all()
        if layer.spec.encoding.is_amplitude:
            assert not grad[1].any()
            torch.testing.assert_close(y[1], layer(torch.eye(1, features))[0])
        nothing = x[:0].detach().requires_grad_()
        out = layer(nothing)
        assert out.shape == (0, layer.output_dim)
        out.sum().backward()
        assert nothing.grad.shape == nothing.shape


def test_wrong_arguments():
    for make, error, message in [
        (lambda: QuantumFeatureExtractor(0), SpecError, "at least 1"),
        (lambda: QuantumFeatureExtractor(60), MemoryLimitError, "GiB"),
        (lambda: QuantumFeatureExtractor(3, encoding="amplitud"), SpecError, "Did you mean 'amplitude'"),
        (lambda: QuantumFeatureExtractor(3, ansatz="strong"), SpecError, "strongly_entangling"),
        (lambda: QuantumFeatureExtractor(3, entanglement="fulll"), SpecError, "Did you mean 'full'"),
        (lambda: QuantumFeatureExtractor(3, measurement_bases="W"), SpecError, "measurement_bases"),
        (lambda: QuantumFeatureExtractor(3, backend="torhc"), UnknownBackendError, "Did you mean 'torch'"),
        (lambda: QuantumFeatureExtractor(3, init="zero"), SpecError, "Did you mean 'zeros'"),
        (lambda: QuantumPooling(5, 2), SpecError, "must divide"),
        (lambda: QuantumReadout(2, n_classes=5), SpecError, "at least 3 qubits"),
    ]:
        with pytest.raises(error, match=message):
            make()


def test_large_and_tiny_features_are_normalised():
    layer = QuantumFeatureExtractor(2, seed=0, backend="torch")
    x = torch.rand(1, 4) + 0.1
    for scale in (1e-30, 1e30):
        torch.testing.assert_close(layer(x * scale), layer(x), rtol=0, atol=2e-6)


@settings(max_examples=25)
@given(drawn=layer_arguments(), batch=batches(min_rows=1))
def test_samples_do_not_see_each_other(drawn, batch):
    layer = build(*drawn, backend="torch", seed=0)
    x = torch.from_numpy(Batch(batch.lead, "float64", batch.seed).features(layer.spec))
    rows = x.flatten(0, -2)
    with torch.no_grad():
        together = layer(x).flatten(0, -2)
        single = torch.cat([layer(row[None]) for row in rows])
    torch.testing.assert_close(together, single, rtol=0, atol=1e-6)


def test_the_theta_of_another_layer_is_an_init():
    first = QuantumFeatureExtractor(2, seed=1)
    again = QuantumFeatureExtractor.from_config(QuantumFeatureExtractor(2, init=first.theta).get_config())
    torch.testing.assert_close(again.theta, first.theta)
    with pytest.raises(SpecError, match="must be finite"):
        QuantumFeatureExtractor(2, init=first.theta * math.nan)
