"""What users hold: the definition that all frameworks share, and the layers on NumPy arrays."""

__all__: list[str] = []
