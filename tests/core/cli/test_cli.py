"""The `qstore` command, through its executable, as a person would run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qstore_core import LayerSpec, QuantumFeatureExtractor, QuantumReadout

QSTORE = Path(sys.executable).parent / ("qstore.exe" if os.name == "nt" else "qstore")


def qstore(*words, stdin=""):
    """Exit status, standard output, standard error."""
    environment = os.environ | {"COLUMNS": "200", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [str(QSTORE), *words], capture_output=True, text=True, check=False, input=stdin, env=environment, timeout=120
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_backends_are_listed():
    status, out, _ = qstore("backends", "--json")
    assert status == 0
    assert {"statevector", "numba", "torch", "aer"} <= {row["name"] for row in json.loads(out)}
    assert "statevector" in qstore("backends")[1]


def test_doctor_says_that_all_is_well():
    status, out, _ = qstore("doctor")
    assert (status, out.splitlines()[-1]) == (0, "all well")
    found = json.loads(qstore("doctor", "--json")[1])
    assert found["ok"]
    assert any(row["what"] == "self-test statevector" and row["ok"] for row in found["findings"])
    kernels = next(row["found"] for row in found["findings"] if row["what"] == "numba's cache")
    assert kernels.startswith("empty") or int(kernels.split()[0]) > 0


def test_doctor_works_without_rich(monkeypatch):
    """A plain install has neither colours nor completion."""
    code = (
        "import sys; sys.modules['rich'] = sys.modules['shtab'] = None\n"
        "from qstore_core.cli import main; sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "self-test statevector" in done.stdout
    assert done.stdout.endswith("all well\n")


def test_doctor_finds_a_wrong_engine():
    """One whose ⟨Z⟩ has the wrong sign."""
    code = (
        "import sys; from qstore_core.engines import statevector\n"
        "forward = statevector.StatevectorExecutable.value_and_vjp\n"
        "statevector.StatevectorExecutable.forward = lambda self, *a: -forward(self, *a)[0]\n"
        "from qstore_core.cli import main; sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stderr
    assert done.stdout.endswith("wrong: self-test statevector\n")


def test_draw_shows_the_circuit():
    layer = QuantumFeatureExtractor(3, depth=1, encoding="angle")
    assert qstore("draw", "QuantumFeatureExtractor", "n_qubits=3", "depth=1", "encoding=angle")[1].strip() == (
        layer.draw().strip()
    )


def test_a_spec_is_read_from_a_file_and_from_standard_input(tmp_path):
    spec = QuantumReadout(3, n_classes=2).spec
    path = tmp_path / "layer.json"
    path.write_text(json.dumps(spec.to_dict()), encoding="utf-8")
    drawn = qstore("draw", str(path))[1]
    assert drawn == qstore("draw", "-", stdin=json.dumps(spec.to_dict()))[1]
    assert LayerSpec.from_dict(json.loads(qstore("draw", str(path), "--json")[1])) == spec


def test_explain_counts_what_hardware_would_run():
    """One qubit, two weights, one feature: 2 circuits for each of 3 angles and one for the value, in two bases."""
    words = [
        "explain",
        "QuantumFeatureExtractor",
        "n_qubits=1",
        "depth=1",
        "encoding=angle",
        "measurement_bases=('Z','X')",
    ]
    status, out, _ = qstore(*words, "--rows", "100", "--shots", "10", "--json")
    rows = {row["what"]: row["value"] for row in json.loads(out)}
    assert status == 0
    assert rows["hardware, an epoch"] == "100 rows in 4 steps: 1,400 circuits, 14,000 shots"


def test_explain_takes_a_backend():
    out = qstore("explain", "QuantumReadout", "n_qubits=2", "--backend", "statevector", "--json")[1]
    assert {row["what"]: row["value"] for row in json.loads(out)}["runs on"].startswith("statevector (as asked")


def test_bench_compares_engines():
    words = [
        "bench",
        "QuantumReadout",
        "n_qubits=2",
        "n_classes=2",
        "--seconds",
        "0.05",
        "--backend",
        "statevector",
        "--backend",
        "numba",
    ]
    status, out, _ = qstore(*words, "--json")
    rows = json.loads(out)
    assert status == 0
    assert {row["backend"] for row in rows} == {"statevector", "numba"}
    assert all(row["step ms"] > 0 for row in rows)


def test_check_backend_runs_the_conformance_kit():
    status, out, _ = qstore("check-backend", "statevector")
    assert status == 0
    assert "passed" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["draw", "QuantumReadou", "n_qubits=3"], "Did you mean 'QuantumReadout'?"),
        (["draw", "QuantumReadout", "n_qubit=3"], "Did you mean 'n_qubits'?"),
        (["draw", "QuantumReadout", "3"], "expected key=value"),
        (["draw", "QuantumReadout"], "needs n_qubits="),
        (["draw", "nowhere.json"], "cannot be read"),
        (["draw", "-"], "is not JSON"),
        (["explain", "QuantumReadout", "n_qubits=0"], "n_qubits"),
        (["explain", "QuantumReadout", "n_qubits=2", "backend=aer"], "Write --backend NAME"),
        (["explain", "QuantumReadout", "n_qubits=2", "--backend", "statevectr"], "Did you mean 'statevector'?"),
        (["check-backend", "statevectr"], "Did you mean 'statevector'?"),
        (["bnch"], "invalid choice"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_said_in_a_line_and_exits_with_2(words, said):
    status, out, err = qstore(*words)
    assert (status, out) == (2, "")
    assert said in err


@pytest.mark.parametrize(
    ("content", "said"), [(b"[" * 100_000, "nested too deep"), (b"1" * 5_000, "not JSON"), (b"\xff\xfe{}", "UTF-8")]
)
def test_a_file_that_cannot_be_read_is_said_in_a_line(content, said, tmp_path):
    path = tmp_path / "spec.json"
    path.write_bytes(content)
    status, out, err = qstore("draw", str(path))
    assert (status, out) == (2, "")
    assert said in err
    assert len(err) < 500


def test_an_argument_that_is_nested_too_deep_is_text():
    status, out, err = qstore("draw", "QuantumReadout", "n_qubits=" + "[" * 10_000)
    assert (status, out) == (2, "")
    assert "n_qubits is a whole number" in err


def test_shells_complete_words():
    assert "complete" in qstore("--print-completion", "bash")[1]


def test_compare_prints_a_table_and_what_was_found():
    words = ["compare", "--data", "wine", "--seeds", "2", "--epochs", "2", "--qubits", "2"]
    status, out, _ = qstore(*words)
    assert status == 0
    assert "logistic: a logistic regression" in out
    assert out.splitlines()[-1].startswith("Of 1 data sets")
    [row] = json.loads(qstore(*words, "--json")[1])
    assert row["data"] == "wine"
    assert qstore("compare", "--data", "vine")[0] == 2


def test_a_preset_stands_for_arguments():
    shown = qstore("draw", "QuantumFeatureExtractor", "preset=speed", "--width", "100")[1]
    assert shown.strip() == QuantumFeatureExtractor.from_preset("speed").draw(100).strip()
    assert max(map(len, shown.splitlines())) <= 100
    status, _, err = qstore("draw", "QuantumFeatureExtractor", "preset=sped")
    assert (status, "speed" in err) == (2, True)


def test_draw_writes_a_picture(tmp_path):
    assert qstore("draw", "QuantumReadout", "n_qubits=2", "--svg", str(tmp_path / "c.svg"))[0] == 0
    assert "<svg" in (tmp_path / "c.svg").read_text(encoding="utf-8")
