"""Everything qstore raises or warns with.

    QstoreError
    ├── ShapeError (ValueError)                 a shape disagrees with the layer or circuit
    ├── InputError (ValueError)                 the numbers themselves are unusable: NaN, infinity, a wrong kind
    ├── SpecError (ValueError)                  a layer was described wrongly: bad argument, unknown name
    │   └── OptionError                         a backend does not know an option, or not this value of it
    ├── FileError (ValueError)                  a file is damaged, foreign, or newer than this version
    ├── UnknownBackendError (LookupError)       no backend has this name
    ├── BackendUnavailableError (ImportError)   a library is missing: a backend's, or the framework of a package
    ├── PluginError                             a plugin breaks the contract, or two plugins claim one name
    ├── CapabilityError                         a backend cannot do what the layer asks for
    │   └── GradientError                       no exact derivative exists, or not in the way asked for
    ├── BackendError (RuntimeError)             a backend failed while it computed
    │   └── TransientError                      it may pass: the same request may be made again
    │       └── JobLostError                    a service does not know a job any more
    ├── ResourceLimitError                      the work would not fit this machine
    │   └── MemoryLimitError (MemoryError)      it would not fit the memory
    ├── RunnerError (RuntimeError)              the event loop was used where it cannot work
    └── DeadlineError (TimeoutError)            no answer within the time allowed

    FallbackWarning (UserWarning)               a backend failed, and another one computed the answer
    PaddingWarning (UserWarning)                features fill less than half of the amplitudes of a layer

A message says what was wrong, what was received, what was expected and what to do about it. What a program may
want to act on stands in attributes as well (`error.row`, `error.backend`, `error.needed_bytes`), so that nobody has
to parse text. Every error survives pickling: they travel from worker processes.
"""

from __future__ import annotations

import difflib
import math
import sys
import warnings
from collections.abc import Iterable

__all__ = [
    "BackendError",
    "BackendUnavailableError",
    "CapabilityError",
    "DeadlineError",
    "FallbackWarning",
    "FileError",
    "GradientError",
    "InputError",
    "JobLostError",
    "MemoryLimitError",
    "OptionError",
    "PaddingWarning",
    "PluginError",
    "QstoreError",
    "ResourceLimitError",
    "RunnerError",
    "ShapeError",
    "SpecError",
    "TransientError",
    "UnknownBackendError",
    "missing_framework",
    "nearest",
    "warn",
]


class QstoreError(Exception):
    """Base of every error that qstore raises on purpose."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)


class ShapeError(QstoreError, ValueError):
    """A shape disagrees with the layer or circuit.

    Attributes:
        expected: Shape, or count, that would have been right; None where no single one is.
        received: Shape, or count, that came.
    """

    def __init__(self, message: str = "", *, expected: object = None, received: object = None) -> None:
        super().__init__(message)
        self.expected = expected
        self.received = received


class InputError(QstoreError, ValueError):
    """The numbers of an input are unusable: NaN, infinity, or of a kind that has no meaning here.

    Attributes:
        row: Index of the first bad row, None where it is not one row's fault.
        column: Index of the first bad feature in that row.
        value: What stood there.
    """

    def __init__(
        self, message: str = "", *, row: int | None = None, column: int | None = None, value: object = None
    ) -> None:
        super().__init__(message)
        self.row = row
        self.column = column
        self.value = value


class SpecError(QstoreError, ValueError):
    """A layer, circuit or measurement was described wrongly: a bad argument or an unknown name.

    Attributes:
        argument: Name of the argument at fault, None where it is a combination of several.
    """

    def __init__(self, message: str = "", *, argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument


class OptionError(SpecError):
    """A backend does not know an option, or not this value of it.

    Attributes:
        backend: Name of the backend.
    """

    def __init__(self, message: str = "", *, argument: str | None = None, backend: str | None = None) -> None:
        super().__init__(message, argument=argument)
        self.backend = backend


class FileError(QstoreError, ValueError):
    """A file is damaged, foreign, newer than this version of qstore, or not there."""


class UnknownBackendError(QstoreError, LookupError):
    """No backend has this name.

    Attributes:
        backend: The name that was asked for.
    """

    def __init__(self, message: str = "", *, backend: str | None = None) -> None:
        super().__init__(message)
        self.backend = backend


class BackendUnavailableError(QstoreError, ImportError):
    """A backend is registered and cannot be imported, or a framework is missing; the message has the install command.

    Attributes:
        backend: Name of the backend; None where none was asked for.
        name: The missing module, as in any ImportError.
    """

    def __init__(self, message: str = "", *, backend: str | None = None, name: str | None = None) -> None:
        super().__init__(message)
        self.backend = backend
        self.name = name


class PluginError(QstoreError):
    """A plugin breaks the contract, or two plugins claim one name.

    Attributes:
        backend: Name of the backend.
        distribution: Installed package, or packages, at fault.
    """

    def __init__(
        self,
        message: str = "",
        *,
        backend: str | None = None,
        distribution: str | tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(message)
        self.backend = backend
        self.distribution = distribution


class CapabilityError(QstoreError):
    """A backend cannot do what the layer asks for.

    Attributes:
        backend: Name of the backend, None where the rule holds for all.
    """

    def __init__(self, message: str = "", *, backend: str | None = None) -> None:
        super().__init__(message)
        self.backend = backend


class GradientError(CapabilityError):
    """No exact derivative exists here, or not in the way that was asked for."""


class BackendError(QstoreError, RuntimeError):
    """A backend failed while it computed. The cause is chained (`raise ... from cause`) and kept.

    Attributes:
        backend: Name of the backend.
        cause: What the backend raised; None where it returned something unusable.
    """

    def __init__(self, message: str = "", *, backend: str | None = None, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.backend = backend
        self.cause = cause


class TransientError(BackendError):
    """A backend failed in a way that may pass: a lost connection, a full queue, "429 Too Many Requests".

    Job-type backends raise it to be asked again.

    Attributes:
        retry_after: Seconds after which the service wants to be asked again; None where it does not say.
    """

    def __init__(
        self,
        message: str = "",
        *,
        backend: str | None = None,
        cause: BaseException | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, backend=backend, cause=cause)
        self.retry_after = retry_after


class JobLostError(TransientError):
    """A service does not know a job any more, as after a restart; the job may be submitted again."""


class ResourceLimitError(QstoreError):
    """The work would not fit this machine; said before anything is allocated."""


class MemoryLimitError(ResourceLimitError, MemoryError):
    """The work would not fit the memory; said before anything is allocated.

    Attributes:
        needed_bytes: What it would take.
        available_bytes: What there is, None where unknown.

    Example:
        >>> error = MemoryLimitError("60 qubits", needed_bytes=2**63)
        >>> print(error)
        60 qubits: would need 8589934592 GiB
    """

    def __init__(
        self, message: str = "", *, needed_bytes: int | None = None, available_bytes: int | None = None
    ) -> None:
        """Append the sizes, in GiB, to the message."""
        if needed_bytes is not None:
            message += f": would need {_gib(needed_bytes)}"
            if available_bytes is not None:
                message += f", {_gib(available_bytes)} available"
        super().__init__(message)
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes


class RunnerError(QstoreError, RuntimeError):
    """The event loop was used where it cannot work, such as a synchronous call from the loop's own thread."""


