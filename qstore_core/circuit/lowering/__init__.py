"""From Circuit to Plan: relabelled basis states, light cones and windows."""

__all__: list[str] = []
