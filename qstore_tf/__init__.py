"""qstore's layers for Keras, on TensorFlow, JAX and PyTorch."""

from qstore_core.errors import missing_framework as _missing_framework

try:
    from .layers import QuantumEncoder, QuantumFeatureExtractor, QuantumLayer, QuantumPooling, QuantumReadout
    from .natural import natural
except ModuleNotFoundError as error:
    raise _missing_framework(__name__, "tf", error) from error

__all__ = ["QuantumEncoder", "QuantumFeatureExtractor", "QuantumLayer", "QuantumPooling", "QuantumReadout", "natural"]
