"""Training on conversations: what the three supervised stages and their baselines take the loss of.

Letters: B conversations, N interactions, T tokens, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from riallm.models.base import Model
from riallm.models.episodes import Episodes, decoded, overheard, reread, written
from riallm.models.rxt import RxT
from riallm.nn.moe import Routing
from riallm.train.objective import Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryAware:
    """Supervised memory-aware training: every interaction is decoded with the memory that the ones before it wrote,
    and the gradient goes back through the writes (RxT document, SMAT).

    window: interactions that a gradient reaches back over: the memory is detached before every `window`-th write, but
    not what a conversation begins with; None for all. balance, z: weights of the experts' terms, which are means over
    the batch. A start that is drawn is another one in each batch.
    """

    window: int | None = None
    balance: float = 0.01
    z: float = 0.001

    def __call__(self, model: Model, batch: Episodes) -> Loss:
        """The sum over answer tokens, in nats."""
        assert isinstance(model, RxT), "memory-aware training is for models with a memory"
        memories = written(model, batch.tokens, batch.mask, window=self.window, seed=batch.seed)
        hidden, routings = decoded(model, batch.tokens, batch.mask, memories[:-1])
        return answered(model, hidden, routings, batch, balance=self.balance, z=self.z)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overheard:
    """Joint training of encoder and decoder on conversations: the decoder has what the encoder makes of the earlier
    interactions in the memory's place, as the document's joint stage installs the encoder's output there. It learns to
    find things by what they are about before anything has to fit into slots."""

    balance: float = 0.01
    z: float = 0.001

    def __call__(self, model: Model, batch: Episodes) -> Loss:
        """The sum over answer tokens, in nats."""
        assert isinstance(model, RxT), "for models with a memory"
        hidden, routings = overheard(model, batch.tokens, batch.mask, seed=batch.seed)
        return answered(model, hidden, routings, batch, balance=self.balance, z=self.z)


@dataclass(frozen=True, slots=True, kw_only=True)
class FullHistory:
    """What a model without memory does, as the ceiling: the decoder alone, over all interactions so far as one text."""

    balance: float = 0.01
    z: float = 0.001

    def __call__(self, model: Model, batch: Episodes) -> Loss:
        """The sum over answer tokens, in nats."""
        assert isinstance(model, RxT), "the decoder of a model with a memory"
        hidden, routings = reread(model, batch.tokens, batch.mask)
        return answered(model, hidden, routings, batch, balance=self.balance, z=self.z)


def answered(
    model: RxT, hidden: Tensor, routings: tuple[Routing, ...], batch: Episodes, *, balance: float, z: float
) -> Loss:
    """Cross-entropy of the answers from hidden (B, N, T, D), and what keeps the experts even."""
    counted = batch.answers.roll(-1, dims=-1)  # an answer never begins an interaction, so nothing comes round
    logits = model.logits(hidden[counted])
    terms = {"nats": F.cross_entropy(logits, batch.tokens[batch.answers], reduction="sum")}
    terms |= evenness(routings, batch.num_units, balance=balance, z=z)
    loads = torch.stack([routing.load for routing in routings])
    return Loss(terms=terms, metrics={"max_load": float(loads.max()) * loads.shape[1]})


def evenness(routings: Sequence[Routing], units: float, *, balance: float, z: float) -> dict[str, Tensor]:
    """What keeps the experts even: means over the batch and layers, times its units and a weight each."""
    weights = {"balance": balance, "z": z}
    means = {name: torch.stack([getattr(each, name) for each in routings]).mean() for name in weights}
    return {name: weight * units * means[name] for name, weight in weights.items()}
