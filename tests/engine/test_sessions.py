"""Stored conversations: what comes back, who wins a race, what is dropped when, and what a kill leaves behind."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import resource
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from riallm.core.errors import CheckpointError, UsageError
from riallm.engine import sqlite_sessions as sessions
from riallm.engine.sessions import Conflict, ExpiredSession, SessionStore, UnknownSession
from riallm.engine.sqlite_sessions import SQLiteSessions
from riallm.nn.memory_state import MemoryState

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")

FORK = multiprocessing.get_context("fork")
DAY = 86400.0
Open = Callable[..., SQLiteSessions]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.sqlite"


@pytest.fixture
def clock() -> SimpleNamespace:
    """A time that passes when a test says so."""
    return SimpleNamespace(now=1_000_000.0)


@pytest.fixture
def opened(path: Path, clock: SimpleNamespace) -> Iterator[Open]:
    """Opens the store; closed after the test."""
    stores = []

    def make(**more: Any) -> SQLiteSessions:
        stores.append(SQLiteSessions(path, clock=lambda: clock.now, **more))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Open) -> SQLiteSessions:
    return opened()


def drawn(version: int = 0, *, shape: tuple[int, ...] = (2, 1, 4, 8), model: str = "") -> MemoryState:
    slots = torch.randn(shape, generator=torch.Generator().manual_seed(version))
    return MemoryState(slots=slots, version=version, model=model)


def bits(state: MemoryState) -> tuple[object, ...]:
    """All of a state; the order of the names in its bytes is not fixed."""
    slots = state.slots
    return state.version, state.model, slots.dtype, slots.shape, slots.view(torch.uint8).numpy().tobytes()


def asked(path: Path, statement: str, *values: Any) -> list[Any]:
    """What SQLite alone answers."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement, values).fetchall()


def stored(path: Path) -> list[str]:
    """Ids, the oldest first."""
    return [id for (id,) in asked(path, "SELECT id FROM snapshots ORDER BY rowid")]


def line(store: SessionStore, conversation: str) -> list[str]:
    """Ids from the head of a conversation back to its beginning."""
    ids, id = [], store.head(conversation)
    while id is not None:
        ids.append(id)
        id = store.get(id).parent
    return ids


def test_what_was_put_comes_back_to_the_bit(store: SQLiteSessions, opened: Open, clock: SimpleNamespace) -> None:
    states = [drawn(3, model="abc"), replace(drawn(4), slots=drawn(4).slots.bfloat16()), drawn(5, shape=(3, 2, 1, 5))]
    states[0].slots[0, 0, 0, :3] = torch.tensor([-0.0, 1e-45, 1e19])
    ids = [store.put(state, parent=None, note=bytes([index, 0, 255])) for index, state in enumerate(states)]
    child = store.put(states[0], parent=ids[2])
    store.close()
    for index, (id, state) in enumerate(zip(ids, states, strict=True)):
        found = opened().get(id)
        assert (found.id, found.parent, found.note, found.created) == (id, None, bytes([index, 0, 255]), clock.now)
        assert bits(found.state) == bits(state)
    assert store.get(child).parent == ids[2] and store.get(child).note == b""
    assert all(id.startswith("resp_") and len(id) == 37 for id in ids) and len(set(ids)) == 3


def test_a_fork_goes_two_ways(store: SQLiteSessions) -> None:
    root = store.put_and_advance(drawn(1), conversation="a", expected=None)
    store.advance("b", expected=None, to=root)
    one = store.put_and_advance(drawn(2), conversation="a", expected=root)
    two = store.put_and_advance(drawn(3), conversation="b", expected=root)
    assert line(store, "a") == [one, root] and line(store, "b") == [two, root]
    assert store.get(root).state.version == 1
    with pytest.raises(UnknownSession, match="no memory 'resp_0'"):
        store.put(drawn(4), parent="resp_0")


