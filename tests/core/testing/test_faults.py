"""Over two hundred faulty backends: the kit refuses each, and the backends that they are made from pass it.

`python -m tests.kit_faults` runs the whole kit on all of them; here each meets the check that is there for it.
"""

from __future__ import annotations

import pytest

pytest.importorskip("qulacs")
pytest.importorskip("torch")

from qstore_core.testing import SENTENCES, conformance_checks, run_checks
from tests.kit_faults import FAULTS
from tests.kit_faults.backend import QulacsBackend
from tests.kit_faults.jobs import JobBackend, OverHttp
from tests.kit_faults.run import refusals, sentence_table
from tests.kit_faults.tensors import TorchBackend

RIGHT = {"qulacs": QulacsBackend, "jobs": JobBackend, "http": OverHttp, "torch": TorchBackend}
CHECKS = {str(check): check for check in conformance_checks("statevector")}


@pytest.mark.slow
@pytest.mark.parametrize("make", RIGHT.values(), ids=RIGHT)
def test_a_right_backend_passes(make):
    report = run_checks(make())
    assert report.ok, str(report)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_is_refused(fault):
    """With a reason that says what was expected."""
    refused = refusals(fault, only=fault.refused_by)
    assert refused
    assert len(refused[0][1]) > 20


@pytest.mark.slow
@pytest.mark.parametrize("number", [3, 21])
def test_a_fault_that_only_one_check_refuses(number):
    """Two of them by the whole kit; the command runs them all."""
    fault = [fault for fault in FAULTS if fault.only][number]
    assert [check for check, _ in refusals(fault)] == [fault.refused_by]


def test_every_check_has_a_fault_that_only_it_refuses():
    assert {fault.refused_by for fault in FAULTS if fault.only} == set(CHECKS)


def test_every_sentence_has_a_fault():
    refusing = {fault.refused_by for fault in FAULTS}
    assert {sentence for name in refusing for sentence in CHECKS[name].sentences} == set(SENTENCES)


def test_names_are_unique():
    assert len({str(fault) for fault in FAULTS}) == len(FAULTS) > 200


def test_the_table_of_the_documentation_is_fresh():
    from pathlib import Path

    page = (Path(__file__).parents[3] / "docs" / "plugins.md").read_text(encoding="utf-8")
    assert sentence_table() in page, "run python -m tests.kit_faults --sentences, and put it into docs/plugins.md"
