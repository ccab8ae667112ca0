"""What layers and users meet: errors, routes, transforms, graphs, files."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import pytest
import torch

from qstore_core import BackendUnavailableError, CapabilityError, InputError, get_backend
from qstore_core.runtime import program
from qstore_torch import QuantumFeatureExtractor, QuantumReadout, triton

from .needed import DEVICE


def needs_engine():
    if reason := triton.why_not():
        pytest.skip(reason)


def layers(n_qubits=3, **arguments):
    """The same layer on this engine and in PyTorch operations, in float64."""
    needs_engine()
    mine = QuantumFeatureExtractor(n_qubits, depth=1, backend="triton", seed=1, **arguments)
    other = QuantumFeatureExtractor(n_qubits, depth=1, backend="torch", seed=1, **arguments)
    return mine.to(DEVICE, torch.float64), other.to(DEVICE, torch.float64)


def features(rows, width, seed=0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE)


# ---- where it cannot run


def test_it_is_refused_where_tensorflow_came_first(monkeypatch):
    """Importing Triton would end the process then."""
    monkeypatch.setitem(sys.modules, "tensorflow", types.ModuleType("tensorflow"))
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    with pytest.raises(BackendUnavailableError, match="TensorFlow was imported before Triton"):
        triton.qstore_backend({})


def test_it_is_refused_without_triton(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(triton.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailableError, match="comes with PyTorch's builds for CUDA"):
        triton.qstore_backend({})


def test_it_is_refused_without_a_gpu(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(triton.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(BackendUnavailableError, match="no CUDA device"):
        triton.qstore_backend({})


def test_auto_does_without_it_where_it_cannot_run(monkeypatch):
    real = program.get_backend

    def get(name):
        if name == "triton":
            raise BackendUnavailableError("not here")
        return real(name)

    monkeypatch.setattr(program, "get_backend", get)
    layer = QuantumFeatureExtractor(2)
    on_gpu = types.SimpleNamespace(is_cuda=True, dtype=torch.float32)
    assert layer._program.on_tensors(on_gpu).settings.backend == "torch"


def test_auto_takes_it_on_a_gpu_only_and_where_it_is_faster():
    needs_engine()
    layer, wide = QuantumFeatureExtractor(3), QuantumFeatureExtractor(21)
    on_gpu = types.SimpleNamespace(is_cuda=True, dtype=torch.float32)
    assert layer._program.on_tensors(on_gpu).settings.backend == "triton"
    assert layer._program.on_tensors(torch.zeros(1)).settings.backend == "torch"
    double = types.SimpleNamespace(is_cuda=True, dtype=torch.float64)
    assert layer._program.on_tensors(double).settings.backend == "torch"
    assert wide._program.on_tensors(on_gpu).settings.backend == "torch"
    assert "eager on a GPU: tensor (triton, the fastest on a GPU)" in layer.explain()


def test_importing_it_imports_no_triton():
    code = "import sys, qstore_torch.triton; print('triton' in sys.modules and 'torch._dynamo' not in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


# ---- what it refuses


def test_samples_are_refused():
    needs_engine()
    with pytest.raises(CapabilityError, match="shots=10"):
        QuantumFeatureExtractor(2, backend="triton", shots=10)


def test_more_qubits_than_it_takes_are_refused():
    needs_engine()
    with pytest.raises(CapabilityError, match="at most 26 qubits"):
        QuantumFeatureExtractor(27, encoding="angle", backend="triton")


def test_tensors_elsewhere_are_refused(monkeypatch):
    needs_engine()
    from qstore_torch.triton import launch

    monkeypatch.setattr(launch, "INTERPRETED", False)
    layer = QuantumFeatureExtractor(2, backend="triton")
    with pytest.raises(InputError, match="computes on CUDA tensors, received theta on cpu"):
        layer(torch.zeros(1, 4))


def test_it_has_no_options():
    needs_engine()
    with pytest.raises(Exception, match="no option 'lanes'"):
        get_backend("triton", lanes=64)


# ---- in PyTorch


def test_a_training_step_is_that_of_the_torch_engine():
    mine, other = layers(measurement_bases=("Z", "X"))
    for layer in (mine, other):
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        for seed in range(3):
            optimizer.zero_grad()
            layer(features(4, 8, seed)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(mine.theta, other.theta, rtol=0, atol=1e-10)


def test_gradcheck():
    mine, _ = layers(2, encoding="angle", reuploading=True)
    x = features(2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mine(x), (x,))


def test_a_strided_batch_in_half_precision():
    mine, other = layers()
    x = features(8, 6).T  # (6, 8), columns contiguous
    torch.testing.assert_close(mine(x), other(x), rtol=0, atol=1e-12)
    half = x.to(torch.bfloat16)
    assert mine(half).dtype == torch.bfloat16
    torch.testing.assert_close(mine(half), other(half), rtol=0, atol=0.01)


def test_second_derivatives_are_those_of_the_operations():
    found = []
    for layer in layers():
        x = features(2, 8).requires_grad_()
        (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), (x, layer.theta)))
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-10)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # by PyTorch's forward mode
def test_function_transforms_and_forward_mode():
    mine, other = layers()
    x = features(3, 8)

    def per_sample(layer):
        def loss(theta, row):
            return torch.func.functional_call(layer, {"theta": theta}, (row[None],)).square().sum()

        return torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(layer.theta.detach(), x)

    torch.testing.assert_close(per_sample(mine), per_sample(other), rtol=0, atol=1e-10)
    for a, b in zip(*(torch.func.jvp(layer, (x,), (torch.ones_like(x),)) for layer in (mine, other)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_a_jacobian_in_one_backward_pass():
    found = []
    for layer in layers():
        x = features(2, 8).requires_grad_()
        out = layer(x)
        eye = torch.eye(out.numel(), dtype=out.dtype, device=out.device).reshape(-1, *out.shape)
        found.append(torch.autograd.grad(out, x, eye, is_grads_batched=True)[0])
    torch.testing.assert_close(*found, rtol=0, atol=1e-10)


def test_a_compiled_graph():
    mine, other = layers()
    compiled = torch.compile(mine, fullgraph=True, backend="aot_eager")
    x = features(3, 8).requires_grad_()
    (got,) = torch.autograd.grad(compiled(x).sum(), x)
    (expected,) = torch.autograd.grad(other(x).sum(), x)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def test_an_exported_graph():
    mine, other = layers()
    x = features(3, 8)
    exported = torch.export.export(mine.eval(), (x,))
    torch.testing.assert_close(exported.module()(x), other(x), rtol=0, atol=1e-10)


def test_fake_tensors_stay_on_their_device():
    from torch._subclasses.fake_tensor import FakeTensorMode

    needs_engine()
    layer = QuantumReadout(3, n_classes=4, backend="triton")
    with FakeTensorMode(allow_non_fake_inputs=True):
        out = layer(torch.empty(5, 8, device="meta" if DEVICE == "cpu" else DEVICE))
    assert out.shape == (5, 4)


def test_a_launch_of_a_size_that_was_seen_takes_addresses():
    needs_engine()
    from qstore_torch.triton.device import kernels
    from qstore_torch.triton.launch import Launch

    launch, found, tensor = Launch(kernels.reduce_weights, {"ROWS": 128, "COLUMNS": 8}, 4), [], torch.zeros(3)
    launch._launches[1, 5] = lambda *arguments: found.append(arguments)
    launch(1, 5, (tensor, tensor[1:]), (7,))
    assert found == [(tensor.data_ptr(), tensor[1:].data_ptr(), 7, 128, 8)]


def test_kernels_compile_for_a_gpu():
    """What the interpreter does not see: types, constants, tuples, and how vectors lie in threads."""
    needs_engine()
    code = """