def test_a_head_moves_only_from_where_it_is_expected(store: SQLiteSessions, path: Path) -> None:
    assert store.head("a") is None
    one, two = store.put(drawn(1), parent=None), store.put(drawn(2), parent=None)
    with pytest.raises(Conflict, match=f"'a' does not exist, and the caller expected it at {one}"):
        store.advance("a", expected=one, to=two)
    store.advance("a", expected=None, to=one)
    with pytest.raises(Conflict, match=f"'a' is at {one}, and the caller expected that it is new"):
        store.advance("a", expected=None, to=two)
    with pytest.raises(Conflict, match=f"is at {one}, and the caller expected it at {two}"):
        store.put_and_advance(drawn(3), conversation="a", expected=two)
    with pytest.raises(UnknownSession):
        store.advance("a", expected=one, to="resp_0")
    assert store.head("a") == one and stored(path) == [one, two]
    store.advance("a", expected=one, to=two)
    assert store.head("a") == two


def raced(store: SessionStore, barrier: Any, rounds: int) -> list[str | None]:
    """Put in each round what stands on the head that both have seen; the id, or None where the other one was first."""
    won: list[str | None] = []
    for number in range(rounds):
        barrier.wait(30)
        head = store.head("a")
        barrier.wait(30)
        try:
            won.append(store.put_and_advance(drawn(number), conversation="a", expected=head))
        except Conflict:
            won.append(None)
    return won


@pytest.mark.parametrize("of", ["threads", "processes"])
def test_of_two_that_race_one_wins_each_round(path: Path, of: str) -> None:
    rounds = 25
    if of == "threads":
        shared, barrier = SQLiteSessions(path), threading.Barrier(2)
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(lambda _: raced(shared, barrier, rounds), range(2)))
        shared.close()
    else:
        told, gate = FORK.Queue(), FORK.Barrier(2)  # the file does not exist yet: they race to make it, too
        children = [FORK.Process(target=lambda: told.put(raced(SQLiteSessions(path), gate, rounds))) for _ in range(2)]
        for child in children:
            child.start()
        both = [told.get(timeout=60) for _ in children]
        for child in children:
            child.join()
    winners = [[id for id in each if id] for each in zip(*both, strict=True)]
    assert [len(each) for each in winners] == [1] * rounds
    store = SQLiteSessions(path)
    assert line(store, "a")[::-1] == stored(path) == [each[0] for each in winners]
    store.close()


def test_many_threads_write_and_read_at_once(store: SQLiteSessions) -> None:
    def talk(number: int) -> None:
        head = None
        for turn in range(5):
            head = store.put_and_advance(drawn(10 * number + turn), conversation=str(number), expected=head)
            assert store.get(head).state.version == 10 * number + turn

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(talk, range(16)))
    assert all(len(line(store, str(number))) == 5 for number in range(16))


