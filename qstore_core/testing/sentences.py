"""The contract, sentence by sentence: what each check of the kit holds a backend to.

docs/plugins.md has the same sentences, with the check of each and a faulty backend that only this check refuses;
`python -m tests.kit_faults --sentences` prints that table, and a test compares.
"""

from __future__ import annotations

__all__ = ["SENTENCES"]

SENTENCES: dict[str, str] = {
    # -- the backend
    "B1": "A backend has `name`, `capabilities` and `compile`, goes by the name that it is installed under, "
    "and its executables have the methods that it declares; `explain` gives text, `nbytes` a number; what is "
    "`embedded` is exact, and not `remote`.",
    "B2": "An option that it does not have is refused with an `OptionError`.",
    "B3": "It takes `max_qubits` qubits; `compile` refuses more with a `CapabilityError`.",
    "B4": "Where `capabilities.shots` is False, `compile(shots=N)` raises `CapabilityError`.",
    "B5": "A gate that it does not know is refused with a `CapabilityError`, never skipped or replaced.",
    "B6": "Compiled circuits share nothing that they differ in: gates, constants, slots, measurement, dtype, shots.",
    "B7": "A layer on it gives the circuit's values and gradients, also after pickling.",
    "B8": "With `capabilities.features`, executables normalise and pad amplitudes themselves; a row of zeros is |0…0⟩, "
    "with zero gradient, with shots as without; features and theta that are not finite raise an `InputError`.",
    "B9": "A channel is computed as its Kraus operators say, a readout error on what is measured, or the circuit is "
    "refused with a `CapabilityError`, with shots as without; where `capabilities.channels` is declared, it is "
    "computed.",
    # -- values
    "V1": "Outputs are (B, O), real floats, for every B ≥ 1; W and I may be 0.",
    "V2": "Values are exact to 1e-9 with dtype float64, to 1e-5 with float32.",
    "V3": "Every gate has the matrix of the gate table, on any qubits in any order, controls first; "
    "qubit 0 is the most significant bit.",
    "V4": "Angles are radians and may be any finite number: small, negative, many turns.",
    "V5": "An angle is a polynomial of weights and inputs: products, powers, constants, slots used again.",
    "V6": "A circuit may have any number of gates, weights and inputs; operations are applied first to last.",
    "V7": "The first `n_amplitudes` columns of `inputs` are the start state, angles follow.",
    "V8": "Outputs of `Expectation(bases, qubits)` are basis-major, qubits in the order given.",
    "V9": "An observable is the sum of its Pauli strings times their coefficients; the identity has the value 1.",
    "V10": "`Probabilities(qubits)` has one output per bitstring of these qubits, the first of them most significant.",
    "V11": "With `n_classes`, bitstring k counts for class k modulo `n_classes`.",
    "V12": "A batch may have any number of rows, and a row has the value that it has alone.",
    "V13": "All of this holds for any number of qubits up to `max_qubits`.",
    "V14": "An `Expectation` may have any number of observables, and an observable any number of strings: density "
    "matrices, entropies and variances are computed from them.",
    "V15": "With `capabilities.amplitudes`, `Amplitudes` are the real parts of the state and then the imaginary parts, "
    "with the phase that the gates' matrices give it.",
    # -- calls
    "S1": "Exact outputs are a function of theta and inputs: nothing is kept from one call to the next.",
    "S2": "`forward` does not write to its arguments, with shots or without.",
    "S3": "Results belong to the caller: they share no memory with arguments or other results, with shots or without.",
    "S4": "Compiling and calling are safe in threads; a seed gives its samples whoever else samples.",
    "S5": "`value_and_report` gives the outputs of `forward`, and a `RunReport`.",
    # -- gradients
    "G1": "`vjp` gives the exact gradient for weights, whatever the gate and its qubits.",
    "G2": "`vjp` gives the exact gradient for angle inputs, row by row, whatever the gate and its qubits.",
    "G3": "The chain rule covers polynomials of slots: products, powers, constants, slots used again.",
    "G4": "`vjp` is exact for every measurement, and linear in the cotangents.",
    "G5": "`vjp` gives the gradient for amplitudes, along the sphere.",
    "G6": "Gradients for angles that follow amplitudes are in the columns of these angles.",
    "G7": "Gradients have the shapes of theta and inputs, W and I may be 0, and are exact to 2e-8 with dtype float64, "
    "to 1e-4 with float32.",
    "G8": "`vjp` takes any number of rows: the gradient for theta is the sum over all of them.",
    "G9": "`vjp` takes any number of qubits up to `max_qubits`, of gates and of slots.",
    "G10": "`vjp` keeps nothing from one call to the next, and its results belong to the caller.",
    "G11": "Neither `vjp` nor `value_and_vjp` writes to its arguments.",
    "G12": "`vjp` and `value_and_vjp` are safe in threads.",
    "G13": "`value_and_vjp` gives the outputs of `forward` and the gradients of `vjp`; its `vjp_fn` may be called more "
    "than once, and after other calls.",
    "G14": "With `capabilities.channels`, `vjp` is exact for circuits with channels.",
    "G15": "With `capabilities.amplitudes`, `vjp` gives the gradients of `Amplitudes` too.",
    # -- samples
    "N1": "Sampled values of bases have no bias.",
    "N2": "Sampled values of observables have no bias.",
    "N3": "Sampled probabilities have no bias; a row sums to 1.",
    "N4": "`shots=N` takes N samples per circuit, whether few or many: values scatter by what N says.",
    "N5": "`std_error` is the standard deviation of every output over repetitions; for one shot it is unknown, not 0.",
    "N6": "Samples are a function of theta, inputs and the seed, a whole number from 0 to 2**63 - 1; "
    "other seeds give other, independent samples.",
    "N7": "Rows, and bases, are sampled independently of each other.",
    "N8": "Samples come from the circuit that exact values come from, for any gates, qubits, rows and inputs.",
    # -- tensors
    "T1": "With `capabilities.framework`, `apply` takes that framework's tensors and gives the circuit's values.",
    "T2": "`apply` is differentiable by the framework, for theta and inputs, each alone and both.",
    "T3": "`apply_and_vjp` gives the outputs of `apply`, and a `vjp_fn` with their gradients.",
    # -- jobs
    "J1": "`submit` returns the id of a new job, a str.",
    "J2": "`result` gives that job's outputs, in whatever order jobs are fetched.",
    "J3": "`cancel` gives up a job: `result` of a job that was cancelled while it ran raises. "
    "Cancelling a job that has finished, or waiting for it to be given up, does no harm.",
    "J4": "`result` of a job that the service does not know raises `JobLostError`.",
    "J5": "`submit`, `result` and `cancel` do not block the loop.",
    "J6": "What belongs to a loop is not used on another: executables work on every loop.",
    "J7": "What may pass (429, 5xx, a cut connection) raises `TransientError`, `ConnectionError` or `TimeoutError`.",
}
