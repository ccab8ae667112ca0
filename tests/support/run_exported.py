"""Runs one exported file, in a process that does not know qstore: `run_exported.py FORMAT FILE DATA TOLERANCE`.

DATA is an .npz with `x` and the outputs `y`; batches of all rows and of one row are compared.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]


def onnx(path: str) -> Run:
    """ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {session.get_inputs()[0].name: x})[0]


def openvino(path: str) -> Run:
    """OpenVINO, which takes bfloat16 unless it is told otherwise."""
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda x: compiled([x])[0]


def litert(path: str) -> Run:
    """The LiteRT runtime, which has no TensorFlow operations."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path)
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(x: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(source, x.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source, x)
        interpreter.invoke()
        return interpreter.get_tensor(target)

    return run


def exported(path: str) -> Run:
    """A program of `torch.export`."""
    import torch

    module = torch.export.load(path).module()
    return lambda x: module(torch.from_numpy(x)).detach().numpy()


def aoti(path: str) -> Run:
    """A package of AOTInductor."""
    import torch

    module = torch._inductor.aoti_load_package(path)
    return lambda x: module(torch.from_numpy(x)).numpy()


def jax(path: str) -> Run:
    """A program of `jax.export`."""
    from pathlib import Path

    from jax import export

    call = export.deserialize(bytearray(Path(path).read_bytes())).call
    return lambda x: np.asarray(call(x))


def main(format_: str, path: str, data: str, tolerance: str) -> None:
    """Compare; raise where outputs are others."""
    run, arrays = {f.__name__: f for f in (onnx, openvino, litert, exported, aoti, jax)}[format_](path), np.load(data)
    for rows in (slice(None), slice(0, 1)):
        np.testing.assert_allclose(run(arrays["x"][rows]), arrays["y"][rows], rtol=0, atol=float(tolerance))
    assert not {"qstore_core", "qstore_torch", "qstore_tf", "qstore_jax"} & set(sys.modules)


if __name__ == "__main__":
    main(*sys.argv[1:])
