"""Time per layer: counted in every thread, and next to free while nobody looks."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from qstore_core.runtime.profiling import profile, timed


def test_calls_totals_and_means():
    with profile() as times:
        for _ in range(3):
            with timed("features", "forward"):
                time.sleep(0.002)
        with timed("features", "backward"):
            pass
    forward, backward = times.timings
    assert (forward.layer, forward.phase, forward.calls) == ("features", "forward", 3)
    assert (backward.layer, backward.phase, backward.calls) == ("features", "backward", 1)
    assert forward.total >= 0.006
    assert forward.mean == forward.total / 3
    assert times.total() == forward.total + backward.total <= times.wall
    assert times.total("features", "forward") == forward.total
    assert times.calls(phase="backward") == 1
    assert times.total("absent") == 0


def test_nothing_is_kept_while_no_profile_is_open():
    with timed("before", "forward"):
        pass
    with profile() as times:
        pass
    with timed("after", "forward"):
        pass
    assert times.timings == ()
    wall = times.wall
    time.sleep(0.002)
    assert times.wall == wall


def test_threads_count_into_one_profile():
    barrier = threading.Barrier(8)

    def work(_):
        barrier.wait()
        for _ in range(500):
            with timed("pooling", "forward"):
                pass

    with profile() as times, ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert times.calls("pooling") == 4000


def test_profiles_nest():
    with profile() as outer:
        with timed("a", "forward"):
            pass
        with profile() as inner, timed("b", "forward"):
            pass
        with timed("c", "forward"):
            pass
    assert [t.layer for t in outer.timings] == ["a", "b", "c"]
    assert [t.layer for t in inner.timings] == ["b"]


def test_a_failing_call_is_counted_and_its_error_passes():
    with profile() as times, pytest.raises(ValueError, match="mine"), timed("a", "forward"):
        raise ValueError("mine")
    assert times.calls("a") == 1


def test_a_failing_block_closes_its_profile():
    with pytest.raises(ValueError, match="mine"), profile():
        raise ValueError("mine")
    assert timed("a", "forward") is timed("b", "backward")  # the shared one that does nothing


def test_off_it_makes_nothing_at_all():
    """No object per call, no clock: what it costs cannot grow with use."""
    assert len({id(timed(str(i), "forward")) for i in range(10)}) == 1


def test_table():
    with profile() as times:
        with timed("features", "forward"):
            time.sleep(0.001)
        with timed("readout", "backward"):
            pass
        while_open = str(times)
    lines = str(times).splitlines()
    assert lines[0].split() == ["layer", "phase", "calls", "total", "ms", "mean", "ms", "share"]
    assert lines[2].split()[:3] == ["features", "forward", "1"]
    assert lines[3].split()[:3] == ["readout", "backward", "1"]
    assert lines[4].startswith("all layers")
    assert len(while_open.splitlines()) == len(lines)
    assert max(map(len, lines)) <= 100


def test_an_empty_profile_prints():
    with profile() as times:
        pass
    assert "all layers" in str(times)
