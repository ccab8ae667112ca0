"""The estimators, by scikit-learn's own checks and in a pipeline on real data."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_iris, make_moons
from sklearn.exceptions import SkipTestWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import check_estimator

from qstore_core import QuantumFeatureExtractor, SpecError
from qstore_sklearn import QuantumClassifier, QuantumFeatureMap, QuantumRegressor
from qstore_sklearn.network import Network, softmax_loss, squared_loss
from tests.support.tolerances import FINITE_DIFFERENCE


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [
        QuantumClassifier(2, depth=2, epochs=60, random_state=0),
        QuantumRegressor(2, depth=2, epochs=60, random_state=0),
        QuantumFeatureMap(2, random_state=0),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_scikit_learns_own_checks_pass(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)  # checks for optional libraries that are not installed
        check_estimator(estimator)


@pytest.mark.parametrize(("loss", "y"), [(softmax_loss, np.array([0, 2, 1])), (squared_loss, np.ones((3, 3)))])
def test_gradients_of_the_network_are_those_of_its_loss(loss, y):
    """Every parameter, against central differences."""
    rng = np.random.default_rng(0)
    layer = QuantumFeatureExtractor(2, 2, encoding="angle", reuploading=True, measurement_bases=("Z", "X"), seed=1)
    network, x = Network.random(layer, 4, 3, seed=2), rng.normal(size=(3, 4))
    _, gradients = network.gradients(x, y, loss)
    for name, value in network.parameters.items():
        for place in np.ndindex(value.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = value.copy()
                moved[place] += step
                ends.append(loss(Network(layer, network.parameters | {name: moved})(x), y)[0])
            assert gradients[name][place] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=FINITE_DIFFERENCE)


def test_a_grid_search_over_qubits_and_depth_learns_two_moons():
    x, y = make_moons(120, noise=0.1, random_state=0)
    model = make_pipeline(StandardScaler(), QuantumClassifier(epochs=40, random_state=0))
    grid = {"quantumclassifier__n_qubits": [2, 3], "quantumclassifier__depth": [1, 3]}
    search = GridSearchCV(model, grid, cv=3).fit(x, y)
    assert search.best_params_["quantumclassifier__depth"] == 3
    assert search.best_score_ > 0.9


def test_the_feature_map_feeds_a_support_vector_machine():
    x, y = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), QuantumFeatureMap(scale=0.5, random_state=0), SVC())
    assert model.fit(x[::2], y[::2]).score(x[1::2], y[1::2]) > 0.9
    assert list(model[1].get_feature_names_out()[:2]) == ["⟨Z0⟩", "⟨Z1⟩"]


def test_a_seed_fixes_the_fit():
    x, y = make_moons(40, noise=0.1, random_state=0)
    first, again = (QuantumClassifier(2, epochs=3, random_state=5).fit(x, y) for _ in range(2))
    assert np.array_equal(first.predict_proba(x), again.predict_proba(x))


def test_progress_is_printed_where_it_was_asked_for(capsys):
    x, y = make_moons(40, noise=0.1, random_state=0)
    QuantumClassifier(2, epochs=2, verbose=1, random_state=0).fit(x, y)
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == ["epoch 1/2", "epoch 2/2"]


@pytest.mark.parametrize(("argument", "value"), [("epochs", 0), ("batch_size", 1.5), ("learning_rate", -1)])
def test_a_bad_argument_is_named(argument, value):
    x, y = make_moons(20, random_state=0)
    with pytest.raises(SpecError, match=argument):
        QuantumClassifier(2, **{argument: value}).fit(x, y)
