"""Fallback under faults that really happen: same shape, same values, said once, counted always, never for a mistake."""

from __future__ import annotations

import copy
import itertools
import logging
import pickle
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstore_core import (
    BackendError,
    CapabilityError,
    Circuit,
    FallbackWarning,
    GradientError,
    InputError,
    PaddingWarning,
    Pauli,
    QuantumFeatureExtractor,
    QuantumLayer,
    QuantumPooling,
    QuantumReadout,
    ShapeError,
    SpecError,
    UnknownBackendError,
    fallback_counts,
    reset_fallback_counts,
)
from qstore_core.layers import numpy as numpy_layers
from qstore_core.runtime.fallback import Chain, FallbackEvent
from tests.support.faults import BAD_RESULTS, ERRORS, PLACES, Fault, FaultyBackend
from tests.support.strategies import batches, faults, layer_arguments

pytestmark = pytest.mark.usefixtures("zero_fallback_counts")

CIRCUITS = ("QuantumFeatureExtractor", "QuantumPooling", "QuantumReadout", "QuantumLayer")
X = np.linspace(-1, 1, 12).reshape(4, 3)
THETA = np.linspace(0, 3, 12)


def layer_on(backend, **arguments):
    layer = QuantumFeatureExtractor(3, encoding="angle", backend=backend, **arguments)
    layer.theta = THETA
    return layer


def expected():
    return layer_on("statevector")(X)


# -- the answer is the same -------------------------------------------------------------------------------------------


@given(layer_arguments(kinds=CIRCUITS), faults(("compile", "forward")), batches(min_rows=1))
def test_fallback_keeps_shape_and_value(drawn, fault, batch):
    kind, arguments = drawn
    make = getattr(numpy_layers, kind)
    layer = make(**arguments, backend=FaultyBackend("flaky", fault))
    local = make(**arguments, backend="statevector")
    layer.theta = local.theta = batch.theta(layer.spec)
    x = batch.features(layer.spec)
    with pytest.warns(FallbackWarning, match="'flaky' failed .*'statevector' computes"):
        values = layer(x)
    assert values.dtype == x.dtype
    np.testing.assert_array_equal(values, local(x))


@given(
    layer_arguments(kinds=CIRCUITS, encodings=("amplitude", "angle", "zz")),
    faults(),
    batches(("float64",), min_rows=1),
)
def test_fallback_keeps_both_gradients(drawn, fault, batch):
    kind, arguments = drawn
    make = getattr(numpy_layers, kind)
    layer = make(**arguments, backend=FaultyBackend("flaky", fault))
    local = make(**arguments, backend="statevector")
    layer.theta = local.theta = batch.theta(layer.spec)
    x, cotangents = batch.features(layer.spec), batch.cotangents(layer.spec)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        gradients = layer.vjp(x, cotangents)
    for gradient, local_gradient in zip(gradients, local.vjp(x, cotangents), strict=True):
        np.testing.assert_array_equal(gradient, local_gradient)
    if spoils_something(fault, layer):
        assert [w.category for w in said if w.category is not PaddingWarning] == [FallbackWarning]
        assert sum(layer.fallbacks.values()) == 1


def spoils_something(fault, layer):
    """A gradient without entries cannot hold a bad number."""
    return fault.trouble in ERRORS or fault.place != "backward" or layer.theta.size > 1


@pytest.mark.parametrize("trouble", [*ERRORS, *BAD_RESULTS])
def test_a_failure_in_the_backward_pass_alone(trouble):
    backend = FaultyBackend("flaky", Fault(trouble, "backward"))
    layer = layer_on(backend)
    np.testing.assert_array_equal(layer(X), expected())
    with pytest.warns(FallbackWarning):
        d_theta, d_x = layer.vjp(X, np.ones((4, 3)))
    local = layer_on("statevector").vjp(X, np.ones((4, 3)))
    np.testing.assert_array_equal(d_theta, local[0])
    np.testing.assert_array_equal(d_x, local[1])
    assert backend.calls["backward"] == 1


