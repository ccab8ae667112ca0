"""What is declared: gates, angles, circuits, encodings, ansätze, measurements, specs, and the Plan they lower to."""

__all__: list[str] = []
