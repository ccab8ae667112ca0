"""qstore's layers for PyTorch."""

from .layers import (
    QuantumEncoder,
    QuantumFeatureExtractor,
    QuantumLayer,
    QuantumPooling,
    QuantumReadout,
    as_operations,
)

__all__ = [
    "QuantumEncoder",
    "QuantumFeatureExtractor",
    "QuantumLayer",
    "QuantumPooling",
    "QuantumReadout",
    "as_operations",
]
