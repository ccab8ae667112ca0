"""Train, predict and time in PyTorch. `fit_keras.py` is the same file for Keras."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .data import Batches, ImageData, prefetch
from .nets_torch import build
from .train import ADAM, Monitor, Settings, median_seconds, n_outputs

VERSION = f"PyTorch {torch.__version__}"


def make(settings: Settings, data: ImageData) -> nn.Sequential:
    """Return the network for these images, on the GPU where there is one."""
    torch.manual_seed(settings.seed)
    model = build(settings, data.images.shape[1:], n_outputs(len(data.class_names)))
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def fit(model: nn.Sequential, batches: Batches, validation: ImageData, settings: Settings, monitor: Monitor) -> None:
    """Train; the model ends up with the weights of its best epoch."""
    device = next(model.parameters()).device
    optimizer = torch.optim.Adam(model.parameters(), **ADAM)
    saved = None if monitor.progress is None else monitor.progress.folder / "training.pt"
    if monitor.history:
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        monitor.best_weights = state["best"]
    begin, steps = len(monitor.history), batches.steps_per_epoch
    # Threads prepare the next batches while this one trains; Pillow works without Python's lock.
    stream = prefetch(
        batches.__getitem__, range(begin * batches.steps_per_epoch, settings.epochs * batches.steps_per_epoch)
    )
    for _ in range(begin, settings.epochs):
        model.train()
        total = correct = seen = 0
        for _ in range(steps):
            images, labels = (torch.from_numpy(array).to(device) for array in next(stream))
            for group in optimizer.param_groups:
                group["lr"] = monitor.learning_rate
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.mixed_precision):
                logits = model(images)
            loss = _loss(logits.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            correct += int((_classes(logits) == labels).sum())
            seen += len(labels)
            monitor.step_done(total / seen, correct / seen)
        logits = predict(model, validation.images)

        def keep() -> None:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "best": monitor.best_weights}
            torch.save(state, saved)

        if not monitor.epoch_done(logits, validation.labels, lambda: copy.deepcopy(model.state_dict()), keep):
            break
    stream.close()
    model.load_state_dict(monitor.best_weights)


def predict(model: nn.Sequential, images: np.ndarray, *, batch_size: int = 128) -> np.ndarray:
    """Return logits (N, n_outputs)."""
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        parts = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
        return torch.cat([model(torch.from_numpy(np.array(part)).to(device)) for part in parts]).cpu().numpy()


def export(model: nn.Sequential, images: np.ndarray, folder: Path) -> list[Path]:
    """Write the model for other runtimes; return the files."""
    some, file = (torch.from_numpy(np.array(images[:2])),), folder / "torch.onnx"
    plain = copy.deepcopy(model).cpu().eval()
    if quantum_layers(model):
        import qstore_torch  # only here: --no-quantum works without it

        plain = qstore_torch.as_operations(plain)  # an error that says why, where a backend does not leave
    torch.onnx.export(plain, some, file, dynamo=True, dynamic_shapes=({0: "images"},), verbose=False)
    return [file]


def parameter_count(model: nn.Sequential) -> int:
    """Return the number of trained numbers."""
    return sum(parameter.numel() for parameter in model.parameters())


def quantum_layers(model: nn.Sequential) -> dict[str, nn.Module]:
    """Return the quantum layers by name."""
    return {name: part for name, part in model.named_children() if hasattr(part, "circuit")}


def time_parts(model: nn.Sequential, images: np.ndarray) -> dict[str, float]:
    """Return the seconds that each part takes alone, forward and backward, on the batch that reaches it."""
    device = next(model.parameters()).device
    model.eval()  # leaves the running means of the batch normalisation alone
    x = torch.from_numpy(np.array(images)).to(device)
    times = {}
    for name, part in model.named_children():
        inputs = x.detach()
        if inputs.is_floating_point():
            inputs.requires_grad_()
        with torch.no_grad():
            x = part(inputs)
        wanted = [inputs, *part.parameters()] if inputs.requires_grad else list(part.parameters())
        times[name] = median_seconds(lambda part=part, inputs=inputs, wanted=wanted: _both_ways(part, inputs, wanted))
    return times


def _both_ways(part: nn.Module, inputs: torch.Tensor, wanted: list[torch.Tensor]) -> None:
    outputs = part(inputs)
    if wanted:
        torch.autograd.grad(outputs, wanted, torch.ones_like(outputs))
    if outputs.is_cuda:
        torch.cuda.synchronize()


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    if logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits.dtype))
    return functional.cross_entropy(logits, labels)


def _classes(logits: torch.Tensor) -> torch.Tensor:
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)
