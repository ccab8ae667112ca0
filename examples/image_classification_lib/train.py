"""What must not differ between the frameworks: the pipeline, the schedule, the scores, when to stop."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qstore_core.layers.presets import PRESETS

from .data import DataError

CONV_WIDTHS = (32, 64, 128, 256)
BATCH_NORM = {"momentum": 0.9, "epsilon": 1e-5}
ADAM = {"eps": 1e-7}
WARM_UP_EPOCHS = 1


@dataclass(frozen=True)
class Stage:
    """One step of the head: a dense layer, then a quantum layer.

    Attributes:
        name: Of the quantum layer, and of the classical layer in its place.
        width: Units of the dense layer before it, which is what the qubits can hold: 2**n_qubits.
        layer: Class of the quantum layer.
        n_qubits: Its qubits.
        options: Its other arguments.
        outputs: What comes out of it with these options.
    """

    name: str
    width: int
    layer: str
    n_qubits: int
    options: dict[str, Any]
    outputs: int


PIPELINE = (
    Stage("feature_extractor", 256, "QuantumFeatureExtractor", 8, {"depth": 2, "measurement_bases": "Z"}, 8),
    Stage("pooling", 64, "QuantumPooling", 6, {"pool_size": 2}, 3),
    Stage("readout", 16, "QuantumReadout", 4, {"depth": 1}, 4),
)
ORIGINAL = (
    Stage(
        "feature_extractor", 256, "QuantumFeatureExtractor", 8, {"depth": 3, "measurement_bases": ("Z", "X", "Y")}, 24
    ),
)


@dataclass(frozen=True)
class Settings:
    """How to build and train, whatever the framework."""

    head: str = "quantum"  # or "classical", "original"
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 6e-3
    patience: int = 8
    preset: str | None = None
    backend: str = "auto"
    seed: int = 0
    mixed_precision: bool = False
    checkpoint_gradients: bool = False

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the head; a preset sizes the first, and says how deep all are and what they measure."""
        if self.preset is None:
            return ORIGINAL if self.head == "original" else PIPELINE
        chosen = PRESETS[self.preset]
        arguments = chosen.arguments()
        first, *others = (
            replace(stage, options=stage.options | arguments, outputs=stage.outputs * len(chosen.measurement_bases))
            for stage in PIPELINE
        )
        outputs = chosen.n_qubits * len(chosen.measurement_bases)
        return (replace(first, n_qubits=chosen.n_qubits, width=1 << chosen.n_qubits, outputs=outputs), *others)

    @property
    def quantum(self) -> bool:
        """False when classical layers take the places of the quantum layers."""
        return self.head != "classical"


def make_quantum(module: Any, stage: Stage, settings: Settings) -> Any:
    """Return the stage's quantum layer out of the framework's module: all take the same arguments."""
    kind = getattr(module, stage.layer)
    return kind(stage.n_qubits, **stage.options, backend=settings.backend, seed=settings.seed, name=stage.name)


def learning_rate(step: int, steps_per_epoch: int, settings: Settings) -> float:
    """Return the rate at a step: a linear start, then half a cosine down to 1 %."""
    total = settings.epochs * steps_per_epoch
    start = min(1.0, (step + 1) / (WARM_UP_EPOCHS * steps_per_epoch))
    return settings.learning_rate * start * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total))))


def n_outputs(n_classes: int) -> int:
    """Return the number of logits: two classes need only one."""
    return 1 if n_classes == 2 else n_classes


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return class probabilities (N, classes) for logits (N, 1) or (N, classes)."""
    if logits.shape[1] == 1:  # one logit is the log odds of class 1 against class 0
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def score(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the mean cross entropy and the accuracy."""
    chances = probabilities(logits.astype(np.float64))
    right = chances[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(right, 1e-12)).mean()), float((chances.argmax(axis=1) == labels).mean())


@dataclass(frozen=True)
class Epoch:
    """What one epoch achieved."""

    number: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float


