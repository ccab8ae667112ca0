"""Circuits from elsewhere, and to elsewhere."""

__all__: list[str] = []
