"""The engine of a model whose conversations are memories of fixed size: many are answered side by side, and each memory
is written, as a job of its own, when its answer is complete.

Memories are futures: a request waits for the one that it is answered from, and fulfils the one behind it. So the next
request of a conversation may come before the memory is written, and whoever goes on from one memory twice has a fork.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from riallm.core.errors import BudgetError, ClientError, UsageError
from riallm.engine.local import WATCHED, EngineOptions
from riallm.engine.request import Delta, Finish, Interaction, Load, Request
from riallm.engine.sequence import LocalTicket, Rows, Running, Version
from riallm.engine.text import Decode
from riallm.engine.together import joined, left, prompts, stacked
from riallm.engine.turn import side_by_side, unwritten
from riallm.models.rxt import RxT
from riallm.nn.adapter import Adapter
from riallm.nn.memory_state import MemoryState, TurnState
from riallm.nn.meta import TokenMeta

log = logging.getLogger("riallm.engine")


class Unanswered(ClientError):
    """There is no memory behind a request since there was no answer, which whoever asked was told."""


class Ticket(LocalTicket):
    """A ticket that says when its last piece comes, before anybody can have it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Asked | None = None
        self._text = ""

    def put(self, piece: Delta) -> None:
        """See `LocalTicket.put`."""
        self._text += piece.text
        if piece.finish is not None and self.asked is not None:
            self.asked.answered(self._text, piece.finish)
        super().put(piece)


class Asked:
    """A request on its way, and what becomes of its memory."""

    def __init__(self, running: Running, interaction: Interaction, memory: Future[MemoryState]) -> None:
        self.running, self.interaction, self.memory = running, interaction, memory
        self.begun = False
        self.write: Write | None = None

    def answered(self, text: str, finish: Finish) -> None:
        """The answer is complete: what is written from now on, or that nothing will be."""
        after, row = self.interaction.after, self.interaction.row
        if after is None or not after.set_running_or_notify_cancel():
            return
        if finish == "error" or not self.begun:
            after.set_exception(Unanswered("the answer failed or was given up before it began; nothing is remembered"))
            return
        end = () if self.running.ended_by is None else (self.running.ended_by,)
        tokens = (*self.running.ids, *end)
        try:
            self.write = Write(ids=tuple(tokens if row is None else row(text, tokens)), memory=self.memory, after=after)
        except Exception as error:
            after.set_exception(error)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Write:
    """An interaction that is over, the memory from before it, and who is given the one behind it."""

    ids: tuple[int, ...]
    memory: Future[MemoryState]
    after: Future[MemoryState]


