import numpy as np
import pytest

from qstore_core import QuantumFeatureExtractor, get_backend
from qstore_core.testing import conformance_checks


@pytest.mark.parametrize("check", conformance_checks("dense", qubits=6), ids=str)
def test_conformance(check):
    check()


def test_noise_shrinks_the_bloch_vector():
    x = np.array([[0.3]])
    exact, noisy = (
        QuantumFeatureExtractor(1, depth=1, encoding="angle", init="zeros", backend=get_backend("dense", noise=noise))(
            x
        )
        for noise in (0.0, 0.1)
    )
    np.testing.assert_allclose(noisy, 0.9**3 * exact, rtol=1e-6)  # RY(x), RY(0), RZ(0): three gates
