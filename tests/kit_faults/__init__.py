"""Over two hundred faulty backends, one fault each: what the conformance kit must refuse."""

from . import amplitudes, declared, gradients, jobs, noise, precision, samples, state, structure, tensors  # noqa: F401 - they list their faults
from .faults import FAULTS, Fault, by_name

__all__ = ["FAULTS", "Fault", "by_name"]
