"""Which layer leaves in which format: one table, tested row by row; docs/exporting.md is made from it.

    python -m tests.support.formats        writes the page

`tests/torch/test_formats.py` and `tests/tf/test_formats.py` export one model that holds a layer for every row, and run
the file in a process that does not know qstore.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from qstore_core import (
    Circuit,
    Counts,
    Covariance,
    DensityMatrix,
    Entropy,
    Expectation,
    Fidelity,
    LogProbabilities,
    Pauli,
    Probabilities,
    Purity,
    Samples,
    State,
    Variance,
)  # fmt: skip

PAGE, RUNNER = (
    Path(__file__).parents[2] / "docs" / "exporting.md",
    Path(__file__).with_name("run_exported.py"),
)

PYTORCH = ("torch.export", "AOTInductor", "ONNX from PyTorch")
KERAS = ("SavedModel", "ONNX from Keras", "LiteRT")
FORMATS = (*PYTORCH, *KERAS, "OpenVINO")


@dataclass(frozen=True)
class Row:
    """One kind of layer.

    Attributes:
        title: As in the table.
        make: The layer of a framework's module (`qstore_torch`, `qstore_tf`).
        takes: "amplitudes" (4 features), "angles" (2) or "bits" (2).
        missing: Formats that do not have it, and why.
    """

    title: str
    make: Callable[[ModuleType], Any]
    takes: str = "amplitudes"
    missing: tuple[str, ...] = ()


def _extractor(encoding: str, **arguments: Any) -> Callable[[ModuleType], Any]:
    return lambda module: module.QuantumFeatureExtractor(2, depth=1, encoding=encoding, seed=0, **arguments)


def _measured(measurement: Any) -> Callable[[ModuleType], Any]:
    circuit = Circuit(2)
    for slot, qubit in zip(circuit.inputs(2), range(2), strict=True):
        circuit.ry(slot, qubit)
    circuit.cnot(0, 1)
    circuit.ry(circuit.weights(1)[0], 1)
    return lambda module: module.QuantumLayer(circuit, measurement, seed=0)


_BELL = Circuit(2)
_BELL.h(0)
_BELL.cnot(0, 1)
_REAL = ("ONNX from PyTorch", "ONNX from Keras", "LiteRT", "OpenVINO")  # have neither complex numbers nor eigenvalues

ROWS = (
    Row("`QuantumEncoder`", lambda module: module.QuantumEncoder(2)),
    Row('`encoding="amplitude"`, bases Z, X, Y', _extractor("amplitude", measurement_bases=("Z", "X", "Y"))),
    Row('`encoding="angle"`, `reuploading=True`', _extractor("angle", reuploading=True), "angles"),
    Row('`encoding="basis"`', _extractor("basis"), "bits"),
    Row('`encoding="iqp"`', _extractor("iqp"), "angles"),
    Row('`encoding="zz"`', _extractor("zz"), "angles"),
    Row("`QuantumPooling`", lambda module: module.QuantumPooling(2, seed=0)),
    Row(
        '`QuantumPooling(mode="partial_trace")`', lambda module: module.QuantumPooling(2, mode="partial_trace", seed=0)
    ),
    Row("`QuantumReadout(n_classes=3)`", lambda module: module.QuantumReadout(2, n_classes=3, seed=0)),
    Row("`QuantumLayer`, `LogProbabilities`", _measured(LogProbabilities()), "angles"),
    Row("`QuantumLayer`, `Variance`", _measured(Variance((Pauli("ZI"), Pauli("XX")))), "angles"),
    Row("`QuantumLayer`, `Purity`", _measured(Purity([0])), "angles"),
    Row("`QuantumLayer`, `Probabilities`", _measured(Probabilities([1])), "angles"),
    Row("`QuantumLayer`, `Expectation`", _measured(Expectation(observables=(Pauli("ZX") + Pauli("YY"),))), "angles"),
    Row("`QuantumLayer`, `Covariance`", _measured(Covariance(Pauli("ZI"), Pauli("XX"))), "angles"),
    Row("`QuantumLayer`, `Fidelity`", _measured(Fidelity(_BELL)), "angles"),
    Row("`QuantumLayer`, `Entropy(order=2)`", _measured(Entropy([0], order=2)), "angles"),
    Row("`QuantumLayer`, `Entropy(order=3)`", _measured(Entropy([0], order=3)), "angles"),
    Row("`QuantumLayer`, `Entropy` (eigenvalues)", _measured(Entropy([0])), "angles", _REAL),
    Row("`QuantumLayer`, `DensityMatrix` (complex)", _measured(DensityMatrix([0])), "angles", _REAL),
    Row("`QuantumLayer`, `State` (complex)", _measured(State()), "angles", _REAL),
    Row("`QuantumLayer`, `Counts`", _measured(Counts(10)), "angles", FORMATS),
    Row("`QuantumLayer`, `Samples`", _measured(Samples(10)), "angles", FORMATS),
)
EVERYWHERE = tuple(row for row in ROWS if not row.missing)
COMPLEX = tuple(row for row in ROWS if row.missing == _REAL)
DRAWN = tuple(row for row in ROWS if row.missing == FORMATS)

TEXT = """# Exporting

