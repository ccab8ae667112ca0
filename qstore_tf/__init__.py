"""qstore's layers for Keras (TensorFlow)."""

from .layers import QuantumEncoder, QuantumFeatureExtractor, QuantumLayer, QuantumPooling, QuantumReadout

__all__ = ["QuantumEncoder", "QuantumFeatureExtractor", "QuantumLayer", "QuantumPooling", "QuantumReadout"]
