"""From a checked body to pieces of answers: asking the engine, waiting without a thread, and letting go."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import anyio.to_thread
from fastapi import Request as HttpRequest

from riallm.core.errors import BudgetError, RiallmError, UsageError
from riallm.engine.request import Delta, Engine, Request, Ticket
from riallm.serve.errors import ApiError, of_engine

_T = TypeVar("_T")


@dataclass(slots=True, kw_only=True)
class Tally:
    """What one HTTP request came to, for its line in the log and the metrics. Seconds are of the monotonic clock."""

    begun: float = field(default_factory=time.monotonic)
    endpoint: str = "other"
    model: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    first_seconds: float | None = None
    gap_seconds: list[float] = field(default_factory=list)
    last: float = 0.0

    def tokens(self, num: int) -> None:
        """So many tokens came just now."""
        now = time.monotonic()
        if self.first_seconds is None:
            self.first_seconds = now - self.begun
        else:
            self.gap_seconds += [(now - self.last) / num] * num
        self.last = now


class Answers:
    """The tickets of one HTTP request. Whoever makes it calls `cancel` when done, whatever happened."""

    def __init__(self, tally: Tally, *, per_prompt: int = 1) -> None:
        """per_prompt: so many tickets in a row have one prompt, which is counted once."""
        self.tally = tally
        self._per_prompt = per_prompt
        self._tickets: list[Ticket] = []
        self._open: dict[int, Ticket] = {}
        self._stopped: set[int] = set()

    async def ask(self, engine: Engine, requests: Sequence[Request], *, max_waiting: int) -> None:
        """Hand all requests over, or none. Raises ApiError: 429 when too many wait, 400 for one that can never fit."""
        try:
            await in_thread(lambda: self._ask(engine, requests, max_waiting))
        except BaseException:
            self.cancel()
            raise

    def _ask(self, engine: Engine, requests: Sequence[Request], max_waiting: int) -> None:
        if len(requests) > max_waiting:
            raise UsageError(
                f"this asks for {len(requests)} answers at once, prompts times n; ask for {max_waiting} at most"
            )
        waiting = engine.load().waiting
        if waiting + len(requests) > max_waiting:
            raise BudgetError(f"{waiting} answers are waited for, and no more than {max_waiting} may be; come again")
        for index, request in enumerate(requests):
            ticket = engine.submit(request)
            self._tickets.append(ticket)
            self._open[index] = ticket

    async def pieces(self) -> AsyncIterator[tuple[int, Delta]]:
        """(which ticket, its next piece), as they come. Raises ApiError when the engine failed."""
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(news.set)

        for ticket in self._tickets:
            ticket.notify(tell)
        while self._open:
            news.clear()
            quiet = True
            for index, ticket in list(self._open.items()):
                piece = ticket.next(0)
                if piece is not None:
                    quiet = False
                    yield index, self._noted(index, piece)
            if quiet and self._open:
                await news.wait()

    def _noted(self, index: int, piece: Delta) -> Delta:
        if piece.tokens:
            self.tally.tokens(len(piece.tokens))
        if piece.finish is None:
            return piece
        del self._open[index]
        if piece.usage is not None:
            if index % self._per_prompt == 0:
                self.tally.prompt_tokens += piece.usage.prompt_tokens
                self.tally.cached_tokens += piece.usage.cached_tokens
            self.tally.completion_tokens += piece.usage.completion_tokens
        if piece.finish == "error":
            raise ApiError(500, f"The engine failed: {piece.error or 'it does not say why'}.", code="engine_error")
        if piece.finish == "cancelled":
            if index not in self._stopped:
                raise ApiError(503, "The server is stopping; come again.", code="stopping")
            return replace(piece, text="", finish="stop")
        return piece

    def stop(self, index: int) -> None:
        """This answer is long enough: it ends with `stop`, if it has not ended yet."""
        if index in self._open:
            self._stopped.add(index)
            self._open[index].cancel()

    def cancel(self) -> None:
        """Let go of all that is not finished."""
        for ticket in self._open.values():
            ticket.cancel()


async def in_thread(call: Callable[[], _T]) -> _T:
    """What takes long outside the loop. Raises ApiError for what it refuses."""
    try:
        return await anyio.to_thread.run_sync(call)
    except RiallmError as error:
        raise of_engine(error) from None


async def unless_gone(request: HttpRequest, work: Coroutine[Any, Any, _T], *, seconds: float) -> _T:
    """The result of `work`, which is cancelled when the client goes away or the time for a whole request is over."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(gone(request.receive))
    try:
        await asyncio.wait({task, watch}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if watch.done():
            raise ApiError(499, "The client went away.", code="client_gone")
        raise too_long(seconds)
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def gone(receive: Callable[[], Awaitable[Any]]) -> None:
    """Returns when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def too_long(seconds: float) -> ApiError:
    """The time for a whole request is over."""
    return ApiError(504, f"The request took more than {seconds:g} seconds, which is the limit here.", code="timeout")
