"""Memories of conversations in a file of SQLite: each change is one transaction, on the disk before it returns."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from riallm.core.errors import CheckpointError, UsageError
from riallm.engine.sessions import Conflict, ExpiredSession, Snapshot, UnknownSession, new_id
from riallm.nn.memory_state import MemoryState, memory_from_bytes

SCHEMA = 2
"""Raised whenever the tables change, so that no program writes into those of another one."""

WAIT_SECONDS = 30.0
"""For another process to let go of the database."""

MOST_TOMBSTONES = 10_000
"""Dropped snapshots that are remembered by name; older ones count as never known."""

_APPLICATION = 0x7269616C
_PAGE_BYTES = 16384  # with SQLite's 4096, a state of several megabytes takes twice as long
_WHAT = (
    "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
    " FROM pragma_application_id, pragma_user_version"
)
# States have a table of their own: to note a use, SQLite writes the whole row anew.
_TABLES = (
    "CREATE TABLE snapshots (id TEXT PRIMARY KEY, parent TEXT, created REAL NOT NULL, used REAL NOT NULL,"
    " size INTEGER NOT NULL, digest TEXT NOT NULL)",
    "CREATE INDEX by_use ON snapshots (used, id, size)",
    "CREATE TABLE states (id TEXT PRIMARY KEY, state BLOB NOT NULL, note BLOB NOT NULL)",
    "CREATE TABLE conversations (id TEXT PRIMARY KEY, head TEXT NOT NULL, begun REAL NOT NULL)",
    "CREATE INDEX by_head ON conversations (head)",
    "CREATE TABLE tombstones (id TEXT PRIMARY KEY, dropped REAL NOT NULL, why TEXT NOT NULL)",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {SCHEMA}",
)
_BY_USE = (
    "SELECT id, size FROM snapshots WHERE id <> ? AND {} EXISTS (SELECT 1 FROM conversations WHERE head = snapshots.id)"
    " ORDER BY used, snapshots.rowid"
)
_ONLY_ITS_OWN = """
WITH RECURSIVE
  own(id) AS (SELECT head FROM conversations WHERE id = :conversation
    UNION SELECT parent FROM snapshots JOIN own USING (id) WHERE parent IS NOT NULL),
  others(id) AS (SELECT head FROM conversations WHERE id <> :conversation
    UNION SELECT parent FROM snapshots JOIN others USING (id) WHERE parent IS NOT NULL)
