"""qstore's layers for Keras, on TensorFlow, JAX and PyTorch."""

from .layers import QuantumEncoder, QuantumFeatureExtractor, QuantumLayer, QuantumPooling, QuantumReadout
from .natural import natural

__all__ = ["QuantumEncoder", "QuantumFeatureExtractor", "QuantumLayer", "QuantumPooling", "QuantumReadout", "natural"]