def test_a_store_is_not_carried_over_a_fork(store: SQLiteSessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(UsageError, match="open it anew in each"):
        store.head("a")


def test_half_a_character_is_no_name(store: SQLiteSessions) -> None:
    for call in (store.get, store.head, store.forget):
        with pytest.raises(UsageError, match="what is no character"):
            call("\ud800")


def test_what_was_not_used_for_long_is_dropped(opened: Open, clock: SimpleNamespace) -> None:
    store = opened(max_seconds=10 * DAY)
    old = store.put_and_advance(drawn(1), conversation="a", expected=None)
    used = store.put(drawn(2), parent=old)
    clock.now += 8 * DAY
    store.get(used)
    clock.now += 2 * DAY
    last = store.put(drawn(3), parent=old)
    assert store.get(old).id == old  # ten days are not more than ten
    clock.now += 10 * DAY + 1
    new = store.put(drawn(4), parent=used)
    for id in (old, used, last):
        with pytest.raises(ExpiredSession, match=rf"{id} was dropped at 1970-02-0\d .* UTC: unused for 10 days"):
            store.get(id)
    with pytest.raises(UnknownSession, match="no memory 'resp_0' is stored") as unknown:
        store.get("resp_0")
    assert not isinstance(unknown.value, ExpiredSession)
    assert store.head("a") == old  # which says more than that there never was a conversation
    after = store.put_and_advance(drawn(5), conversation="a", expected=old)
    assert store.head("a") == after and store.get(after).parent == old
    assert store.get(store.put(drawn(6), parent=old)).parent == old
    assert store.get(new).parent == used


def test_a_use_keeps_a_memory(opened: Open, clock: SimpleNamespace) -> None:
    store = opened(max_seconds=10.0)
    kept, let_go = store.put(drawn(1), parent=None), store.put(drawn(2), parent=None)
    for _ in range(5):
        clock.now += 6.0
        store.get(kept)
        store.put(drawn(3), parent=None)
    assert store.get(kept).created == 1_000_000.0
    with pytest.raises(ExpiredSession):
        store.get(let_go)


def test_the_least_used_goes_first_and_heads_last(opened: Open, clock: SimpleNamespace, path: Path) -> None:
    one = len(drawn().to_bytes())
    store = opened(max_bytes=4 * one)

    def put(*, head: str = "") -> str:
        clock.now += 1
        if head:
            return store.put_and_advance(drawn(), conversation=head, expected=None)
        return store.put(drawn(), parent=None)

    first, a, second, third = put(), put(head="a"), put(), put()
    clock.now += 1
    store.get(first)
    fourth = put()
    assert stored(path) == [first, a, third, fourth]
    fifth, sixth = put(), put()
    assert stored(path) == [a, fourth, fifth, sixth]
    b, c, d = put(head="b"), put(head="c"), put(head="d")
    assert stored(path) == [a, b, c, d]
    clock.now += 1
    store.get(a)
    plainly = put()  # what was just put stays, although all others are heads
    assert stored(path) == [a, c, d, plainly]
    with pytest.raises(ExpiredSession, match=f"the least used when {4 * one} bytes were full"):
        store.get(b)
    big = store.put(drawn(), parent=None, note=bytes(3 * one))  # a note counts
    assert stored(path) == [big]
    for id in (second, a, plainly):
        with pytest.raises(ExpiredSession):
            store.get(id)
    with pytest.raises(UsageError, match=f"a memory of {4 * one + 1} bytes; .* may take {4 * one}"):
        store.put(drawn(), parent=None, note=bytes(3 * one + 1))
    assert stored(path) == [big]


def test_a_head_that_moved_on_is_no_head(opened: Open, clock: SimpleNamespace, path: Path) -> None:
    store = opened(max_bytes=2 * len(drawn().to_bytes()))
    other = store.put_and_advance(drawn(), conversation="b", expected=None)
    head = None
    for _ in range(5):
        clock.now += 1
        head = store.put_and_advance(drawn(), conversation="a", expected=head)
    assert stored(path) == [other, head]


def test_tombstones_are_limited(opened: Open, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST_TOMBSTONES", 3)
    store = opened(max_seconds=1.0)
    ids = [store.put_and_advance(drawn(), conversation=str(number), expected=None) for number in range(2)]
    for _ in range(4):
        clock.now += 2.0
        ids.append(store.put(drawn(), parent=None))
    found = []
    for id in ids[:5]:
        with pytest.raises(UnknownSession) as error:
            store.get(id)
        found.append(isinstance(error.value, ExpiredSession))
    assert found == [False, False, True, True, True]
    assert store.head("0") is None and store.head("1") is None


def test_what_is_deleted_was_never_there(store: SQLiteSessions) -> None:
    root = store.put_and_advance(drawn(1), conversation="a", expected=None)
    child = store.put_and_advance(drawn(2), conversation="a", expected=root)
    store.delete(root)
    assert store.get(child).parent is None
    store.delete(child)
    assert store.head("a") is None
    for call in (store.get, store.delete):
        with pytest.raises(UnknownSession, match="no memory") as error:
            call(child)
        assert not isinstance(error.value, ExpiredSession)


def test_a_forgotten_conversation_leaves_others_theirs(store: SQLiteSessions, path: Path) -> None:
    root = store.put_and_advance(drawn(1), conversation="a", expected=None)
    middle = store.put_and_advance(drawn(2), conversation="a", expected=root)
    store.advance("b", expected=None, to=middle)
    for turn in range(2):
        store.put_and_advance(drawn(3 + turn), conversation="a", expected=store.head("a"))
    other = store.put_and_advance(drawn(6), conversation="b", expected=middle)
    store.forget("a")
    assert store.head("a") is None and stored(path) == [root, middle, other]
    assert line(store, "b") == [other, middle, root]
    with pytest.raises(UnknownSession, match="no conversation 'a'"):
        store.forget("a")
    store.forget("b")
    assert stored(path) == asked(path, "SELECT id FROM states") == []


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_kept(store: SQLiteSessions, path: Path, number: float) -> None:
    state = drawn()
    state.slots[1, 0, 3, 7] = number
    with pytest.raises(UsageError, match="no number"):
        store.put_and_advance(state, conversation="a", expected=None)
    assert stored(path) == [] and store.head("a") is None


def test_a_memory_of_another_model_is_refused(store: SQLiteSessions) -> None:
    id, anyones = store.put(drawn(model="b" * 64), parent=None), store.put(drawn(), parent=None)
    with pytest.raises(UsageError, match=f"written by the model {'b' * 12}, and this is {'a' * 12}"):
        store.get(id, model="a" * 64)
    assert store.get(id, model="b" * 64).id == id
    assert store.get(anyones, model="a" * 64).id == anyones


@pytest.mark.parametrize("column", ["state", "note"])
def test_a_damaged_memory_is_named(store: SQLiteSessions, path: Path, column: str) -> None:
    state = drawn(1)
    parent = store.put(state, parent=None)
    id = store.put(state, parent=parent, note=b"hello")
    damaged = bytearray(state.to_bytes() if column == "state" else b"hello")
    damaged[-1] ^= 1
    asked(path, f"UPDATE states SET {column} = ? WHERE id = ?", bytes(damaged), id)
    with pytest.raises(CheckpointError, match=f"memory {id} in .* is damaged.* go back to {parent}"):
        store.get(id)
    assert store.get(parent).state.version == 1


@pytest.mark.parametrize("data", [b"my thesis", b"my thesis\n" * 1000], ids=["short", "long"])
def test_a_file_that_is_no_database_is_left_alone(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="it is no database, and was left as it is"):
        SQLiteSessions(path)
    assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]


def test_databases_of_others_and_of_other_versions_are_left_alone(path: Path) -> None:
    asked(path, "CREATE TABLE thesis (chapter TEXT)")
    data = path.read_bytes()
    with pytest.raises(CheckpointError, match="a database of something else"):
        SQLiteSessions(path)
    assert path.read_bytes() == data
    other = path.with_name("other")
    for schema in (sessions.SCHEMA + 1, sessions.SCHEMA - 1):
        SQLiteSessions(other).close()
        asked(other, f"PRAGMA user_version = {schema}")
        data = other.read_bytes()
        with pytest.raises(CheckpointError, match=rf"\(schema {schema}, this one knows {sessions.SCHEMA}\); take that"):
            SQLiteSessions(other)
        assert other.read_bytes() == data
        assert sorted(path.parent.iterdir()) == [other, path]
        other.unlink()
    with pytest.raises(CheckpointError, match="unable to open"):
        SQLiteSessions(path.parent / "missing" / "sessions.sqlite")


def test_changes_are_on_the_disk_when_they_return(store: SQLiteSessions) -> None:
    (connection,) = store._idle
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_of_two_that_make_a_file_one_waits(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(SQLiteSessions, path)
        time.sleep(0.2)  # until it has seen that there are no tables, and waits to make them
        for statement in sessions._TABLES:
            other.execute(statement)
        other.execute("COMMIT")
        other.execute("BEGIN")
        other.execute("SELECT * FROM snapshots").fetchall()
        time.sleep(0.3)  # until it would switch the journal, for which nobody may read
        assert not opening.done()
        other.execute("COMMIT")
        opening.result(timeout=30).close()
    other.close()


@pytest.mark.parametrize("how", ["full", "file too large"])
def test_on_a_full_disk_what_was_stored_is_read(store: SQLiteSessions, path: Path, how: str) -> None:
    id = store.put_and_advance(drawn(1), conversation="a", expected=None)
    large = drawn(2, shape=(8, 1, 64, 64))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if how == "full":
        store._idle[0].execute("PRAGMA max_page_count = 12")
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="no room left" if how == "full" else "look after its disk"):
            store.put_and_advance(large, conversation="a", expected=id)
        assert bits(store.get(id).state) == bits(drawn(1)) and store.head("a") == id
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    store.close()
    assert store.head("a") == id and stored(path) == [id]
    later = store.put_and_advance(large, conversation="a", expected=id)
    assert bits(store.get(later).state) == bits(large)


def test_while_another_process_writes_memories_are_read(
    store: SQLiteSessions, opened: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = store.put_and_advance(drawn(1), conversation="a", expected=None)
    monkeypatch.setattr(sessions, "WAIT_SECONDS", 0.1)
    hasty, other = opened(), sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(CheckpointError, match=r"locked.*: another process has held it"):
        hasty.put_and_advance(drawn(2), conversation="a", expected=id)
    assert hasty.get(id).state.version == 1
    with ThreadPoolExecutor(1) as pool:  # whoever waits longer gets through
        later = pool.submit(store.put_and_advance, drawn(2), conversation="a", expected=id)
        time.sleep(0.2)
        assert not later.done()
        other.execute("COMMIT")
        assert later.result(timeout=30) == store.head("a")
    other.close()


def test_a_damaged_database_is_told(store: SQLiteSessions, path: Path) -> None:
    for _ in range(20):
        store.put(drawn(shape=(8, 1, 16, 64)), parent=None)
    store.close()
    path.write_bytes(path.read_bytes()[:4096].ljust(path.stat().st_size, b"\0"))
    with pytest.raises(CheckpointError, match="the database is damaged; move it away"):
        store.put(drawn(), parent=None)


def talks(path: Path, told: int, max_bytes: int) -> None:
    """Go on with a conversation for ever; each version is told when it is stored."""
    store = SQLiteSessions(path, max_bytes=max_bytes)
    head = store.head("a")
    version = store.get(head).state.version if head else 0
    while True:
        version += 1
        state = drawn(version, shape=(4, 1, 32, 64))
        head = store.put_and_advance(state, conversation="a", expected=head, note=b"%d" % version)
        os.write(told, b"%d\n" % version)


@pytest.mark.parametrize("times", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_loses_nothing_that_was_told(path: Path, times: int) -> None:
    moments, acknowledged = random.Random(times), 0
    max_bytes = 20 * len(drawn(shape=(4, 1, 32, 64)).to_bytes())  # little enough that most puts drop something, too
    for number in range(times):
        reading, told = os.pipe()
        child = FORK.Process(target=talks, args=(path, told, max_bytes))
        child.start()
        os.close(told)
        with open(reading, "rb") as pipe:
            lines = pipe.readline() if number % 4 else b""  # every fourth dies while it opens, or soon after
            time.sleep(moments.uniform(0, 0.06))
            child.kill()
            lines += pipe.read()
        child.join()
        assert child.exitcode == -9
        acknowledged = int((lines.split() or [acknowledged])[-1])
        assert asked(path, "PRAGMA integrity_check") == [("ok",)]
        store = SQLiteSessions(path)
        head = store.head("a")
        version = store.get(head).state.version if head else 0
        assert acknowledged <= version <= acknowledged + 1
        found = [store.get(id) for id in stored(path)]
        assert [each.state.version for each in found] == list(range(version - len(found) + 1, version + 1))
        assert len(found) == min(version, 19)
        for each in found:
            assert bits(each.state) == bits(drawn(each.state.version, shape=(4, 1, 32, 64)))
            assert each.note == b"%d" % each.state.version
        acknowledged = version
        store.close()
    assert acknowledged > 2 * times, "the writer hardly got to write"
