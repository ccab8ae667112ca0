"""Does a quantum layer help? Hybrid and classical networks on equal budgets, over data sets and seeds.

Both are the network of `QuantumClassifier`, trained by the same loop; the classical one has a hidden layer of tanh in
the quantum layer's place, as wide as the parameters allow. They are compared at equal numbers of parameters and epochs,
and at equal training time. A logistic regression says what neither is needed for.

Source:
    Bowles, Ahmed & Schuld, "Better than classical? The subtle art of benchmarking quantum machine learning models",
    arXiv:2403.07059 (the question, and the data sets "two curves" and "hidden manifold").
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from qstore_core import QuantumFeatureExtractor, SpecError

from .network import Adam, Network, Parameters, batches, softmax_loss

__all__ = ["DATA", "Comparison", "Result", "compare", "hidden_manifold", "two_curves"]

CONFIDENCE = 0.95


def two_curves(rows: int = 300, *, dimensions: int = 6, degree: int = 4, seed: int = 0) -> tuple[np.ndarray, Any]:
    """Two classes: points near two curves, which differ by an offset in a space of `dimensions`.

    Each curve is a Fourier series of one parameter in every dimension, up to `degree`.
    """
    rng = np.random.default_rng(seed)
    coefficients = rng.normal(size=(2, degree, dimensions)) / np.sqrt(degree)
    t, labels = rng.uniform(0, 2 * np.pi, rows), rng.integers(2, size=rows)
    orders = np.arange(1, degree + 1)
    x = np.cos(t[:, None] * orders) @ coefficients[0] + np.sin(t[:, None] * orders) @ coefficients[1]
    return x + 0.5 * labels[:, None] / np.sqrt(dimensions) + rng.normal(0.0, 0.02, x.shape), labels


def hidden_manifold(rows: int = 300, *, dimensions: int = 10, hidden: int = 3, seed: int = 0) -> tuple[np.ndarray, Any]:
    """Two classes: labels by a small random network of `hidden` numbers, which the features only show folded.

    Source:
        Goldt et al., arXiv:1909.11500.
    """
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, hidden))
    x = np.tanh(z @ rng.normal(size=(hidden, dimensions)) / np.sqrt(hidden) + rng.normal(size=dimensions))
    scores = np.tanh(z @ rng.normal(size=(hidden, hidden))) @ rng.normal(size=hidden)
    return x, (scores > np.median(scores)).astype(int)


DATA: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
    "digits": lambda: load_digits(return_X_y=True),
    "wine": lambda: load_wine(return_X_y=True),
    "breast cancer": lambda: load_breast_cancer(return_X_y=True),
    "two curves": two_curves,
    "hidden manifold": hidden_manifold,
}


class _Hidden:
    """The classical twin of `Network`: a hidden layer of tanh in the place of the quantum layer."""

    def __init__(self, width: int, n_features: int, n_targets: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.parameters: Parameters = {
            "w_in": rng.normal(0.0, 1.0 / np.sqrt(n_features), (n_features, width)),
            "b_in": np.zeros(width),
            "w_out": rng.normal(0.0, 1.0 / np.sqrt(width), (width, n_targets)),
            "b_out": np.zeros(n_targets),
        }

    def __call__(self, x: np.ndarray) -> np.ndarray:
        p = self.parameters
        return np.asarray(np.tanh(x @ p["w_in"] + p["b_in"]) @ p["w_out"] + p["b_out"])

    def gradients(self, x: np.ndarray, y: np.ndarray, loss: Any) -> tuple[float, Parameters]:
        p = self.parameters
        inside = np.tanh(x @ p["w_in"] + p["b_in"])
        value, d_out = loss(inside @ p["w_out"] + p["b_out"], y)
        d_inside = (d_out @ p["w_out"].T) * (1 - inside**2)
        return value, {
            "w_in": x.T @ d_inside,
            "b_in": d_inside.sum(axis=0),
            "w_out": inside.T @ d_out,
            "b_out": d_out.sum(axis=0),
        }


@dataclass(frozen=True)
class Result:
    """One data set: accuracies on rows that were not trained on, one per seed.

    Attributes:
        data: Its name.
        parameters: Trained numbers of the quantum and of the classical network.
        seconds: Mean training time of the quantum network, which the third one is given too.
        quantum: Accuracies of the network with a quantum layer.
        classical: Those of the classical one with as many parameters, after as many epochs.
        timed: Those of the same after as much time.
        linear: Those of a logistic regression.
    """

    data: str
    parameters: tuple[int, int]
    seconds: float
    quantum: tuple[float, ...]
    classical: tuple[float, ...]
    timed: tuple[float, ...]
    linear: tuple[float, ...]

    def difference(self, against: str = "classical") -> tuple[float, float, float]:
        """Quantum minus classical: mean, and its 95 % confidence interval (Student's t of the paired differences)."""
        differences = np.subtract(self.quantum, getattr(self, against))
        mean = float(differences.mean())
        if len(differences) < 2:
            return mean, -1.0, 1.0
        half = float(stats.sem(differences) * stats.t.ppf(0.5 + CONFIDENCE / 2, len(differences) - 1))
        return mean, mean - half, mean + half

    def finding(self) -> str:
        """What was found, in a sentence."""
        mean, low, high = self.difference()
        which = "the quantum layer did better" if low > 0 else "the classical layer did better" if high < 0 else ""
        verdict = which or "no difference was found"
        best = max(np.mean(self.quantum), np.mean(self.classical))
        plain = "; a logistic regression does as well" if np.mean(self.linear) >= best else ""
        return (
            f"{self.data}: at equal parameters {verdict} ({100 * mean:+.1f} points, {100 * low:+.1f} to "
            f"{100 * high:+.1f}){plain}."
        )


@dataclass(frozen=True)
class Comparison:
    """Results of all data sets."""

    results: tuple[Result, ...]

    def rows(self) -> list[dict[str, Any]]:
        """A table: mean accuracy in percent with the half width of its confidence interval.

        "classical" has as many parameters and epochs, "same time" trains for the "seconds" that the quantum network
        took, "logistic" is a logistic regression.
        """
        return [
            {
                "data": r.data,
                "parameters": f"{r.parameters[0]} / {r.parameters[1]}",
                "quantum": _percent(r.quantum),
                "classical": _percent(r.classical),
                "same time": _percent(r.timed),
                "logistic": _percent(r.linear),
                "seconds": round(r.seconds, 2),
            }
            for r in self.results
        ]

    def legend(self) -> str:
        """What the columns of `rows` are."""
        return (
            f"Accuracy in percent on rows held back, mean over seeds ± half of its {100 * CONFIDENCE:.0f} % confidence "
            "interval.\nparameters: quantum / classical. classical: as many parameters and epochs. same time: trained "
            "for\nthe seconds that the quantum network took. logistic: a logistic regression."
        )

    def finding(self) -> str:
        """What was found: a sentence for each data set and one for all."""
        better = sum(r.difference()[1] > 0 for r in self.results)
        worse = sum(r.difference()[2] < 0 for r in self.results)
        longer = sum(r.difference("timed")[1] > 0 for r in self.results)
        all_of_them = (
            f"Of {len(self.results)} data sets the quantum layer was better on {better} and worse on {worse} at equal "
            f"parameters, and better on {longer} at equal training time."
        )
        return "\n".join([*(r.finding() for r in self.results), all_of_them])


def _percent(values: Sequence[float]) -> str:
    mean = 100 * float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.1f}"
    half = 100 * float(stats.sem(values) * stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1))
    return f"{mean:.1f} ± {half:.1f}"


