"""Which memory a request is answered from, and what becomes of the one behind it: histories that were written before
are found again, responses are kept as snapshots, and the head of a conversation moves along them.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import accumulate

from riallm.core.errors import CheckpointError, ClientError
from riallm.engine.memory_engine import MemoryEngine, Unanswered
from riallm.engine.request import Interaction
from riallm.engine.sessions import Conflict, SessionStore, UnknownSession, new_id
from riallm.engine.turn import unwritten
from riallm.nn.memory_state import MemoryState

log = logging.getLogger("riallm.engine")

CACHE_BYTES = 256 << 20
"""Of memories behind histories that were written for requests that send all of theirs; the oldest go first."""

MOST_REASONS = 1000
"""Of responses behind which nothing is kept, so many are known with the reason; the oldest go first."""


class Lost(ClientError):
    """The last answer of a conversation was given, and is no part of it. Whoever next speaks there is told, once."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Place:
    """Where a conversation stands. key: a hash of all that was said until then; memory: as soon as it is there."""

    key: bytes
    memory: Future[MemoryState]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Saying:
    """A response on its way. parent: the snapshot that it follows; after: the memory behind it; kept: that, once it is
    stored."""

    id: str
    parent: str | None
    conversation: str | None
    place: Place
    after: Future[MemoryState]
    kept: Future[MemoryState]

    @property
    def answered(self) -> bool:
        """Whether the answer is complete, or it is known that there is none."""
        return self.after.running() or self.after.done()

    def drop(self) -> None:
        """Nobody asks after all."""
        self.after.cancel()


