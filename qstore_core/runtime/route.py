"""Where a call computes: `FRAMEWORKS`, one table of what the core knows about them, and `route`, one function.

Every call of every layer, transform and export ends in one of three places: on the "host" (NumPy arrays; the layer's
backend), in "tensor" operations of the framework, or "refused", with the sentence that the user reads.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FRAMEWORKS", "SITUATIONS", "Framework", "Places", "Route", "route"]


@dataclass(frozen=True)
class Framework:
    """What the core knows about one framework.

    Attributes:
        title: Its name in sentences.
        engine: Name of our engine on its tensors.
        ops: Where its array functions are (`engines.arrays.ops.Ops`), imported when they are first needed.
        gpu: Name of a faster engine on CUDA tensors; "" where there is none.
        gpu_qubits: Most qubits, by precision, for which "auto" takes it: where docs/performance.md has it faster.
    """

    title: str
    engine: str
    ops: str
    gpu: str = ""
    gpu_qubits: Mapping[str, int] = field(default_factory=dict, hash=False)

    def load_ops(self) -> Any:
        """The array functions."""
        return pkgutil.resolve_name(self.ops)


FRAMEWORKS = {
    "torch": Framework("PyTorch", "torch", "qstore_torch.engine:OPS", gpu="triton", gpu_qubits={"float32": 20}),
    "jax": Framework("JAX", "jax", "qstore_jax.engine:OPS"),
    "tensorflow": Framework("TensorFlow", "tensorflow", "qstore_tf.engine:OPS"),
}


@dataclass(frozen=True)
class Places:
    """Where a layer can compute.

    Attributes:
        framework: Whose tensors it meets; None for NumPy arrays.
        host: Name of its backend on the host; None where its backend is an engine on the framework's tensors.
        tensor: Name of an engine on the framework's tensors that computes the same; None where there is none.
        chosen: True where the user named the backend, so that it is asked wherever it can be.
        gpu: Name of a faster engine on CUDA tensors, for values and gradients; None where there is none.
        noisy: True where circuit or backend has noise, which engines on tensors do not compute.
        drawn: True where outputs are samples, which are drawn on the host.
    """

    framework: str | None
    host: str | None
    tensor: str | None
    chosen: bool = False
    gpu: str | None = None
    noisy: bool = False
    drawn: bool = False


@dataclass(frozen=True)
class Route:
    """Where a call computes.

    Attributes:
        where: "host", "tensor" or "refused".
        why: The reason; for a refusal, the sentence that the user reads.
    """

    where: str
    why: str


def route(
    places: Places,
    *,
    device: str = "cpu",
    mode: str = "eager",
    transform: str | None = None,
    wanted: str = "values",
) -> Route:
    """Where a call computes, and why.

    Args:
        places: Where the layer can compute.
        device: Kind of the tensors' device: "cpu", "cuda", …
        mode: "eager"; "graph", which stays in this process; "xla"; "file", a graph that is written to disk.
        transform: Function transforms around the call: "vmap and grad" (one gradient at most, which the host can
            compute sample by sample), any other, for example "jvp"; None where there is none.
        wanted: "values", "gradients", "tangents" (forward mode) or "second derivatives".

    Example:
        >>> route(Places("torch", "numba", "torch")).where
        'host'
        >>> route(Places("torch", "numba", "torch"), wanted="tangents").where
        'tensor'
        >>> route(Places("torch", "aer", None), wanted="tangents").where
        'refused'
        >>> route(Places("torch", "numba", "torch", gpu="triton"), device="cuda").why
        'triton, the fastest on a GPU'
    """
    plain = transform is None and mode != "file" and wanted in ("values", "gradients")
    if places.gpu is not None and device == "cuda" and plain:
        return Route("tensor", f"{places.gpu}, the fastest on a GPU")
    if places.host is None:
        return Route("tensor", f"{places.tensor} computes on the tensors")
    if places.framework is None:
        return Route("host", f"{places.host} computes on arrays")
    title = FRAMEWORKS[places.framework].title
    if transform is not None and (transform != "vmap and grad" or device != "cpu"):
        need = f"{transform} needs a circuit in {title} operations"
    elif wanted in ("tangents", "second derivatives"):
        need = f"{wanted} need a circuit in {title} operations"
    elif mode in ("xla", "file"):
        need = f"{'a graph on disk' if mode == 'file' else 'XLA'} cannot call the host"
    elif device != "cpu" and not places.chosen and places.tensor is not None:
        need = f"tensors on {device} need not wait for the host"
    else:
        asked = "asked for" if places.chosen else "which computes noise" if places.noisy else "the fastest on a CPU"
        return Route("host", f"{places.host}, {asked}")
    if places.tensor is not None:
        return Route("tensor", f"{need}: {places.tensor} computes the same")
    if places.drawn:
        return Route("refused", f"{need}, and samples are drawn on the host.")
    if places.noisy:
        return Route("refused", f"{need}, and noise is computed on the host alone, by backend {places.host!r}.")
    engine = FRAMEWORKS[places.framework].engine
    return Route("refused", f'{need}, and backend {places.host!r} is on the host. Use backend="{engine}".')


SITUATIONS: tuple[tuple[str, dict[str, str | None]], ...] = (
    ("eager", {}),
    ("eager on a GPU", {"device": "cuda"}),
    ("compiled graph", {"mode": "graph"}),
    ("XLA", {"mode": "xla"}),
    ("graph on disk", {"mode": "file"}),
    ("vmap and other function transforms", {"transform": "a function transform"}),
    ("forward mode", {"wanted": "tangents"}),
    ("second derivatives", {"wanted": "second derivatives"}),
)
"""Kinds of calls that `explain()` tells about: what they are called, and what `route` is asked."""
