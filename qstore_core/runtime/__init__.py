"""How a call runs: execution, compiled circuits, gradients, fallback, records and profiles."""

__all__: list[str] = []
