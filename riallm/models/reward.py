"""A reward model: RxT with a scalar in the place of the next token, so that what it thinks of an answer may depend on
what was said before, through a memory of its own.

Letters: B rows, T tokens, D hidden.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from riallm.models.base import Unit
from riallm.models.rxt import RxT, RxTConfig
from riallm.nn.linear import Linear


class RewardModel(RxT):
    """Encoder, memory and decoder as `RxT`; the head for tokens is there and not asked."""

    def __init__(self, config: RxTConfig, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(config, dtype=dtype)
        self.reward_head = Linear(config.hidden_size, 1)

    @classmethod
    def of(cls, model: RxT) -> RewardModel:
        """With the weights of a trained model; it thinks the same of every answer at first."""
        made = cls(model.config, dtype=model.dtype)
        made.load_state_dict(model.state_dict(), strict=False)
        with torch.no_grad():
            made.reward_head.weight.zero_()
            made.reward_head.bias.zero_()
        return made.to(model.lm_head.weight.device)

    def rewards(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (...) in float32: of what ends there."""
        found: Tensor = self.reward_head(hidden)
        return found[..., 0].float()

    def units(self) -> Iterator[Unit]:
        """Those of `RxT`, and the head."""
        yield from super().units()
        yield Unit(name="reward_head", module=self.reward_head, run=self.reward_head)
