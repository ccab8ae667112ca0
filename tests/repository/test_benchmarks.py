"""The benchmarks measure what they say: values first, limits kept, tables made of the committed results."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import report
from benchmarks.arithmetic import counts
from benchmarks.lab import Lab, Remote
from benchmarks.layers import gpu, passes
from benchmarks.peers import LIBRARIES, names
from benchmarks.problem import Problem, difference, reference
from benchmarks.results import Results
from benchmarks.simulators import circuits
from benchmarks.worker import NoAnswerError

ROOT = Path(__file__).parents[2]
POINT = Problem(2, 3)


def run(*words):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_reference_values_are_the_closed_form():
    one = Problem(1, 2, depth=1, encoding="angle")
    (ry, _), x = one.angles()[0, 0], one.features()[:, 0].astype(np.float64)
    assert difference(reference(one)["outputs"][:, 0], np.cos(x + ry)) < one.tolerance


def test_features_of_a_row_do_not_depend_on_the_batch():
    few, many = Problem(3, 2).features(), Problem(3, 9).features()
    assert np.array_equal(few, many[:2])
    assert len(np.unique(many, axis=0)) == len(many)


def test_rows_that_are_not_drawn_are_shifted_ones(monkeypatch):
    monkeypatch.setattr("benchmarks.problem._DRAWN", 2 << 3)
    x = Problem(3, 6).features()
    assert np.array_equal(x[5], np.roll(x[1], 2))


def test_a_difference_is_relative_and_nan_never_passes():
    assert difference(np.array([1.0, 2.2]), np.array([1.0, 2.0])) == pytest.approx(0.1)
    assert difference(np.array([np.nan]), np.array([1.0])) == np.inf
    assert difference(np.zeros(2), np.zeros(3)) == np.inf


@pytest.fixture
def lab():
    made = Lab(limit=60.0, rounds=1, seconds=0.01)
    yield made
    made.close()


def test_a_library_is_timed_after_its_values_were_checked(lab):
    measured = lab.measure(POINT, ["numpy"])
    for mode in ("forward", "step"):
        result = measured["numpy", mode]
        assert result["status"] == "ok"
        assert 0 <= result["difference"] <= POINT.tolerance
        assert 0 < result["low"] <= result["seconds"] <= result["high"]


def test_wrong_values_get_no_time(lab, monkeypatch):
    right = reference(POINT)
    monkeypatch.setattr("benchmarks.lab.reference", lambda problem: right | {"d_theta": right["d_theta"] + 0.1})
    measured = lab.measure(POINT, ["numpy"])
    assert measured["numpy", "forward"]["status"] == "ok"
    assert measured["numpy", "step"]["status"] == "wrong"
    assert "seconds" not in measured["numpy", "step"]


def test_a_library_that_is_missing_is_unavailable(lab):
    if (result := lab.measure(POINT, ["gpu-triton-qml"])["gpu-triton-qml", "step"])["status"] == "ok":
        pytest.skip("triton_qml is installed, and there is a GPU")
    assert result["status"] in ("unavailable", "failed")
    assert "seconds" not in result


def test_a_call_over_the_limit_ends_the_worker_and_larger_points_are_skipped(lab):
    lab.limit = 0.0
    assert lab.measure(POINT, ["numpy"])["numpy", "step"]["status"] == "over"
    assert lab.measure(Problem(3, 3), ["numpy"])["numpy", "step"]["status"] == "skipped"


def test_a_worker_over_its_memory_is_stopped():
    remote = Remote("numpy", None, memory=1)
    try:
        with pytest.raises(NoAnswerError) as caught:
            remote.answer()
        assert caught.value.status == "memory"
    finally:
        remote.close()


def test_libraries_have_notes_and_names_of_their_own():
    columns = [*names("ours"), *names("peer"), *names("ours", "cuda"), *names("peer", "cuda")]
    assert len(set(columns)) == len(columns)
    assert all(LIBRARIES[name].note for name in columns)


def test_one_file_per_peer():
    modules = {p.stem for p in (ROOT / "benchmarks" / "peers").glob("[a-z]*.py")}
    loaded = {build.__module__.rpartition(".")[2] for build in (x.build for x in LIBRARIES.values())}
    assert modules == loaded


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("*.jsonl")), ids=lambda path: path.stem)
def test_the_page_shows_the_committed_results(path):
    page = (ROOT / "docs" / "performance.md").read_text()
    assert "\n".join(report.tables(Results(path))) in page


def test_arithmetic_is_counted_per_batch():
    one, many = (counts(Problem(4, batch), "engine-numba", "step") for batch in (1, 32))
    assert many == {key: 32 * value for key, value in one.items()}
    assert one["scheduled"] <= one["multiply_adds"]


def test_the_command_line():
    listed = run("--help")
    assert listed.returncode == 0
    assert all(word in listed.stdout for word in ("page", "grid", "bases", "memory", "crossover", "gpu", "accuracy"))
    assert run("gird").returncode == 2


@pytest.fixture
def stand_in(monkeypatch):
    """The GPU's grid with libraries of the CPU in their places."""
    torch = pytest.importorskip("torch")
    kinds = {"ours": ("numpy",), "peer": ("numpy-numba",), "nothing": ("nothing-torch",)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a stand-in")
    monkeypatch.setattr(gpu, "names", lambda kind, device: kinds[kind])
    ceilings = {"copy": 1e11, "multiply_adds": 1e11, "launch": 5e-6, "launch_in_graph": 1e-6}
    monkeypatch.setattr(gpu, "ceilings", lambda: ceilings)


@pytest.mark.parametrize("minutes", ["5", "0"])
def test_the_grid_of_a_gpu(stand_in, tmp_path, capsys, minutes):
    parser = argparse.ArgumentParser()
    gpu.add_options(parser)
    path = tmp_path / "gpu.jsonl"
    words = ["--qubits", "2,3", "--batches", "4", "--rounds", "1", "--seconds", "0.01", "--minutes", minutes]
    gpu.main(parser.parse_args([*words, "--output", str(path)]))
    results, printed = Results(path), capsys.readouterr().out
    if minutes == "0":
        assert len(list(results.find("left"))) == 2
        assert "Not reached" in printed
        return
    for line in (results.get("gpu", library="numpy", n_qubits=n, mode="step") for n in (2, 3)):
        assert line["status"] == "ok"
        assert line["floor"] >= line["bytes"] / 1e11
    assert "a stand-in" in printed
    assert "Batch 4, forward + backward" in printed


def test_passes_are_compared_with_a_copy_of_what_they_move():
    middle = {"AMPLITUDES": True, "FIRST": False, "KEEP": True, "READ": False}
    point = Problem(16, 2)
    state = 8 * 2 << 16
    kept = [
        passes.moved(middle | changes, kernel, point)
        for kernel, changes in (
            ("parts_of_norms", {}),
            ("pass_forward", {"FIRST": True}),
            ("pass_forward", {}),
            ("pass_forward", {"KEEP": False}),
            ("pass_backward", {"READ": True}),
            ("pass_backward", {}),
            ("pass_backward", {"FIRST": True}),
            ("pass_backward", {"FIRST": True, "AMPLITUDES": False}),
            ("sum_programs", {}),
        )
    ]
    halves = (1, 3, 4, 2, 6, 8, 5, 4)
    assert kept == [half * state // 2 for half in halves] + [None]
    lines = [{"kernel": "sum_programs", "bytes": None, "seconds": 1e-6}]
    lines += [{"kernel": "pass_forward", "bytes": bytes_, "seconds": 1e-5} for bytes_ in (1e6, 3e6)]
    rows = passes.shares(lines, 1e12)
    assert [row[3] for row in rows] == ["–", "10 %", "30 %", "20 %", "19 %"]


@pytest.mark.skipif("torch" in sys.modules and sys.modules["torch"].cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_says_so():
    done = run("gpu")
    assert done.returncode == 0, done.stderr
    assert "no GPU" in done.stdout


TEN = (
    "StronglyEntanglingLayers", "BasicEntanglerLayers", "SimplifiedTwoDesign", "IQPEmbedding", "QAOAEmbedding", "QCNN",
    "RealAmplitudes", "EfficientSU2", "ZZFeatureMap", "TwoLocal",
)  # fmt: skip


@pytest.mark.parametrize("name", TEN)
def test_ten_circuits_compute_here_what_they_do_where_they_came_from(name):
    for module in ("pennylane", "qiskit_machine_learning"):
        pytest.importorskip(module)
    assert max(circuits.deviation(circuits.origins(3)[name](), 2)) < circuits.TOLERANCE


def test_there_are_ten_circuits():
    pytest.importorskip("qiskit")
    assert tuple(circuits.origins(3)) == TEN


def test_against_a_revision():
    """The tree against its last commit: both sides give the right values, so there is a ratio."""
    done = run("against", "HEAD", "--only", "numpy", "--qubits", "2", "--rounds", "2", "--seconds", "0.01")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("qstore NumPy")]
    assert len(rows) == 2
    assert all(float(row.rpartition("(")[0].split()[-1]) > 0 for row in rows)


def test_against_what_is_no_revision():
    done = run("against", "no-such-revision", "--only", "numpy")
    assert done.returncode == 1
    assert "'no-such-revision' is no revision of this repository" in done.stderr