@dataclass
class Progressed:
    """What `--resume` goes on from: `progress.json` in a folder, beside files of the framework's own.

    Attributes:
        folder: Where.
        settings: Of the run; another run's progress is refused.
    """

    folder: Path
    settings: Settings

    def save(self, history: list[Epoch], best: Epoch) -> None:
        """Keep what is known after an epoch; the file is whole or not there."""
        content = {"settings": asdict(self.settings), "history": [asdict(e) for e in history], "best": best.number}
        part = self.folder / "progress.part"
        part.write_text(json.dumps(content), encoding="utf-8")
        part.replace(self.folder / "progress.json")

    def load(self) -> tuple[list[Epoch], Epoch | None]:
        """The epochs so far and the best of them; nothing where no run was interrupted here."""
        path = self.folder / "progress.json"
        if not path.exists():
            return [], None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            history = [Epoch(**entry) for entry in content["history"]]
            best, settings = history[content["best"] - 1], Settings(**content["settings"])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(f"--resume: {path} is damaged ({error}). Delete it to begin anew.") from error
        if replace(settings, epochs=self.settings.epochs) != self.settings:
            raise DataError(f"--resume: {path} is of a run with other settings: {settings}. Use its options.")
        return history, best


@dataclass
class Monitor:
    """Watches the training: progress bar, history, best weights, early stopping, time per step.

    The Keras callback and the loops of PyTorch and JAX call the same two methods: `step_done` and `epoch_done`.
    """

    settings: Settings
    steps_per_epoch: int
    console: Console
    progress: Progressed | None = None
    history: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    best_weights: Any = None
    step_seconds: list[float] = field(default_factory=list)

    def __enter__(self) -> Monitor:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task("starting", total=self.settings.epochs * self.steps_per_epoch, numbers="")
        self._steps = len(self.history) * self.steps_per_epoch
        self._bar.update(self._task, completed=self._steps)
        self._epoch_begin = time.perf_counter()
        self._step_begin: float | None = None
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.stop()

    @property
    def learning_rate(self) -> float:
        """The rate for the next step."""
        return learning_rate(self._steps, self.steps_per_epoch, self.settings)

    def step_done(self, loss: float, accuracy: float) -> None:
        """Note a training step; `loss` and `accuracy` are means over the epoch so far."""
        now = time.perf_counter()
        if self._step_begin is not None:  # the first step of an epoch is not timed: it may compile
            self.step_seconds.append(now - self._step_begin)
        self._step_begin = now
        self._steps += 1
        self._loss, self._accuracy = loss, accuracy
        self._bar.update(
            self._task,
            advance=1,
            description=f"epoch {len(self.history) + 1}/{self.settings.epochs}",
            numbers=f"loss {loss:.3f}, accuracy {accuracy:.1%}",
        )

    def epoch_done(
        self, logits: np.ndarray, labels: np.ndarray, weights: Callable[[], Any], keep: Callable[[], None] | None = None
    ) -> bool:
        """Note an epoch and what the network says about the validation images.

        Args:
            logits: For the validation images.
            labels: Their classes.
            weights: Makes a copy of the weights; called when they are the best so far.
            keep: Writes what the framework needs to go on from here.

        Returns:
            Whether to go on.
        """
        rate = learning_rate(self._steps - 1, self.steps_per_epoch, self.settings)
        loss, accuracy = score(logits, labels)
        seconds = time.perf_counter() - self._epoch_begin
        epoch = Epoch(len(self.history) + 1, self._loss, self._accuracy, loss, accuracy, rate, seconds)
        self.history.append(epoch)
        better = self.best is None or (accuracy, -loss) > (self.best.validation_accuracy, -self.best.validation_loss)
        if better:
            self.best, self.best_weights = epoch, weights()
        if self.progress is not None:
            if keep is not None:
                keep()
            self.progress.save(self.history, self.best)
        self.console.print(
            f"epoch {epoch.number:2}/{self.settings.epochs}  loss {epoch.loss:.3f}  accuracy {epoch.accuracy:6.1%}  |  "
            f"val. loss {loss:.3f}  accuracy {accuracy:6.1%} {'*' if better else ' '} {seconds:5.1f} s",
            highlight=False,
        )
        self._epoch_begin, self._step_begin = time.perf_counter(), None
        if epoch.number - self.best.number >= self.settings.patience:
            self.console.print(f"no better for {self.settings.patience} epochs: stopping early", highlight=False)
            return False
        return True

    @property
    def step_time(self) -> float:
        """Median seconds of a training step, waiting for data included."""
        return statistics.median(self.step_seconds) if self.step_seconds else math.nan


def median_seconds(work: Callable[[], Any], *, repeats: int = 20) -> float:
    """Return the median time of `work()`, after three calls that are not counted (they may compile)."""
    times = []
    for turn in range(repeats + 3):
        begin = time.perf_counter()
        work()
        if turn >= 3:
            times.append(time.perf_counter() - begin)
    return statistics.median(times)