class DeadlineError(QstoreError, TimeoutError):
    """No answer came within the time allowed.

    Attributes:
        seconds: The time allowed.
    """

    def __init__(self, message: str = "", *, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


class FallbackWarning(UserWarning):
    """A backend failed, and the next one of its chain computed the answer.

    Attributes:
        backend: The backend that failed.
        used: The backend that computed.
        cause: What the first one raised.
    """

    def __init__(
        self,
        message: str = "",
        *,
        backend: str | None = None,
        used: str | None = None,
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message)
        self.backend = backend
        self.used = used
        self.cause = cause


class PaddingWarning(UserWarning):
    """Features fill less than half of a layer's amplitudes, and the layer was not told so with n_features."""


_BETWEEN = frozenset(
    {"qstore_core", "qstore_torch", "qstore_tf", "qstore_jax", "qstore_sklearn", "qstore_plugins", "pluggy"}
    | {"keras", "torch", "tensorflow", "jax", "flax", "equinox", "sklearn"}
)


def warn(warning: Warning) -> None:
    """Warn at the line of whoever called, past lines of qstore's and of the frameworks between."""
    level, frame = 2, sys._getframe(1)
    while frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(warning, stacklevel=level)


def missing_framework(package: str, extra: str, error: ModuleNotFoundError) -> ImportError:
    """What to raise where a package of layers cannot import its framework: the error with the install command.

    Example:
        >>> print(missing_framework("qstore_torch", "torch", ModuleNotFoundError("No module named 'torch'")))
        qstore_torch cannot be imported: No module named 'torch'. Install it with: pip install "qstore[torch]"
    """
    extra = error.name if error.name in ("jax", "torch") else extra  # of Keras's
    command = f'pip install "qstore[{extra}]"'
    return BackendUnavailableError(
        f"{package} cannot be imported: {error}. Install it with: {command}", name=error.name
    )


def nearest(name: object, choices: Iterable[str]) -> str:
    """Return the hint that ends a message about an unknown name, or an empty string.

    Args:
        name: What was received.
        choices: What would have been right.

    Returns:
        `" Did you mean 'x'?"` with a leading space, or `""` where nothing is near.

    Example:
        >>> nearest("statevectr", ["aer", "numba", "statevector"])
        " Did you mean 'statevector'?"
        >>> nearest("zzz", ["aer", "numba", "statevector"])
        ''
    """
    if not isinstance(name, str):
        return ""
    by_lowered = {choice.lower(): choice for choice in choices}
    wanted = name.lower().replace("-", "_")
    found = difflib.get_close_matches(wanted, by_lowered, n=1, cutoff=0.6)
    if not found:
        found = [lowered for lowered in by_lowered if len(wanted) >= 3 and lowered.startswith(wanted)][:1]
    return f" Did you mean {by_lowered[found[0]]!r}?" if found else ""


def _gib(size: int) -> str:
    if size >= 1 << 100:
        return f"10^{round((size.bit_length() - 31) * math.log10(2))} GiB"
    gib = size / 2**30
    return f"{gib:.0f} GiB" if gib >= 10 else f"{gib:.2g} GiB"
