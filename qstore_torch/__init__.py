"""qstore's layers for PyTorch."""

from .layers import (
    QuantumEncoder,
    QuantumFeatureExtractor,
    QuantumLayer,
    QuantumPooling,
    QuantumReadout,
    as_operations,
)
from .natural import QuantumNaturalGradient

__all__ = [
    "QuantumEncoder",
    "QuantumFeatureExtractor",
    "QuantumLayer",
    "QuantumNaturalGradient",
    "QuantumPooling",
    "QuantumReadout",
    "as_operations",
]