class Memories:
    """Of one engine. Safe to use from any thread. `close` it behind the engine."""

    def __init__(self, engine: MemoryEngine, store: SessionStore, *, cache_bytes: int = CACHE_BYTES) -> None:
        self.engine, self.store = engine, store
        self._most = max(1, cache_bytes // engine.memory_bytes)
        self._written: OrderedDict[bytes, Future[MemoryState]] = OrderedDict()
        self._pending: dict[str, Saying] = {}
        self._last: dict[str, Saying] = {}
        self._lost: dict[str, str] = {}
        self._reasons: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.RLock()  # of what is on its way; held while the store is asked for a head
        self._histories = threading.Lock()  # of what was written; the engine's thread takes it, so never for long
        self._work = ThreadPoolExecutor(1, "riallm-sessions")

    def new(self) -> Place:
        """Before anything was said."""
        return Place(key=b"", memory=self.engine.new)

    def behind(self, id: str) -> Place:
        """Behind a response. Raises UnknownSession, which says why where nothing could be kept, or ExpiredSession where
        a limit had it dropped; UsageError where another model wrote it; CheckpointError when it is damaged."""
        with self._lock:
            if id in self._reasons:
                raise UnknownSession(self._reasons[id])
            saying = self._pending.get(id)
        if saying is not None:
            return Place(key=id.encode(), memory=saying.kept)
        state = self.store.get(id, model=self.engine.model.fingerprint).state
        self.engine.check(state)
        found: Future[MemoryState] = Future()
        found.set_result(state)
        return Place(key=id.encode(), memory=found)

    def read(self, place: Place, history: Sequence[Sequence[int]]) -> Place:
        """Behind further interactions. What was written of them before is found again. Raises UsageError for one that
        cannot be, and nothing is written then."""
        keys = [*accumulate(history, _key, initial=place.key)][1:]
        new: list[tuple[bytes, Sequence[int]]] = []
        for key, row in zip(reversed(keys), reversed(history), strict=True):
            with self._histories:
                memory = self._found(key)
            if memory is not None:
                place = Place(key=key, memory=memory)
                break
            self.engine.check_interaction(row)
            new.append((key, row))
        for key, row in reversed(new):
            with self._histories:
                memory = self._found(key)  # somebody else may have begun with it
                if memory is None:
                    memory = Future()
                    self.engine.write(row, place.memory, memory)
                    self._keep(key, memory)
            place = Place(key=key, memory=memory)
        return place

    def chat(self, place: Place, whole: Callable[[str], Sequence[int]]) -> Interaction:
        """For a client that sends all that was said with every request: the interaction is written as it will come
        back, so that the next request finds it. whole: the interaction, from the answer's text. Where that is longer
        than the model takes, its tokens are written as they were, and found again while this process has them: of a
        chat nothing is stored."""
        after: Future[MemoryState] = Future()

        def row(text: str, tokens: tuple[int, ...]) -> Sequence[int]:
            told = tuple(whole(text))
            with self._histories:
                key = _key(place.key, told)
                if self._found(key) is None:
                    self._keep(key, after)
            return told if len(told) <= self.engine.model.config.max_interaction else tokens

        return Interaction(memory=place.memory, after=after, row=row)

    def respond(self, previous: str | None = None) -> Saying:
        """A response behind an earlier one, or a first one. Raises as `behind`."""
        place = self.new() if previous is None else self.behind(previous)
        return self._begun(place, previous, None)

    def respond_in(self, conversation: str) -> Saying:
        """The next response of a conversation. Raises Conflict while another one is being answered, Lost once where the
        memory behind the last one could not be kept, or is kept beside the conversation, which another process had
        moved; UnknownSession for a conversation that there is not, and as `behind`."""
        self._settle(conversation)
        with self._lock:
            self._check_free(conversation, self._last.get(conversation))
            head, place = self._head(conversation)
            return self._begun(place, head, conversation)

    def at(self, conversation: str) -> Place:
        """Where a conversation stands, for who answers from there and keeps nothing. Raises as `respond_in`, but for
        Conflict."""
        self._settle(conversation)
        with self._lock:
            return self._head(conversation)[1]

    def begin(self) -> str:
        """The id of a new conversation."""
        id = f"conv_{secrets.token_hex(16)}"
        self.store.put_and_advance(self.engine.new.result(), conversation=id, expected=None)
        return id

    def forget(self, conversation: str) -> None:
        """As `SessionStore.forget`, once its last update is stored. Raises Conflict while a request is answered."""
        with self._lock:
            last = self._last.get(conversation)
            self._check_free(conversation, last)
        if last is not None:
            wait((last.kept,))
        self.store.forget(conversation)
        self._lost.pop(conversation, None)

    def delete(self, id: str) -> None:
        """As `SessionStore.delete`, once it is stored. Raises Conflict while it is being answered."""
        with self._lock:
            saying = self._pending.get(id)
        if saying is not None:
            if not saying.answered:
                raise Conflict(f"the response {id!r} is being answered; wait for it")
            wait((saying.kept,))
        self.store.delete(id)

    def close(self) -> None:
        """Return when all that is written is stored."""
        self._work.shutdown()

    def _check_free(self, conversation: str, last: Saying | None) -> None:
        if last is not None and not last.answered:
            raise Conflict(f"another request is being answered in the conversation {conversation!r}; wait for it")

    def _settle(self, conversation: str) -> None:
        """Return when the store knows how the last response ended, if that is known to have failed."""
        with self._lock:
            last = self._last.get(conversation)
        if last is not None and _failed(last.after):
            wait((last.kept,))

    def _head(self, conversation: str) -> tuple[str, Place]:
        """The lock is held."""
        lost = self._lost.pop(conversation, None)
        if lost is not None:
            raise Lost(lost)
        last = self._last.get(conversation)
        if last is not None:
            return last.id, Place(key=last.id.encode(), memory=last.kept)
        head = self.store.head(conversation)
        if head is None:
            raise UnknownSession(f"there is no conversation {conversation[:100]!r}")
        return head, self.behind(head)

    def _begun(self, place: Place, parent: str | None, conversation: str | None) -> Saying:
        made = Saying(id=new_id(), parent=parent, conversation=conversation, place=place, after=Future(), kept=Future())
        with self._lock:
            self._pending[made.id] = made
            if conversation is not None:
                self._last[conversation] = made
        made.after.add_done_callback(lambda _: self._ended(made))
        return made

    def _ended(self, saying: Saying) -> None:
        try:
            self._work.submit(self._store, saying)
        except RuntimeError:  # closed, so that thread is gone
            self._store(saying)

    def _store(self, saying: Saying) -> None:
        """What the thread of the store does."""
        failed: Exception | None = None
        fork: str | None = None
        try:
            state, fork = self._stored(saying)
        except Exception as error:
            log.warning("the memory behind %s is not kept: %s", saying.id, error)
            failed = error
        with self._lock:
            del self._pending[saying.id]
            if failed is not None:
                self._reasons[saying.id] = str(failed)
                if len(self._reasons) > MOST_REASONS:
                    self._reasons.popitem(last=False)
            if saying.conversation is not None and fork is not None:
                self._lost[saying.conversation] = fork  # who waits already goes on from there, and has a fork as well
            if saying.conversation is not None and self._last.get(saying.conversation) is saying:
                del self._last[saying.conversation]
                before = self._pending.get(saying.parent or "")
                if before is not None:  # this one was given up while it waited
                    self._last[saying.conversation] = before
                if failed is not None and not isinstance(failed, Unanswered | UnknownSession):
                    self._lost[saying.conversation] = str(failed)  # where somebody waits already, that one is told
        if failed is None:
            saying.kept.set_result(state)
        else:
            saying.kept.set_exception(failed)

    def _stored(self, saying: Saying) -> tuple[MemoryState, str | None]:
        """What is stored, and as `_put`."""
        if saying.after.cancelled():
            raise Unanswered("the request before was given up before it began; nothing is remembered of it")
        state = saying.after.result()
        try:
            return state, self._put(saying, state)
        except CheckpointError as error:
            raise unwritten(error, saying.place.memory.result().version) from None

    def _put(self, saying: Saying, state: MemoryState) -> str | None:
        """None, or what to tell where it is kept beside its conversation."""
        fork = None
        if saying.conversation is not None:
            try:
                self.store.put_and_advance(
                    state, conversation=saying.conversation, expected=saying.parent, id=saying.id
                )
                return None
            except Conflict as error:
                if self.store.head(saying.conversation) is None:
                    raise UnknownSession(f"the conversation {saying.conversation!r} was forgotten") from None
                # Another process moved it; the answer was given, so it stays, as a fork.
                log.warning("%s is kept beside its conversation: %s", saying.id, error)
                fork = (
                    f"another process answered in the conversation {saying.conversation!r} meanwhile, so the last "
                    f"answer here is not part of it; it is kept as {saying.id!r}: go on from there, or ask again to go "
                    "on from where the conversation stands"
                )
        try:
            self.store.put(state, parent=saying.parent, id=saying.id)
        except UnknownSession:  # deleted meanwhile; a state needs no parent
            self.store.put(state, parent=None, id=saying.id)
        return fork

    def _found(self, key: bytes) -> Future[MemoryState] | None:
        """What was written, or is being written; the histories' lock is held."""
        memory = self._written.get(key)
        if memory is None or _failed(memory):
            return None
        self._written.move_to_end(key)
        return memory

    def _keep(self, key: bytes, memory: Future[MemoryState]) -> None:
        self._written[key] = memory
        self._written.move_to_end(key)
        while len(self._written) > self._most:
            self._written.popitem(last=False)


def _failed(memory: Future[MemoryState]) -> bool:
    """Whether it is known already that there is none."""
    return memory.done() and (memory.cancelled() or memory.exception() is not None)


def _key(before: bytes, row: Sequence[int]) -> bytes:
    found = hashlib.blake2b(len(before).to_bytes(8, "little") + before, digest_size=16)
    for token in row:
        found.update(token.to_bytes(4, "little"))
    return found.digest()
