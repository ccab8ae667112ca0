"""The circuit cache: least recently used out first, compiled once by many threads, no failures kept."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from qstore_core import (
    Capabilities,
    Circuit,
    Expectation,
    QuantumFeatureExtractor,
    cache_clear,
    cache_info,
    get_backend,
)
from qstore_core.runtime.cache import Recipe, _Cache, compiled

pytestmark = pytest.mark.usefixtures("empty_cache")


def waiting_in_the_cache():
    """How many threads wait for another one's compilation: those whose innermost frame is the cache's own."""
    code = _Cache.get.__code__
    return sum(frame.f_code is code for frame in sys._current_frames().values())


def counters(info=cache_info):
    """(hits, misses, circuits)."""
    return info()[:3]


def circuit(angle=0.0):
    c = Circuit(1)
    c.ry(angle + c.weights(1)[0], 0)
    return c


class Counting:
    """The statevector engine, with a count of what was compiled; `before` runs ahead of each compilation."""

    name = "counting"
    capabilities = Capabilities()

    def __init__(self, before=lambda: None):
        self.compiled, self.before = [], before

    def compile(self, circuit, measurement, **arguments):
        self.before()
        self.compiled.append((circuit, measurement, arguments))
        return get_backend("statevector").compile(circuit, measurement, **arguments)


def recipe(backend, angle=0.0, **changes):
    return replace(Recipe(circuit(angle), Expectation("Z"), backend), **changes)


def test_the_same_circuit_is_compiled_once():
    backend = Counting()
    first = compiled(recipe(backend))
    assert compiled(recipe(backend)) is first  # equal, not identical, recipes
    assert len(backend.compiled) == 1
    assert counters() == (1, 1, 1)


def test_the_backend_gets_what_the_recipe_says():
    backend = Counting()
    compiled(recipe(backend, dtype="float64"))
    ((built, measurement, arguments),) = backend.compiled
    assert (built, measurement) == (circuit(), Expectation("Z"))
    assert arguments == {"dtype": "float64", "shots": None}


@pytest.mark.parametrize(
    "changes",
    [{"dtype": "float64"}, {"measurement": Expectation("X")}, {"circuit": circuit(0.5)}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_makes_a_difference(changes):
    backend = Counting()
    assert compiled(recipe(backend)) is not compiled(recipe(backend, **changes))
    assert len(backend.compiled) == 2


def test_two_instances_of_a_backend_are_two_backends():
    one, two = Counting(), Counting()
    compiled(recipe(one))
    compiled(recipe(two))
    assert len(one.compiled) == len(two.compiled) == 1


class Sized(Counting):
    """Its executables say how large they are."""

    def __init__(self, nbytes):
        super().__init__()
        self.nbytes = nbytes

    def compile(self, circuit, measurement, **arguments):
        executable = super().compile(circuit, measurement, **arguments)
        executable.nbytes = self.nbytes
        return executable


def test_the_least_recently_used_goes_first():
    backend = Sized(1000_000)
    cache = _Cache(max_nbytes=2_500_000)
    a, b, c = (recipe(backend, angle) for angle in (0.1, 0.2, 0.3))
    cache.get(a)
    cache.get(b)
    cache.get(a)  # now b is the older one
    cache.get(c)
    assert counters(cache.info) == (1, 3, 2)
    assert cache.info().nbytes == 2_000_000
    cache.get(a)
    assert cache.info().hits == 2
    cache.get(b)
    assert cache.info().misses == 4


def test_what_grows_with_use_is_counted_as_it_is_now():
    backend, cache = Sized(1000_000), _Cache(max_nbytes=2_500_000)
    first = cache.get(recipe(backend, 0.1))
    first.nbytes = 2_400_000
    cache.get(recipe(backend, 0.2))
    assert counters(cache.info) == (0, 2, 1)


def test_one_that_is_larger_than_the_bound_is_kept_until_the_next():
    backend, cache = Sized(3_000_000), _Cache(max_nbytes=2_500_000)
    one = recipe(backend, 0.1)
    assert cache.get(one) is cache.get(one)


def test_the_size_of_what_says_nothing_is_estimated():
    class Arrays(Counting):
        def compile(self, circuit, measurement, **arguments):
            executable = super().compile(circuit, measurement, **arguments)
            executable.tables = {"one": [np.zeros(1000), np.zeros(1000)], "again": executable}
            return executable

    backend, cache = Arrays(), _Cache(max_nbytes=1 << 30)
    cache.get(recipe(backend))
    assert 16_000 <= cache.info().nbytes <= 100_000


def test_the_size_of_objects_that_make_attributes_up():
    """As numba's do while another thread compiles: asking for one that is missing fails in its own way."""

    class Strange:
        __slots__ = ("missing",)

        def __getattr__(self, name):
            raise KeyError(name)

    class Arrays(Counting):
        def compile(self, circuit, measurement, **arguments):
            executable = super().compile(circuit, measurement, **arguments)
            executable.tables = [Strange(), np.zeros(1000)]
            return executable

    cache = _Cache(max_nbytes=1 << 30)
    cache.get(recipe(Arrays()))
    assert 8_000 <= cache.info().nbytes <= 100_000


