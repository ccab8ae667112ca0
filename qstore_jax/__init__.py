"""qstore's layers for JAX: pure functions of theta and features, `layer.apply(theta, x)`."""

from qstore_core.errors import missing_framework as _missing_framework

try:
    from .layers import QuantumEncoder, QuantumFeatureExtractor, QuantumLayer, QuantumPooling, QuantumReadout
except ModuleNotFoundError as error:
    raise _missing_framework(__name__, "jax", error) from error

__all__ = ["QuantumEncoder", "QuantumFeatureExtractor", "QuantumLayer", "QuantumPooling", "QuantumReadout"]
