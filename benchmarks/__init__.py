"""Side by side with peers: `python -m benchmarks` (see `docs/performance.md`)."""
