"""Channels, and models that say where they stand."""

__all__: list[str] = []