class MemoryEngine:
    """See `Engine`. Closing it writes the memories behind answers, then frees the thread."""

    def __init__(
        self,
        model: RxT,
        *,
        name: str,
        decode: Decode,
        options: EngineOptions | None = None,
        context: int | None = None,
    ) -> None:
        """decode: bytes of tokens. context: longest query and answer together (None: the model's). kv_bytes of the
        options bounds how many conversations are answered at once. Raises UsageError where there is no room for one,
        and for int8_kv."""
        self.name, self.model, self.options = name, model, options or EngineOptions()
        self.context = context or model.config.max_interaction
        self.vocab_size = model.config.vocab_size
        self.max_running = min(self.options.max_running, self.options.kv_bytes // self.conversation_bytes)
        if self.options.int8_kv:
            raise UsageError(f"{name} keeps a memory, which is not kept in 8 bits; leave int8_kv out")
        if self.max_running < 1:
            raise UsageError(
                f"kv_bytes is {self.options.kv_bytes}; one conversation of {name} takes {self.conversation_bytes}"
            )
        self.writes = 0
        self._decode, self._device = decode, model.lm_head.weight.device
        self._new: Future[MemoryState] = Future()
        with torch.no_grad():
            self._new.set_result(model.start().detached())
        self._lock = threading.Condition()
        self._arrived: deque[Asked] = deque()
        self._jobs: set[Write] = set()  # of histories; any number may wait, so no step looks through them
        self._ready: deque[Write] = deque()  # the memory from before them is there
        self._waiting: list[Asked] = []
        self._running: list[Asked] = []
        self._state: TurnState | None = None
        self._closing: float | None = None
        self._sums = {"prompt": 0, "completion": 0}
        self._recent: deque[tuple[float, int]] = deque()
        self._thread = threading.Thread(target=self._run, name=f"engine {name}", daemon=True)
        self._thread.start()

    @property
    def memory_bytes(self) -> int:
        """Of one conversation, however long it is."""
        return self._new.result().num_bytes

    @property
    def conversation_bytes(self) -> int:
        """Of one that is being answered: its memory, as it is read, and the tokens of an interaction."""
        specs = self.model.state_specs()
        return sum(spec.fixed_bytes + spec.bytes_per_token * self.context for spec in specs)

    @property
    def new(self) -> Future[MemoryState]:
        """The memory of a new conversation."""
        return self._new

    def submit(self, request: Request) -> LocalTicket:
        """See `Engine.submit`. What the request's interaction waits for may be anything that is fulfilled some time."""
        whole = len(request.ids) + request.max_tokens
        if whole > self.context:
            raise UsageError(
                f"the prompt has {len(request.ids)} tokens and the answer may have {request.max_tokens}: {whole} of "
                f"{self.context} that an interaction with {self.name} can have; shorten it by {whole - self.context}"
            )
        if request.meta is not None and request.meta.num_files > 1:
            raise UsageError(f"{self.name} reads an interaction and knows nothing of files")
        self.check_interaction(request.ids)
        interaction, ticket = request.interaction or Interaction(), Ticket()
        running = Running(request, ticket, self._decode, lookahead=0, version=Version())
        ticket.asked = Asked(running, interaction, interaction.memory or self._new)
        with self._lock:
            self._take_on()
            if len(self._arrived) + len(self._waiting) >= self.options.max_waiting:
                raise BudgetError(f"{self.options.max_waiting} requests wait for {self.name} already; ask again later")
            self._arrived.append(ticket.asked)
        ticket.asked.memory.add_done_callback(self._wake)
        return ticket

    def write(self, ids: Sequence[int], memory: Future[MemoryState], after: Future[MemoryState]) -> None:
        """Have a whole interaction written that nobody has to answer; `after` runs from now on. Raises UsageError for
        one that cannot be."""
        self.check_interaction(ids)
        with self._lock:
            self._take_on()
            if not after.set_running_or_notify_cancel():
                return
            job = Write(ids=tuple(ids), memory=memory, after=after)
            self._jobs.add(job)
            memory.add_done_callback(lambda _: self._come(job))

    def check(self, memory: MemoryState) -> None:
        """Raises UsageError for a memory that is none of one conversation with this model, or holds no numbers."""
        self.model.check_memory(memory)
        if memory.num_rows != 1:
            raise UsageError(f"this memory is of {memory.num_rows} conversations; choose one with its `rows`")

    def check_interaction(self, ids: Sequence[int]) -> None:
        """See `RxT.check_interaction`."""
        self.model.check_interaction(torch.tensor(ids, dtype=torch.int64))

    def publish(self, adapter: Adapter | None) -> None:
        """See `Engine.publish`. There are no hooks for adapters."""
        if adapter is not None:
            raise UsageError(f"{self.name} has no hooks for adapters, got {adapter.name}")

    def embed(self, prompts: list[list[int]]) -> list[list[float]]:
        """See `Engine.embed`. There are no embeddings: the hidden states of a question are no text's."""
        raise ClientError(f"{self.name} has no embeddings; take another model for them")

    def load(self) -> Load:
        """See `Engine.load`."""
        now = time.monotonic()
        recent = [num for at, num in list(self._recent) if now - at <= WATCHED]
        return Load(
            running=len(self._running),
            waiting=len(self._waiting) + len(self._arrived),
            pages=self.max_running,
            pages_used=len(self._running),
            pages_cached=0,
            prompt_tokens=self._sums["prompt"],
            cached_tokens=0,
            completion_tokens=self._sums["completion"],
            drafted_tokens=0,
            accepted_tokens=0,
            preemptions=0,
            tokens_per_second=sum(recent) / WATCHED,
        )

    def close(self, *, seconds: float = 0.0) -> None:
        """See `Engine.close`. Memories behind answers that are complete are written all the same; histories, which
        nobody is answered from any more, only as far as they are at hand."""
        with self._lock:
            self._closing = time.monotonic() + seconds
            self._lock.notify()
        self._thread.join()

    def _take_on(self) -> None:
        if self._closing is not None:
            raise BudgetError(f"{self.name} is closing and takes on nothing more")

    def _wake(self, memory: Future[MemoryState]) -> None:
        with self._lock:
            self._lock.notify()

    def _come(self, job: Write) -> None:
        """The memory from before it is there."""
        with self._lock:
            if job in self._jobs:
                self._jobs.remove(job)
                self._ready.append(job)
                self._lock.notify()

    @torch.no_grad()
    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._something():
                    self._lock.wait()
                self._waiting += self._arrived
                self._arrived.clear()
                over = self._closing is not None and time.monotonic() >= self._closing
                if self._closing is not None and not (self._waiting or self._running or self._jobs or self._ready):
                    return
            gone = [each for each in (*self._waiting, *self._running) if over or each.running.ticket.cancelled]
            for each in gone:
                each.running.end("cancelled")
            if over:
                self._leave_histories()
            try:
                self._leave()
                self._admit()
                self._step()
                self._write()
            except Exception as error:  # nobody knows at whom, and a thread that ended would leave them waiting
                self._failed([each for each in (*self._waiting, *self._running) if each.running.finish is None], error)
                self._collect()
                self._waiting, self._running, self._state = [], [], None

    def _leave_histories(self) -> None:
        """Whoever was answered had the memory, so what still waits for one is of a history."""
        with self._lock:
            dropped, self._jobs = self._jobs, set()
        for each in dropped:
            each.after.set_exception(ClientError(f"{self.name} was closed before this interaction was written"))

    def _something(self) -> bool:
        """Whether there is something to do; the lock is held."""
        return (
            bool(self._running or self._arrived or self._ready)
            or self._closing is not None
            or any(each.memory.done() for each in self._waiting)
        )

    def _admit(self) -> None:
        """Read the prompts of those whose memory is there, as many as there is room for."""
        found: list[Asked] = []
        for each in [each for each in self._waiting if each.memory.done()]:
            longest = max(len(one.running.ids) for one in (*found, each))
            if len(self._running) + len(found) >= self.max_running:
                break
            if found and longest * (len(found) + 1) > self.options.step_tokens:
                break
            self._waiting.remove(each)
            try:
                self.check(each.memory.result())
            except Exception as error:
                each.running.fail(error)
                continue
            found.append(each)
        if not found:
            return
        for each in found:
            each.begun = True
            each.running.begin(None)
        try:
            memories = stacked([each.memory.result() for each in found])
            tokens, meta = prompts([each.running.ids for each in found], self._device)
            out = self.model(tokens, meta, self.model.turn(memories))
            assert isinstance(out.state, TurnState)
            logits = self.model.logits(out.hidden[:, -1]).cpu()
            together = replace(out.state, memory=None) if self._state is None else joined(self._state, out.state)
        except Exception as error:
            self._failed(found, error)
            return
        self._state = together
        self._running += found
        self._sums["prompt"] += sum(each.running.num_prompt for each in found)
        self._told(found, logits)

    def _step(self) -> None:
        """One token for every conversation that is being answered."""
        if self._state is None:
            return
        try:
            rows = [each.running.ids for each in self._running]
            tokens = torch.tensor([row[-1:] for row in rows], device=self._device)
            meta = TokenMeta.plain(*tokens.shape, device=self._device)
            places = torch.tensor([[len(row) - 1] for row in rows], device=self._device)
            out = self.model(tokens, replace(meta, positions=places), self._state)
            assert isinstance(out.state, TurnState)
            logits = self.model.logits(out.hidden[:, 0]).cpu()
        except Exception as error:
            self._failed(self._running, error)
            self._running, self._state = [], None
            self._collect()
            return
        self._state = out.state
        self._told(self._running, logits)

    def _told(self, several: Sequence[Asked], logits: Tensor) -> None:
        """A token for each, drawn from its row of logits."""
        before = sum(each.running.num_written for each in several)
        for each, row in zip(several, logits, strict=True):
            try:
                if each.running.request.max_tokens == 0:
                    each.running.end("length")
                else:
                    each.running.take(Rows(logits=row[None], taps={}), [])
            except Exception as error:
                each.running.fail(error)
        written = sum(each.running.num_written for each in several) - before
        now = time.monotonic()
        self._recent.append((now, written))
        while now - self._recent[0][0] > WATCHED:
            self._recent.popleft()
        self._sums["completion"] += written
        self._leave()

    def _failed(self, several: Sequence[Asked], error: Exception) -> None:
        log.error("%s failed at %d requests, which are told so", self.name, len(several), exc_info=error)
        for each in several:
            each.running.fail(error)

    def _leave(self) -> None:
        """Those that are over make room, and their interactions are to be written."""
        self._collect()
        self._waiting = [each for each in self._waiting if each.running.finish is None]
        kept = [number for number, each in enumerate(self._running) if each.running.finish is None]
        if len(kept) == len(self._running):
            return
        self._running = [self._running[number] for number in kept]
        if not kept:
            self._state = None
            return
        assert self._state is not None
        self._state = left(self._state, kept, max(len(each.running.ids) - 1 for each in self._running))

    def _collect(self) -> None:
        with self._lock:
            for each in (*self._waiting, *self._running):
                if each.write is not None:
                    self._ready.append(each.write)  # it was answered from the memory, so that is there
                    each.write = None

    def _write(self) -> None:
        """Write interactions whose memory from before is there, as many at once as fit into a step: their tokens and
        the slots that are written, so that large memories are written one by one, with answers going on between."""
        found, longest, slots = list[Write](), 0, self.model.config.num_slots
        with self._lock:
            while self._ready:
                longest = max(longest, len(self._ready[0].ids))
                if found and (longest + slots) * (len(found) + 1) > self.options.step_tokens:
                    break
                found.append(self._ready.popleft())
        good = []
        for each in found:
            try:
                self.check(each.memory.result())
                self.check_interaction(each.ids)
                good.append(each)
            except Exception as error:
                each.after.set_exception(error)
        self._ended(good)

    def _ended(self, several: Sequence[Write]) -> None:
        """The memories behind interactions. One that fails leaves the others, and the memory from before it, as they
        were."""
        if not several:
            return
        try:
            tokens, mask = side_by_side([each.ids for each in several], self._device)
            after = self.model.end_turn(tokens, mask, stacked([each.memory.result() for each in several]))
        except Exception as error:
            if len(several) == 1:
                several[0].after.set_exception(unwritten(error, several[0].memory.result().version))
            else:
                for each in several:
                    self._ended([each])
            return
        self.writes += len(several)
        for number, each in enumerate(several):
            before = each.memory.result()
            try:
                made = replace(before, slots=after.slots[:, number : number + 1].clone(), version=before.version + 1)
                self.check(made)
            except Exception as error:
                each.after.set_exception(unwritten(error, before.version))
            else:
                each.after.set_result(made)
