"""The engine in this process: one thread that computes, any number that ask."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from riallm.core.errors import BudgetError, UsageError
from riallm.engine.drafting import Lookup, SmallModel, same_tokens
from riallm.engine.pages import PageBook
from riallm.engine.request import Load, Recorder, Request
from riallm.engine.scheduler import Part, Scheduler, by_version
from riallm.engine.sequence import LocalTicket, Rows, Running, Version
from riallm.engine.text import Decode
from riallm.models.compiled import compile_blocks
from riallm.models.decoder import Decoder
from riallm.nn.adapter import Adapter
from riallm.nn.meta import TokenMeta
from riallm.nn.paged import PAGE, PagedState, PageStore, row_of

log = logging.getLogger("riallm.engine")

WATCHED = 5.0
"""Seconds over which the speed is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """kv_bytes: memory of all pages. int8_kv: keys and values in 8 bits. step_tokens: of one pass at most, so that a
    long prompt does not hold up the answers for longer. max_waiting: requests that queue before one is turned away.
    lookahead: tokens drafted at first, by a small model where there is one, else from the text itself; 0 for none."""

    kv_bytes: int = 512 << 20
    int8_kv: bool = False
    step_tokens: int = 512
    max_running: int = 64
    max_waiting: int = 256
    lookahead: int = 4


