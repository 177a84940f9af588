"""A store in the process's memory alone: what holds of one in a file holds of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import torch

from riallm.core.errors import UsageError
from riallm.engine.sessions import Conflict, ExpiredSession, UnknownSession, new_id
from riallm.engine.sqlite_sessions import SQLiteSessions
from riallm.nn.memory_state import MemoryState


def drawn(version: int) -> MemoryState:
    slots = torch.randn((2, 1, 4, 8), generator=torch.Generator().manual_seed(version))
    return MemoryState(slots=slots, version=version)


@pytest.mark.parametrize("held", [True, False])
def test_a_promised_id_is_kept(tmp_path: Path, held: bool) -> None:
    store = SQLiteSessions(None if held else tmp_path / "sessions.sqlite")
    one, two = new_id(), new_id()
    assert store.put(drawn(1), parent=None, id=one) == one
    assert store.put_and_advance(drawn(2), conversation="a", expected=None, id=two) == two
    assert (store.get(one).state.version, store.head("a")) == (1, two)
    assert store.put(drawn(3), parent=one) not in (one, two)


def test_a_file_may_have_the_name_that_sqlite_gives_to_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(SQLiteSessions(Path(":memory:"))) as store:
        id = store.put(drawn(1), parent=None)
    with closing(SQLiteSessions(tmp_path / ":memory:")) as store:
        assert store.get(id).id == id


def test_what_is_taken_back_leaves_the_rest() -> None:
    store = SQLiteSessions(None)
    first = store.put_and_advance(drawn(1), conversation="a", expected=None)
    with pytest.raises(Conflict):
        store.put_and_advance(drawn(2), conversation="a", expected="resp_0")
    with pytest.raises(UnknownSession):
        store.put(drawn(2), parent="resp_0")
    assert store.head("a") == first
    assert torch.equal(store.get(first).state.slots, drawn(1).slots)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int64, torch.complex64])
def test_numbers_that_no_model_computes_in_are_refused(kind: torch.dtype) -> None:
    store, id = SQLiteSessions(None), new_id()
    with pytest.raises(UsageError, match=f"numbers are {kind}; .* 16 bits or more"):
        store.put(MemoryState(slots=torch.zeros(2, 1, 4, 8).to(kind)), parent=None, id=id)
    with pytest.raises(UnknownSession):
        store.get(id)


def test_a_conversation_knows_when_it_began() -> None:
    now = [1000.0]
    store = SQLiteSessions(None, clock=lambda: now[0])
    root = store.put_and_advance(drawn(1), conversation="a", expected=None)
    now[0] += 60
    store.advance("b", expected=None, to=root)
    store.put_and_advance(drawn(2), conversation="a", expected=root)
    assert (store.begun("a"), store.begun("b")) == (1000, 1060)
    with pytest.raises(UnknownSession, match="no conversation 'c'"):
        store.begun("c")


def test_what_is_forgotten_goes_although_a_part_was_deleted() -> None:
    store, ids = SQLiteSessions(None), list[str]()
    for turn in range(5):
        head = ids[-1] if ids else None
        ids.append(store.put_and_advance(drawn(turn), conversation="a", expected=head))
    for number in (2, 3, 0):
        store.delete(ids[number])
    assert store.get(ids[4]).parent == ids[1] and store.get(ids[1]).parent is None
    store.forget("a")
    for id in (ids[1], ids[4]):
        with pytest.raises(UnknownSession):
            store.get(id)


def test_threads_share_it() -> None:
    store, barrier = SQLiteSessions(None), threading.Barrier(4)

    def work(number: int) -> list[str]:
        barrier.wait(30)
        ids = [store.put_and_advance(drawn(number), conversation=str(number), expected=None)]
        for _ in range(20):
            ids.append(store.put_and_advance(drawn(number), conversation=str(number), expected=ids[-1]))
            assert torch.equal(store.get(ids[-1]).state.slots, drawn(number).slots)
        return ids

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(4)))
    assert len({id for ids in found for id in ids}) == 84


def test_limits_hold_and_an_end_is_an_end() -> None:
    size = len(drawn(1).to_bytes())
    store = SQLiteSessions(None, max_bytes=2 * size + size // 2)
    ids = [store.put(drawn(number), parent=None) for number in range(3)]
    with pytest.raises(ExpiredSession, match="were full"):
        store.get(ids[0])
    with pytest.raises(UsageError, match="this process's memory may take 1"):
        SQLiteSessions(None, max_bytes=1).put(drawn(1), parent=None)
    store.close()
    with pytest.raises(UnknownSession):
        store.get(ids[2])
