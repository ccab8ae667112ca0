"""`Frame`: how basis-state indices are relabelled by the CNOTs so far."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Frame", "parity"]


def parity(value: int) -> int:
    """Parity of the number of set bits."""
    return value.bit_count() & 1


@dataclass(frozen=True, slots=True)
class Frame:
    """A linear relabelling: logical qubit q is the pair direction `v[q]` and the parity mask `u[q]`."""

    v: tuple[int, ...]
    u: tuple[int, ...]

    @staticmethod
    def identity(n_qubits: int) -> Frame:
        """The frame before any CNOT."""
        bits = tuple(1 << (n_qubits - 1 - q) for q in range(n_qubits))
        return Frame(bits, bits)

    def logical_mask(self, mask: int) -> int:
        """The parity mask of logical indices that has the values of `mask` on physical ones."""
        n = len(self.v)
        return sum(parity(mask & v) << (n - 1 - q) for q, v in enumerate(self.v))

    def after_cnot(self, control: int, target: int) -> Frame:
        """The frame after a CNOT."""
        v, u = list(self.v), list(self.u)
        v[control] ^= v[target]
        u[target] ^= u[control]
        return Frame(tuple(v), tuple(u))
