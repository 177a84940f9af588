"""One request on its way: its tokens, how far they are computed, and what was told of the answer."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from riallm.engine.choice import Chooser, told
from riallm.engine.drafting import Pace
from riallm.engine.request import Delta, Finish, Finished, Request, Token, Usage
from riallm.engine.text import Answer, Decode
from riallm.nn.adapter import Adapter
from riallm.nn.paged import Table


class LocalTicket:
    """See `Ticket`. The engine's thread puts, the caller's takes."""

    def __init__(self) -> None:
        self._pieces: queue.SimpleQueue[Delta] = queue.SimpleQueue()
        self._call: Callable[[], object] | None = None
        self.cancelled = False

    def put(self, piece: Delta) -> None:
        """For the engine: one more piece."""
        self._pieces.put(piece)
        if self._call is not None:
            self._call()

    def next(self, seconds: float | None = None) -> Delta | None:
        """See `Ticket.next`."""
        try:
            return self._pieces.get(timeout=seconds)
        except queue.Empty:
            return None

    def notify(self, call: Callable[[], object]) -> None:
        """See `Ticket.notify`. Pieces that are there already are told at once."""
        self._call = call
        if not self._pieces.empty():
            call()

    def cancel(self) -> None:
        """See `Ticket.cancel`."""
        self.cancelled = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Version:
    """What a request is computed with beside the weights. identity: the adapter's, empty for none."""

    adapter: Adapter | None = None
    identity: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """What a pass gave behind a sequence's last token and each draft: logits (1 + drafts, V), and hidden states
    (1 + drafts, D) of the layers that were asked for."""

    logits: Tensor
    taps: Mapping[int, Tensor]


class Running:
    """A request that the engine has taken on, from the queue to its last piece.

    ids: prompt and answer; `table.num_tokens` of them are computed. A preempted one loses its table and computes its
    ids anew when its turn comes; nothing that was told changes, nor the version that it is computed with. ended_by: the
    end token that was drawn, which is not among the ids.
    """

    def __init__(
        self,
        request: Request,
        ticket: LocalTicket,
        decode: Decode,
        *,
        lookahead: int,
        version: Version,
    ) -> None:
        self.request, self.ticket, self.version = request, ticket, version
        self.pace = Pace(lookahead)
        self.ids = list(request.ids)
        meta = request.meta
        self.files = [0] * len(self.ids) if meta is None else meta.files[0].tolist()
        self.relations: Tensor = torch.ones(1, 1, dtype=torch.int64) if meta is None else meta.relations[0]
        self.table: Table | None = None
        self.finish: Finish | None = None
        self.ended_by: int | None = None
        self.usage: Usage | None = None
        self._taps: dict[int, list[Tensor]] = {}
        self._chooser = Chooser(request.sampling, request.ids)
        self._answer = Answer(decode, request.stop)
        self._cached: int | None = None
        self._drafted = self._accepted = 0
        self._asked = time.monotonic()
        self._begun = self._first = 0.0

    @property
    def num_prompt(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.ids)

    @property
    def num_written(self) -> int:
        """Tokens of the answer."""
        return len(self.ids) - self.num_prompt

    @property
    def num_cached(self) -> int:
        """Tokens of the prompt that were found read already."""
        return self._cached or 0

    @property
    def num_left(self) -> int:
        """Tokens that are not computed yet."""
        return len(self.ids) - (0 if self.table is None else self.table.num_tokens)

    def begin(self, table: Table | None) -> None:
        """Its turn has come; `table` may hold a part of it already. None: it is kept outside of pages."""
        self.table = table
        if self._cached is None:
            self._cached, self._begun = 0 if table is None else table.num_tokens, time.monotonic()

    def take(self, rows: Rows, drafts: list[int]) -> int:
        """Choose tokens from what stands behind the last token and each draft; how many tokens came.

        Each token is drawn as it would be without drafts, and the row behind a draft counts only where that very token
        was drawn: so drafts change nothing but the time.
        """
        pieces: list[Token] = []
        text = ""
        grammar = self.request.grammar
        self._first = self._first or time.monotonic()
        for at, (row, draft) in enumerate(zip(rows.logits, [*drafts, None], strict=True)):
            self.keep(rows, at)
            token = self._chooser.choose(row, None if grammar is None else grammar.allowed())
            if token in self.request.ends:
                self.finish, self.ended_by = "stop", token
                break
            if grammar is not None:
                grammar.accept(token)
            self.ids.append(token)
            self.files.append(self.files[-1])
            pieces.append(told(row, token, self.request.logprobs))
            text += self._answer.push(token)
            if self._answer.stopped or (grammar is not None and grammar.complete):
                self.finish = "stop"
            elif self.num_written >= self.request.max_tokens or self._late():
                self.finish = "length"
            if self.finish is not None or token != draft:
                break
        self._drafted += len(drafts)
        self._accepted += max(0, len(pieces) - 1)
        self.pace.told(len(drafts), max(0, len(pieces) - 1))
        if self.finish is None and pieces:
            self.ticket.put(Delta(text=text, tokens=tuple(pieces)))
        elif self.finish is not None:
            self.end(self.finish, text=text, tokens=tuple(pieces))
        return len(pieces)

    def keep(self, rows: Rows, at: int) -> None:
        """Keep the hidden states of one row, from which a token is drawn; a copy, since the rows are of many."""
        for layer, states in rows.taps.items():
            self._taps.setdefault(layer, []).append(states[at].clone())

    def finished(self) -> Finished:
        """For a recorder, once it has ended."""
        assert self.finish is not None and self.usage is not None
        adapter = self.version.adapter
        # Tensors that are made while inferring could not be used where gradients are computed.
        with torch.inference_mode(False):
            taps = {layer: torch.stack(states) for layer, states in self._taps.items()}
        return Finished(
            request=self.request,
            ids=tuple(self.ids[self.num_prompt :]),
            finish=self.finish,
            usage=self.usage,
            adapter=None if adapter is None else (adapter.name, adapter.version),
            taps=taps,
        )

    def end(self, finish: Finish, *, text: str = "", tokens: tuple[Token, ...] = (), error: str | None = None) -> None:
        """The last piece."""
        self.finish = finish
        now = time.monotonic()
        begun, first = self._begun or now, self._first or now
        self.usage = Usage(
            prompt_tokens=self.num_prompt,
            completion_tokens=self.num_written,
            cached_tokens=self.num_cached,
            drafted_tokens=self._drafted,
            accepted_tokens=self._accepted,
            waiting_seconds=begun - self._asked,
            prompt_seconds=first - begun,
            completion_seconds=now - first,
        )
        text += self._answer.finish()
        self.ticket.put(Delta(text=text, tokens=tokens, finish=finish, usage=self.usage, error=error))

    def fail(self, error: Exception) -> None:
        """It cannot go on."""
        self.end("error", error=f"{type(error).__name__}: {error}")

    def _late(self) -> bool:
        limit = self.request.seconds
        return limit is not None and time.monotonic() - self._first > limit