import torch, triton
from triton.backends.compiler import GPUTarget, Language
from triton.compiler import ASTSource, make_backend
from triton._C.libtriton import ir
from qstore_core import lower
from qstore_core.circuit.spec import layer_spec as spec
from qstore_torch.triton import launch, wide
from qstore_torch.triton.device import kernels

target = GPUTarget("cuda", 90, 32)
backend = make_backend(target)
terms = {"encoding": "zz", "measurement_bases": ("Z", "X")}
for dtype, kind, cases in ((torch.float32, "fp32", ((8, {}), (8, terms), (14, {"depth": 2}))),
                           (torch.float64, "fp64", ((8, terms), (14, terms)))):
    for n, arguments in cases:
        s = spec.feature_extractor(n_qubits=n, **{"depth": 1} | arguments)
        plan = lower(s.circuit, s.measurement)
        if n == 8:
            c = launch.Circuit(plan, dtype)
            launches = [c._forward[1], c._backward, c._reduce]
        else:
            c = wide.WideCircuit(plan, dtype)
            launches = [c._forward[1][-1], c._backward[-1]]
            if kind == "fp32":
                launches += [c._forward[1][0], c._backward[0], c._angles, c._parts, c._norms, c._sum, c._inputs]
        states = ("state", "source", "target", "lam_source", "lam_target")
        types = {"ints": "*i32"} | dict.fromkeys(states, "*i64" if kind == "fp32" else "*fp64")
        for launched in dict.fromkeys(launches):
            kernel, constants = launched.kernel, launched.constants
            signature = {name: "constexpr" if name in constants else "i32" if name in kernels._NUMBERS
                         else types.get(name, "*" + kind) for name in kernel.arg_names}
            options = backend.parse_options({"num_warps": launched._warps})
            context = ir.context()
            ir.load_dialects(context)
            backend.load_dialects(context)
            source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
            functions = backend.get_codegen_implementation(options)
            module = source.make_ir(target, options, functions, backend.get_module_map(), context)
            stages = {}
            backend.add_stages(stages, options, Language.TRITON)
            for stage in ("ttir", "ttgir") if n > 8 else ():
                module = stages[stage](module, {})
print("compiled")
"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "compiled", done.stderr[-2000:]
