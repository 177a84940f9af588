"""An engine that says what it was told to, with real threads: the public seam for testing whatever serves one."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from riallm.core.errors import BudgetError, RiallmError, UsageError

if TYPE_CHECKING:
    from riallm.engine.request import Delta, Finish, Load, Request, Token
    from riallm.nn.adapter import Adapter
    from riallm.tokenizer.text import Fim, TextTokenizer

NAMES = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|fim_prefix|>",
    "<|fim_suffix|>",
    "<|fim_middle|>",
    "<|file_sep|>",
)


class ByteTokenizer:
    """A token is a byte, and behind the bytes come the specials of NAMES. See `TextTokenizer`."""

    vocab_size = 256 + len(NAMES)
    specials: Mapping[str, int] = {name: 256 + at for at, name in enumerate(NAMES)}
    hidden = frozenset(range(256, 256 + len(NAMES)))
    ends: tuple[int, ...] = (256, 258)
    start: tuple[int, ...] = ()

    def __init__(self, *, chat_template: str | None = None, fills: bool = True) -> None:
        """fills: whether it has markers of fill-in-the-middle."""
        from riallm.tokenizer.text import find_fim

        self.chat_template = chat_template
        self.fim: Fim | None = find_fim(self.specials) if fills else None

    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        ids: list[int] = []
        for piece in self.pieces(text) if specials else [text]:
            ids += [piece] if isinstance(piece, int) else piece.encode("utf-8", "surrogatepass")
        return ids

    def pieces(self, text: str) -> list[int | str]:
        import re

        cut = re.split("(" + "|".join(map(re.escape, self.specials)) + ")", text)
        return [self.specials.get(part, part) for part in cut if part]

    def decode_bytes(self, ids: Sequence[int], *, specials: bool = False) -> bytes:
        if any(not 0 <= index < self.vocab_size for index in ids):
            raise UsageError(f"not all of these ids are below {self.vocab_size}")
        names = list(self.specials)
        shown = (bytes([index]) if index < 256 else names[index - 256].encode() * specials for index in ids)
        return b"".join(shown)


class ScriptedEngine:
    """Implements the protocol `Engine`; each request is answered by a thread of its own.

    answers: what prompts are answered with: a part of the prompt's text -> the answer; the first that fits is taken.
    Other prompts are answered with themselves. pause: seconds before each token. most: requests that run at once, the
    others wait. fail_after: an answer fails after so many tokens. context: tokens of prompt and answer together.
    """

    def __init__(
        self,
        *,
        answers: Mapping[str, str] | None = None,
        tokenizer: TextTokenizer | None = None,
        pause: float = 0.0,
        most: int = 4,
        max_waiting: int = 1000,
        fail_after: int | None = None,
        context: int = 4096,
        name: str = "scripted",
        vocab_size: int | None = None,
    ) -> None:
        self.tokenizer: TextTokenizer = tokenizer or ByteTokenizer()
        self.name, self.context = name, context
        self.vocab_size = vocab_size or self.tokenizer.vocab_size
        self.asked: list[Request] = []
        self.published: list[Adapter | None] = []
        self._answers = dict(answers or {})
        self._pause, self._most, self._max_waiting, self._fail_after = pause, most, max_waiting, fail_after
        self._turn = threading.Condition()
        self._running = self._waiting = self._prompt = self._cached = self._completion = 0
        self._open: set[ScriptedTicket] = set()
        self._seen: set[tuple[int, ...]] = set()
        self._closed = False

    def submit(self, request: Request) -> ScriptedTicket:
        if len(request.ids) + request.max_tokens > self.context:
            over = len(request.ids) + request.max_tokens - self.context
            raise UsageError(f"prompt and max_tokens need {over} tokens more than the context of {self.context}")
        if request.ids and max(request.ids) >= self.vocab_size:
            raise UsageError(f"token {max(request.ids)} is not in the vocabulary of {self.vocab_size}")
        with self._turn:
            if self._closed:
                raise UsageError("the engine is closed")
            if self._waiting >= self._max_waiting:
                raise BudgetError(f"{self._waiting} requests wait already")
            self._waiting += 1
            self.asked.append(request)
            ticket = ScriptedTicket(self._turn)
            self._open.add(ticket)
        threading.Thread(target=self._work, args=(request, ticket), daemon=True).start()
        return ticket

    def publish(self, adapter: Adapter | None) -> None:
        """Put it with `published`; answers stay as they were told."""
        self.published.append(adapter)

    def embed(self, prompts: list[list[int]]) -> list[list[float]]:
        """Two numbers a prompt: the share of even and odd ids, of length 1."""
        rows = []
        for ids in prompts:
            odd = sum(index % 2 for index in ids)
            length = (odd**2 + (len(ids) - odd) ** 2) ** 0.5 or 1.0
            rows.append([(len(ids) - odd) / length, odd / length])
        return rows

    def load(self) -> Load:
        from riallm.engine.request import Load

        with self._turn:
            return Load(
                running=self._running,
                waiting=self._waiting,
                pages=64,
                pages_used=self._running,
                pages_cached=min(len(self._seen), 64 - self._running),
                prompt_tokens=self._prompt,
                cached_tokens=self._cached,
                completion_tokens=self._completion,
                drafted_tokens=0,
                accepted_tokens=0,
                preemptions=0,
                tokens_per_second=0.0,
            )

    def close(self, *, seconds: float = 0.0) -> None:
        with self._turn:
            self._closed = True
            self._turn.wait_for(lambda: not self._open, timeout=seconds)
            left = list(self._open)
        for ticket in left:
            ticket.cancel()

    def _work(self, request: Request, ticket: ScriptedTicket) -> None:
        begun = time.monotonic()
        with self._turn:
            self._turn.wait_for(lambda: self._running < self._most or ticket.cancelled)
            self._waiting -= 1
            self._running += 1
            cached = len(request.ids) if request.ids in self._seen else 0
            self._seen.add(request.ids)
            self._prompt += len(request.ids)
            self._cached += cached
        writer = _Writer(request, ticket, self.tokenizer, self._fail_after)
        waited = time.monotonic() - begun
        try:
            writer.write(self._answer(request), self._pause)
        except RiallmError as error:
            writer.finish, writer.error = "error", str(error)
        finally:
            with self._turn:
                self._running -= 1
                self._completion += writer.num
                self._open.discard(ticket)
                self._turn.notify_all()
            ticket.put(writer.last(cached, waited))

    def _answer(self, request: Request) -> list[int]:
        prompt = self.tokenizer.decode_bytes(request.ids, specials=True).decode("utf-8", "replace")
        told = next((answer for part, answer in self._answers.items() if part in prompt), None)
        return list(request.ids) if told is None else self.tokenizer.encode(told, specials=True)


class ScriptedTicket:
    """Implements the protocol `Ticket`."""

    def __init__(self, turn: threading.Condition) -> None:
        self._turn = turn
        self._pieces: queue.SimpleQueue[Delta] = queue.SimpleQueue()
        self._call: Callable[[], object] | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants the answer any more."""
        return self._stop.is_set()

    def next(self, seconds: float | None = None) -> Delta | None:
        try:
            return self._pieces.get(timeout=seconds) if seconds != 0 else self._pieces.get_nowait()
        except queue.Empty:
            return None

    def notify(self, call: Callable[[], object]) -> None:
        with self._lock:
            self._call = call
            ready = not self._pieces.empty()
        if ready:
            call()

    def cancel(self) -> None:
        self._stop.set()
        with self._turn:
            self._turn.notify_all()

    def put(self, piece: Delta) -> None:
        """For the engine: a piece is there."""
        with self._lock:
            self._pieces.put(piece)
            call = self._call
        if call is not None:
            call()

    def rest(self, seconds: float) -> None:
        """For the engine: a pause that ends when the ticket is cancelled."""
        self._stop.wait(seconds)


