"""Models that leave PyTorch: `torch.export`, AOTInductor, ONNX, each run in a process that does not know qstore."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch import nn

import qstore_torch
from qstore_core import CapabilityError
from qstore_torch import QuantumFeatureExtractor, QuantumReadout, as_operations
from tests.support.formats import COMPLEX, DRAWN, EVERYWHERE, PAGE, page, run
from tests.support.tolerances import EXPORTED, VALUE

# torch.export and torch.onnx warn about themselves, and so does what they import.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

ROWS_FREE = ({0: torch.export.Dim("rows")},)


class Everything(nn.Module):
    """A layer for each row of the table, on views of the same features."""

    def __init__(self, rows):
        super().__init__()
        self.layers = nn.ModuleList(row.make(qstore_torch) for row in rows)
        self.takes = [row.takes for row in rows]

    def forward(self, x):
        views = {"amplitudes": x, "angles": x[:, :2], "bits": (x[:, :2] > 0.5).to(x.dtype)}
        return torch.cat([layer(views[t]).flatten(1) for layer, t in zip(self.layers, self.takes, strict=True)], -1)


def features(rows=4):
    return torch.rand(rows, 4, generator=torch.Generator().manual_seed(0))


def saved(module, folder):
    x, file = features(), folder / "data.npz"
    np.savez(file, x=x.numpy(), y=module(x).detach().numpy())
    return file


def test_the_page_is_fresh():
    """`python -m tests.support.formats` writes it."""
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.fixture(scope="module")
def exported():
    module = Everything(EVERYWHERE)
    return module, torch.export.export(as_operations(module), (features(),), dynamic_shapes=ROWS_FREE)


def test_every_layer_leaves_as_a_program_of_real_operations(exported):
    module, program = exported
    for node in program.graph.nodes:
        value = node.meta.get("val")
        assert "qstore" not in str(node.target)
        assert not isinstance(value, torch.Tensor) or not value.dtype.is_complex
    for x in (features(), features(1)):
        torch.testing.assert_close(program.module()(x), module(x), rtol=0, atol=VALUE["float32"])


def test_a_saved_program_runs_without_qstore(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), QuantumReadout(2, seed=0))
    torch.export.save(
        torch.export.export(as_operations(model), (features(),), dynamic_shapes=ROWS_FREE), tmp_path / "p.pt2"
    )
    run("exported", tmp_path / "p.pt2", saved(model, tmp_path), EXPORTED)


def test_every_layer_leaves_as_onnx(exported, tmp_path):
    pytest.importorskip("onnxscript")
    module, program = exported
    torch.onnx.export(program, dynamo=True, verbose=False, optimize=False).save(tmp_path / "model.onnx")
    data = saved(module, tmp_path)
    run("onnx", tmp_path / "model.onnx", data, EXPORTED)
    pytest.importorskip("openvino")
    run("openvino", tmp_path / "model.onnx", data, EXPORTED)


@pytest.mark.slow
def test_every_layer_is_converted_for_core_ml(exported):
    """Which runs on Apple's systems alone."""
    ct = pytest.importorskip("coremltools")
    model = ct.convert(exported[1].run_decompositions({}), compute_precision=ct.precision.FLOAT32)
    assert model.get_spec().description.output


@pytest.mark.parametrize("dynamo", [True, False])
def test_the_exporter_to_onnx_takes_models_as_they_are(dynamo, tmp_path):
    pytest.importorskip("onnxscript")
    model = nn.Sequential(nn.Linear(4, 2), QuantumReadout(2, encoding="angle", seed=0)).eval()
    free = {"dynamic_shapes": ({0: "rows"},)} if dynamo else {"dynamic_axes": {"x": {0: "rows"}}, "input_names": ["x"]}
    torch.onnx.export(model, (features(),), tmp_path / "model.onnx", dynamo=dynamo, verbose=False, **free)
    run("onnx", tmp_path / "model.onnx", saved(model, tmp_path), EXPORTED)


