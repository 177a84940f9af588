"""Where conversations go on: histories that are found again, snapshots that fork, and one head for one conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event, Thread, Timer
from typing import Any

import pytest
import torch
from engines import answer
from test_memory_engine import GREEDY, SECONDS, Watched

from riallm.core.errors import CheckpointError, ClientError, UsageError
from riallm.engine.memories import Lost, Memories, Saying
from riallm.engine.memory_engine import MemoryEngine
from riallm.engine.request import Interaction, Request
from riallm.engine.sessions import Conflict, SessionStore, Snapshot, UnknownSession
from riallm.engine.sqlite_sessions import SQLiteSessions
from riallm.nn.memory_state import MemoryState

Open = Callable[..., Memories]


@pytest.fixture
def model() -> Watched:
    return Watched()


@pytest.fixture
def opened(model: Watched) -> Iterator[Open]:
    made: list[Memories] = []

    def open(store: SessionStore | None = None, **more: Any) -> Memories:
        engine = MemoryEngine(model, name="tiny", decode=lambda ids: bytes(40 + index for index in ids))
        made.append(Memories(engine, store or SQLiteSessions(None), **more))
        return made[-1]

    yield open
    model.gate.set()
    for memories in made:
        memories.engine.close()
        memories.close()


def say(memories: Memories, interaction: Interaction, prompt: Sequence[int] = (1, 2, 3), num: int = 4) -> str:
    request = Request(ids=tuple(prompt), max_tokens=num, sampling=GREEDY, interaction=interaction)
    return "".join(piece.text for piece in answer(memories.engine.submit(request)))


def respond(memories: Memories, saying: Saying) -> MemoryState:
    say(memories, Interaction(memory=saying.place.memory, after=saying.after))
    return saying.kept.result(SECONDS)


def whole(prompt: Sequence[int]) -> Callable[[str], list[int]]:
    """The interaction as a client sends it back: of the answer, every second token."""
    return lambda text: [*prompt, *[byte - 40 for byte in text.encode()][::2]]


def test_a_history_is_written_once_and_the_next_turn_writes_nothing(model: Watched, opened: Open) -> None:
    memories = opened()
    history = [[1, 2, 3], [4, 5], [6, 8]]
    place = memories.read(memories.new(), history)
    place.memory.result(SECONDS)
    assert model.written == history
    text = say(memories, memories.chat(place, whole([9])), [9])
    again = memories.read(memories.new(), [*history, whole([9])(text)])
    state = again.memory.result(SECONDS)
    assert model.written == [*history, whole([9])(text)], "the answer's own write, and no other"
    assert (state.version, memories.engine.writes) == (4, 4)
    fresh = opened()
    replayed = fresh.read(fresh.new(), [*history, whole([9])(text)]).memory.result(SECONDS)
    assert torch.allclose(state.slots, replayed.slots, atol=1e-6), "found or replayed, it is the same memory"
    other = memories.read(memories.new(), [history[1], history[0]])
    assert not torch.equal(
        other.memory.result(SECONDS).slots, memories.read(memories.new(), history[:2]).memory.result(SECONDS).slots
    )


def test_what_is_too_long_to_come_back_is_written_as_it_was(model: Watched, opened: Open) -> None:
    memories = opened()
    long: list[int] = [1] * 25
    place = memories.new()
    say(memories, memories.chat(place, lambda text: long))
    found = memories.read(place, [long])
    assert found.memory.result(SECONDS).version == 1
    assert len(model.written[-1]) == 7
    with pytest.raises(UsageError, match="interaction of 25 tokens"):
        memories.read(found, [long])


def test_only_so_many_histories_are_kept(model: Watched, opened: Open) -> None:
    memories = opened(cache_bytes=2 * opened().engine.memory_bytes)
    for row in ([1], [2], [1], [3], [1], [2]):
        memories.read(memories.new(), [row]).memory.result(SECONDS)
    assert model.written == [[1], [2], [3], [2]]


def test_only_what_could_not_be_written_anew_is_written_as_it_was(model: Watched, opened: Open) -> None:
    memories = opened()
    memories.engine.context = 10  # as whoever serves it may choose; a history may have what the model takes
    for num in (24, 25):
        row = [1] * num
        say(memories, memories.chat(memories.new(), lambda text, row=row: row))  # type: ignore[misc]
        memories.read(memories.new(), [row]).memory.result(SECONDS)
    assert [len(row) for row in model.written] == [24, 7]


def test_of_a_history_with_a_turn_that_is_too_long_nothing_is_written(model: Watched, opened: Open) -> None:
    memories = opened()
    with pytest.raises(UsageError, match="interaction of 25 tokens"):
        memories.read(memories.new(), [[1, 2], [3], [1] * 25, [4]])
    memories.read(memories.new(), [[5]]).memory.result(SECONDS)
    assert model.written == [[5]]


def test_a_history_of_which_the_last_turn_is_known_is_not_written_anew(model: Watched, opened: Open) -> None:
    memories = opened(cache_bytes=2 * opened().engine.memory_bytes)
    history = [[1], [2], [3]]
    for _ in range(2):
        assert memories.read(memories.new(), history).memory.result(SECONDS).version == 3
    assert model.written == history


def test_a_failed_history_is_tried_again(model: Watched, opened: Open) -> None:
    memories = opened()
    model.wrong = lambda row, slots: slots * float("nan")
    with pytest.raises(ClientError, match="what is no number"):
        memories.read(memories.new(), [[1], [2]]).memory.result(SECONDS)
    model.wrong = None
    assert memories.read(memories.new(), [[1], [2]]).memory.result(SECONDS).version == 2


def test_responses_are_snapshots_that_fork(model: Watched, opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite"
    with closing(SQLiteSessions(path)) as store:
        memories = opened(store)
        root = memories.respond()
        first = respond(memories, root)
        one, two = memories.respond(root.id), memories.respond(root.id)
        say(memories, Interaction(memory=one.place.memory, after=one.after), [4])
        say(memories, Interaction(memory=two.place.memory, after=two.after), [5])
        states = [each.kept.result(SECONDS) for each in (one, two)]
        assert [state.version for state in (first, *states)] == [1, 2, 2]
        assert not torch.equal(states[0].slots, states[1].slots)
    with closing(SQLiteSessions(path)) as store:
        later = opened(store)
        assert torch.equal(later.behind(one.id).memory.result(SECONDS).slots, states[0].slots)
        assert store.get(one.id).parent == root.id and store.get(root.id).parent is None
        with pytest.raises(UnknownSession, match="no memory 'resp_0'"):
            later.respond("resp_0")


def test_an_id_that_is_promised_is_waited_for(model: Watched, opened: Open) -> None:
    memories = opened()
    saying = memories.respond()
    model.gate.clear()
    text = say(memories, Interaction(memory=saying.place.memory, after=saying.after))
    later = memories.respond(saying.id)
    assert not later.place.memory.done()
    model.gate.set()
    assert respond(memories, later).version == 2
    assert text


def test_a_conversation_has_one_writer_and_one_head(model: Watched, opened: Open) -> None:
    memories = opened()
    with pytest.raises(UnknownSession, match="'conv_0'"):
        memories.respond_in("conv_0")
    name = memories.begin()
    first = memories.respond_in(name)
    with pytest.raises(Conflict, match="another request is being answered"):
        memories.respond_in(name)
    model.gate.clear()
    say(memories, Interaction(memory=first.place.memory, after=first.after))
    second = memories.respond_in(name)  # the answer is complete, so this one waits for the memory
    assert not second.place.memory.done() and second.parent == first.id
    model.gate.set()
    state = respond(memories, second)
    assert (state.version, memories.store.head(name)) == (2, second.id)
    assert memories.at(name).memory.result(SECONDS).version == 2


def test_a_request_that_never_began_leaves_the_head(opened: Open) -> None:
    memories = opened()
    name = memories.begin()
    first = memories.respond_in(name)
    first.drop()
    with pytest.raises(ClientError, match="given up"):
        first.kept.result(SECONDS)
    with pytest.raises(UnknownSession, match="given up before it began"):
        memories.behind(first.id)
    assert respond(memories, memories.respond_in(name)).version == 1


def test_who_waits_and_gives_up_leaves_the_update_before(model: Watched, opened: Open) -> None:
    memories = opened()
    name = memories.begin()
    first = memories.respond_in(name)
    model.gate.clear()
    say(memories, Interaction(memory=first.place.memory, after=first.after))
    waiting = memories.respond_in(name)
    waiting.drop()
    assert waiting.kept.exception(SECONDS)
    third = memories.respond_in(name)
    model.gate.set()
    assert (third.parent, respond(memories, third).version) == (first.id, 2)
    assert memories.store.head(name) == third.id


def test_what_is_given_up_behind_the_end_is_told(opened: Open) -> None:
    memories = opened()
    saying = memories.respond()
    memories.engine.close()
    memories.close()
    saying.drop()
    assert "given up" in str(saying.kept.exception(0))


def test_an_update_that_fails_leaves_the_last_good_head(model: Watched, opened: Open) -> None:
    memories = opened()
    name = memories.begin()
    good = memories.respond_in(name)
    respond(memories, good)
    model.wrong = lambda row, slots: slots * float("nan")
    with pytest.raises(ClientError, match="version 1 of the memory, from before it"):
        respond(memories, memories.respond_in(name))
    model.wrong = None
    assert memories.store.head(name) == good.id
    with pytest.raises(Lost, match="version 1 of the memory, from before it"):
        memories.respond_in(name)
    assert respond(memories, memories.respond_in(name)).version == 2


def test_why_nothing_is_behind_a_response_is_known_of_the_last_ones(
    model: Watched, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riallm.engine.memories.MOST_REASONS", 2)
    memories, lost = opened(), list[str]()
    model.wrong = lambda row, slots: slots * float("nan")
    for _ in range(3):
        saying = memories.respond()
        lost.append(saying.id)
        with pytest.raises(ClientError):
            respond(memories, saying)
    for id in lost[1:]:
        with pytest.raises(UnknownSession, match=r"could not be written .*no number.*; .* version 0 of the memory"):
            memories.respond(id)
    with pytest.raises(UnknownSession, match="no memory 'resp_"):
        memories.respond(lost[0])


@pytest.mark.parametrize("call", [Memories.respond_in, Memories.at])
def test_what_could_not_be_stored_is_told_once(opened: Open, call: Callable[[Memories, str], object]) -> None:
    class Full(SQLiteSessions):
        full = False

        def put_and_advance(self, *args: Any, **more: Any) -> str:
            if self.full:
                raise CheckpointError("no room")
            return super().put_and_advance(*args, **more)

    store = Full(None)
    memories = opened(store)
    name = memories.begin()
    respond(memories, memories.respond_in(name))
    store.full = True
    saying = memories.respond_in(name)
    say(memories, Interaction(memory=saying.place.memory, after=saying.after))
    assert isinstance(saying.kept.exception(SECONDS), ClientError)
    store.full = False
    with pytest.raises(Lost, match=r"could not be written .*\(no room\); .* version 1 of the memory"):
        call(memories, name)
    assert respond(memories, memories.respond_in(name)).version == 2
    assert not memories._lost


def test_who_waited_for_an_update_that_fails_is_the_only_one_told(model: Watched, opened: Open) -> None:
    memories, stored = opened(), Event()
    name = memories.begin()
    respond(memories, memories.respond_in(name))
    model.gate.clear()
    model.wrong = lambda row, slots: slots * float("nan")
    lost = memories.respond_in(name)
    say(memories, Interaction(memory=lost.place.memory, after=lost.after))
    waiting = memories.respond_in(name)
    interaction = Interaction(memory=waiting.place.memory, after=waiting.after)
    ticket = memories.engine.submit(Request(ids=(1,), max_tokens=1, sampling=GREEDY, interaction=interaction))
    lost.kept.add_done_callback(lambda _: stored.wait(SECONDS))  # so that the store hears of the second one later
    model.gate.set()
    assert "could not be written" in (answer(ticket)[-1].error or "")
    model.wrong = None
    Timer(0.1, stored.set).start()
    assert respond(memories, memories.respond_in(name)).version == 2


def test_a_head_that_somebody_else_moved_is_left_and_who_speaks_next_is_told(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite"
    with closing(SQLiteSessions(path)) as store, closing(SQLiteSessions(path)) as other:
        memories, theirs = opened(store), opened(other)
        name = memories.begin()
        mine = memories.respond_in(name)
        first = theirs.respond_in(name)
        respond(theirs, first)
        respond(memories, mine)
        assert store.head(name) == first.id
        assert store.get(mine.id).state.version == 1
        with pytest.raises(Lost, match=f"is not part of it; it is kept as '{mine.id}': go on from there, or ask again"):
            memories.respond_in(name)
        assert memories.respond_in(name).parent == theirs.respond_in(name).parent == first.id, "told once, and here"


@pytest.mark.parametrize("given_up", [False, True])
def test_who_waited_behind_a_fork_goes_on_from_it_and_the_next_is_told_of_the_last(
    model: Watched, opened: Open, tmp_path: Path, given_up: bool
) -> None:
    path = tmp_path / "sessions.sqlite"
    with closing(SQLiteSessions(path)) as store, closing(SQLiteSessions(path)) as other:
        memories, theirs = opened(store), opened(other)
        name = memories.begin()
        mine = memories.respond_in(name)
        respond(theirs, theirs.respond_in(name))
        model.gate.clear()
        say(memories, Interaction(memory=mine.place.memory, after=mine.after))
        waiting = memories.respond_in(name)
        model.gate.set()
        mine.kept.result(SECONDS)
        if given_up:
            waiting.drop()
            assert waiting.kept.exception(SECONDS)
        else:
            assert respond(memories, waiting).version == 2
            assert store.get(waiting.id).parent == mine.id
        with pytest.raises(Lost, match=f"it is kept as '{mine.id if given_up else waiting.id}'"):
            memories.respond_in(name)
        assert memories.respond_in(name).parent == store.head(name)


def test_what_is_forgotten_stays_forgotten(model: Watched, opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite"
    with closing(SQLiteSessions(path)) as store, closing(SQLiteSessions(path)) as other:
        memories = opened(store)
        name = memories.begin()
        saying = memories.respond_in(name)
        with pytest.raises(Conflict, match="is being answered"):
            memories.forget(name)
        model.gate.clear()
        say(memories, Interaction(memory=saying.place.memory, after=saying.after))
        Timer(0.1, model.gate.set).start()
        memories.forget(name)  # waits for the update, and takes it along
        alone = memories.respond()
        model.gate.clear()
        say(memories, Interaction(memory=alone.place.memory, after=alone.after))
        Timer(0.1, model.gate.set).start()
        memories.delete(alone.id)
        for id in (saying.id, alone.id):
            with pytest.raises(UnknownSession):
                store.get(id)
        elsewhere = memories.begin()
        late = memories.respond_in(elsewhere)
        other.forget(elsewhere)
        with pytest.raises(UnknownSession, match="was forgotten"):
            respond(memories, late)
        with pytest.raises(UnknownSession):
            store.get(late.id)


def test_what_is_being_answered_cannot_be_deleted(opened: Open) -> None:
    memories = opened()
    saying = memories.respond()
    with pytest.raises(Conflict, match=f"'{saying.id}' is being answered"):
        memories.delete(saying.id)
    respond(memories, saying)
    memories.delete(saying.id)


def test_answers_end_while_the_store_is_busy(opened: Open) -> None:
    class Busy(SQLiteSessions):
        gate, begun = Event(), Event()

        def get(self, id: str, *, model: str = "") -> Snapshot:
            self.begun.set()
            assert self.gate.wait(SECONDS)
            return super().get(id, model=model)

    store = Busy(None)
    memories = opened(store)
    name = memories.begin()
    asking = Thread(target=lambda: memories.respond_in(name).drop())
    asking.start()
    assert store.begun.wait(SECONDS)
    history = memories.read(memories.new(), [[1, 2]])
    request = Request(ids=(3,), max_tokens=2, sampling=GREEDY, interaction=memories.chat(history, whole([3])))
    try:
        ticket = memories.engine.submit(request)
        assert [piece and piece.finish for piece in (ticket.next(SECONDS), ticket.next(SECONDS))] == [None, "length"]
    finally:
        store.gate.set()
        asking.join(SECONDS)


def test_a_parent_that_was_deleted_takes_nothing_along(opened: Open) -> None:
    memories = opened()
    root = memories.respond()
    respond(memories, root)
    child = memories.respond(root.id)
    memories.store.delete(root.id)
    respond(memories, child)
    assert memories.store.get(child.id).parent is None


def test_a_memory_of_another_model_is_refused(model: Watched, opened: Open) -> None:
    memories = opened()
    strange = MemoryState(slots=torch.zeros(3, 1, 6, 32))
    id = memories.store.put(strange, parent=None)
    with pytest.raises(UsageError, match="a memory of shape"):
        memories.behind(id)
    model.fingerprint = "this"
    foreign = memories.store.put(MemoryState(slots=model.start().slots, model="that"), parent=None)
    with pytest.raises(UsageError, match="written by the model that"):
        memories.respond(foreign)
