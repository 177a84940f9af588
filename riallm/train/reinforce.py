"""Memory reinforcement learning: the model answers from its memory itself, and what is right with it, beyond what is
right without it, is made likelier.

The gain is E[reward with the memory] - penalty * E[right with a memory that cannot know]. A penalty that is only
subtracted from the reward of a question would fall out with the mean of its samples, so the answers under each control
are samples of their own, whose reward counts negatively. The advantage of a sample is its reward less the mean of the
other samples of its question (Kool et al. 2019; groups as in Shao et al. 2024, not divided by their deviation), the
ratio to the odds that it was drawn with is clipped (Schulman et al. 2017, eq. 7), and a frozen reference that lives
through the same conversations with memories of its own holds it back. The memory is written with gradients, so that a
later answer also teaches what to keep.

Letters: B conversations, G samples of each, R = B * G, N interactions, T tokens, Q answers, n tokens of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from riallm.core.errors import UsageError
from riallm.models.base import Model
from riallm.models.episodes import Episodes, written
from riallm.models.rxt import RxT
from riallm.nn.memory_state import MemoryState
from riallm.train.answers import before, picked, scored
from riallm.train.episodes import evenness
from riallm.train.objective import Loss
from riallm.train.rewards import Reward, Said, exact
from riallm.train.rollout import answered_by, live, mixed, others

Control = Literal["reset", "swap"]
"""The memory of a new conversation; that of another conversation at the same place."""
MEMORY = "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiz:
    """given: B conversations with the right answers; asked (B, N): interactions that the model answers itself; told
    (B, N): those of them whose answer stands in an earlier interaction, so that a memory is needed, which controls are
    asked; end: the token that ends an answer; seed: of the samples, and of a start that is drawn. facts (B, N, T):
    tokens of right answers that alone have to come, for `mentioned`. rolled: what an earlier update of the same
    questions drew, as `Loss.carry` has it."""

    given: Episodes
    asked: Tensor
    told: Tensor
    samples: int
    end: int
    seed: int
    facts: Tensor | None = None
    rolled: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise UsageError(f"samples is {self.samples}; a sample is judged beside others of its question: at least 2")
        if bool((self.told & ~self.asked).any()) or not bool(self.asked.any()):
            raise UsageError("a quiz asks at least one interaction, and what is `told` is among the asked")

    @property
    def num_units(self) -> float:
        """Answers with the memory, all samples."""
        return float(self.asked.sum()) * self.samples

    @property
    def num_bytes(self) -> float:
        """The answers are no given text."""
        return 0.0

    @property
    def num_tokens(self) -> int:
        """Positions of all samples, padding included."""
        return self.given.num_tokens * self.samples

    @property
    def context(self) -> int:
        """T."""
        return self.given.context


def advantages(rewards: Tensor, asked: Tensor, *, samples: int, discount: float) -> Tensor:
    """(R, N) from rewards (R, N), which count where `asked`: each answer's reward with those of later answers, less by
    `discount` an answer, beside the mean of that among the other samples of the conversation."""
    rewards = rewards * asked
    after = torch.zeros_like(rewards[:, 0])
    returns = torch.zeros_like(rewards)
    for at in reversed(range(rewards.shape[1])):
        after = torch.where(asked[:, at], rewards[:, at] + discount * after, after)
        returns[:, at] = after
    grouped = returns.view(-1, samples, returns.shape[1])
    alone = (grouped - grouped.mean(dim=1, keepdim=True)) * samples / (samples - 1)
    return alone.view_as(returns) * asked


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReinforcement:
    """reference: `answers.frozen` of the model at the beginning. penalty: how much being right under each of the
    `controls` costs, shared among them. clip: how far the odds of a token may go from those that it was drawn with
    before nothing more is gained. divergence: weight of the estimated Kullback-Leibler divergence from the reference,
    summed over tokens (Schulman 2020, k3). entropy: what a nat of a token's entropy is worth. discount: see
    `advantages`; 1 counts all that comes of an answer, 0 itself alone. balance, z: as `MemoryAware`. metrics: what is
    told of the drawn answers beside the reward, where a memory is needed.

    Terms are sums over answers, whole: neither a token's share of its answer nor an answer's length is divided by.
    """

    reference: RxT
    reward: Reward = exact
    controls: tuple[Control, ...] = ("reset", "swap")
    penalty: float = 1.0
    clip: float = 0.2
    divergence: float = 0.05
    entropy: float = 0.0
    discount: float = 1.0
    balance: float = 0.01
    z: float = 0.001
    metrics: Mapping[str, Reward] = field(default_factory=lambda: {"right": exact})

    def __call__(self, model: Model, batch: Quiz) -> Loss:
        """One update: of what is drawn now, or of what an earlier update drew. The carry is what was drawn."""
        assert isinstance(model, RxT), "for models with a memory"
        if "swap" in self.controls and len(batch.given.tokens) < 2:
            raise UsageError("one conversation has no other to swap memories with; quiz two, or leave the control out")
        rolled = batch.rolled if batch.rolled is not None else self._rolled(model, batch)
        lived = _episodes(rolled, "lived")
        memories = written(model, lived.tokens, lived.mask, seed=batch.seed)[:-1]
        carry, told = dict(rolled), dict[str, float]()
        gains: list[Tensor] = []
        held: dict[str, Tensor] = {}
        for name in self._conditions(batch):
            places, said = _places(batch, name), _episodes(rolled, name)
            now = scored(model, before(_seen(name, memories, batch.samples), places), said)
            old = carry.setdefault(f"{name}.old", now.log_probs.detach())
            worth = rolled[f"{name}.worth"][now.rows]
            ratio = (now.log_probs - old).exp()
            near = ratio.clamp(1.0 - self.clip, 1.0 + self.clip)
            gains.append(torch.minimum(ratio * worth, near * worth).sum())
            told |= self._told(name, batch, rolled)
            if name == MEMORY:
                gap = self._reference(lived, places, said, seed=batch.seed) - now.log_probs
                apart = gap.exp() - gap - 1.0
                held = {"kl": self.divergence * apart.sum(), "entropy": -self.entropy * now.entropies.sum()}
                held |= evenness(now.routings, batch.num_units, balance=self.balance, z=self.z)
                told |= {"kl": float(apart.detach().mean()), "entropy": float(now.entropies.detach().mean())}
                told["clipped"] = float((ratio.detach() != near.detach()).float().mean())
        sums = {"policy": -torch.stack(gains).sum(), **held}
        return Loss(terms=sums, metrics=told, carry=carry)

    @torch.no_grad()
    def _rolled(self, model: RxT, batch: Quiz) -> dict[str, Tensor]:
        """Conversations as they went, answers under every condition, and what each is worth."""
        lived = live(model, batch.given, batch.asked, samples=batch.samples, end=batch.end, seed=batch.seed)
        found = _flat("lived", lived.episodes)
        for name in self._conditions(batch):
            places = _places(batch, name)
            said = picked(lived.episodes, places)
            if name != MEMORY:
                seen = before(_seen(name, lived.memories, batch.samples), places)
                said = answered_by(model, seen, said, end=batch.end, seed=mixed(batch.seed, name))
            found |= _flat(name, said)
            rewards = self.reward(_said(batch, lived.episodes, places, said))
            rows = rewards.new_zeros(places.shape)
            rows[places] = rewards
            discount, weight = (self.discount, 1.0) if name == MEMORY else (0.0, -self.penalty / len(self.controls))
            each = advantages(rows, places, samples=batch.samples, discount=discount)
            found |= {f"{name}.reward": rewards, f"{name}.worth": weight * each[places]}
        return found

    def _conditions(self, batch: Quiz) -> tuple[str, ...]:
        """What is answered from: controls only where there is something that a memory is needed for."""
        return (MEMORY, *self.controls) if bool(batch.told.any()) else (MEMORY,)

    def _told(self, name: str, batch: Quiz, rolled: Mapping[str, Tensor]) -> dict[str, float]:
        """How good the drawn answers are: by the reward, and by each of `metrics` where a memory is needed."""
        places = _places(batch, name)
        needed = batch.told.repeat_interleave(batch.samples, dim=0)[places]
        said = _said(batch, _episodes(rolled, "lived"), places, _episodes(rolled, name))
        found = {f"{name}.reward": float(rolled[f"{name}.reward"].mean())}
        if bool(needed.any()):
            found |= {f"{name}.{what}": float(of(said)[needed].mean()) for what, of in self.metrics.items()}
        return found

    @torch.no_grad()
    def _reference(self, lived: Episodes, places: Tensor, said: Episodes, *, seed: int) -> Tensor:
        """(n,): log-probabilities by the reference, which remembers the same conversations in its own way."""
        memories = written(self.reference, lived.tokens, lived.mask, seed=seed)[:-1]
        return scored(self.reference, before(memories, places), said).log_probs


def _places(batch: Quiz, name: str) -> Tensor:
    """(R, N): what is asked under a condition."""
    places = batch.asked if name == MEMORY else batch.told
    return places.repeat_interleave(batch.samples, dim=0)


def _seen(name: str, memories: Sequence[MemoryState], samples: int) -> Sequence[MemoryState]:
    """The memories that a condition answers from; the first one is that of a new conversation."""
    if name == "swap":
        return others(memories, samples)
    return memories if name == MEMORY else [memories[0]] * len(memories)


def _said(batch: Quiz, lived: Episodes, places: Tensor, said: Episodes) -> Said:
    given = (batch.given.tokens, batch.given.mask, batch.given.answers)
    tokens, mask, answers = (each.repeat_interleave(batch.samples, dim=0) for each in given)
    right = picked(replace(batch.given, tokens=tokens, mask=mask, answers=answers), places)
    facts = None if batch.facts is None else batch.facts.repeat_interleave(batch.samples, dim=0)[places]
    return Said(lived=lived, places=places, said=said, right=right, facts=facts, seed=batch.seed)


def _flat(name: str, data: Episodes) -> dict[str, Tensor]:
    return {f"{name}.{part}": getattr(data, part) for part in ("tokens", "mask", "answers")}


def _episodes(rolled: Mapping[str, Tensor], name: str) -> Episodes:
    tokens, mask, answers = (rolled[f"{name}.{part}"] for part in ("tokens", "mask", "answers"))
    return Episodes(tokens=tokens, mask=mask, answers=answers)
