"""What leaves this process and comes back: files of layers."""

__all__: list[str] = []