def test_seeds_are_no_part_of_what_is_compiled():
    """30 exact layers of 30 seeds, 30 sampled ones."""
    backend = Counting()
    for seed in range(30):
        QuantumFeatureExtractor(2, backend=backend, fallback=None, seed=seed)(np.ones((2, 4)))
    assert len(backend.compiled) == 1


def test_clearing():
    backend = Counting()
    compiled(recipe(backend))
    cache_clear()
    assert counters() == (0, 0, 0)
    compiled(recipe(backend))
    assert len(backend.compiled) == 2


def test_many_threads_at_once_compile_once():
    threads = 8
    together = threading.Barrier(threads)

    def until_the_others_wait():
        while waiting_in_the_cache() < threads - 1:
            threading.Event().wait(0.001)

    backend = Counting(until_the_others_wait)

    def ask():
        together.wait()
        return compiled(recipe(backend))

    with ThreadPoolExecutor(threads) as pool:
        results = [future.result() for future in [pool.submit(ask) for _ in range(threads)]]
    assert len(backend.compiled) == 1
    assert all(result is results[0] for result in results)
    assert counters() == (threads - 1, 1, 1)


def test_different_circuits_compile_at_the_same_time():
    """Each compilation waits for the other to begin: one lock for all would never get there."""
    both = threading.Barrier(2, timeout=30)
    backend = Counting(both.wait)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(compiled, recipe(backend, angle)) for angle in (0.1, 0.2)]
        assert all(future.result() for future in futures)


class Failing(Counting):
    def __init__(self, failures):
        super().__init__(self.fail)
        self.failures, self.asked = failures, 0

    def fail(self):
        self.asked += 1
        if self.asked <= self.failures:
            raise RuntimeError(f"failure {self.asked}")


def test_a_failure_is_not_kept():
    backend = Failing(2)
    for attempt in (1, 2):
        with pytest.raises(RuntimeError, match=f"failure {attempt}"):
            compiled(recipe(backend))
        assert counters() == (0, 0, 0)
    assert compiled(recipe(backend)) is compiled(recipe(backend))


def test_who_waits_for_a_failure_tries_again_and_that_one_is_kept():
    entered, go_on = threading.Event(), threading.Event()

    class Slow(Failing):
        def fail(self):
            if self.asked == 0:
                entered.set()
                go_on.wait(30)
            super().fail()

    backend = Slow(1)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(compiled, recipe(backend))
        entered.wait(30)
        second = pool.submit(compiled, recipe(backend))
        while waiting_in_the_cache() < 1:
            threading.Event().wait(0.001)
        go_on.set()
        with pytest.raises(RuntimeError, match="failure 1"):
            first.result()
        kept = second.result()
    assert compiled(recipe(backend)) is kept
    assert counters() == (1, 1, 1)


def test_layers_share_compiled_circuits():
    backend = Counting()
    x = np.ones((2, 4), np.float32)
    one = QuantumFeatureExtractor(2, backend=backend, fallback=None)
    two = QuantumFeatureExtractor(2, backend=backend, fallback=None)
    for layer in (one, two, one):
        layer(x)
    assert len(backend.compiled) == 1
    assert cache_info().hits == 1  # a layer keeps what it has found
    one(x.astype(np.float64))
    assert [arguments["dtype"] for *_, arguments in backend.compiled] == ["float32", "float64"]
