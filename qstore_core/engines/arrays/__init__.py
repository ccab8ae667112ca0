"""A Plan in the operations of any array library."""

__all__: list[str] = []
