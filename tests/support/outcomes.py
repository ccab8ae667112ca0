"""What becomes of each transform in each framework: one table, tested row by row; docs/frameworks.md is made from it.

    python -m tests.support.outcomes        writes the page

`tests/torch/test_transforms.py` has a test for every row of PyTorch's; those of Keras and JAX name theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "frameworks.md"


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
    Outcome("second derivatives in graphs of `torch.export`, `torch.jit.trace` and `make_fx`", "works", TENSOR),
    Outcome("derivatives of constant outputs, of any order", "works", "zeros"),
    Outcome("gradients and tangents of bits", "refused", "basis encoding has no gradient for its inputs"),
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
    Outcome("TensorBoard's `add_graph`", "works", "one operator"),
    Outcome("`torch.fx.symbolic_trace`", "works", "a leaf"),
    Outcome("`torch.profiler`", "works", "the layer's name"),
    Outcome("any stride, offset and layout of theta and features", "works", "on the layer's backend"),
    Outcome("weights of another length", "refused", "theta has shape"),
    Outcome("one-dimensional features, also compiled", "refused", "takes inputs of shape (batch, features)"),
    Outcome("sparse features", "works", "made dense"),
    Outcome("nested features", "refused", "a nested one"),
    Outcome("masked features", "refused", "with a mask, which it would ignore"),
    Outcome("a DTensor as features or theta", "refused", "received a DTensor"),
    Outcome("activation checkpointing, `save_on_cpu`", "works", "nothing is kept past the backward pass"),
    Outcome("FSDP 1 and 2", "works", "on the layer's backend"),
    Outcome("`nn.utils.skip_init`, `device=`, `dtype=`, `name=`", "works"),
    Outcome("a checkpoint of another circuit", "refused", "weights of another circuit"),
)

IN_TENSORFLOW = "in TensorFlow operations"

# The last entry of a row is its test, in tests/tf.
KERAS = (
    ("`tf.autodiff.ForwardAccumulator`, eager and in graphs, also with frozen weights", "works", IN_TENSORFLOW,
     "test_transforms.test_tangents_are_products_with_the_jacobian"),
    ("`ForwardAccumulator` around a function that was traced before", "refused", "put the accumulator inside",
     "test_transforms.test_an_accumulator_outside_of_a_function"),
    ("forward mode with parameter-shift or differences", "refused", "tangents need a circuit in TensorFlow operations",
     "test_transforms.test_what_has_no_circuit_in_operations_refuses_tangents_and_maps"),
    ("`tape.jacobian`, `tape.batch_jacobian`, with and without pfor, eager, graph, XLA", "works", IN_TENSORFLOW,
     "test_transforms.test_jacobians_are_rows_of_vjps"),
    ("`tf.vectorized_map`: per-sample gradients", "works", IN_TENSORFLOW,
     "test_transforms.test_gradients_of_each_sample"),
    ("Hessians, gradient penalties", "works", IN_TENSORFLOW,
     "test_transforms.test_hessians_are_slopes_of_gradients"),
    ("`tf.recompute_grad`, `keras.RematScope`", "works", "the circuit runs again",
     "test_gradients.test_what_is_computed_again_has_the_same_gradients"),
    ("gradients and tangents of bits", "refused", "basis encoding has no gradient for its inputs",
     "test_gradients.test_basis_encoding_refuses_input_gradients"),
    ("second derivatives with parameter-shift or differences", "refused", "second derivatives need a circuit in",
     "test_gradients.test_a_second_derivative_through_the_host_is_refused_not_zero"),
    ("`model.export`, loaded in a fresh process", "works", IN_TENSORFLOW,
     "test_export.test_an_exported_model_computes_alone"),
    ("`tf.saved_model.save` of a `tf.function`, also with `training=True`", "works", "traced anew, in operations",
     "test_export.test_functions_are_saved_in_operations_also_when_they_were_called_before"),
    ("`tf.saved_model.save` of a concrete function that was called", "refused", "save the tf.function itself",
     "test_export.test_a_concrete_function_that_was_called_is_not_saved"),
    ("export of what samples or runs on a device", "refused", "a graph on disk cannot call the host",
     "test_export.test_what_samples_is_refused_at_export"),
    ("NaN and what is no bit, in graphs, `fit`, `predict`, XLA", "works", "NaN outputs of those rows",
     "test_layers.test_in_a_graph_what_eager_calls_refuse_is_nan"),
    ("masks", "works", "pass through", "test_keras.test_an_lstm_after_masking_does_not_see_the_padding"),
    ("sparse features, nested lists of numbers", "works", "made dense",
     "test_keras.test_what_is_not_one_tensor_is_computed_or_refused_by_name"),
    ("a list or dict of inputs, ragged and masked features", "refused", "takes one tensor; rows of one length",
     "test_keras.test_what_is_not_one_tensor_is_computed_or_refused_by_name"),
    ("second and third derivatives, also of constant outputs", "works", "what PennyLane gives; zeros",
     "test_gradients.test_derivatives_of_constant_outputs_are_zeros"),
    ("the TensorFlow profiler", "works", "the layer's name", "test_keras.test_the_profiler_shows_the_layer_by_name"),
    ("`load_weights` of another circuit", "refused", "weights of another circuit",
     "test_saving.test_weights_of_another_circuit_do_not_load"),
    ("initialisers, regularisers and constraints of theta", "works", "by name or as objects, saved and loaded",
     "test_keras.test_initialiser_regulariser_and_constraint_by_name_and_as_objects"),
)  # fmt: skip

IN_JAX = "in JAX operations"
ON_HOST = "test_layers.test_a_transform_on_the_host_gives_what_jax_gives_on_its_own_operations"

# The same, in tests/jax.
JAX = (
    ("`jax.jit`, `jax.grad`, `jax.checkpoint`, `jax.lax.scan` and `cond`", "works", "on the layer's backend", ON_HOST),
    ("`jax.vmap` over features, theta or both", "works", "on the layer's backend", ON_HOST),
    ("`jax.vmap(jax.grad)`: per-sample gradients", "works", IN_JAX, ON_HOST),
    ("`jax.jvp`, `jacfwd`, `linearize`", "works", IN_JAX, ON_HOST),
    ("`jax.hessian`, reverse over reverse, forward over forward", "works", IN_JAX, ON_HOST),
    ("second derivatives of amplitudes", "works", IN_JAX, "test_layers.test_second_derivatives_of_amplitudes"),
    ("tangents and second derivatives on a host backend that is not ours", "refused",
     "tangents need a circuit in JAX operations",
     "test_layers.test_tangents_on_a_host_backend_that_is_not_ours_are_refused"),
    ("gradients and tangents of bits", "refused", "basis encoding has no gradient for its inputs",
     "test_layers.test_bits_have_no_derivative"),
    ("layers of equal spec in graphs", "works", "share a graph",
     "test_layers.test_a_graph_is_compiled_once_for_equal_layers"),
    ("`jax.export`, of any batch size", "works", IN_JAX, "test_layers.test_an_exported_function_needs_no_host"),
    ("`layer.as_operations()`, exported, where qstore is not", "works", IN_JAX,
     "test_formats.test_exported_functions_compute_alone"),
    ("export of what samples or runs on a device", "refused", "a graph on disk cannot call the host",
     "test_layers.test_an_exported_function_needs_no_host"),
    ("NaN and what is no bit, in graphs", "works", "NaN outputs of those rows",
     "test_layers.test_rows_that_eager_calls_refuse_give_nan_in_graphs"),
    ("`jax.shard_map`", "works", "as on one device", "test_layers.test_two_devices_equal_one"),
    ("samples in graphs", "works", "a seed for every call",
     "test_layers.test_samples_come_from_the_seed_and_differ_from_call_to_call"),
)  # fmt: skip

NAMED = {"tf": KERAS, "jax": JAX}
OUTCOMES = {
    "PyTorch": TORCH,
    "Keras on TensorFlow": tuple(Outcome(*row[:3]) for row in KERAS),
    "JAX": tuple(Outcome(*row[:3]) for row in JAX),
}


def page() -> str:
    """docs/frameworks.md."""
    lines = [
        "# Transforms, frameworks and graphs",
        "",
        "What becomes of a layer in each transform, graph and file: it works, exactly, or it is refused by an error",
        "that says what to use; never a zero, a constant or another circuit. Every row is a test. `layer.explain()`",
        "says where a layer of yours computes in each kind of call. This page: `python -m tests.support.outcomes`.",
    ]
    for framework, rows in OUTCOMES.items():
        lines += ["", f"## {framework}", "", "| | | |", "|---|---|---|"]
        lines += [f"| {row.transform} | {row.outcome} | {row.how} |" for row in rows]
    lines += [
        "",
        "Keras on JAX and Keras on PyTorch call layers as the layers for JAX and for PyTorch are called.",
        "",
        "`layer.last_run` and `profile()` tell about every eager call on every backend. Inside compiled, exported and",
        "traced graphs they cannot know which layer a call belongs to: layers of equal spec share a graph, and a graph",
        "outlives its layer. `profile()` shows such calls as `… in a graph`.",
        "",
        "PyTorch itself refuses to differentiate the gradients of a compiled graph. For a gradient penalty, run the",
        "model without `torch.compile`, or compile the whole penalty: with",
        "`torch._dynamo.config.trace_autograd_ops = True`, `torch.autograd.grad(…, create_graph=True)` is part of the",
        "compiled function, and second derivatives are computed there, in PyTorch operations.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
