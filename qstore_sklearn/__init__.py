"""Quantum layers as scikit-learn estimators, on NumPy arrays: a classifier, a regressor and a feature map.

They take part in pipelines, cross-validation and grid searches as any estimator does, and need no framework.
"""

from .estimators import QuantumClassifier, QuantumFeatureMap, QuantumRegressor

__all__ = ["QuantumClassifier", "QuantumFeatureMap", "QuantumRegressor"]
