"""What can be seen of a memory from outside: how large its slots are, how many directions they span, what updates did.

Letters: S slots, D hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from riallm.nn.memory_state import MemoryState


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLook:
    """norm: mean length of a slot; rank: effective rank of the slots, 1 where all point one way, at most their
    number."""

    norm: float
    rank: float


@torch.no_grad()
def looked(memory: MemoryState) -> tuple[LayerLook, ...]:
    """One for each layer, of a memory of one conversation. The rank is the exponential of the entropy of the singular
    values (Roy and Vetterli 2007)."""
    found = []
    for slots in memory.slots[:, 0].float():  # (S, D)
        values = torch.linalg.svdvals(slots)
        shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
        entropy = -torch.special.xlogy(shares, shares).sum()
        found.append(LayerLook(norm=float(slots.norm(dim=-1).mean()), rank=float(entropy.exp())))
    return tuple(found)


@torch.no_grad()
def changed(before: MemoryState, after: MemoryState) -> float:
    """How far a slot moved, on average, as a share of its length before."""
    old, new = before.slots.float(), after.slots.float()
    shares = (new - old).norm(dim=-1) / old.norm(dim=-1).clamp(min=torch.finfo(old.dtype).tiny)
    return float(shares.mean())
