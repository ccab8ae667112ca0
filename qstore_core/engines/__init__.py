"""Engines: what runs a Plan."""
