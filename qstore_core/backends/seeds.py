"""Seeds of samples: every circuit batch of every call of a layer has its own, derived from one root.

A compiled circuit is shared and keeps no random numbers; a layer owns a `SeedStream`. So samples depend on the layer's
seed and on the number of the call alone, not on what else runs, in which order, or what the circuit cache holds.

Source:
    Children of a seed as `numpy.random.SeedSequence` spawns them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

__all__ = ["CallSeeds", "SeedStream", "child_seed"]


def child_seed(seed: int, *key: int) -> int:
    """An independent seed for each `key`, from 0 to 2**63 - 1.

    Example:
        >>> child_seed(7, 0) == child_seed(7, 0), child_seed(7, 0) == child_seed(7, 1)
        (True, False)
    """
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0] >> np.uint64(1))


class CallSeeds:
    """Seeds of one call: the first is its forward pass's, those of the backward pass follow."""

    def __init__(self, root: Callable[[], int], *key: int) -> None:
        """Ask for the root when the first seed is wanted."""
        self._ask, self._key = root, key
        self._root: int | None = None
        self._parts = itertools.count()  # next() is atomic

    def next(self) -> int:
        """The seed of one more circuit batch."""
        if self._root is None:
            self._root = self._ask()
        return child_seed(self._root, *self._key, next(self._parts))


class SeedStream:
    """The seeds of one layer, call by call; safe in threads.

    Args:
        seed: Of the layer.
        draw: Where that is None, asked for a root at each call that samples: the framework's generator. None for the
            operating system's.

    Example:
        >>> one, other = SeedStream(7), SeedStream(7)
        >>> [one.call().next() for _ in range(2)] == [other.call().next() for _ in range(2)]
        True
    """

    def __init__(self, seed: int | None, draw: Callable[[], int] | None = None) -> None:
        """Begin with call number 0."""
        self._seed, self._draw = seed, draw or _fresh
        self._calls = itertools.count()

    def call(self) -> CallSeeds:
        """The seeds of the next call."""
        if self._seed is None:
            return CallSeeds(self._draw)
        seed = self._seed
        return CallSeeds(lambda: seed, next(self._calls))


def _fresh() -> int:
    return int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
