"""Talking to a model whose memory is a fixed number of slots: answers token by token, and the memory written behind
them, in a thread of its own, when the answer is complete.

An answer is over when it was read to its end, was closed or dropped, or when the next question comes; what there is of
it by then is written. Nothing of this reaches into the caller: gradients are off inside each step alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, Self, TypeVar

import torch

from riallm.core.errors import ClientError, UsageError
from riallm.engine.request import Sampling
from riallm.engine.turn import Step, Turn, side_by_side, unwritten
from riallm.models.rxt import RxT
from riallm.nn.memory_state import MemoryState

T = TypeVar("T")


class Reply(Iterator[T], Generic[T]):
    """An answer, token by token as it is computed, the token that ends it included.

    version: interactions that the memory knew from which it is answered; behind: those that it did not know yet.
    """

    def __init__(self, session: Session, turn: Turn, shown: Callable[[Step], T], behind: int) -> None:
        self.version, self.behind = turn.memory.version, behind
        self._session, self._turn, self._shown = session, turn, shown

    def __next__(self) -> T:
        found = self._turn.step()
        if found is None:
            self.close()
            raise StopIteration
        return self._shown(found)

    def close(self) -> None:
        """It is over; what there is of it is being written from now on."""
        self._session.end(self._turn)

    def __del__(self) -> None:
        # The collector may come in the middle of anything, whatever locks are held, so this only says so.
        if not self._turn.over:
            self._turn.dropped = True
            _dropped.put((self._session, self._turn))


class Session:
    """A conversation, or several side by side that are asked together: a model, and the memory as it is now.

    One thread asks; the memory is written in another. Asking ends an answer that is still open. An update that fails
    leaves the memory as it was, and whoever next asks, waits or closes hears of it, once.
    """

    def __init__(self, model: RxT, memory: MemoryState | None = None, *, ends: Collection[int] = ()) -> None:
        """memory: None begins one conversation. ends: tokens that end an answer. Raises UsageError for a memory that is
        none of this model's."""
        self.model, self.ends = model, frozenset(ends)
        self._memory = self._checked(model.start() if memory is None else memory)
        self._lock = threading.Lock()
        self._behind = 0
        self._failed: Exception | None = None
        self._open: Turn | None = None
        self._last: Future[None] | None = None
        self._work: ThreadPoolExecutor | None = ThreadPoolExecutor(1, "riallm-memory")
        _listen()

    @property
    def num_rows(self) -> int:
        """Conversations side by side."""
        return self._memory.num_rows

    @property
    def version(self) -> int:
        """Interactions that the memory knows at this moment."""
        return self._memory.version

    @property
    def behind(self) -> int:
        """Interactions that are over and that the memory does not know at this moment."""
        return self._behind

    @property
    def state(self) -> MemoryState:
        """The memory behind all that is over, for which it waits; an answer that is still open is not in it. After an
        update that failed, the memory from before it, as its version tells."""
        self._settle()
        return self._memory

    def ask(
        self,
        ids: Sequence[int],
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        max_tokens: int | None = None,
        max_length: int | None = None,
        seed: int | None = 0,
        stale: bool = False,
    ) -> Reply[int]:
        """The answer to a prompt, which ends where an answer begins. temperature 0: the likeliest tokens, else drawn by
        `seed` (None: another answer every time) from the `top_k` likeliest (0: all) and of those `top_p`. max_tokens:
        of the answer. max_length: of prompt and answer together; None is the model's limit.

        Waits for the update that is under way; `stale` answers from the memory before it at once, and the reply's
        `behind` says so. Raises UsageError for a prompt or numbers that cannot be, before anything else happens, and
        ClientError where an update failed.
        """
        if self.num_rows != 1:
            raise UsageError(f"this session holds {self.num_rows} conversations; ask them together, with `ask_rows`")
        sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        return self._ask([ids], _first, sampling, (max_tokens, max_length), stale)

    def ask_rows(
        self,
        rows: Sequence[Sequence[int]],
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        max_tokens: int | None = None,
        max_length: int | None = None,
        seed: int | None = 0,
        stale: bool = False,
    ) -> Reply[Step]:
        """`ask` for all conversations, a prompt each. Row r draws by `seed` + r, and says what it would say alone."""
        sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        return self._ask(rows, tuple, sampling, (max_tokens, max_length), stale)

    def tell_rows(self, rows: Sequence[Sequence[int]]) -> None:
        """Write whole interactions, one a conversation, that nobody has to answer. Raises UsageError for some that
        cannot be."""
        fitting = self._fitting(rows)
        with self._lock:
            self._write(fitting)

    def load(self, state: MemoryState) -> None:
        """Go on from a state; what was said here until now is left behind, an update that failed too. Raises UsageError
        for a state of another model, of another number of conversations, or with what is no number."""
        found = self._checked(state)
        if found.num_rows != self.num_rows:
            raise UsageError(
                f"this state is of {found.num_rows} conversations, the session of {self.num_rows}; choose some with "
                "its `rows`, or make a session of it"
            )
        self._finish()
        self._settle()
        with self._lock:
            self._memory, self._failed = found, None

    def fork(self) -> Session:
        """Another session that goes on from this one's `state`; from then on neither hears of the other."""
        return Session(self.model, self.state, ends=self.ends)

    def wait(self) -> None:
        """Return when all that is over is written. Raises ClientError where that failed."""
        self._settle()
        self._tell_failure()

    def end(self, turn: Turn) -> None:
        """Nothing more comes; what there is of it is being written from now on, unless it is already."""
        with self._lock:
            if not turn.over:
                turn.over, self._open = True, None
                self._write(turn.rows)

    def close(self) -> None:
        """End what is open, and return when it is written; the state can still be had. Raises as `wait`."""
        self._finish()
        self._settle()
        if self._work is not None:
            self._work.shutdown()
            self._work = None
        self._tell_failure()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            # What is on its way already tells more than what the update has to say.
            with suppress(ClientError):
                self.close()

    def _ask(
        self,
        rows: Sequence[Sequence[int]],
        shown: Callable[[Step], T],
        sampling: Sampling,
        most: tuple[int | None, int | None],
        stale: bool,
    ) -> Reply[T]:
        max_tokens, max_length = most
        own = self.model.config.max_interaction
        limit = own if max_length is None else max_length
        if not 0 < limit <= own:
            raise UsageError(f"max_length is {max_length}; this model takes 1 to {own}, query and answer together")
        prompts = self._fitting(rows)
        longest = max(map(len, prompts))
        if longest >= limit:
            raise UsageError(f"a prompt of {longest} tokens leaves no room: query and answer together have {limit}")
        if max_tokens is not None and max_tokens < 1:
            raise UsageError(f"max_tokens is {max_tokens}; an answer has at least 1")
        self._finish()
        if not stale:
            self._settle()
        self._tell_failure()
        with self._lock:
            memory, behind = self._memory, self._behind
        limits = [min(limit, len(row) + (max_tokens or limit)) for row in prompts]
        turn = Turn(self.model, memory, prompts, sampling, limits=limits, ends=self.ends)
        self._open = turn
        return Reply(self, turn, shown, behind)

    def _fitting(self, rows: Sequence[Sequence[int]]) -> list[list[int]]:
        """The rows as numbers. Raises UsageError unless there is one a conversation, and the model takes each."""
        if self._work is None:
            raise UsageError("this session is closed; make another one of its `state`")
        if len(rows) != self.num_rows:
            raise UsageError(f"{len(rows)} rows for a session of {self.num_rows} conversations; expected one each")
        found = [[int(token) for token in row] for row in rows]
        for row in found:
            self.model.check_interaction(torch.tensor(row, dtype=torch.int64))
        return found

    def _checked(self, state: MemoryState) -> MemoryState:
        """The state where the model is, without gradients."""
        self.model.check_memory(state)
        return state.detached().to(self.model.lm_head.weight.device)

    def _finish(self, *, dropped: bool = False) -> None:
        """End the answer that is open, or only one that was dropped."""
        with self._lock:
            turn = self._open
        if turn is not None and (turn.dropped or not dropped):
            self.end(turn)

    def _settle(self) -> None:
        """Return when all that is over is written: updates run one behind the other, so the last one tells."""
        self._finish(dropped=True)
        with self._lock:
            last = self._last
        if last is not None:
            last.result()

    def _tell_failure(self) -> None:
        with self._lock:
            failed, self._failed = self._failed, None
        if failed is not None:
            raise unwritten(failed, self.version) from failed

    def _write(self, rows: Sequence[Sequence[int]]) -> None:
        """Begin an update; the lock is held."""
        assert self._work is not None
        self._behind += 1
        self._last = self._work.submit(self._update, rows)

    def _update(self, rows: Sequence[Sequence[int]]) -> None:
        """What the other thread does."""
        after = failed = None
        try:
            tokens, mask = side_by_side(rows, self._memory.slots.device)
            with torch.no_grad():
                after = self.model.end_turn(tokens, mask, self._memory)
            after.check(self.model.config.memory_shape)
        except Exception as error:  # whatever it is, the memory stays as it was, and whoever asks next is told
            failed = error
        with self._lock:
            self._behind -= 1
            if after is not None and failed is None:
                self._memory = after
            self._failed = self._failed or failed


_dropped: SimpleQueue[tuple[Session, Turn]] = SimpleQueue()
"""Answers that were dropped before their end; to put something in is safe wherever the collector comes."""


@cache
def _listen() -> None:
    """Have a thread that ends what is dropped. It computes nothing, so the interpreter need not wait for it."""
    threading.Thread(target=_end_dropped, name="riallm-dropped", daemon=True).start()


def _end_dropped() -> None:
    while True:
        session, turn = _dropped.get()
        # As the interpreter goes, no thread starts any more, and the memory goes with it.
        with suppress(RuntimeError):
            session.end(turn)
        del session, turn


def _first(step: Step) -> int:
    token = step[0]
    assert token is not None
    return token