def compare(
    data: Sequence[str] = tuple(DATA),
    *,
    n_qubits: int = 4,
    depth: int = 2,
    seeds: int = 5,
    epochs: int = 30,
    batch_size: int = 32,
    learning_rate: float = 0.02,
    progress: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Train on every data set with every seed, which draws the split, the weights and the order of rows.

    Args:
        data: Names in `DATA`.
        n_qubits: Of the quantum layer: angle encoding, re-uploading, Z, X and Y.
        depth: Its levels.
        seeds: How many.
        epochs: Of the quantum network, and of the classical one with as many parameters.
        batch_size: Rows of a step.
        learning_rate: Of Adam, for all.
        progress: Called with a line before each training.

    Example:
        >>> found = compare(["wine"], seeds=2, epochs=2)
        >>> len(found.results[0].quantum)
        2
    """
    for name in data:
        if name not in DATA:
            raise SpecError(f"no data set {name!r}. There are: {', '.join(DATA)}.", argument="data")
    for name, value in (("seeds", seeds), ("epochs", epochs), ("batch_size", batch_size)):
        if not isinstance(value, int) or value < 1:
            raise SpecError(f"{name} is a whole number of at least 1, received {value!r}.", argument=name)
    results = []
    for name in data:
        features, labels = DATA[name]()
        targets = len(np.unique(labels))
        scores: dict[str, list[float]] = {"quantum": [], "classical": [], "timed": [], "linear": []}
        times = []
        for seed in range(seeds):
            progress(f"{name}, seed {seed + 1} of {seeds}")
            parts = train_test_split(features, labels, test_size=0.3, stratify=labels, random_state=seed)
            scaler = StandardScaler().fit(parts[0])
            x, test, y, truth = scaler.transform(parts[0]), scaler.transform(parts[1]), parts[2], parts[3]
            layer = QuantumFeatureExtractor(
                n_qubits, depth, encoding="angle", reuploading=True, measurement_bases=("Z", "X", "Y"), seed=seed
            )
            quantum = Network.random(layer, x.shape[1], targets, seed)
            quantum.gradients(x[:batch_size], y[:batch_size], softmax_loss)  # compiles, which is not training
            count = _count(quantum.parameters)
            width = max(1, round((count - targets) / (x.shape[1] + 1 + targets)))
            equal, timed = (_Hidden(width, x.shape[1], targets, seed) for _ in range(2))
            settings = batch_size, learning_rate, seed
            times.append(_train(quantum, x, y, settings, epochs=epochs))
            _train(equal, x, y, settings, epochs=epochs)
            _train(timed, x, y, settings, seconds=times[-1])
            linear = make_pipeline(LogisticRegression(max_iter=2000)).fit(x, y)
            scores["linear"].append(float(linear.score(test, truth)))
            for key, network in (("quantum", quantum), ("classical", equal), ("timed", timed)):
                scores[key].append(float((network(test).argmax(axis=1) == truth).mean()))
        found = {key: tuple(values) for key, values in scores.items()}
        results.append(Result(name, (count, _count(equal.parameters)), float(np.mean(times)), **found))
    return Comparison(tuple(results))


def _count(parameters: Parameters) -> int:
    return sum(values.size for values in parameters.values())


def _train(
    network: Any, x: np.ndarray, y: np.ndarray, settings: Any, *, epochs: int | None = None, seconds: float = 0.0
) -> float:
    """Train for a number of epochs, or for a time; return the seconds that it took."""
    batch_size, learning_rate, seed = settings
    adam, rng, begin, epoch = Adam(learning_rate), np.random.default_rng(seed), time.perf_counter(), 0
    while epoch < epochs if epochs is not None else time.perf_counter() - begin < seconds:
        for rows in batches(len(x), batch_size, rng):
            _, gradients = network.gradients(x[rows], y[rows], softmax_loss)
            network.parameters = adam.step(network.parameters, gradients)
        epoch += 1
    return time.perf_counter() - begin
