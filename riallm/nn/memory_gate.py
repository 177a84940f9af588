"""How a memory takes over what is new: old and new mixed slot by slot (RxT document, residual gates).

Letters: B rows, S slots, P places, D hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riallm.core.errors import UsageError
from riallm.nn.linear import Linear

SHARPNESS = 4.0
"""With drawn weights a match has a standard deviation of about one; times this, one slot in sixteen gets most."""

Mixing = Literal["sigmoid", "tanh", "add", "replace"]
Kind = Literal["static", "elementwise", "linear", "competing"]
Status = Literal["mean", "learned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """mixing: sigmoid, g * new + (1 - g) * old; tanh, (1 + g) * new + (1 - g) * old; add, old + new; replace, new.

    kind: what g is the activation of: "static", a weight a slot; "elementwise", the weight times the slot's status;
    "linear", a map over the statuses of all slots; "competing", ours, elementwise times a share that the slots compete
    for, so that what is new goes to few of them; places: to how many at most, each competed for anew, as a fact of
    several words fits into one slot badly. status: the mean over channels of old + new, or a learned combination of the
    channels of both. weight: where weights begin. bias: where one more learned number a slot begins, below zero for a
    memory that keeps; None, the document's, has none.
    """

    mixing: Mixing = "sigmoid"
    kind: Kind = "elementwise"
    status: Status = "mean"
    weight: float = 3.0
    bias: float | None = None
    places: int = 1

    def __post_init__(self) -> None:
        if self.places < 1 or (self.places > 1 and self.kind != "competing"):
            raise UsageError(
                f"places is {self.places} with kind '{self.kind}'; at least 1, and more than 1 if competing"
            )
        if self.mixing in ("add", "replace") and (self.kind, self.status, self.bias) != ("elementwise", "mean", None):
            raise UsageError(
                f"mixing '{self.mixing}' has no gate, so kind, status and bias say nothing; leave them out"
            )
        if self.kind == "static" and self.status != "mean":
            raise UsageError("a static gate has no status; leave it out, or take kind elementwise or linear")


class SlotMatch(nn.Module):
    """Which slots something new belongs to: for every place a softmax over slots of how well each, by its content and
    its name, fits what it would be given. Names are drawn, so that from the start different content goes to different
    slots. No gradient goes back to what the slots held: where two slots fit nearly as well, it would grow tenfold in a
    write, and a few such conversations of a batch would drown all others (docs/log.md)."""

    def __init__(self, *, hidden_size: int, num_slots: int, places: int) -> None:
        super().__init__()
        self.places = places
        self.slot_proj = Linear(hidden_size, places * hidden_size, bias=False)
        self.new_proj = Linear(hidden_size, places * hidden_size, bias=False)
        self.names = nn.Parameter(torch.zeros(places * num_slots, hidden_size))

    def forward(self, old: Tensor, new: Tensor) -> Tensor:
        """old, new (B, S, D) -> (B, S) in float32: how much of a slot is taken by any place, at most 1."""
        by_place = (self.places, old.shape[-1])
        names = self.names.view(self.places, -1, old.shape[-1]).transpose(0, 1)  # (S, P, D)
        held = F.rms_norm(old.detach(), old.shape[-1:])
        slots = self.slot_proj(held).unflatten(-1, by_place) + names.to(old.dtype)
        found = self.new_proj(F.rms_norm(new, new.shape[-1:])).unflatten(-1, by_place)
        match = SHARPNESS * old.shape[-1] ** -0.5 * (slots * found).sum(dim=-1).float()
        free: Tensor = (1.0 - match.softmax(dim=1)).prod(dim=-1)
        return 1.0 - free


class MemoryGate(nn.Module):
    """One number a slot between what it held and what would be written."""

    def __init__(self, config: GateConfig, *, hidden_size: int, num_slots: int) -> None:
        super().__init__()
        self.config = config
        gated = config.mixing in ("sigmoid", "tanh")
        shape = (num_slots, num_slots) if config.kind == "linear" else (num_slots,)
        self.weight = nn.Parameter(torch.empty(shape)) if gated else None
        offset = config.kind == "linear" or config.bias is not None
        self.bias = nn.Parameter(torch.empty(num_slots)) if gated and offset else None
        learned = gated and config.status == "learned"
        self.status = Linear(2 * hidden_size, 1, bias=False) if learned else None
        competing = gated and config.kind == "competing"
        sizes = {"hidden_size": hidden_size, "num_slots": num_slots, "places": config.places}
        self.match = SlotMatch(**sizes) if competing else None
        self.restart()

    @torch.no_grad()
    def restart(self) -> None:
        """Weights and biases as the configuration has them; the learned status is drawn elsewhere."""
        if self.weight is not None:
            if self.config.kind == "linear":
                self.weight.copy_(torch.eye(len(self.weight)) * self.config.weight)
            else:
                self.weight.fill_(self.config.weight)
        if self.bias is not None:
            self.bias.fill_(self.config.bias or 0.0)

    def forward(self, old: Tensor, new: Tensor) -> Tensor:
        """old, new (B, S, D) -> (B, S, D)."""
        if self.config.mixing == "add":
            return old + new
        if self.config.mixing == "replace":
            return new
        gate = self.gate(old, new)[..., None].to(old.dtype)
        return gate * new + (1.0 - gate) * old if self.config.mixing == "sigmoid" else old + new + gate * (new - old)

    def gate(self, old: Tensor, new: Tensor) -> Tensor:
        """(B, S) in float32: how much of what is new each slot takes."""
        assert self.weight is not None
        if self.config.kind == "static":
            found = self.weight.float().expand(old.shape[:-1])
        else:
            status = (old + new).float().mean(dim=-1) if self.status is None else self._learned(old, new)
            weight = self.weight.float()
            found = status @ weight.T if self.config.kind == "linear" else weight * status
        if self.bias is not None:
            found = found + self.bias.float()
        opened = found.sigmoid() if self.config.mixing == "sigmoid" else found.tanh()
        return opened if self.match is None else opened * self.match(old, new)

    def _learned(self, old: Tensor, new: Tensor) -> Tensor:
        assert self.status is not None
        status: Tensor = self.status(torch.cat((old, new), dim=-1)).squeeze(-1)
        return status.float()
