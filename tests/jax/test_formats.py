"""Functions that leave JAX, run in a process that does not know qstore."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from qstore_core import CapabilityError
from qstore_jax import QuantumReadout
from tests.support.formats import run
from tests.support.tolerances import EXPORTED, VALUE


def test_exported_functions_compute_alone(tmp_path):
    layer = QuantumReadout(2, n_classes=3, seed=0)
    plain, theta = layer.as_operations(), layer.init()
    x = np.random.default_rng(0).uniform(size=(4, 4)).astype("float32")
    np.testing.assert_allclose(plain.apply(theta, x), layer.apply(theta, x), rtol=0, atol=VALUE["float32"])
    rows = jax.ShapeDtypeStruct(export.symbolic_shape("rows, 4"), jnp.float32)
    program = export.export(jax.jit(lambda x: plain.apply(theta, x)))(rows)
    (tmp_path / "program").write_bytes(program.serialize())
    np.savez(tmp_path / "data.npz", x=x, y=layer.apply(theta, x))
    run("jax", tmp_path / "program", tmp_path / "data.npz", EXPORTED)


def test_what_operations_do_not_compute_is_refused():
    layer = QuantumReadout(2, encoding="angle", backend="statevector", gradient="parameter-shift", seed=0)
    with pytest.raises(CapabilityError, match="a graph on disk cannot call the host"):
        layer.as_operations()
