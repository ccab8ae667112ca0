"""qstore's layers for Keras (TensorFlow)."""

from .layers import QuantumEncoder, QuantumFeatureExtractor, QuantumLayer, QuantumPooling, QuantumReadout
from .natural import natural

__all__ = ["QuantumEncoder", "QuantumFeatureExtractor", "QuantumLayer", "QuantumPooling", "QuantumReadout", "natural"]
