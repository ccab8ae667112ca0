"""The `qstore` command: backends, doctor, draw, explain, bench, check-backend.

    qstore doctor
    qstore explain QuantumFeatureExtractor n_qubits=8 depth=2

Works on NumPy and pluggy alone; with `pip install "qstore[cli]"` tables have colours and shells complete words.
"""

from .main import main

__all__ = ["main"]
