"""What is optimised: functions from a batch to sums. The loop alone divides, weights, differentiates and steps.

Letters: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from riallm.models.base import Model
from riallm.nn.meta import TokenMeta

IGNORED = -100
"""A target that no loss is taken of."""


class Counted(Protocol):
    """What the loop asks of a batch, whatever it holds: units and bytes that the loss is of, positions that are
    computed, and how many of them see each other."""

    @property
    def num_units(self) -> float: ...
    @property
    def num_bytes(self) -> float: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def context(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """tokens (B, T); targets (B, T): the id that should follow each token, or IGNORED; meta: of the tokens; num_bytes:
    bytes of text that the targets stand for, weighted as they are; weights (B, T): how much each target counts,
    default one each; kinds: the objective of each row."""

    tokens: Tensor
    targets: Tensor
    meta: TokenMeta
    num_bytes: float
    weights: Tensor | None = None
    kinds: tuple[str, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Positions that are computed, padding included."""
        return self.tokens.numel()

    @property
    def context(self) -> int:
        """T."""
        return self.tokens.shape[1]

    @property
    def num_units(self) -> float:
        """Targets that count, each by its weight; from the data alone."""
        counted = self.targets != IGNORED
        return float(counted.sum() if self.weights is None else self.weights[counted].sum())

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device; to a GPU through pinned memory, so that nothing waits for the copy."""
        if torch.device(device).type == "cuda":
            return self._mapped(lambda tensor: tensor.pin_memory().to(device, non_blocking=True))
        return self._mapped(lambda tensor: tensor.to(device))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        meta = TokenMeta(
            positions=change(self.meta.positions),
            segments=change(self.meta.segments),
            files=change(self.meta.files),
            relations=change(self.meta.relations),
        )
        weights = None if self.weights is None else change(self.weights)
        return replace(self, tokens=change(self.tokens), targets=change(self.targets), meta=meta, weights=weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """terms: name -> sum over units, with gradient, of which "nats" is the one that is told, or without it the first; a
    term that is a mean over the batch comes times its units; metrics: name -> number, without; carry: detached state
    that a `loop.Carried` source gets back."""

    terms: Mapping[str, Tensor]
    metrics: Mapping[str, float] = field(default_factory=dict)
    carry: Mapping[str, Tensor] | None = None

    @property
    def told(self) -> Tensor:
        """The term that a step tells of."""
        return self.terms.get("nats", next(iter(self.terms.values())))


B = TypeVar("B", bound=Counted)
Objective = Callable[[Model, B], Loss]


def next_token(model: Model, batch: Batch) -> Loss:
    """Cross-entropy of the targets in nats, summed. Causal language modelling, infilling, span corruption and repair
    are all this one function: they differ in what the rows hold and in which targets count."""
    return Loss(terms={"nats": nats(model, batch.tokens, batch.targets, batch.weights, batch.meta)})


def nats(model: Model, tokens: Tensor, targets: Tensor, weights: Tensor | None, meta: TokenMeta) -> Tensor:
    """The sum of `next_token`. All of it in one function with fixed shapes, so that it compiles into one piece."""
    logits = model.logits(model(tokens, meta).hidden).flatten(0, 1)
    each = F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="none")
    return each.sum() if weights is None else (each * weights.flatten()).sum()


def compiled(backend: str = "inductor") -> Objective[Batch]:
    """`next_token`, compiled: the first batch takes half a minute longer, every other one about half of the time.

    backend: PyTorch's; "eager" traces and makes no code.
    """
    whole = torch.compile(nats, backend=backend, dynamic=False)  # for sizes in general, attention in blocks fails

    def objective(model: Model, batch: Batch) -> Loss:
        return Loss(terms={"nats": whole(model, batch.tokens, batch.targets, batch.weights, batch.meta)})

    return objective
