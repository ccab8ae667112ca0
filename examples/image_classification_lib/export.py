"""What `fit_*.export` wrote, run where it is meant to run: in a process with neither qstore nor the model's code."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Check:
    """How one file compares with the model.

    Attributes:
        file: Where it is.
        images: How many images were classified.
        same: How many got the model's class.
        difference: The largest difference of a logit.
    """

    file: Path
    images: int
    same: int
    difference: float

    def __str__(self) -> str:
        return (
            f"{self.file}: {self.same} of {self.images} images classified as by the model, "
            f"logits within {self.difference:.0e}"
        )


def check(files: Sequence[Path], images: np.ndarray, logits: np.ndarray) -> list[Check]:
    """Classify `images` with each file, and compare with the model's `logits` (N, n_outputs)."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "images.npy", Path(folder) / "logits.npy"
        np.save(source, images)
        for file in files:
            subprocess.run([sys.executable, "-W", "ignore", __file__, str(file), str(source), str(target)], check=True)
            others = np.load(target)
            same = int((_classes(others) == _classes(logits)).sum())
            found.append(Check(file, len(images), same, float(np.abs(others - logits).max())))
    return found


def _classes(logits: np.ndarray) -> np.ndarray:
    return logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(axis=1)


def run_onnx(file: str, images: np.ndarray) -> np.ndarray:
    """In ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def run_tflite(file: str, images: np.ndarray) -> np.ndarray:
    """In the LiteRT runtime, which has no TensorFlow operations."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(file)
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    interpreter.resize_tensor_input(source, images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(source, images)
    interpreter.invoke()
    return interpreter.get_tensor(target)


RUNTIMES: dict[str, Callable[[str, np.ndarray], np.ndarray]] = {".onnx": run_onnx, ".tflite": run_tflite}


if __name__ == "__main__":
    sys.path.pop(0)  # this folder: nothing of the example is imported
    model, source, target = sys.argv[1:]
    np.save(target, RUNTIMES[Path(model).suffix](model, np.load(source)))
    assert not {"qstore_core", "qstore_torch", "qstore_tf"} & set(sys.modules)
