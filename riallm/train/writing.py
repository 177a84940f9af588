"""Training memory attention by itself, while encoder and decoder stay as they are (RxT document, Self-Supervised Memory
Attention Pre-Training), and another aim for the same stage. Which parts train is said by `TrainConfig.trains`.

Letters: L layers, B conversations, N interactions, T tokens, S slots, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from riallm.core.errors import UsageError
from riallm.models.base import Model
from riallm.models.episodes import Episodes, decoded, written
from riallm.models.rxt import RxT
from riallm.nn.memory_state import MemoryState
from riallm.nn.moe import Routing
from riallm.train.episodes import evenness
from riallm.train.objective import Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Blended:
    """The document's aim: each slot should point where a weighted mean of what it held and of what the encoder makes of
    one token points; slot s and token s belong together, so there are as many slots as tokens in a row.

    first: weight of what is new at the first interaction; later: at the next ones, less `fall` for every interaction
    so far, but not below 0.05; what it held has the rest. jitter: up to so much is moved from one weight to the other,
    drawn for each row and interaction. noise: standard deviation of what is added to the encoder's output and to the
    aim; the document names none. window: as `MemoryAware.window`; the document's aim asks nothing of earlier writes.
    A slot whose token is padding has no aim.
    """

    first: float = 0.9
    later: float = 0.5
    fall: float = 0.05
    jitter: float = 0.15
    noise: float = 0.0
    window: int | None = 1

    def __call__(self, model: Model, batch: Episodes) -> Loss:
        """distance: 1 - cosine, the mean over slots and layers, times units. Raises UsageError where slots and tokens
        are not as many."""
        assert isinstance(model, RxT), "for models with a memory"
        rows, num, length = batch.tokens.shape
        if length != model.config.num_slots:
            raise UsageError(
                f"rows of {length} tokens, but {model.config.num_slots} slots: this aim pairs each slot with a token. "
                "Make both the same, or train by reconstruction"
            )
        draw = torch.Generator().manual_seed(batch.seed)
        encoded = model.encode(batch.tokens.flatten(0, 1), batch.mask.flatten(0, 1))
        encoded = encoded.view(len(encoded), rows, num, length, -1)
        memory = model.start(rows, seed=batch.seed)
        total = torch.zeros((), device=encoded.device)
        for at in range(num):
            new, mask = encoded[:, :, at], batch.mask[:, at]
            if self.window is not None and at and at % self.window == 0:
                memory = memory.detached()
            aim = self._aim(memory.slots.detach(), new.detach(), at, draw)
            memory = model.write(self._noisy(new, draw), mask, memory)
            cosine = F.cosine_similarity(memory.slots.float(), aim.float(), dim=-1).mean(dim=0)
            total = total + ((1.0 - cosine) * mask).sum()
        mean = total / batch.mask.sum().clamp(min=1)
        return Loss(terms={"distance": batch.num_units * mean}, metrics={"distance": float(mean.detach())})

    def weight(self, at: int) -> float:
        """Of what is new at interaction `at`, before jitter."""
        return self.first if at == 0 else max(0.05, self.later - at * self.fall)

    def _aim(self, held: Tensor, new: Tensor, at: int, draw: torch.Generator) -> Tensor:
        moved = self.jitter * (2.0 * torch.rand(new.shape[1], generator=draw) - 1.0)
        weight = (self.weight(at) + moved).clamp(0.0, 1.0).to(new)[None, :, None, None]
        return self._noisy((1.0 - weight) * held + weight * new, draw)

    def _noisy(self, x: Tensor, draw: torch.Generator) -> Tensor:
        return x + self.noise * torch.randn(x.shape, generator=draw).to(x) if self.noise else x


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstructed:
    """Our aim: the decoder says each interaction again, query and all, with the memory into which it was just written,
    or `delay` writes later, towards the end of a batch's conversations as many as there are; so a slot has to hold what
    can be read, and needs no token of its own.

    window: as `MemoryAware.window`.
    """

    delay: int = 0
    window: int | None = None
    balance: float = 0.01
    z: float = 0.001

    def __call__(self, model: Model, batch: Episodes) -> Loss:
        """again: nats, the mean over all tokens but the first of each interaction, times units."""
        assert isinstance(model, RxT), "for models with a memory"
        memories = written(model, batch.tokens, batch.mask, window=self.window, seed=batch.seed)
        mean, routings = again(model, batch, memories, delay=self.delay)
        terms = {"again": batch.num_units * mean, **evenness(routings, batch.num_units, balance=self.balance, z=self.z)}
        return Loss(terms=terms)


def again(
    model: RxT, batch: Episodes, memories: Sequence[MemoryState], *, delay: int = 0
) -> tuple[Tensor, tuple[Routing, ...]]:
    """Nats of a token, the mean over all tokens but the first of each interaction, said with the memory behind it or
    `delay` writes later, at most behind the last; and what the experts tell. memories: before each interaction and
    behind the last."""
    num = batch.tokens.shape[1]
    seen = [memories[min(at + 1 + delay, num)] for at in range(num)]
    hidden, routings = decoded(model, batch.tokens, batch.mask, seen)
    said = batch.mask.clone()
    said[..., 0] = False
    logits = model.logits(hidden[said.roll(-1, dims=-1)])
    return F.cross_entropy(logits, batch.tokens[said], reduction="sum") / said.sum().clamp(min=1), routings
