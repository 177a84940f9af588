"""A prefix that is read once, and the likelihood of many continuations of it.

Letters: B rows, T tokens of the longest row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from riallm.core.errors import UsageError
from riallm.models.base import Model
from riallm.nn.meta import TokenMeta
from riallm.nn.state import ModelState

ROW_TOKENS = 4096
"""Tokens of continuations that are computed at once; more would only take memory."""

ROW_KEYS = 1 << 15
"""Tokens that the rows computed at once have behind and before them, since each row gets its own copy of the prefix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """The state behind a prefix, and the log-probabilities (V,) of the token that follows it."""

    state: ModelState
    next_log_probs: Tensor


def plain_files(ids: Sequence[int]) -> TokenMeta:
    """All tokens in one file of their own."""
    return TokenMeta.plain(1, len(ids))


@torch.inference_mode()
def read(model: Model, ids: Sequence[int], meta: TokenMeta | None = None) -> Prefix:
    """Read a prefix of at least one token; `meta` of one row, default one file."""
    if not ids:
        raise UsageError("a prefix needs at least one token, for instance the marker of its file")
    meta = meta or plain_files(ids)
    out = model(torch.tensor([list(ids)]), meta, model.empty_state(meta))
    assert out.state is not None
    return Prefix(state=out.state, next_log_probs=F.log_softmax(model.logits(out.hidden[0, -1]), dim=-1))


@torch.inference_mode()
def extended(model: Model, prefix: Prefix, ids: Sequence[int]) -> tuple[Prefix, float]:
    """The prefix with tokens behind it, which belong to its last token's file, and their natural log-probability."""
    if not ids:
        return prefix, 0.0
    tokens = torch.tensor([list(ids)])
    out = model(tokens, following(prefix.state, 1, len(ids)), prefix.state)
    assert out.state is not None
    log_probs = F.log_softmax(model.logits(out.hidden[0]), dim=-1)
    gained = float(prefix.next_log_probs[ids[0]] + log_probs[:-1].gather(1, tokens[0, 1:, None]).sum())
    return Prefix(state=out.state, next_log_probs=log_probs[-1]), gained


@torch.inference_mode()
def score(model: Model, prefix: Prefix, continuations: Sequence[Sequence[int]]) -> list[float]:
    """Natural log-probability of each continuation behind the prefix; an empty one has 0. The tokens belong to the
    file of the prefix's last token. The order of the continuations and their company change nothing but rounding."""
    found = [0.0] * len(continuations)
    order = sorted(range(len(continuations)), key=lambda index: len(continuations[index]))
    order = [index for index in order if continuations[index]]
    while order:
        longest, rows = 0, list[int]()
        while order and len(rows) < _at_once(prefix, max(longest, len(continuations[order[0]]))):
            longest = max(longest, len(continuations[order[0]]))
            rows.append(order.pop(0))
        values = _score_rows(model, prefix, [continuations[index] for index in rows], longest)
        for index, value in zip(rows, values, strict=True):
            found[index] = value
    return found


