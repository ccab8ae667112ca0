"""The checks of the conformance kit, by subject."""

from . import backend, calls, features, gradients, jobs, noise, sampling, tensors, values  # noqa: F401 - in this order

__all__: list[str] = []