class _Writer:
    """Writes one answer token by token, as an engine would: whole characters, nothing that may become a stop text."""

    def __init__(
        self, request: Request, ticket: ScriptedTicket, tokenizer: TextTokenizer, fail_after: int | None
    ) -> None:
        import codecs

        self._request, self._ticket, self._tokenizer, self._fail_after = request, ticket, tokenizer, fail_after
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.num = 0
        self.finish: Finish = "stop"
        self.error: str | None = None

    def write(self, ids: Sequence[int], pause: float) -> None:
        begun = time.monotonic()
        # A grammar may want more than was told.
        for index in ids if self._request.grammar is None else itertools.chain(ids, itertools.repeat(None)):
            if pause:
                self._ticket.rest(pause)
            if self._ticket.cancelled:
                self.finish = "cancelled"
            elif index in self._request.ends and self._request.grammar is None:
                self.finish = "stop"
            elif self.num >= self._request.max_tokens or self._late(begun):
                self.finish = "length"
            elif self._fail_after is not None and self.num >= self._fail_after:
                self.finish, self.error = "error", f"told to fail after {self._fail_after} tokens"
            elif not self._one(self._kept(index)):
                continue
            return

    def _late(self, begun: float) -> bool:
        seconds = self._request.seconds
        return seconds is not None and self.num > 0 and time.monotonic() - begun > seconds

    def _kept(self, index: int | None) -> int:
        """The token that was told, or what a grammar allows instead: an end, the end of a text, or the first token."""
        grammar = self._request.grammar
        if grammar is None:
            assert index is not None
            return index
        allowed = grammar.allowed()
        options = [at for at in range(self._tokenizer.vocab_size) if allowed[at // 8] >> (at % 8) & 1]
        wishes = (index, *self._request.ends, *self._tokenizer.encode('"'), options[0])
        chosen = next(wish for wish in wishes if wish is not None and wish in options)
        if chosen not in self._request.ends:
            grammar.accept(chosen)
        return chosen

    def _one(self, index: int) -> bool:
        """Whether the answer is over with this token."""
        if index in self._request.ends:
            return True
        self.num += 1
        self._held += self._decoder.decode(self._tokenizer.decode_bytes([index]))
        for stop in self._request.stop:
            before, found, _ = self._held.partition(stop)
            if found:
                self._held = before
                self._tell(index, before)
                return True
        keep = max((_overlap(self._held, stop) for stop in self._request.stop), default=0)
        sure = self._held[: len(self._held) - keep]
        self._held = self._held[len(sure) :]
        self._tell(index, sure)
        grammar = self._request.grammar
        return grammar is not None and grammar.complete

    def _tell(self, index: int, text: str) -> None:
        from riallm.engine.request import Delta, Token

        if text:
            self._held = self._held.removeprefix(text)
        num = self._request.logprobs
        top = tuple(((index + at) % self._tokenizer.vocab_size, -0.5 - at) for at in range(num or 0))
        token: Token = Token(id=index, logprob=None if num is None else -0.5, top=top)
        self._ticket.put(Delta(text=text, tokens=(token,)))

    def last(self, cached: int, waited: float) -> Delta:
        """The piece with the usage."""
        from riallm.engine.request import Delta, Usage

        text = self._held + self._decoder.decode(b"", final=True)
        usage = Usage(
            prompt_tokens=len(self._request.ids),
            completion_tokens=self.num,
            cached_tokens=cached,
            waiting_seconds=waited,
        )
        return Delta(text=text, finish=self.finish, usage=usage, error=self.error)


def _overlap(text: str, stop: str) -> int:
    """How many letters at the end of `text` may become the stop text."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
