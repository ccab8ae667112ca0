"""Angles as polynomials in weights and inputs, and functions of them."""

__all__: list[str] = []
