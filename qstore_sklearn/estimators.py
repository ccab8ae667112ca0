"""`QuantumClassifier`, `QuantumRegressor` and `QuantumFeatureMap`."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from qstore_core import QuantumFeatureExtractor, SpecError

from .network import Adam, Loss, Network, batches, softmax_loss, squared_loss

__all__ = ["QuantumClassifier", "QuantumFeatureMap", "QuantumRegressor"]

_PATIENCE_TOLERANCE = 1e-4  # of the training loss


class _Trained(BaseEstimator):
    """Arguments and training loop of the two supervised estimators."""

    def __init__(
        self,
        n_qubits: int = 4,
        depth: int = 2,
        *,
        ansatz: Any = "hardware_efficient",
        entanglement: Any = None,
        measurement_bases: Any = ("Z", "X", "Y"),
        reuploading: bool = True,
        backend: Any = "auto",
        epochs: int = 100,
        batch_size: int = 32,
        learning_rate: float = 0.05,
        patience: int | None = 10,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.n_qubits = n_qubits
        self.depth = depth
        self.ansatz = ansatz
        self.entanglement = entanglement
        self.measurement_bases = measurement_bases
        self.reuploading = reuploading
        self.backend = backend
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.patience = patience
        self.random_state = random_state
        self.verbose = verbose

    def _check_training(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 1:
                raise SpecError(f"{name} is a whole number of at least 1, received {value!r}.", argument=name)
        if not isinstance(self.learning_rate, Real) or self.learning_rate <= 0:
            raise SpecError(
                f"learning_rate is a positive number, received {self.learning_rate!r}.", argument="learning_rate"
            )

    def _train(self, x: np.ndarray, y: np.ndarray, n_targets: int, loss: Loss) -> None:
        self._check_training()
        random = check_random_state(self.random_state)
        seed = int(random.randint(2**31 - 1))
        layer = QuantumFeatureExtractor(
            self.n_qubits, self.depth, encoding="angle", ansatz=self.ansatz, entanglement=self.entanglement,
            measurement_bases=self.measurement_bases, reuploading=self.reuploading, backend=self.backend, seed=seed,
        )  # fmt: skip
        network, adam = Network.random(layer, x.shape[1], n_targets, seed), Adam(float(self.learning_rate))
        rng = np.random.default_rng(seed)
        self.loss_curve_: list[float] = []
        best, waited = np.inf, 0
        for epoch in range(self.epochs):
            total = 0.0
            for rows in batches(len(x), self.batch_size, rng):
                value, gradients = network.gradients(x[rows], y[rows], loss)
                network.parameters = adam.step(network.parameters, gradients)
                total += value * len(rows)
            self.loss_curve_.append(total / len(x))
            if self.verbose:
                print(f"epoch {epoch + 1}/{self.epochs}: loss {self.loss_curve_[-1]:.4f}", flush=True)
            if self.loss_curve_[-1] < best - _PATIENCE_TOLERANCE:
                best, waited = self.loss_curve_[-1], 0
            else:
                waited += 1
                if self.patience is not None and waited >= self.patience:
                    break
        self.network_, self.n_iter_ = network, len(self.loss_curve_)

    def _outputs(self, x: Any) -> np.ndarray:
        check_is_fitted(self)
        outputs: np.ndarray = self.network_(validate_data(self, x, reset=False, dtype=np.float64))
        return outputs


class QuantumClassifier(ClassifierMixin, _Trained):
    """A dense map to angles, a quantum layer with re-uploading, and softmax over a dense map of its outputs.

    Scale the features first, as for any network: `make_pipeline(StandardScaler(), QuantumClassifier())`.

    Args:
        n_qubits: Number of qubits.
        depth: Levels of the ansatz.
        ansatz: "hardware_efficient", "strongly_entangling", "real_amplitudes", or an object.
        entanglement: "linear", "circular", "full" (where None), "none", or (control, target) pairs.
        measurement_bases: "Z", or a sequence such as ("Z", "X", "Y").
        reuploading: Encode again before every level.
        backend: "auto", a name, or a `Backend`.
        epochs: Most passes over the data.
        batch_size: Rows of a step.
        learning_rate: Of Adam.
        patience: Epochs without a lower training loss after which training ends; None never ends early.
        random_state: Seed of weights and of the order of rows.
        verbose: 1 prints the loss of every epoch.

    Attributes:
        classes_: The classes, sorted.
        loss_curve_: Mean loss of each epoch.
        n_iter_: Epochs that were run.
        network_: The trained network.

    Example:
        >>> from sklearn.datasets import make_moons
        >>> x, y = make_moons(80, noise=0.05, random_state=0)
        >>> QuantumClassifier(2, depth=3, epochs=60, random_state=0).fit(x, y).score(x, y) > 0.9
        True
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Train on features X (B, F) and classes y (B,)."""
        x, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        self._train(x, labels, len(self.classes_), softmax_loss)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits (B, classes); for two classes their difference (B,)."""
        logits = self._outputs(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (B, classes)."""
        logits = self._outputs(X)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(p / p.sum(axis=1, keepdims=True))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row."""
        best = self._outputs(X).argmax(axis=1)
        return np.asarray(self.classes_[best])


class QuantumRegressor(RegressorMixin, _Trained):
    """The same network with a squared loss on standardised targets.

    Args:
        n_qubits: As in `QuantumClassifier`, with all further arguments.
        depth: Levels of the ansatz.
        ansatz: "hardware_efficient", "strongly_entangling", "real_amplitudes", or an object.
        entanglement: "linear", "circular", "full" (where None), "none", or (control, target) pairs.
        measurement_bases: "Z", or a sequence such as ("Z", "X", "Y").
        reuploading: Encode again before every level.
        backend: "auto", a name, or a `Backend`.
        epochs: Most passes over the data.
        batch_size: Rows of a step.
        learning_rate: Of Adam.
        patience: Epochs without a lower training loss after which training ends; None never ends early.
        random_state: Seed of weights and of the order of rows.
        verbose: 1 prints the loss of every epoch.

    Example:
        >>> x = np.linspace(-2, 2, 40)[:, None]
        >>> QuantumRegressor(2, depth=3, random_state=0).fit(x, np.sin(2 * x[:, 0])).score(x, np.sin(2 * x[:, 0])) > 0.9
        True
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Train on features X (B, F) and targets y (B,) or (B, targets)."""
        x, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        self._flat = y.ndim == 1
        targets = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        self.mean_, spread = targets.mean(axis=0), targets.std(axis=0)
        self.scale_ = np.where(spread > 0, spread, 1.0)
        self._train(x, (targets - self.mean_) / self.scale_, targets.shape[1], squared_loss)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Targets, shaped as those of `fit`."""
        outputs = self._outputs(X)
        outputs = outputs * self.scale_ + self.mean_
        return outputs[:, 0] if self._flat else outputs

    def __sklearn_tags__(self) -> Any:
        """It takes several targets."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class QuantumFeatureMap(TransformerMixin, BaseEstimator):
    """Features → expectation values of an encoding circuit; nothing is trained.

    With a linear model or an RBF kernel behind it, this is a projected quantum kernel.

    Args:
        n_qubits: Number of qubits; None: as many as there are features.
        depth: Levels of the fixed random ansatz between encodings.
        scale: Factor from features to angles. Where n_qubits differs from the number of features, angles are a fixed
            random orthogonal map of them.
        measurement_bases: "Z", or a sequence such as ("Z", "X", "Y").
        backend: "auto", a name, or a `Backend`.
        random_state: Seed of the fixed circuit.

    Source:
        Huang et al., "Power of data in quantum machine learning", arXiv:2011.01938.

    Example:
        >>> QuantumFeatureMap(3, random_state=0).fit_transform(np.zeros((2, 5))).shape
        (2, 9)
    """

    def __init__(
        self,
        n_qubits: int | None = None,
        depth: int = 2,
        *,
        scale: float = 1.0,
        measurement_bases: Any = ("Z", "X", "Y"),
        backend: Any = "auto",
        random_state: Any = None,
    ) -> None:
        self.n_qubits = n_qubits
        self.depth = depth
        self.scale = scale
        self.measurement_bases = measurement_bases
        self.backend = backend
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Draw the fixed circuit for features X (B, F)."""
        x = validate_data(self, X, dtype=np.float64)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        width = x.shape[1] if self.n_qubits is None else self.n_qubits
        self.layer_ = QuantumFeatureExtractor(
            width, self.depth, encoding="angle", reuploading=True, measurement_bases=self.measurement_bases,
            backend=self.backend, init="uniform", seed=seed,
        )  # fmt: skip
        self.map_ = np.eye(width) if width == x.shape[1] else _orthogonal(x.shape[1], width, seed)
        self._n_features_out = self.layer_.output_dim
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Expectation values (B, n_qubits · bases)."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=np.float64)
        return np.asarray(self.layer_(self.scale * (x @ self.map_)))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names such as `⟨Z0⟩`."""
        check_is_fitted(self)
        n = self.layer_.spec.n_qubits
        return np.array([f"⟨{basis}{q}⟩" for basis in self.measurement_bases for q in range(n)], dtype=object)


def _orthogonal(rows: int, columns: int, seed: int) -> np.ndarray:
    """Orthonormal rows or columns, whichever are fewer."""
    size = max(rows, columns)
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))
    return np.asarray(q[:rows, :columns])