class LocalEngine:
    """See `Engine`. Closing it frees the thread and the memory; a request that fails takes no other with it."""

    def __init__(
        self,
        model: Decoder,
        *,
        name: str,
        identity: str,
        decode: Decode,
        context: int,
        options: EngineOptions | None = None,
        small: Decoder | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """identity: hash of the weights. decode: bytes of tokens. context: longest prompt and answer together. small: a
        model of the same tokens that drafts, always without an adapter. recorder: who hears of finished requests."""
        self.name, self.context, self.vocab_size = name, context, model.sizes.vocab_size
        self.options = options or EngineOptions()
        for each in (model, small):
            if each is not None:
                compile_blocks(each)
        self.store = _store(model, self.options)
        kind = "int8" if self.options.int8_kv else str(self.store.dtype)
        self.scheduler = Scheduler(
            PageBook(self.store, identity=f"{identity} {kind}"),
            step_tokens=self.options.step_tokens,
            max_running=self.options.max_running,
            drafter=self._drafter(model, small) if self.options.lookahead else None,
        )
        self._model, self._decode, self._device = model, decode, _device_of(model)
        self._version = Version()
        self._recorder, self._layers = recorder, _layers(model, recorder)
        self._lock = threading.Condition()
        self._arrived: list[Running] = []
        self._jobs: list[Callable[[], None]] = []
        self._closing: float | None = None
        self._sums = {"prompt": 0, "cached": 0, "completion": 0, "drafted": 0, "accepted": 0}
        self._recent: deque[tuple[float, int]] = deque()
        self._thread = threading.Thread(target=self._run, name=f"engine {name}", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> LocalTicket:
        """See `Engine.submit`."""
        if request.interaction is not None:
            raise UsageError(f"{self.name} has no memory of slots; give it the whole conversation as its prompt")
        whole = len(request.ids) + request.max_tokens
        most = min(self.context, self.store.num_pages * PAGE)
        if whole > most:
            raise UsageError(
                f"the prompt has {len(request.ids)} tokens and the answer may have {request.max_tokens}: {whole} of "
                f"{most} that {self.name} can hold; shorten it by {whole - most}"
            )
        wrong = [index for index in request.ids if not 0 <= index < self.vocab_size]
        if wrong:
            raise UsageError(f"token {wrong[0]} is not in the vocabulary of {self.name}, which has {self.vocab_size}")
        ticket = LocalTicket()
        running = Running(request, ticket, self._decode, lookahead=self.options.lookahead, version=self._version)
        with self._lock:
            if self._closing is not None:
                raise BudgetError(f"{self.name} is closing and takes on nothing more")
            if len(self._arrived) + len(self.scheduler.waiting) >= self.options.max_waiting:
                raise BudgetError(f"{self.options.max_waiting} requests wait for {self.name} already; ask again later")
            self._arrived.append(running)
            self._lock.notify()
        return ticket

    def publish(self, adapter: Adapter | None) -> None:
        """See `Engine.publish`."""
        if adapter is None:
            self._version = Version()
            return
        adapter.check(self._model.hooks())
        kept = adapter.frozen(self._device)
        self._version = Version(adapter=kept, identity=kept.identity())

    def embed(self, prompts: list[list[int]]) -> list[list[float]]:
        """See `Engine.embed`."""
        found: list[list[float]] = []
        failed: list[BaseException] = []
        done = threading.Event()

        def job() -> None:
            try:
                found.extend(self._embedded(prompt) for prompt in prompts)
            except BaseException as error:
                failed.append(error)
            done.set()

        with self._lock:
            if self._closing is not None:
                raise BudgetError(f"{self.name} is closing and takes on nothing more")
            self._jobs.append(job)
            self._lock.notify()
        done.wait()
        if failed:
            raise failed[0]
        return found

    def load(self) -> Load:
        """See `Engine.load`. Taken while the engine works, so that figures of one moment may differ by a step."""
        book, scheduler = self.scheduler.book, self.scheduler
        now = time.monotonic()
        recent = [num for at, num in list(self._recent) if now - at <= WATCHED]
        return Load(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting) + len(self._arrived),
            pages=self.store.num_pages,
            pages_used=self.store.num_pages - book.num_available,
            pages_cached=book.num_cached,
            prompt_tokens=self._sums["prompt"],
            cached_tokens=self._sums["cached"],
            completion_tokens=self._sums["completion"],
            drafted_tokens=self._sums["drafted"],
            accepted_tokens=self._sums["accepted"],
            preemptions=scheduler.preemptions,
            tokens_per_second=sum(recent) / WATCHED,
        )

    def close(self, *, seconds: float = 0.0) -> None:
        """See `Engine.close`."""
        with self._lock:
            self._closing = time.monotonic() + seconds
            self._lock.notify()
        self._thread.join()

    def _drafter(self, model: Decoder, small: Decoder | None) -> Lookup | SmallModel:
        if small is None:
            return Lookup()
        same_tokens(model, small)
        return SmallModel(small, PageBook(_store(small, self.options), identity="small"))

    @torch.inference_mode()
    def _run(self) -> None:
        while True:
            with self._lock:
                busy = self.scheduler.running or self.scheduler.waiting
                if not (busy or self._arrived or self._jobs) and self._closing is None:
                    self._lock.wait()
                arrived, self._arrived = self._arrived, []
                jobs, self._jobs = self._jobs, []
            for job in jobs:
                job()
            for running in arrived:
                self.scheduler.add(running)
            everyone = [*self.scheduler.running, *self.scheduler.waiting]
            over = self._closing is not None and time.monotonic() >= self._closing
            gone = [each for each in everyone if over or each.ticket.cancelled]
            for each in gone:
                each.end("cancelled")
            self._over(gone)
            # What came in before it was closing, but after this turn looked, has another turn.
            if self._closing is not None and len(gone) == len(everyone) and not (self._arrived or self._jobs):
                return
            self._step(self._shared())

    def _shared(self) -> list[Part]:
        """The parts of the next step. Where sharing itself fails, nobody knows at whom, so all that are there hear of
        it: a thread that ended would leave them waiting for ever."""
        try:
            return self.scheduler.step()
        except Exception as error:
            log.exception("%s could not share out a step; its requests are told so", self.name)
            everyone = [*self.scheduler.running, *self.scheduler.waiting]
            for each in everyone:
                each.fail(error)
            self._over(everyone)
            return []

    def _step(self, parts: Sequence[Part]) -> None:
        if not parts:
            return
        before = sum(part.running.num_written for part in parts)
        for alike in by_version(parts):
            self._passed(alike)
        written = sum(part.running.num_written for part in parts) - before
        now = time.monotonic()
        self._recent.append((now, written))
        while now - self._recent[0][0] > WATCHED:
            self._recent.popleft()
        self._sums["completion"] += written
        self._over([part.running for part in parts if part.running.finish is not None])

    def _passed(self, parts: Sequence[Part]) -> None:
        """One pass, and what comes of it. Whatever fails, those that asked hear of it, and the engine goes on with the
        others."""
        try:
            found = self._computed(parts)
        except Exception as error:
            for part in parts:
                part.running.fail(error)
            return
        for part, rows in zip(parts, found, strict=True):
            if rows is None:
                continue
            try:
                self._told(part, rows)
            except Exception as error:
                self._forget_drafts(part)
                part.running.fail(error)

    def _forget_drafts(self, part: Part) -> None:
        """What it holds can be found by others, by its tokens, and it is not known which drafts are among these."""
        table = part.running.table
        assert table is not None
        part.running.table = self.scheduler.book.truncate(table, table.num_tokens - len(part.drafts))

    def _over(self, done: Sequence[Running]) -> None:
        """These have ended: their pages are free, and the recorder hears of them."""
        self.scheduler.drop(done)
        for each in done:
            if self._recorder is not None and each.request.store:
                try:
                    self._recorder.record(each.finished())
                except Exception:
                    log.exception("a recorder of %s failed; that request is lost to it", self.name)

    def _computed(self, parts: Sequence[Part]) -> list[Rows | None]:
        """One pass over parts of one version: the rows of each part that reaches its sequence's end, None of the
        others."""
        ids: list[int] = []
        files: list[list[int]] = []
        tables = []
        for part in parts:
            table = part.running.table
            assert table is not None
            first, last = table.num_tokens, table.num_tokens + part.num_tokens
            ids += [*part.running.ids[first:last], *part.drafts]
            files.append(part.running.files[first:last] + [part.running.files[last - 1]] * len(part.drafts))
            tables.append(table)
        out = self._model(
            torch.tensor([ids]),
            row_of(tables, files),
            PagedState(store=self.store, tables=tuple(tables)),
            adapter=parts[0].running.version.adapter,
            taps=self._layers,  # in every pass: what is asked of it may decide how it is computed
        )
        assert isinstance(out.state, PagedState)
        wanted: list[int] = []
        at = 0
        for part in parts:
            size = part.num_tokens + len(part.drafts)
            if part.reaches_end:
                wanted += range(at + part.num_tokens - 1, at + size)
            at += size
        logits = self._model.logits(out.hidden[0, wanted]).cpu() if wanted else None
        taps = {layer: states[0, wanted].cpu() for layer, states in out.taps.items()} if wanted else {}
        found: list[Rows | None] = []
        at = 0
        for part, table in zip(parts, out.state.tables, strict=True):
            if part.reaches_end and logits is not None:
                own = slice(at, at + 1 + len(part.drafts))
                kept = taps if part.running.request.store else {}
                found.append(Rows(logits=logits[own], taps={layer: each[own] for layer, each in kept.items()}))
                at = own.stop
            else:
                found.append(None)
            part.running.table = table
        return found

    def _told(self, part: Part, rows: Rows) -> None:
        """The sequence's next tokens, and its table cut back to what stands."""
        running, book = part.running, self.scheduler.book
        table = running.table
        assert table is not None
        if running.num_written == 0:
            self._sums["prompt"] += running.num_prompt
            self._sums["cached"] += running.num_cached
            self.scheduler.remember(running, table.num_tokens - len(part.drafts))
        if running.request.max_tokens == 0:
            running.keep(rows, 0)
            running.end("length")
            return
        num = running.take(rows, part.drafts)
        self._sums["drafted"] += len(part.drafts)
        self._sums["accepted"] += max(0, num - 1)
        stands = table.num_tokens - len(part.drafts) + max(0, num - 1)
        running.table = book.truncate(table, stands)

    def _embedded(self, prompt: list[int]) -> list[float]:
        if not 0 < len(prompt) <= self.context:
            raise UsageError(f"a text to embed has 1 to {self.context} tokens, got {len(prompt)}")
        tokens = torch.tensor([prompt], device=self._device)
        hidden = self._model(tokens, TokenMeta.plain(1, len(prompt), device=self._device)).hidden[0]
        found: list[float] = F.normalize(hidden.float().mean(dim=0), dim=0).tolist()
        return found


def _layers(model: Decoder, recorder: Recorder | None) -> tuple[int, ...]:
    layers = () if recorder is None else tuple(recorder.layers)
    num = model.sizes.num_hidden_layers
    if any(not 0 <= layer < num for layer in layers) or len(set(layers)) < len(layers):
        raise UsageError(f"the recorder asks for layers {layers}; they are of 0 to {num - 1}, each once")
    return layers


def _store(model: Decoder, options: EngineOptions) -> PageStore:
    sizes = model.sizes
    numbers = 2 * sizes.num_hidden_layers * sizes.num_key_value_heads * PAGE
    a_number = sizes.head_dim + 4 if options.int8_kv else sizes.head_dim * model.dtype.itemsize
    num_pages = options.kv_bytes // (numbers * a_number)
    if num_pages < 1:
        raise UsageError(f"kv_bytes is {options.kv_bytes}; one page of {PAGE} tokens takes {numbers * a_number}")
    return PageStore(
        num_pages=num_pages,
        num_layers=sizes.num_hidden_layers,
        num_kv_heads=sizes.num_key_value_heads,
        head_dim=sizes.head_dim,
        dtype=model.dtype,
        int8=options.int8_kv,
        device=_device_of(model),
    )


def _device_of(model: Decoder) -> torch.device:
    return next(model.parameters()).device
