"""qstore: quantum layers for the models you already have.

`qstore_core` is the framework-neutral core: circuits, layers on NumPy arrays, backends, the circuit cache and the
runner. `qstore_torch` and `qstore_tf` export the same layers for PyTorch and Keras.
"""

from .backends.contract import CONTRACT_VERSION, Backend, Capabilities, Executable, RunReport, hookimpl
from .backends.jobs.policy import JobPolicy, with_jobs
from .backends.registry import get_backend, list_backends, register_backend, unregister_backend
from .backends.runner import close
from .circuit.ansatz import Ansatz, HardwareEfficient, RealAmplitudes, StronglyEntangling
from .circuit.circuit import Circuit
from .circuit.encoding import IQP, ZZ, Amplitude, AngleEncoding, Basis, Encoding
from .circuit.measurement import Expectation, Observable, Pauli, Probabilities
from .circuit.plan import Plan, lower
from .circuit.spec import LayerSpec
from .errors import (
    BackendError,
    BackendUnavailableError,
    CapabilityError,
    DeadlineError,
    FallbackWarning,
    GradientError,
    InputError,
    JobLostError,
    MemoryLimitError,
    OptionError,
    PluginError,
    QstoreError,
    ResourceLimitError,
    RunnerError,
    ShapeError,
    SpecError,
    TransientError,
    UnknownBackendError,
)
from .layers.numpy import QuantumEncoder, QuantumFeatureExtractor, QuantumLayer, QuantumPooling, QuantumReadout
from .runtime.cache import CacheInfo, cache_clear, cache_info
from .runtime.fallback import fallback_counts, reset_fallback_counts
from .runtime.profiling import profile
from .runtime.record import LastRun

__version__ = "0.1.0"

__all__ = [
    "CONTRACT_VERSION",
    "IQP",
    "ZZ",
    "Amplitude",
    "AngleEncoding",
    "Ansatz",
    "Backend",
    "BackendError",
    "BackendUnavailableError",
    "Basis",
    "CacheInfo",
    "Capabilities",
    "CapabilityError",
    "Circuit",
    "DeadlineError",
    "Encoding",
    "Executable",
    "Expectation",
    "FallbackWarning",
    "GradientError",
    "HardwareEfficient",
    "InputError",
    "JobLostError",
    "JobPolicy",
    "LastRun",
    "LayerSpec",
    "MemoryLimitError",
    "Observable",
    "OptionError",
    "Pauli",
    "Plan",
    "PluginError",
    "Probabilities",
    "QstoreError",
    "QuantumEncoder",
    "QuantumFeatureExtractor",
    "QuantumLayer",
    "QuantumPooling",
    "QuantumReadout",
    "RealAmplitudes",
    "ResourceLimitError",
    "RunReport",
    "RunnerError",
    "ShapeError",
    "SpecError",
    "StronglyEntangling",
    "TransientError",
    "UnknownBackendError",
    "cache_clear",
    "cache_info",
    "close",
    "fallback_counts",
    "get_backend",
    "hookimpl",
    "list_backends",
    "lower",
    "profile",
    "register_backend",
    "reset_fallback_counts",
    "unregister_backend",
    "with_jobs",
]
