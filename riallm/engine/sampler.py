"""Continuing a prefix: samples side by side, or the likeliest few by beam search.

Letters: N continuations, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from riallm.core.errors import UsageError
from riallm.engine.prefix import Prefix, branched, following
from riallm.models.base import Model
from riallm.nn.meta import TokenMeta
from riallm.nn.state import ModelState


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """ids without the token that ended it; log_prob of all of them, the end included where there is one; finished:
    whether it came to an end; start: which of a beam's starts it continues, and then its log_prob is in `log_prob`."""

    ids: tuple[int, ...]
    log_prob: float
    finished: bool
    start: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a beam may begin with behind the prefix, and what it is credited with."""

    ids: tuple[int, ...]
    log_prob: float


def _rows(state: ModelState, chosen: Tensor) -> ModelState:
    """The rows `chosen` (N,) of a state, in that order, some perhaps several times."""
    meta = state.meta
    return ModelState(
        layers=tuple(layer.rows(chosen) for layer in state.layers),
        meta=TokenMeta(
            positions=meta.positions[chosen],
            segments=meta.segments[chosen],
            files=meta.files[chosen],
            relations=meta.relations[chosen],
        ),
    )


def _next(model: Model, state: ModelState, tokens: Tensor) -> tuple[ModelState, Tensor]:
    """Feed one token (N,) to every row: the state behind it, and log-probabilities (N, V)."""
    out = model(tokens[:, None], following(state, len(tokens), 1), state)
    assert out.state is not None
    return out.state, F.log_softmax(model.logits(out.hidden[:, -1]), dim=-1)


def narrowed(log_probs: Tensor, temperature: float, top_p: float) -> Tensor:
    """Probabilities (N, V) at a temperature, with all but the likeliest that hold `top_p` of them set to zero."""
    probs = (log_probs / temperature).softmax(dim=-1)
    if top_p < 1.0:
        ordered, places = probs.sort(dim=-1, descending=True)
        over = ordered.cumsum(dim=-1) - ordered >= top_p
        probs = probs.masked_fill(over.gather(-1, places.argsort(dim=-1)), 0.0)
    return probs / probs.sum(dim=-1, keepdim=True)


@torch.inference_mode()
def sample(
    model: Model,
    prefix: Prefix,
    *,
    num: int,
    max_tokens: int,
    ends: Collection[int],
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[Continuation]:
    """`num` samples; temperature 0 is greedy, and then all are equal. `ends`: tokens that end one.

    Raises UsageError for a temperature below 0 or a top_p outside (0, 1].
    """
    if temperature < 0.0 or not 0.0 < top_p <= 1.0:
        raise UsageError(f"temperature is {temperature}, at least 0; top_p is {top_p}, above 0 and at most 1")
    draw = torch.Generator().manual_seed(seed)
    state, log_probs = prefix.state.expanded(num), prefix.next_log_probs.expand(num, -1)
    rows = [Continuation(ids=(), log_prob=0.0, finished=False)] * num
    for step in range(max_tokens):
        if temperature == 0.0:
            tokens = log_probs.argmax(dim=-1)
        else:
            tokens = torch.multinomial(narrowed(log_probs, temperature, top_p), 1, generator=draw)[:, 0]
        gained = log_probs.gather(-1, tokens[:, None])[:, 0]
        for number, row in enumerate(rows):
            if not row.finished:
                rows[number] = _grown(row, int(tokens[number]), float(gained[number]), ends)
        if all(row.finished for row in rows) or step + 1 == max_tokens:
            break
        state, log_probs = _next(model, state, tokens)
    return rows


def _grown(row: Continuation, token: int, gained: float, ends: Collection[int]) -> Continuation:
    if token in ends:
        return replace(row, log_prob=row.log_prob + gained, finished=True)
    return replace(row, ids=(*row.ids, token), log_prob=row.log_prob + gained)


@torch.inference_mode()
def beam(
    model: Model, prefix: Prefix, *, num: int, max_tokens: int, ends: Collection[int], starts: Sequence[Start] = ()
) -> list[Continuation]:
    """The `num` likeliest finished continuations that a beam of that width finds, likeliest first; where fewer than
    `num` came to an end in time, unfinished ones follow. starts: where there are some, every continuation goes on from
    one of them, and all share the width."""
    if starts:
        state, log_probs = branched(model, prefix, [start.ids for start in starts])
    else:
        state, log_probs = prefix.state.expanded(1), prefix.next_log_probs[None]
    begun = [start.log_prob for start in starts] or [0.0]
    open_rows = [Continuation(ids=(), log_prob=value, finished=False, start=at) for at, value in enumerate(begun)]
    finished: list[Continuation] = []
    for step in range(max_tokens):
        totals = log_probs + torch.tensor([row.log_prob for row in open_rows])[:, None]
        width = min(2 * num, totals.numel())
        values, places = totals.flatten().topk(width)
        grown: list[tuple[int, Continuation]] = []
        for value, place in zip(values.tolist(), places.tolist(), strict=True):
            parent, token = divmod(place, log_probs.shape[1])
            row = _grown(open_rows[parent], token, value - open_rows[parent].log_prob, ends)
            if row.finished:
                finished.append(row)
            elif len(grown) < num:
                grown.append((parent, row))
        finished = sorted(finished, key=lambda row: -row.log_prob)[:num]
        worst = finished[-1].log_prob if len(finished) == num else float("-inf")
        grown = [(parent, row) for parent, row in grown if row.log_prob > worst]
        open_rows = [row for _, row in grown]
        if not open_rows or step + 1 == max_tokens:
            break
        state = _rows(state, torch.tensor([parent for parent, _ in grown]))
        state, log_probs = _next(model, state, torch.tensor([row.ids[-1] for row in open_rows]))
    return (finished + sorted(open_rows, key=lambda row: -row.log_prob))[:num]