SELECT id FROM own EXCEPT SELECT id FROM others
"""
_WITHOUT = "UPDATE snapshots SET parent = (SELECT parent FROM snapshots WHERE id = :id) WHERE parent = :id"
_ADVICE = {
    sqlite3.SQLITE_BUSY: f"another process has held it for {WAIT_SECONDS:g} seconds; end that one, or try again",
    sqlite3.SQLITE_FULL: "there is no room left; what was stored before can be read. Free some space on its disk",
    sqlite3.SQLITE_NOTADB: "it is no database, and was left as it is; give another path",
    sqlite3.SQLITE_CORRUPT: "the database is damaged; move it away to begin anew, or put a copy of it back",
}


class SQLiteSessions:
    """A `SessionStore` in a file. All methods raise CheckpointError when the file cannot be read or written.

    Threads may share one. Processes open one each, and close it before they fork: SQLite's locks do not survive that.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        max_bytes: int = 1 << 30,
        max_seconds: float = 30 * 86400,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """path: None keeps all in this process's memory, until it is closed. Each put drops what was not used for
        max_seconds, then what was used least recently until states and notes take max_bytes; heads of conversations
        last. Raises CheckpointError for a file of something else."""
        self.path, self.max_bytes, self.max_seconds = path, max_bytes, max_seconds
        self.where = "this process's memory" if path is None else str(path)
        self._clock, self._process = clock, os.getpid()
        self._idle: deque[sqlite3.Connection] = deque()
        # What is in memory alone is seen by one connection alone.
        self._one: contextlib.AbstractContextManager[object] = (
            threading.Lock() if path is None else contextlib.nullcontext()
        )
        self._writing = threading.Lock()  # SQLite lets nobody wait in line: of many threads, one might wait too long
        with self._connection():
            pass  # a file that is none of ours is refused here

    def close(self) -> None:
        """Close the file, which the next call opens again; what is in memory alone is gone."""
        while self._idle:
            self._idle.pop().close()

    def put(self, state: MemoryState, *, parent: str | None, note: bytes = b"", id: str | None = None) -> str:
        """See `SessionStore.put`."""
        return self._put(state, None, parent, note, id)

    def put_and_advance(
        self,
        state: MemoryState,
        *,
        conversation: str,
        expected: str | None,
        note: bytes = b"",
        id: str | None = None,
    ) -> str:
        """See `SessionStore.put_and_advance`."""
        return self._put(state, conversation, expected, note, id)

    def get(self, id: str, *, model: str = "") -> Snapshot:
        """See `SessionStore.get`."""
        with self._connection() as connection:
            row = connection.execute(
                "SELECT parent, created, digest, state, note FROM snapshots JOIN states USING (id) WHERE id = ?", (id,)
            ).fetchone()
            if row is None:
                raise _missing(connection, id)
        parent, created, digest, data, note = row
        if _digest(data, note) != digest:
            raise CheckpointError(
                f"the memory {id} in {self.where} is damaged: its hash is not the one that was stored; go back to "
                f"{parent or 'another one'}, or begin a new conversation"
            )
        state = memory_from_bytes(data, where=f"{id} in {self.where}")
        _check(state, model)
        # On a full disk a memory must still be read. That its use goes unnoticed only lets it be dropped earlier.
        with contextlib.suppress(CheckpointError), self._change() as connection:
            connection.execute("UPDATE snapshots SET used = ? WHERE id = ?", (self._clock(), id))
        return Snapshot(id=id, parent=parent, state=state, note=note, created=created)

    def head(self, conversation: str) -> str | None:
        """See `SessionStore.head`."""
        with self._connection() as connection:
            return _head(connection, conversation)

    def begun(self, conversation: str) -> float:
        """See `SessionStore.begun`."""
        with self._connection() as connection:
            row = connection.execute("SELECT begun FROM conversations WHERE id = ?", (conversation,)).fetchone()
        if row is None:
            raise _no_conversation(conversation)
        return float(row[0])

    def advance(self, conversation: str, *, expected: str | None, to: str) -> None:
        """See `SessionStore.advance`."""
        with self._change() as connection:
            _require(connection, to)
            _move(connection, conversation, expected, to, self._clock())

    def delete(self, id: str) -> None:
        """See `SessionStore.delete`."""
        with self._change() as connection:
            _require(connection, id)
            connection.execute(_WITHOUT, {"id": id})
            _remove(connection, [id])
            connection.execute("DELETE FROM conversations WHERE head = ?", (id,))

    def forget(self, conversation: str) -> None:
        """See `SessionStore.forget`."""
        with self._change() as connection:
            if _head(connection, conversation) is None:
                raise _no_conversation(conversation)
            own = connection.execute(_ONLY_ITS_OWN, {"conversation": conversation}).fetchall()
            connection.execute("DELETE FROM conversations WHERE id = ?", (conversation,))
            _remove(connection, [id for (id,) in own])

    def _put(
        self, state: MemoryState, conversation: str | None, parent: str | None, note: bytes, promised: str | None
    ) -> str:
        _check(state)
        data = state.to_bytes()
        size, digest = len(data) + len(note), _digest(data, note)
        if size > self.max_bytes:
            raise UsageError(f"a memory of {size} bytes; {self.where} may take {self.max_bytes}. Raise max_bytes")
        id, now = promised or new_id(), self._clock()
        with self._change() as connection:
            if conversation is not None:
                _move(connection, conversation, parent, id, now)
            elif parent is not None:
                with contextlib.suppress(ExpiredSession):  # a state needs no parent, and may outlive it
                    _require(connection, parent)
            connection.execute("INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?)", (id, parent, now, now, size, digest))
            connection.execute("INSERT INTO states VALUES (?, ?, ?)", (id, data, note))
            self._keep_limits(connection, id, now)
        return id

    def _keep_limits(self, connection: sqlite3.Connection, new: str, now: float) -> None:
        """Drop what is too old, then what is too much; never what was just put."""
        old = connection.execute("SELECT id FROM snapshots WHERE used < ? AND id <> ?", (now - self.max_seconds, new))
        _drop(connection, [id for (id,) in old.fetchall()], now, f"unused for {self.max_seconds / 86400:g} days")
        (total,) = connection.execute("SELECT sum(size) FROM snapshots").fetchone()
        least_used = chain.from_iterable(connection.execute(_BY_USE.format(which), (new,)) for which in ("NOT", ""))
        much = []
        while total > self.max_bytes:
            id, size = next(least_used)
            much.append(id)
            total -= size
        _drop(connection, much, now, f"the least used when {self.max_bytes} bytes were full")

    @contextlib.contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A connection within a transaction, which an exception takes back."""
        with self._writing, self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else has meanwhile. What SQLite raises becomes a CheckpointError."""
        if os.getpid() != self._process:
            raise UsageError(f"{self.where} was opened by another process; open it anew in each, after they are forked")
        try:
            with self._one:
                try:
                    connection = self._idle.pop()
                except IndexError:
                    connection = self._opened()
                try:
                    yield connection
                except BaseException:
                    if self.path is None:
                        connection.rollback()
                        self._idle.append(connection)
                    else:
                        connection.close()  # which also takes back what a transaction had begun
                    raise
                self._idle.append(connection)
        except UnicodeEncodeError:  # JSON may name half a character, which SQLite has no way to write
            raise UsageError("the name of a memory or conversation holds what is no character; give another") from None
        except sqlite3.Error as error:
            advice = _ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "look after its disk and permissions")
            raise CheckpointError(f"{self.where} cannot be read or written ({error}): {advice}") from None

    def _opened(self) -> sqlite3.Connection:
        place = ":memory:" if self.path is None else self.path.absolute()  # a file may have that name
        connection = sqlite3.connect(place, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._admit(connection)
            if self.path is not None:
                _keep_log(connection)
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _admit(self, connection: sqlite3.Connection) -> None:
        """Make the tables in a new file; refuse a file that is not ours before anything is written to it."""
        if connection.execute(_WHAT).fetchone() == (0, 0, 0):
            connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute(_WHAT).fetchone() == (0, 0, 0):  # nobody else was faster
                for statement in _TABLES:
                    connection.execute(statement)
            connection.execute("COMMIT")
        application, version, _ = connection.execute(_WHAT).fetchone()
        if application != _APPLICATION:
            raise CheckpointError(f"{self.where} is a database of something else, and was left as it is; give another")
        if version != SCHEMA:
            raise CheckpointError(
                f"{self.where} was written by another version of riallm (schema {version}, this one knows {SCHEMA}); "
                "take that one, or give another path"
            )


def _keep_log(connection: sqlite3.Connection) -> None:
    """Switch the file to a write-ahead log. Of several that do so to a new file at once, SQLite refuses all but one
    without waiting, whatever its timeout says."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _head(connection: sqlite3.Connection, conversation: str) -> str | None:
    row = connection.execute("SELECT head FROM conversations WHERE id = ?", (conversation,)).fetchone()
    return None if row is None else str(row[0])


def _move(connection: sqlite3.Connection, conversation: str, expected: str | None, to: str, now: float) -> None:
    head = _head(connection, conversation)
    if head != expected:
        stands = "does not exist" if head is None else f"is at {head}"
        wanted = "that it is new" if expected is None else f"it at {expected}"
        raise Conflict(
            f"the conversation {conversation!r} {stands}, and the caller expected {wanted}; read its head and go on "
            "from there, or begin another one"
        )
    connection.execute(
        "INSERT INTO conversations VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET head = excluded.head",
        (conversation, to, now),
    )


def _no_conversation(conversation: str) -> UnknownSession:
    return UnknownSession(f"there is no conversation {conversation[:100]!r}")


def _require(connection: sqlite3.Connection, id: str) -> None:
    if connection.execute("SELECT 1 FROM snapshots WHERE id = ?", (id,)).fetchone() is None:
        raise _missing(connection, id)


def _missing(connection: sqlite3.Connection, id: str) -> UnknownSession:
    """The error for a snapshot that is not stored."""
    row = connection.execute("SELECT dropped, why FROM tombstones WHERE id = ?", (id,)).fetchone()
    if row is None:
        return UnknownSession(
            f"no memory {id[:100]!r} is stored; give the id of an earlier answer, or begin a conversation"
        )
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(row[0]))
    return ExpiredSession(f"the memory {id} was dropped at {when}: {row[1]}; begin a new conversation")


def _drop(connection: sqlite3.Connection, ids: list[str], now: float, why: str) -> None:
    """Remove snapshots and remember that they were there, as long as there is room; then the conversations go too."""
    _remove(connection, ids)
    connection.executemany("INSERT INTO tombstones VALUES (?, ?, ?)", [(id, now, why) for id in ids])
    for delete in (
        "DELETE FROM conversations WHERE head IN (SELECT id FROM tombstones WHERE rowid <= {})",
        "DELETE FROM tombstones WHERE rowid <= {}",
    ):
        oldest = "(SELECT max(rowid) FROM tombstones) - ?"
        connection.execute(delete.format(oldest), (MOST_TOMBSTONES,))


def _remove(connection: sqlite3.Connection, ids: list[str]) -> None:
    for table in ("snapshots", "states"):
        connection.executemany(f"DELETE FROM {table} WHERE id = ?", [(id,) for id in ids])


def _check(state: MemoryState, model: str = "") -> None:
    layers, _, slots, hidden = state.slots.shape
    state.check((layers, slots, hidden), model)


def _digest(data: bytes, note: bytes) -> str:
    found = hashlib.sha256(data)
    found.update(note)
    return found.hexdigest()
