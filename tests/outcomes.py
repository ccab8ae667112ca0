"""What becomes of each transform in each framework: one table, tested row by row; docs/frameworks.md is made from it.

    python -m tests.outcomes        writes the page

`tests/torch/test_transforms.py` and `tests/tf/test_transforms.py` have a test for every row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "frameworks.md"


@dataclass(frozen=True)
class Outcome:
    """One row.

    Attributes:
        transform: What is done with a layer.
        outcome: "works" or "refused".
        how: Where it computes, or the sentence that refuses it.
    """

    transform: str
    outcome: str
    how: str = ""


TENSOR = "in PyTorch operations"

TORCH = (
    Outcome("forward mode of features: `torch.func.jvp`", "works", TENSOR),
    Outcome("forward mode of features: `torch.func.jacfwd`", "works", TENSOR),
    Outcome("forward mode of features: `torch.func.linearize`", "works", TENSOR),
    Outcome("forward mode of features: `dual_level`, also under `no_grad` and with frozen weights", "works", TENSOR),
    Outcome('forward mode of features: `jacobian(strategy="forward-mode")`', "works", TENSOR),
    Outcome("forward mode of theta: `functional_call` in `dual_level`", "works", TENSOR),
    Outcome("forward mode inside `torch.compile`", "works", TENSOR),
    Outcome("forward mode in `inference_mode`", "refused", "inference_mode drops tangents"),
    Outcome(
        "forward mode on a host backend that is not ours", "refused", "tangents need a circuit in PyTorch operations"
    ),
    Outcome("second and third derivatives", "works", TENSOR),
    Outcome("second derivatives on a host backend that is not ours", "refused", "second derivatives need a circuit in"),
    Outcome(
        "second derivatives through a compiled graph",
        "refused",
        "aot_autograd does not currently support double backward",
    ),
    Outcome("`torch.func.hessian`, `jacrev`", "works", TENSOR),
    Outcome("`torch.func.vmap(grad)`: per-sample gradients", "works", "on the layer's backend, a sweep per sample"),
    Outcome("`torch.func.vmap`, `grad` and `jacrev` on a host backend that is not ours", "works", "on that backend"),
    Outcome(
        "nested `torch.func` on a host backend that is not ours", "refused", "needs a circuit in PyTorch operations"
    ),
    Outcome("`torch.func.grad` and `vmap` inside `torch.compile`", "works", TENSOR),
    Outcome("`is_grads_batched=True`", "works", TENSOR),
    Outcome("`torch.compile(fullgraph=True)`, any batch size", "works", "one operator, on the layer's backend"),
    Outcome("blocks compiled one by one", "works", "layers of equal spec share a graph"),
    Outcome("`torch.export`, saved and loaded in a fresh process", "works", "one operator, whose content is text"),
    Outcome("`torch.export` of a backend that was given as an object, elsewhere", "refused", "was given as an object"),
    Outcome("`make_fx`, fake and meta tensors", "works", "one operator"),
    Outcome("`torch.jit.trace` with its check", "works", "one operator"),
    Outcome("`torch.fx.symbolic_trace`", "works", "a leaf"),
    Outcome("`torch.profiler`", "works", "the layer's name"),
    Outcome("any stride, offset and layout of theta and features", "works", "on the layer's backend"),
    Outcome("weights of another length", "refused", "theta has shape"),
    Outcome("one-dimensional features, also compiled", "refused", "takes inputs of shape (batch, features)"),
    Outcome("sparse features", "works", "made dense"),
    Outcome("nested features", "refused", "a nested one"),
    Outcome("masked features", "refused", "with a mask, which it would ignore"),
    Outcome("activation checkpointing, `save_on_cpu`", "works", "nothing is kept past the backward pass"),
    Outcome("FSDP 1 and 2", "works", "on the layer's backend"),
    Outcome("`nn.utils.skip_init`, `device=`, `dtype=`, `name=`", "works"),
    Outcome("a checkpoint of another circuit", "refused", "weights of another circuit"),
)

OUTCOMES = {"PyTorch": TORCH}


def page() -> str:
    """docs/frameworks.md."""
    lines = [
        "# Transforms, frameworks and graphs",
        "",
        "What becomes of a layer in each transform, graph and file: it works, exactly, or it is refused by an error",
        "that says what to use; never a zero, a constant or another circuit. Every row is a test. `layer.explain()`",
        "says where a layer of yours computes in each kind of call. `python -m tests.outcomes` makes this page.",
    ]
    for framework, rows in OUTCOMES.items():
        lines += ["", f"## {framework}", "", "| | | |", "|---|---|---|"]
        lines += [f"| {row.transform} | {row.outcome} | {row.how} |" for row in rows]
    lines += [
        "",
        "`layer.last_run` and `profile()` tell about every eager call on every backend. Inside compiled, exported and",
        "traced graphs they cannot know which layer a call belongs to: layers of equal spec share a graph, and a graph",
        "outlives its layer. `profile()` shows such calls as `… in a graph`.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