def _at_once(prefix: Prefix, longest: int) -> int:
    """Rows of up to `longest` tokens that are computed together."""
    return max(1, min(ROW_TOKENS // longest, ROW_KEYS // (prefix.state.num_tokens + longest)))


def _score_rows(model: Model, prefix: Prefix, rows: Sequence[Sequence[int]], longest: int) -> list[float]:
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.zeros(len(rows), longest, dtype=torch.int64)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = torch.tensor(list(row))
    first = prefix.next_log_probs[tokens[:, 0]]
    if longest == 1:
        return list(map(float, first))
    out = model(tokens[:, :-1], following(prefix.state, len(rows), longest - 1), prefix.state.expanded(len(rows)))
    counted = torch.arange(longest - 1)[None] < lengths[:, None] - 1
    logits = model.logits(out.hidden[counted])
    values = -F.cross_entropy(logits, tokens[:, 1:][counted], reduction="none")
    summed = torch.zeros(len(rows)).index_add_(0, counted.nonzero()[:, 0], values)
    return list(map(float, first + summed))


@torch.inference_mode()
def choose(model: Model, prefix: Prefix, options: Sequence[Sequence[int]]) -> list[float]:
    """Natural log-probability of each option where one of them is all that may follow: of the tokens at each place only
    those count that lead to an option, so that their probabilities sum to one. What has no alternative costs nothing,
    and is not computed. Raises UsageError where an option begins another one, or is there twice."""
    found = [0.0] * len(options)
    forks: list[Fork] = []
    _forks(options, list(range(len(options))), 0, forks)
    values = _behind(model, prefix, list({tuple(options[fork.rows[0]][: fork.depth]) for fork in forks}))
    for fork in forks:
        after = values[tuple(options[fork.rows[0]][: fork.depth])]
        tokens = sorted({options[row][fork.depth] for row in fork.rows})
        among = dict(zip(tokens, F.log_softmax(after[tokens], dim=-1).tolist(), strict=True))
        for row in fork.rows:
            found[row] += among[options[row][fork.depth]]
    return found


@dataclass(frozen=True, slots=True)
class Fork:
    """Options `rows` that have their first `depth` tokens in common, and not the next one."""

    rows: list[int]
    depth: int


def _forks(options: Sequence[Sequence[int]], rows: list[int], depth: int, found: list[Fork]) -> None:
    while len(rows) > 1:
        groups: dict[int, list[int]] = {}
        for row in rows:
            if len(options[row]) == depth:
                raise UsageError("of options to choose from, none may begin another one or be there twice")
            groups.setdefault(options[row][depth], []).append(row)
        if len(groups) > 1:
            found.append(Fork(rows, depth))
            for group in groups.values():
                _forks(options, group, depth + 1, found)
            return
        depth += 1


def _behind(model: Model, prefix: Prefix, paths: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], Tensor]:
    """Log-probabilities (V,) of the token behind each path. A path that begins another one is read with it."""
    found: dict[tuple[int, ...], Tensor] = {(): prefix.next_log_probs}
    rows: list[list[tuple[int, ...]]] = []  # paths that begin one another, the longest first
    for path in sorted(filter(None, paths), reverse=True):
        if rows and rows[-1][0][: len(path)] == path:
            rows[-1].append(path)
        else:
            rows.append([path])
    rows.sort(key=lambda row: len(row[0]))
    while rows:
        longest = len(rows[-1][0])
        taken = rows[-_at_once(prefix, longest) :]
        rows = rows[: -len(taken)]
        tokens = torch.zeros(len(taken), longest, dtype=torch.int64)
        for number, row in enumerate(taken):
            tokens[number, : len(row[0])] = torch.tensor(row[0])
        out = model(tokens, following(prefix.state, len(taken), longest), prefix.state.expanded(len(taken)))
        ends = [(number, path) for number, row in enumerate(taken) for path in row]
        places = torch.tensor([len(path) - 1 for _, path in ends])
        logits = model.logits(out.hidden[torch.tensor([number for number, _ in ends]), places])
        found |= dict(zip((path for _, path in ends), F.log_softmax(logits, dim=-1), strict=True))
    return found


@torch.inference_mode()
def branched(model: Model, prefix: Prefix, rows: Sequence[Sequence[int]]) -> tuple[ModelState, Tensor]:
    """The prefix with each of N continuations of at least one token behind it: one state of N rows, and the
    log-probabilities (N, V) of what follows. Before shorter ones stands padding that nothing sees."""
    longest = max(len(row) for row in rows)
    padding = torch.tensor([[longest - len(row)] for row in rows])
    tokens = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows])
    meta = following(prefix.state, len(rows), longest)
    positions = meta.positions - padding
    inside = torch.arange(longest)[None] >= padding
    first = meta.positions[:, :1]
    meta = TokenMeta(
        positions=torch.where(inside, positions, first),
        segments=torch.where(inside, meta.segments, meta.segments + 1),
        files=meta.files,
        relations=meta.relations,
    )
    out = model(tokens, meta, prefix.state.expanded(len(rows)))
    assert out.state is not None
    return out.state, F.log_softmax(model.logits(out.hidden[:, -1]), dim=-1)


def following(state: ModelState, num_rows: int, num_tokens: int) -> TokenMeta:
    """The record of tokens that go on behind a state of one row, or of `num_rows` rows that are equally long."""
    meta = state.meta

    def last(tensor: Tensor) -> Tensor:
        return tensor[:, -1:].expand(num_rows, num_tokens)

    return TokenMeta(
        positions=last(meta.positions) + 1 + torch.arange(num_tokens),
        segments=last(meta.segments),
        files=last(meta.files),
        relations=meta.relations.expand(num_rows, -1, -1),
    )
