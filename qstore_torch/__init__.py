"""qstore's layers for PyTorch."""

from .layers import QuantumEncoder, QuantumFeatureExtractor, QuantumLayer, QuantumPooling, QuantumReadout

__all__ = ["QuantumEncoder", "QuantumFeatureExtractor", "QuantumLayer", "QuantumPooling", "QuantumReadout"]
