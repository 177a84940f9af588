"""An interaction with a model that has a memory, on its way: a prompt, and what is answered token by token.

Letters: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from riallm.core.errors import ClientError
from riallm.engine.choice import Chooser
from riallm.engine.request import Sampling
from riallm.models.rxt import RxT
from riallm.nn.memory_state import MemoryState, Reading
from riallm.nn.meta import TokenMeta
from riallm.nn.state import State

Step = tuple[int | None, ...]
"""A token for each row; None for a row whose answer is over."""


class Turn:
    """Interactions on their way, one a row: ids that grow, and the model's state behind them.

    over: nothing more comes, and what there is is written or being written. dropped: nobody can read on.
    """

    def __init__(
        self,
        model: RxT,
        memory: MemoryState,
        rows: list[list[int]],
        sampling: Sampling,
        *,
        limits: list[int],
        ends: Collection[int],
        read: bool = True,
    ) -> None:
        """rows: the prompts; limits: how long each may get, which is longer. Row r draws by the seed + r. read: False
        looks at no memory, as a control."""
        self.model, self.memory, self.rows, self._look = model, memory, rows, read
        self._ends, self._limits = ends, limits
        seeds = [None if sampling.seed is None else sampling.seed + number for number in range(len(rows))]
        self._choosers = [Chooser(replace(sampling, seed=seed), ()) for seed in seeds]
        self._open = [True] * len(rows)
        self._state: State | None = None
        self.over = self.dropped = False

    @torch.no_grad()
    def step(self) -> Step | None:
        """One more token for every row that is open; None when none is, and when the turn was ended."""
        if self.over or not any(self._open):
            return None
        found: list[int | None] = [None] * len(self.rows)
        for number, logits in enumerate(self._read()):
            if self._open[number]:
                row, token = self.rows[number], self._choosers[number].choose(logits)
                row.append(token)
                self._open[number] = token not in self._ends and len(row) < self._limits[number]
                found[number] = token
        return tuple(found)

    def _read(self) -> Tensor:
        """(B, V) logits behind the last token of each row; a row that is over goes along as padding."""
        device = self.memory.slots.device
        lengths = torch.tensor([len(row) for row in self.rows], device=device)
        if self._state is None:
            tokens, mask = side_by_side(self.rows, device)
            meta, last = TokenMeta.padded(mask), lengths - 1
            self._state = self.model.turn(self.memory)
            if not self._look:
                nothing = Reading(layers=(None,) * self.model.config.num_layers)
                self._state = replace(self._state, reading=nothing)
        else:
            tokens, last = torch.tensor([row[-1:] for row in self.rows], device=device), torch.zeros_like(lengths)
            meta = TokenMeta.padded(torch.tensor(self._open, device=device)[:, None])
            meta = replace(meta, positions=lengths[:, None] - 1)
        out = self.model(tokens, meta, self._state)
        self._state = out.state
        return self.model.logits(out.hidden[torch.arange(len(last), device=device), last]).cpu()


def unwritten(error: Exception, version: int) -> ClientError:
    """What whoever goes on is told when an update failed, of a memory that holds so many interactions."""
    return ClientError(
        f"the memory could not be written behind an earlier answer ({error}); that interaction is not remembered, and "
        f"version {version} of the memory, from before it, can be gone on with"
    )


def side_by_side(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """tokens (B, T) and mask (B, T): True for tokens; shorter rows are filled up behind theirs."""
    lengths = torch.tensor([len(row) for row in rows], device=device)
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    return tokens, torch.arange(longest, device=device)[None] < lengths[:, None]
