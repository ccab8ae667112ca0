"""qstore: quantum layers for the models you already have.

`qstore_core` is the framework-neutral core: circuits, layers on NumPy arrays, backends, the circuit cache and the
runner. `qstore_torch` and `qstore_tf` export the same layers for PyTorch and Keras.
"""

import importlib
import typing

from .backends.allowed import allow_backends
from .backends.contract import CONTRACT_VERSION, Backend, Capabilities, Executable, RunReport, hookimpl
from .backends.registry import get_backend, list_backends, register_backend, unregister_backend
from .circuit.circuit import Circuit, register_gate, unregister_gate
from .circuit.gates.table import AxisRotation, Cnot, Gate
from .circuit.measurements.measurement import (
    Amplitudes,
    Expectation,
    Measurement,
    Observable,
    Pauli,
    Probabilities,
    register_measurement,
    unregister_measurement,
)
from .circuit.measurements.states import DensityMatrix, Entropy, Fidelity, Purity, State
from .circuit.measurements.statistics import Counts, Covariance, LogProbabilities, Samples, Variance
from .circuit.noise.channels import Channel
from .circuit.noise.model import NoiseModel, NoiseRule
from .circuit.spec.ansatz import (
    Ansatz,
    HardwareEfficient,
    IdentityBlocks,
    RealAmplitudes,
    StronglyEntangling,
    register_ansatz,
    unregister_ansatz,
)
from .circuit.spec.encoding import (
    IQP,
    ZZ,
    Amplitude,
    AngleEncoding,
    Basis,
    Encoding,
    register_encoding,
    unregister_encoding,
)
from .circuit.spec.initial import register_init, unregister_init
from .circuit.spec.layer_spec import LayerSpec
from .errors import (
    BackendError,
    BackendUnavailableError,
    CapabilityError,
    DeadlineError,
    FallbackWarning,
    FileError,
    GradientError,
    InputError,
    JobLostError,
    MemoryLimitError,
    OptionError,
    PaddingWarning,
    PluginError,
    QstoreError,
    ResourceLimitError,
    RunnerError,
    ShapeError,
    SpecError,
    TransientError,
    UnknownBackendError,
)

if typing.TYPE_CHECKING:
    from .backends.jobs.policy import JobPolicy, with_jobs
    from .backends.runner import close
    from .circuit.lowering.plan import Plan, lower
    from .interchange.aer_noise import noise_model_from_aer
    from .interchange.files import load, save
    from .layers.kernels import QuantumKernel
    from .layers.numpy import QuantumEncoder, QuantumFeatureExtractor, QuantumLayer, QuantumPooling, QuantumReadout
    from .runtime.cache import CacheInfo, cache_clear, cache_info
    from .runtime.fallback import fallback_counts, reset_fallback_counts
    from .runtime.profiling import profile
    from .runtime.record import LastRun

__version__ = "0.2.0"

__all__ = [
    "CONTRACT_VERSION",
    "IQP",
    "ZZ",
    "Amplitude",
    "Amplitudes",
    "AngleEncoding",
    "Ansatz",
    "AxisRotation",
    "Backend",
    "BackendError",
    "BackendUnavailableError",
    "Basis",
    "CacheInfo",
    "Capabilities",
    "CapabilityError",
    "Channel",
    "Circuit",
    "Cnot",
    "Counts",
    "Covariance",
    "DeadlineError",
    "DensityMatrix",
    "Encoding",
    "Entropy",
    "Executable",
    "Expectation",
    "FallbackWarning",
    "Fidelity",
    "FileError",
    "Gate",
    "GradientError",
    "HardwareEfficient",
    "IdentityBlocks",
    "InputError",
    "JobLostError",
    "JobPolicy",
    "LastRun",
    "LayerSpec",
    "LogProbabilities",
    "Measurement",
    "MemoryLimitError",
    "NoiseModel",
    "NoiseRule",
    "Observable",
    "OptionError",
    "PaddingWarning",
    "Pauli",
    "Plan",
    "PluginError",
    "Probabilities",
    "Purity",
    "QstoreError",
    "QuantumEncoder",
    "QuantumFeatureExtractor",
    "QuantumKernel",
    "QuantumLayer",
    "QuantumPooling",
    "QuantumReadout",
    "RealAmplitudes",
    "ResourceLimitError",
    "RunReport",
    "RunnerError",
    "Samples",
    "ShapeError",
    "SpecError",
    "State",
    "StronglyEntangling",
    "TransientError",
    "UnknownBackendError",
    "Variance",
    "allow_backends",
    "cache_clear",
    "cache_info",
    "close",
    "fallback_counts",
    "get_backend",
    "hookimpl",
    "list_backends",
    "load",
    "lower",
    "noise_model_from_aer",
    "profile",
    "register_ansatz",
    "register_backend",
    "register_encoding",
    "register_gate",
    "register_init",
    "register_measurement",
    "reset_fallback_counts",
    "save",
    "unregister_ansatz",
    "unregister_backend",
    "unregister_encoding",
    "unregister_gate",
    "unregister_init",
    "unregister_measurement",
    "with_jobs",
]

_LATER = {
    "backends.jobs.policy": "JobPolicy with_jobs",
    "backends.runner": "close",
    "circuit.lowering.plan": "Plan lower",
    "interchange.aer_noise": "noise_model_from_aer",
    "interchange.files": "load save",
    "layers.kernels": "QuantumKernel",
    "layers.numpy": "QuantumEncoder QuantumFeatureExtractor QuantumLayer QuantumPooling QuantumReadout",
    "runtime.cache": "CacheInfo cache_clear cache_info",
    "runtime.fallback": "fallback_counts reset_fallback_counts",
    "runtime.profiling": "profile",
    "runtime.record": "LastRun",
}
_MODULES = {name: module for module, names in _LATER.items() for name in names.split()}


def __getattr__(name: str) -> typing.Any:
    """What not every user needs comes when it is asked for: asyncio, the layers on arrays, files."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
