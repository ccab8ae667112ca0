"""qstore's layers for PyTorch."""

from qstore_core.errors import missing_framework as _missing_framework

try:
    from .layers import (
        QuantumEncoder,
        QuantumFeatureExtractor,
        QuantumLayer,
        QuantumPooling,
        QuantumReadout,
        as_operations,
    )
    from .natural import QuantumNaturalGradient
except ModuleNotFoundError as error:
    raise _missing_framework(__name__, "torch", error) from error

__all__ = [
    "QuantumEncoder",
    "QuantumFeatureExtractor",
    "QuantumLayer",
    "QuantumNaturalGradient",
    "QuantumPooling",
    "QuantumReadout",
    "as_operations",
]