def test_complex_numbers_leave_as_programs():
    module, x = Everything(COMPLEX), features(3)
    program = torch.export.export(as_operations(module), (features(),), dynamic_shapes=ROWS_FREE)
    torch.testing.assert_close(program.module()(x), module(x), rtol=0, atol=VALUE["float32"])


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("row", [*COMPLEX, *DRAWN], ids=lambda row: row.title)
def test_what_onnx_does_not_hold_is_refused_when_it_is_exported(row, dynamo):
    pytest.importorskip("onnxscript")
    layer, x = row.make(qstore_torch), features()[:, :2]
    why = "samples are drawn on the host" if row in DRAWN else f"measures '{layer.spec.measurement.name}': ONNX has no"
    with pytest.raises(torch.onnx.errors.OnnxExporterError if dynamo else CapabilityError, match=why):
        torch.onnx.export(layer, (x,), io.BytesIO(), dynamo=dynamo, verbose=False)


def test_a_trace_with_one_row_computes_many():
    """And passes the check of `torch.jit.trace`, which traces again without gradients."""
    module = Everything(EVERYWHERE)
    traced, x = torch.jit.trace(as_operations(module), (features(1),)), features()
    torch.testing.assert_close(traced(x), module(x), rtol=0, atol=VALUE["float32"])


@pytest.mark.slow  # it compiles C++
def test_aoti(tmp_path):
    layer = QuantumFeatureExtractor(2, depth=1, measurement_bases=("Z", "X"), seed=0)
    program = torch.export.export(layer.as_operations(), (features(),), dynamic_shapes=ROWS_FREE)
    torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
    run("aoti", tmp_path / "model.pt2", saved(layer, tmp_path), EXPORTED)


def test_plain_operations_are_the_layer_with_its_weights_and_gradients():
    model = nn.Sequential(nn.Linear(4, 4), QuantumFeatureExtractor(2, seed=0), nn.Linear(2, 1))
    plain, x = as_operations(model), features()
    assert [p.data_ptr() for p in plain.parameters()] == [p.data_ptr() for p in model.parameters()]
    gradients = [torch.autograd.grad(m(x).square().sum(), m.parameters()) for m in (model, plain)]
    torch.testing.assert_close(plain(x), model(x), rtol=0, atol=VALUE["float32"])
    torch.testing.assert_close(*gradients)
    shared = QuantumReadout(2, encoding="angle", seed=0)
    twice = as_operations(nn.Sequential(shared, nn.Sequential(shared)))
    assert twice[0] is twice[1][0]
    assert not shared._layer_call.in_operations


def test_plain_operations_under_inductor_differentiate_twice():
    layer = QuantumReadout(2, n_classes=2, encoding="angle", seed=0).as_operations()
    x = features()[:, :2].requires_grad_()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))
    torch.testing.assert_close(*(torch.autograd.grad(f(x)[:, 0].sum(), x) for f in (compiled, layer)))


@pytest.mark.parametrize(
    "arguments",
    [{"gradient": "spsa"}, {"gradient": "parameter-shift"}, {"backend": "aer"}, {"backend": "aer", "shots": 10}],
)
def test_what_operations_do_not_compute_is_refused(arguments):
    if "backend" in arguments:
        pytest.importorskip("qiskit_aer")
    layer = QuantumReadout(2, encoding="angle", seed=0, **{"backend": "statevector", "fallback": None} | arguments)
    with pytest.raises(CapabilityError, match=r"a graph on disk cannot call the host, and backend .* Use backend="):
        as_operations(nn.Sequential(layer))


def test_the_exporter_to_onnx_says_what_operations_do_not_compute():
    pytest.importorskip("onnxscript")
    layer = QuantumReadout(2, encoding="angle", backend="statevector", gradient="parameter-shift", seed=0)
    with pytest.raises(torch.onnx.errors.OnnxExporterError, match=r'cannot call the host.* Use backend="torch"'):
        torch.onnx.export(layer, (torch.rand(2, 2),), dynamo=True, verbose=False)