def test_a_backend_that_dies_half_way():
    """Good at first, gone from the third call on; every answer is right."""
    layer = layer_on(FaultyBackend("flaky", Fault("loses connection", "forward", after=2)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for call in range(5):
            np.testing.assert_array_equal(layer(X), expected())
            assert sum(layer.fallbacks.values()) == max(0, call - 1)
    assert len(said) == 1


def test_a_backend_that_recovers_is_used_again():
    backend = FaultyBackend("flaky", Fault("times out", "forward"))
    layer = layer_on(backend)
    with pytest.warns(FallbackWarning):
        layer(X)
    backend.fault = None
    layer(X)
    assert backend.calls["forward"] == 2
    assert sum(layer.fallbacks.values()) == 1


# -- it is said -------------------------------------------------------------------------------------------------------


def test_one_warning_per_layer_and_cause():
    backend = FaultyBackend("flaky", Fault("raises", "forward"))
    layer, other = layer_on(backend, name="first"), layer_on(backend, name="second")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(3):
            layer(X)
        backend.fault = Fault("times out", "forward")
        for _ in range(3):
            layer(X)
        other(X)
    assert [w.category for w in said] == [FallbackWarning] * 3
    assert [str(w.message) for w in said] == [
        f"layer '{name}': backend 'flaky' failed ({cause}); 'statevector' computes the same circuit. "
        f"Use fallback=None to raise instead."
        for name, cause in (
            ("first", "RuntimeError: the device reported an error"),
            ("first", "TimeoutError: no answer from the device"),
            ("second", "TimeoutError: no answer from the device"),
        )
    ]


def test_the_warning_tells_programs_too():
    with pytest.warns(FallbackWarning) as said:
        layer_on(FaultyBackend("flaky", Fault("raises", "forward")))(X)
    (warning,) = [w.message for w in said]
    assert (warning.backend, warning.used) == ("flaky", "statevector")
    assert isinstance(warning.cause, RuntimeError)


def test_the_first_fallback_is_a_warning_with_its_traceback_in_the_log(caplog):
    layer = layer_on(FaultyBackend("flaky", Fault("raises", "forward")), name="mine")
    with caplog.at_level(logging.INFO, logger="qstore"), pytest.warns(FallbackWarning):
        layer(X)
    (record,) = caplog.records
    assert record.levelno == logging.INFO  # it is on stderr already
    assert record.qstore_event == FallbackEvent("mine", "flaky", "statevector", "RuntimeError")
    assert "the device reported an error" in record.getMessage()
    assert isinstance(record.exc_info[1], RuntimeError)


def test_an_outage_of_hours_floods_nothing(caplog):
    """100,000 failures with two causes: one warning for each, then their number at growing intervals."""
    chain, errors = (
        Chain("mine", ["flaky", "statevector"]),
        itertools.cycle([OSError("no route"), TimeoutError("late")]),
    )

    def attempt(index):
        if index == 0:
            raise next(errors)

    with caplog.at_level(logging.WARNING), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(100_000):
            chain.run(attempt)
    assert len(said) == 2
    counts = [record.getMessage().rpartition(". ")[2] for record in caplog.records]
    assert counts == [f"So far {times} times." for times in ("10", "100", "1,000", "10,000") for _ in range(2)]
    assert not any(record.exc_info for record in caplog.records)
    assert sorted(chain.counts.values()) == sorted(fallback_counts().values()) == [50_000, 50_000]


OUTAGE = """
import numpy as np
from qstore_core import QuantumFeatureExtractor
from tests.support.faults import Fault, FaultyBackend
layer = QuantumFeatureExtractor(2, encoding="angle", backend=FaultyBackend("flaky", Fault("raises", "forward")))
for _ in range(1000):
    layer(np.ones((1, 2)))
print(sum(layer.fallbacks.values()))
"""


def test_an_outage_on_stderr():
    """Without any configuration of logging: the warning, with its line of source, and three counts."""
    done = subprocess.run([sys.executable, "-c", OUTAGE], capture_output=True, text=True, timeout=60)
    assert done.stdout == "1000\n"
    lines = done.stderr.splitlines()
    assert sum("FallbackWarning" in line for line in lines) == 1
    assert [line.rpartition(". ")[2] for line in lines if "So far" in line] == [
        f"So far {times} times." for times in ("10", "100", "1,000")
    ]
    assert len(lines) <= 5


def test_counters_by_layer_and_for_the_process():
    layer = layer_on(FaultyBackend("flaky", Fault("is NaN", "forward")), name="mine")
    assert layer.fallbacks == {}
    with pytest.warns(FallbackWarning):
        layer(X)
    layer(X)
    layer(X)
    event = FallbackEvent("mine", "flaky", "statevector", "BackendError")
    assert layer.fallbacks == fallback_counts() == {event: 3}
    reset_fallback_counts()
    assert fallback_counts() == {}
    assert layer.fallbacks == {event: 3}


# -- what is computed --------------------------------------------------------------------------------------------------


class Sampling(FaultyBackend):
    """Declares shots, noise or both; fails."""

    def __init__(self, name="device", fault=None, **capabilities):
        super().__init__(name, fault or Fault("loses connection", "forward"))
        self.capabilities = replace(self.capabilities, **({"shots": True, "vjp": False} | capabilities))


@pytest.mark.parametrize(
    ("capabilities", "shots"),
    [({}, 1024), ({"exact": False}, 1024), ({"noisy": True}, None), ({"noisy": True, "shots": False}, None)],
    ids=["shots", "a device", "noise", "noise alone"],
)
def test_samples_noise_and_devices_are_never_replaced_by_default(capabilities, shots):
    layer = layer_on(Sampling(**capabilities), shots=shots)
    with pytest.raises(BackendError, match="device"):
        layer(X)
    with pytest.raises(BackendError, match="device"):
        layer.vjp(X, np.ones((4, 3)))
    assert layer.fallbacks == fallback_counts() == {}


@pytest.mark.parametrize(
    ("capabilities", "shots", "words"),
    [
        ({}, 1024, "'statevector' takes its place: exact values instead of 1,024 shots. "),
        ({"noisy": True}, None, "'statevector' takes its place: without the noise of 'device'. "),
        (
            {"noisy": True},
            50,
            "'statevector' takes its place: exact values instead of 50 shots and without the noise of 'device'. ",
        ),
        ({}, None, "'statevector' computes the same circuit. "),
    ],
)
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_a_chain_that_the_user_named_says_what_changes(capabilities, shots, words, by, monkeypatch):
    if by == "environment":
        monkeypatch.setenv("QSTORE_FALLBACK", "statevector")
    options = {"fallback": ("statevector",)} if by == "argument" else {}
    layer = layer_on(Sampling(**capabilities), shots=shots, **options)
    with pytest.warns(FallbackWarning) as said:
        np.testing.assert_array_equal(layer(X), expected())
    assert words in str(said[0].message)
    assert layer.last_run.shots is None
    assert layer.last_run.backend == "statevector"


def test_changes_are_told_for_the_backend_that_is_used(register):
    register("one", Sampling("one"))
    register("two", Sampling("two", noisy=True))
    layer = layer_on("one", shots=10, fallback=("two", "statevector"))
    with pytest.warns(FallbackWarning) as said:
        np.testing.assert_array_equal(layer(X), expected())
    first, second = (str(w.message) for w in said)
    assert "'two' takes its place: with the noise of 'two'. " in first
    assert "'statevector' takes its place: exact values instead of 10 shots. " in second


def test_a_fallback_that_could_not_compute_the_layer_is_refused_at_once(register):
    register("sampler", Sampling("sampler", exact=False))
    register("small", Sampling("small", max_qubits=2))
    flaky = FaultyBackend("flaky", Fault("raises", "forward"))
    with pytest.raises(CapabilityError, match="'sampler' can only sample"):
        layer_on(flaky, fallback="sampler")
    with pytest.raises(CapabilityError, match="'small' takes at most 2 qubits"):
        layer_on(flaky, fallback=("statevector", "small"))


# -- no fallback ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("trouble", ERRORS)
def test_none_raises_with_the_cause_chained(trouble, place):
    layer = layer_on(FaultyBackend("flaky", Fault(trouble, place)), fallback=None, name="mine")
    with pytest.raises(BackendError, match="backend 'flaky' failed in layer 'mine'") as caught:
        layer.vjp(X, np.ones((4, 3)))
    cause = ERRORS[trouble]()
    assert type(caught.value.__cause__) is type(cause)
    assert caught.value.cause is caught.value.__cause__
    assert str(cause) in str(caught.value)
    assert caught.value.backend == "flaky"
    assert fallback_counts() == {}


@pytest.mark.parametrize("place", ["forward", "backward"])
@pytest.mark.parametrize("trouble", BAD_RESULTS)
def test_none_raises_for_results_that_cannot_be(trouble, place):
    layer = layer_on(FaultyBackend("flaky", Fault(trouble, place)), fallback=None)
    with pytest.raises(BackendError, match="'flaky'"):
        layer.vjp(X, np.ones((4, 3)))


def test_a_wrong_shape_is_named():
    layer = layer_on(FaultyBackend("flaky", Fault("misses a row", "forward")), fallback=None)
    with pytest.raises(BackendError, match=r"returned outputs of shape \(3, 3\), expected \(4, 3\)"):
        layer(X)


def test_our_own_engines_have_no_fallback():
    assert [b.name for b in layer_on("statevector")._program.backends] == ["statevector"]
    assert [b.name for b in layer_on(FaultyBackend("theirs", None))._program.backends] == ["theirs", "statevector"]


def test_the_layer_works_again_after_a_failure():
    backend = FaultyBackend("flaky", Fault("raises", "forward"))
    layer = layer_on(backend, fallback=None)
    with pytest.raises(BackendError):
        layer(X)
    backend.fault = None
    np.testing.assert_array_equal(layer(X), expected())


def test_interrupts_are_no_failures():
    class Interrupted(FaultyBackend):
        def strikes(self, place):
            if place == "forward":
                raise KeyboardInterrupt
            return False

    with pytest.raises(KeyboardInterrupt):
        layer_on(Interrupted("flaky", None))(X)
    assert fallback_counts() == {}


# -- the caller's mistakes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "error"),
    [
        (np.ones((4, 5)), ShapeError),
        (np.ones(3), ShapeError),
        (np.array([[0.0, np.nan, 0.0]]), InputError),
        (np.array([["a", "b", "c"]]), InputError),
        (np.ones((1, 3), complex), InputError),
    ],
    ids=["wrong count", "no batch", "NaN", "text", "complex"],
)
def test_a_mistake_reaches_no_backend(x, error):
    backend = FaultyBackend("fine", None)
    layer = layer_on(backend)
    for attempt in (lambda: layer(x), lambda: layer.vjp(x, np.ones((4, 3)))):
        with pytest.raises(error):
            attempt()
    assert backend.calls == dict.fromkeys(PLACES, 0)
    assert fallback_counts() == {}
    np.testing.assert_array_equal(layer(X), expected())


def test_weights_that_are_not_finite_are_no_failure_of_the_backend():
    layer = layer_on(FaultyBackend("fine", None))
    layer.theta = np.where(np.arange(12) == 7, np.nan, THETA)
    for attempt in (lambda: layer(X), lambda: layer.vjp(X, np.ones((4, 3)))):
        with pytest.raises(InputError, match=r"theta has nan at index 7"):
            attempt()
    assert fallback_counts() == {}


def test_cotangents_that_are_not_finite_are_no_failure_of_the_backend():
    layer = layer_on(FaultyBackend("fine", None))
    with np.errstate(invalid="ignore"):
        d_theta, _ = layer.vjp(X, np.full((4, 3), np.nan))
    assert np.isnan(d_theta).any()
    assert fallback_counts() == {}


@pytest.mark.parametrize(
    "error", [ShapeError("s"), InputError("i"), SpecError("s"), CapabilityError("c"), GradientError("g")]
)
def test_a_backend_that_finds_a_mistake_says_so(error):
    """What a backend raises of these kinds, another one would meet as well."""

    class Strict(FaultyBackend):
        def strikes(self, place):
            if place == "forward":
                raise error
            return False

    with pytest.raises(type(error)) as caught:
        layer_on(Strict("strict", None))(X)
    assert caught.value is error
    assert fallback_counts() == {}


# -- chains -----------------------------------------------------------------------------------------------------------


def chain(*backends, register):
    for backend in backends:
        register(backend.name, backend)
    return tuple(backend.name for backend in backends)


def test_a_chain_is_run_in_order(register):
    first, second, third = (
        FaultyBackend("first", Fault("raises", "forward")),
        FaultyBackend("second", Fault("is NaN", "forward")),
        FaultyBackend("third", None),
    )
    names = chain(first, second, third, register=register)
    layer = layer_on(names[0], fallback=names[1:], name="mine")
    with pytest.warns(FallbackWarning) as said:
        np.testing.assert_array_equal(layer(X), expected())
    assert [(w.message.backend, w.message.used) for w in said] == [("first", "second"), ("second", "third")]
    assert layer.fallbacks == {
        FallbackEvent("mine", "first", "second", "RuntimeError"): 1,
        FallbackEvent("mine", "second", "third", "BackendError"): 1,
    }
    assert layer.explain() == "mine: first (as asked), then second, then third"


@pytest.mark.parametrize("place", PLACES)
def test_gradients_run_the_chain_and_try_each_backend_once(place, register):
    backends = [FaultyBackend(name, Fault("raises", place)) for name in ("first", "second")]
    names = chain(*backends, register=register)
    layer = layer_on(names[0], fallback=(names[1], "statevector"))
    with pytest.warns(FallbackWarning):
        d_theta, d_x = layer.vjp(X, np.ones((4, 3)))
    local = layer_on("statevector").vjp(X, np.ones((4, 3)))
    np.testing.assert_array_equal(d_theta, local[0])
    np.testing.assert_array_equal(d_x, local[1])
    assert [backend.calls[place] for backend in backends] == [1, 1]
    assert sorted(layer.fallbacks.values()) == [1, 1]


@pytest.mark.parametrize("place", PLACES)
def test_where_the_whole_chain_fails(place, register):
    backends = [FaultyBackend(name, Fault("raises", place)) for name in ("first", "second")]
    names = chain(*backends, register=register)
    layer = layer_on(names[0], fallback=names[1], name="mine")
    with (
        pytest.warns(FallbackWarning) as said,
        pytest.raises(BackendError, match="'second' failed in layer 'mine'") as caught,
    ):
        layer.vjp(X, np.ones((4, 3)))
    assert len(said) == 1
    assert caught.value.backend == "second"
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert [backend.calls[place] for backend in backends] == [1, 1]
    assert list(layer.fallbacks.values()) == [1]


def test_a_backend_without_vjp_falls_back_in_its_shifted_circuits():
    """Its gradients come from the parameter-shift rule; those fail, and the adjoint of the next one takes over."""
    backend = FaultyBackend("flaky", Fault("raises", "forward", after=1), vjp=False)
    layer = layer_on(backend)
    with pytest.warns(FallbackWarning):
        d_theta, _ = layer.vjp(X, np.ones((4, 3)))
    np.testing.assert_allclose(d_theta, layer_on("statevector").vjp(X, np.ones((4, 3)))[0], rtol=0, atol=1e-12)
    assert backend.calls["forward"] == 2


@pytest.mark.parametrize("fallback", ["statevectr", ("statevector", "statevectr")])
def test_unknown_names_in_a_chain_are_found_at_once(fallback):
    with pytest.raises(UnknownBackendError, match=r"Did you mean 'statevector'\?"):
        layer_on("statevector", fallback=fallback)


@pytest.mark.parametrize("fallback", [3, [3], object()])
def test_what_is_no_fallback(fallback):
    with pytest.raises(SpecError, match="name or a Backend"):
        layer_on("statevector", fallback=fallback)


# -- layers that are copied, threads ----------------------------------------------------------------------------------


def test_a_copied_layer_has_counters_of_its_own(register):
    register("flaky", FaultyBackend("flaky", Fault("raises", "forward")))
    layer = layer_on("flaky")
    with pytest.warns(FallbackWarning):
        layer(X)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.fallbacks == {}
        with pytest.warns(FallbackWarning):
            np.testing.assert_array_equal(other(X), expected())


@pytest.mark.parametrize("make", [
    lambda backend: QuantumPooling(4, encoding="angle", backend=backend),
    lambda backend: QuantumReadout(4, 3, encoding="angle", backend=backend),
])  # fmt: skip
def test_all_layers_fall_back(make):
    with pytest.warns(FallbackWarning):
        values = make(FaultyBackend("flaky", Fault("raises", "forward")))(np.ones((2, 4)))
    assert np.isfinite(values).all()


def test_a_user_circuit_falls_back():
    circuit = Circuit(1)
    circuit.ry(circuit.inputs(1)[0], 0)
    layer = QuantumLayer(circuit, Pauli("Z"), backend=FaultyBackend("flaky", Fault("is nothing", "forward")))
    with pytest.warns(FallbackWarning):
        np.testing.assert_allclose(layer(np.array([[0.3]])), [[np.cos(0.3)]], atol=1e-12)


@settings(max_examples=20)
@given(st.lists(st.booleans(), min_size=1, max_size=4))
def test_a_chain_by_itself(good):
    """The first backend that works gives the result; none gives the last one's error."""
    chain = Chain("layer", [f"backend{k}" for k in range(len(good))])
    tried = []

    def attempt(backend):
        tried.append(backend)
        if not good[backend]:
            raise OSError(f"backend {backend}")
        return f"from {backend}"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        if any(good):
            assert chain.run(attempt) == (f"from {good.index(True)}", good.index(True))
        else:
            with pytest.raises(BackendError, match=f"backend {len(good) - 1}") as caught:
                chain.run(attempt)
            assert isinstance(caught.value.cause, OSError)
    assert tried == list(range(len(tried)))
    assert len(tried) == (good.index(True) + 1 if any(good) else len(good))
