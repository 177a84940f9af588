"""Preference training on conversations: what of two answers is the better one, judged from the memory before it.

Both objectives write every interaction with its accepted answer, the first one included, and read each pair with the
memory from before it: an answer that is scored has not been written yet. Letters: B conversations, N interactions, T
tokens, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from riallm.core.errors import UsageError
from riallm.models.base import Model
from riallm.models.episodes import Episodes, written
from riallm.models.reward import RewardModel
from riallm.models.rxt import RxT
from riallm.nn.moe import Routing
from riallm.train.answers import before, judged, picked, scored
from riallm.train.episodes import evenness
from riallm.train.objective import Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """accepted, rejected, neutral: the same B conversations with an answer each; pairs (B, N): interactions that have a
    rejected one; anchors (B, N): those that have a neutral one. Elsewhere those two are not looked at. The seed of
    `accepted` is that of a memory's start that is drawn."""

    accepted: Episodes
    rejected: Episodes
    pairs: Tensor
    neutral: Episodes | None = None
    anchors: Tensor | None = None

    def __post_init__(self) -> None:
        if not bool(self.pairs.any()):
            raise UsageError("no interaction of these conversations has a rejected answer; there is nothing to prefer")

    @property
    def num_units(self) -> float:
        """P."""
        return float(self.pairs.sum())

    @property
    def num_bytes(self) -> float:
        """A preference is no text."""
        return 0.0

    @property
    def num_tokens(self) -> int:
        """Positions of both, padding included."""
        return self.accepted.num_tokens + self.rejected.num_tokens

    @property
    def context(self) -> int:
        """T."""
        return self.accepted.context


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectPreference:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7) with memories.

    reference: `answers.frozen` of the model at the beginning; it remembers the same interactions by its own weights.
    beta: how strongly it holds. smoothing: share of the pairs that are thought to be the wrong way round (Mitchell
    2023, conservative DPO). normalised: log-probabilities a token rather than of the answer. The loss is derived for
    the latter, and the reference's, of the same tokens, takes most of the length off again, so that is the default; a
    token's mean is for pairs of very different lengths, and wants a larger beta. anchor: what a nat costs by which the
    log-probability of a neutral answer moves away from the reference's. balance, z: as `MemoryAware`.
    """

    reference: RxT
    beta: float = 0.1
    smoothing: float = 0.0
    normalised: bool = False
    anchor: float = 0.0
    balance: float = 0.01
    z: float = 0.001

    def __post_init__(self) -> None:
        if not 0.0 <= self.smoothing < 0.5:
            raise UsageError(f"smoothing is {self.smoothing}; expected a share below one half")

    def __call__(self, model: Model, batch: Preferences) -> Loss:
        """The sum over pairs."""
        assert isinstance(model, RxT), "for models with a memory"
        if self.anchor and (batch.neutral is None or batch.anchors is None):
            raise UsageError("anchor is set and these rows have no neutral answers; leave it at 0, or add them")
        ours, routings = self._gained(model, batch)
        with torch.no_grad():
            theirs, _ = self._gained(self.reference, batch)
        gained = {name: ours[name] - theirs[name] for name in ours}
        margin = self.beta * (gained["accepted"] - gained["rejected"])
        nats = -(1.0 - self.smoothing) * F.logsigmoid(margin) - self.smoothing * F.logsigmoid(-margin)
        terms = {"nats": nats.sum()}
        if "neutral" in gained:
            terms["anchor"] = self.anchor * gained["neutral"].abs().sum()
        terms |= evenness(routings, batch.num_units, balance=self.balance, z=self.z)
        told = {name: float(value.detach().mean()) for name, value in gained.items()}
        return Loss(terms=terms, metrics={"right": float((margin.detach() > 0).float().mean()), **told})

    def _gained(self, model: RxT, batch: Preferences) -> tuple[dict[str, Tensor], tuple[Routing, ...]]:
        """Log-probabilities (P,) of each kind of answer, from memories that the model writes of the accepted ones."""
        memories = written(model, batch.accepted.tokens, batch.accepted.mask, seed=batch.accepted.seed)[:-1]
        kinds = {"accepted": (batch.accepted, batch.pairs), "rejected": (batch.rejected, batch.pairs)}
        if self.anchor and batch.neutral is not None and batch.anchors is not None and bool(batch.anchors.any()):
            kinds["neutral"] = (batch.neutral, batch.anchors)
        found: dict[str, Tensor] = {}
        routings: list[Routing] = []
        for name, (data, places) in kinds.items():
            said = picked(data, places)
            now = scored(model, before(memories, places), said)
            found[name] = now.summed(len(said.tokens))
            if self.normalised:
                found[name] = found[name] / said.answers.sum(dim=(1, 2))
            routings += now.routings
        return found, tuple(routings)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferredReward:
    """A reward model from pairs: the log-odds of the better answer are the difference of their rewards (Bradley and
    Terry 1952)."""

    balance: float = 0.01
    z: float = 0.001

    def __call__(self, model: Model, batch: Preferences) -> Loss:
        """The sum over pairs."""
        assert isinstance(model, RewardModel), "for reward models"
        memories = written(model, batch.accepted.tokens, batch.accepted.mask, seed=batch.accepted.seed)[:-1]
        memory = before(memories, batch.pairs)
        better, first = judged(model, memory, picked(batch.accepted, batch.pairs))
        worse, second = judged(model, memory, picked(batch.rejected, batch.pairs))
        terms = {"nats": -F.logsigmoid(better - worse).sum()}
        terms |= evenness((*first, *second), batch.num_units, balance=self.balance, z=self.z)
        return Loss(terms=terms, metrics={"right": float((better.detach() > worse.detach()).float().mean())})
