"""Observables, and what is measured of a circuit."""

__all__: list[str] = []
