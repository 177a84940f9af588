"""Learning rates by the elapsed share of a run, so that a run may be bounded by steps or by a clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from riallm.core.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Factor on every learning rate. "wsd": warm-up, stable, then linear decay over the share `decay` down to `final`.
    "cosine": warm-up, then half a cosine down to `final`. warmup and decay are shares of the whole run."""

    kind: Literal["wsd", "cosine"] = "wsd"
    warmup: float = 0.03
    decay: float = 0.55
    final: float = 0.05

    def __post_init__(self) -> None:
        if not (0.0 <= self.warmup <= 1.0 and 0.0 <= self.decay <= 1.0 and self.warmup + self.decay <= 1.0):
            raise UsageError(f"warmup ({self.warmup}) and decay ({self.decay}) are shares of a run: together at most 1")

    def factor(self, elapsed: float) -> float:
        """At the elapsed share of the run, in [0, 1]."""
        elapsed = min(1.0, max(0.0, elapsed))
        if elapsed < self.warmup:
            return max(elapsed / self.warmup, 1e-3)
        if self.kind == "cosine":
            way = (elapsed - self.warmup) / max(1e-9, 1.0 - self.warmup)
            return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * way))
        left = (1.0 - elapsed) / self.decay if self.decay else 1.0
        return self.final + (1.0 - self.final) * min(1.0, left)
