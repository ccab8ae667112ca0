"""Commands that measure whole circuits: simulators, their primitives, noise."""
