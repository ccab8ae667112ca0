"""Time per layer, pass and part: counted in every thread, and next to free while nobody looks."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import qstore_core
from qstore_core import QuantumFeatureExtractor, QuantumReadout
from qstore_core.runtime.profiling import PARTS, profile, timed


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


# -- parts, counts, files ---------------------------------------------------------------------------------------------


def step(layer, batch=4, features=4):
    x = np.ones((batch, features))
    return layer.vjp(x, np.ones((batch, layer.output_dim)))


def parts(times):
    return {(t.phase, t.part): t.calls for t in times.parts}


def test_an_engine_that_encodes_itself():
    layer = QuantumFeatureExtractor(2, backend="statevector", seed=0, name="mine")
    qstore_core.cache_clear()
    with profile() as times:
        for _ in range(3):
            step(layer)
    found = parts(times)
    assert found["forward", "simulate"] == found["backward", "gradient"] == 3
    assert found["forward", "compile"] == 1
    assert times.counts["circuits"] == 12
    assert times.counts["cache misses"] == 1
    assert {t.layer for t in times.parts} == {"mine"}
    for phase in ("forward", "backward"):
        assert sum(t.total for t in times.parts if t.phase == phase) <= times.total(phase=phase)


def test_a_shift_rule_counts_the_circuits_that_it_runs():
    """Two angles, two shifts each; values and gradients of four rows, of 10 shots each."""
    layer = QuantumFeatureExtractor(
        1, depth=1, encoding="angle", measurement_bases="X", backend="aer", shots=10, seed=0
    )  # fmt: skip
    with profile() as times:
        layer.vjp(np.ones((4, 1)), np.ones((4, 1)))
    found = parts(times)
    assert found["forward", "simulate"] == found["backward", "simulate"] == found["backward", "gradient"] == 1
    assert times.counts["circuits"] == 4 + 4 * 2 * 3
    assert times.counts["shots"] == 10 * times.counts["circuits"]


def test_what_is_computed_from_values_is_a_part():
    with profile() as times:
        QuantumReadout(2, n_classes=2, log=True, backend="statevector")(np.ones((2, 4)))
    assert parts(times)["forward", "measure"] == 1


def test_every_part_is_documented():
    with profile() as times:
        step(QuantumFeatureExtractor(2, backend="statevector"))
    assert {t.part for t in times.parts} <= set(PARTS)


def test_the_table_the_trace_and_the_scalars_tell_the_same(tmp_path):
    layer = QuantumFeatureExtractor(2, backend="statevector", name="<mine>")
    with profile() as times:
        step(layer)
        with timed("other", "forward"):
            time.sleep(0.001)
    shown = str(times)
    assert shown.splitlines()[2].startswith("<mine>")
    assert "  simulate" in shown
    assert "4 circuits" in shown
    everything = {(t.layer, t.phase, t.part): t for t in (*times.timings, *times.parts)}
    trace = json.loads(times.write_trace(tmp_path / "trace.json").read_text(encoding="utf-8"))
    assert len(trace["traceEvents"]) == sum(t.calls for t in everything.values())
    for event in trace["traceEvents"]:
        assert event["ph"] == "X"
        assert 0 <= event["ts"] <= event["ts"] + event["dur"] <= times.wall * 1e6 + 1e-3
    [other] = [event for event in trace["traceEvents"] if event["args"]["layer"] == "other"]
    assert other["dur"] == pytest.approx(everything["other", "forward", ""].total * 1e6, abs=1e-3)
    assert times.scalars()["other/forward ms"] == everything["other", "forward", ""].mean * 1e3
    assert json.loads(json.dumps(times.to_dict()))["counts"] == times.counts
    assert "&lt;mine&gt;" in times._repr_html_()


def test_a_trace_has_a_bound_and_sums_have_none(monkeypatch, tmp_path):
    monkeypatch.setattr("qstore_core.runtime.profiling._MOST_SPANS", 10)
    with profile() as times:
        for _ in range(25):
            with timed("a", "forward"):
                pass
    trace = json.loads(times.write_trace(tmp_path / "trace.json").read_text(encoding="utf-8"))
    assert (len(trace["traceEvents"]), trace["otherData"]["dropped"], times.calls("a")) == (10, 15, 25)


def test_spans_are_summed_while_threads_add_more():
    stop = threading.Event()

    def work(_):
        count = 0
        while not stop.is_set():
            with timed("pooling", "forward"):
                count += 1
        return count

    with profile() as times, ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(work, k) for k in range(4)]
        for _ in range(50):
            assert times.calls() >= 0
        stop.set()
        total = sum(future.result() for future in futures)
    assert times.calls() == total
