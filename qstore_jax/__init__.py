"""qstore's layers for JAX: pure functions of theta and features, `layer.apply(theta, x)`."""

from .layers import QuantumEncoder, QuantumFeatureExtractor, QuantumLayer, QuantumPooling, QuantumReadout

__all__ = ["QuantumEncoder", "QuantumFeatureExtractor", "QuantumLayer", "QuantumPooling", "QuantumReadout"]
