"""Quantum layers as scikit-learn estimators, on NumPy arrays: a classifier, a regressor and a feature map.

They take part in pipelines, cross-validation and grid searches as any estimator does, and need no framework.
"""

from qstore_core.errors import missing_framework as _missing_framework

try:
    from .estimators import QuantumClassifier, QuantumFeatureMap, QuantumRegressor
except ModuleNotFoundError as error:
    raise _missing_framework(__name__, "sklearn", error) from error

__all__ = ["QuantumClassifier", "QuantumFeatureMap", "QuantumRegressor"]
