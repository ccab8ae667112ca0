"""What the PyTorch libraries share: calls through autograd, on a CPU, on a GPU, and recorded in a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..problem import Problem
from . import Running


def running(
    run: Callable[[Any], Any],
    parameters: Sequence[Any],
    problem: Problem,
    device: str = "cpu",
    graph: bool = False,
    inline: bool = False,
) -> Running:
    """`run(features) → outputs`, differentiated for its parameters and its features.

    Args:
        run: A module, or a function of features.
        parameters: Weights; their gradients follow one another as those of `Problem.angles`.
        problem: What to compute.
        device: Where.
        graph: Record forward, and forward + backward, in a CUDA graph each, and replay it.
        inline: Run the backward pass in the calling thread, not in PyTorch's thread for the GPU.
    """
    import torch

    if inline:
        torch.autograd.set_multithreading_enabled(False)

    def native(array: Any) -> Any:
        return torch.from_numpy(array).to(device)

    x = native(problem.features())
    leaf = x.clone().requires_grad_()

    def forward() -> Any:
        with torch.no_grad():
            return run(x)

    def step(cotangents: Any) -> tuple[Any, Any, Any]:
        leaf.grad = None
        for parameter in parameters:
            parameter.grad = None
        outputs = run(leaf)
        outputs.backward(cotangents.to(outputs.dtype))
        grads = [parameter.grad for parameter in parameters]
        return outputs, grads[0] if len(grads) == 1 else torch.stack([g.reshape(()) for g in grads]), leaf.grad

    if graph:
        forward, step = _recorded(forward, step, native(problem.cotangents()))
    out = Running(forward, step, native)
    if device != "cpu":
        out.finish = lambda _: torch.cuda.synchronize()
        out.peak = _peak_bytes
        torch.cuda.reset_peak_memory_stats()
    return out


def _recorded(forward: Callable[[], Any], step: Callable[[Any], Any], cotangents: Any) -> tuple[Any, Any]:
    """The same two calls as replays of CUDA graphs; cotangents are copied in where they are others than last time."""
    import torch

    made: dict[str, tuple[Any, Any]] = {}
    last: list[Any] = [None]

    def replay(mode: str, call: Callable[[], Any]) -> Any:
        if mode not in made:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # what is allocated or compiled at first must not be recorded
                for _ in range(3):
                    call()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                outputs = call()
            made[mode] = (graph, outputs)
        graph, outputs = made[mode]
        graph.replay()
        return outputs

    def recorded_step(new: Any) -> Any:
        if new is not last[0]:
            cotangents.copy_(new)
            last[0] = new
        return replay("step", lambda: step(cotangents))

    return lambda: replay("forward", forward), recorded_step


def _peak_bytes() -> int:
    import torch

    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return int(peak)