A layer leaves in operations of its framework on real numbers: the graph needs neither qstore nor complex numbers, and
runs where Python does not. What is exported computes what the layer computes, within 1e-5; what would compute something
else (shots, noise, a device) is refused by an error that says what to use.

## PyTorch

```python
import torch
import qstore_torch

model = torch.nn.Sequential(torch.nn.Linear(3, 4), qstore_torch.QuantumReadout(4, n_classes=3, encoding="angle"))
x = torch.rand(8, 3)

plain = qstore_torch.as_operations(model)          # shares all weights with the model
program = torch.export.export(plain, (x,), dynamic_shapes=({0: torch.export.Dim("rows")},))
program.module()(x)
```

`torch.export.save(program, path)` and `torch._inductor.aoti_compile_and_package(program, package_path=path)` write it;
the process that loads it need not have qstore. Without `as_operations`, a program holds one operator of qstore in place
of each layer. That is faster (on a CPU it calls the numba engine) and needs `import qstore_torch` where it runs.

ONNX takes the model as it is, or a program of `as_operations`, with a free batch axis:

```py
torch.onnx.export(model, (x,), "model.onnx", dynamo=True, dynamic_shapes=({0: "rows"},))
```

A layer that ONNX does not hold is refused there by the sentence of the layer. A *program* that holds such a layer is
past that: converting it ends in words of PyTorch's.

`torch.compile` keeps the operator too; `torch.compile(qstore_torch.as_operations(model))` gives inductor operations.

## Keras

```py
model.export("folder")                                  # SavedModel
model.export("model.onnx", format="onnx")               # pip install tf2onnx
model.export("model.tflite", format="litert")           # LiteRT, without TensorFlow ("Flex") operations
model.export("model.xml", format="openvino")            # pip install openvino
model.export("model.pt2", format="torch")               # Keras on PyTorch: torch.export
```

| Keras on | SavedModel | ONNX | LiteRT | OpenVINO | torch.export |
|---|---|---|---|---|---|
| TensorFlow | yes | yes | yes | yes | |
| PyTorch | | yes | | yes | yes |
| JAX | yes, without eigenvalues | refused: export from TensorFlow | | refused: export from TensorFlow | |

An empty cell is a format that Keras does not write there, or only with a package that these tests do not have.

`TFLiteConverter` makes the same of a SavedModel. LiteRT has one precision: models in float64 do not convert, and long
sums in these files are sums of short sums, within 2e-6 of double precision in place of 1e-6. A basis-encoded layer has
no gradient for its features: a model loaded from a SavedModel gives NaN for it.

The image classifier of the examples does both, and tries the files on 200 digits in ONNX Runtime and LiteRT:
`python examples/image_classification.py --quick-test --export out`.

## OpenVINO and Core ML

OpenVINO reads the ONNX files of both. Where the processor has bfloat16, OpenVINO computes in it unless it is told
otherwise, with two digits left:

```py
openvino.Core().compile_model("model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
```

`coremltools.convert(program.run_decompositions({}), compute_precision=coremltools.precision.FLOAT32)` makes a Core ML
model of a program of `as_operations`; half precision, coremltools' default, does not hold all of its constants. Core ML
runs on Apple's systems alone, so that the tests convert the layers, and do not run them.

## JAX

```python
import jax
import jax.numpy as jnp
import qstore_jax

layer = qstore_jax.QuantumReadout(4, n_classes=3, encoding="angle").as_operations()
theta, x = layer.init(jax.random.key(0)), jnp.ones((8, 4))
blob = jax.export.export(jax.jit(layer.apply))(theta, x).serialize()
```

## What leaves in which format

Every cell is a test, in a process that does not know qstore; `python -m tests.support.formats` makes this page. What
is refused is refused when the model is exported, by a sentence that says what to use.
"""

BACKENDS = (
    ("`auto`, `numba`, `statevector`, `torch`, `tensorflow`, `jax`", "works: operations compute the same"),
    ('any with `shots` or `gradient="spsa"`', "refused: a graph on disk cannot call the host"),
    ("`aer`, `pennylane`, `dask`, devices, noise models", "refused: a graph on disk cannot call the host"),
)


def page() -> str:
    """docs/exporting.md."""
    lines = [TEXT, f"| layer | {' | '.join(FORMATS)} |", "|---" * (len(FORMATS) + 1) + "|"]
    cells = {row: ["refused" if f in row.missing else "yes" for f in FORMATS] for row in ROWS}
    lines += [f"| {row.title} | {' | '.join(found)} |" for row, found in cells.items()]
    lines += [
        "",
        "Complex outputs and eigenvalues of complex matrices need a runtime that has those; samples need the host.",
        "",
    ]
    lines += ["| backend | |", "|---|---|", *(f"| {backend} | {outcome} |" for backend, outcome in BACKENDS)]
    return "\n".join(lines) + "\n"


def run(format_: str, file: Path, data: Path, tolerance: float) -> None:
    """Compare an exported file with the outputs that it should have, in a fresh process."""
    command = [sys.executable, "-W", "ignore", str(RUNNER), format_, str(file), str(data), str(tolerance)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=file.parent)
    assert not done.returncode, done.stderr


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
