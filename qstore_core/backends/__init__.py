"""Who can compute: the contract, discovery and registry of backends, the event loop, and jobs."""

__all__: list[str] = []
