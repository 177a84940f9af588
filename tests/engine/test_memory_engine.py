"""The engine of models with a memory: side by side as alone, and each memory written behind its answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
import torch
from engines import answer, ids_of
from torch import Tensor

from riallm.core.errors import BudgetError, ClientError, UsageError
from riallm.engine.conversation import Session
from riallm.engine.local import EngineOptions
from riallm.engine.memory_engine import MemoryEngine
from riallm.engine.request import Interaction, Request, Sampling
from riallm.models.rxt import RxT
from riallm.nn.adapter import Adapter
from riallm.nn.memory_state import MemoryState, TurnState
from riallm.testing.tiny_rxt import tiny_rxt

TINY = tiny_rxt(vocab_size=40, max_interaction=24)
END = 7
SECONDS = 30.0
PROMPTS: list[list[int]] = [[1, 2, 3], [4, 5], [6, 8, 9, 10, 11, 12], [3], [2, 2, 2, 2]]
GREEDY = Sampling(temperature=0.0)


class Watched(RxT):
    """A model whose updates wait at a gate, and that tells how many rows its passes had."""

    def __init__(self) -> None:
        super().__init__(TINY)
        self.initialise(0)
        with torch.no_grad():  # as it begins, it would say the last token again and again
            self.lm_head.weight.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.2)
        self.eval()
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()
        self.written: list[list[int]] = []
        self.rows: list[int] = []
        self.wrong: Callable[[list[int], Tensor], Tensor] | None = None

    def forward(self, tokens: Tensor, *rest: Any, **more: Any) -> Any:
        self.rows.append(len(tokens))
        return super().forward(tokens, *rest, **more)

    def end_turn(self, tokens: Tensor, mask: Tensor, state: MemoryState) -> MemoryState:
        self.begun.set()
        assert self.gate.wait(SECONDS)
        rows = [row[here].tolist() for row, here in zip(tokens, mask, strict=True)]
        self.written += rows
        after = super().end_turn(tokens, mask, state)
        if self.wrong is not None:
            slots = [self.wrong(row, after.slots[:, at]) for at, row in enumerate(rows)]
            after = replace(after, slots=torch.stack(slots, dim=1))
        return after


@pytest.fixture
def model() -> Watched:
    return Watched()


@pytest.fixture
def opened(model: Watched) -> Iterator[Callable[..., MemoryEngine]]:
    made: list[MemoryEngine] = []

    def open(**options: Any) -> MemoryEngine:
        made.append(
            MemoryEngine(
                model,
                name="tiny",
                decode=lambda ids: bytes(40 + index for index in ids),
                options=EngineOptions(**options),
            )
        )
        return made[-1]

    yield open
    model.gate.set()
    for engine in made:
        engine.close()


def asked(prompt: Sequence[int], memory: Future[MemoryState] | None = None, **more: Any) -> Request:
    """To the end, remembered."""
    given = {"max_tokens": TINY.max_interaction - len(prompt), "sampling": GREEDY, "ends": (END,), **more}
    row = given.pop("row", None)
    return Request(ids=tuple(prompt), interaction=Interaction(memory=memory, after=Future(), row=row), **given)


def after(request: Request) -> Future[MemoryState]:
    assert request.interaction is not None and request.interaction.after is not None
    return request.interaction.after


def alone(model: RxT, turns: Sequence[Sequence[int]], sampling: Sampling) -> tuple[list[list[int]], MemoryState]:
    """What a session says, without the end token, and its memory."""
    said = []
    with Session(model, ends=(END,)) as session:
        for turn in turns:
            reply = session.ask(turn, temperature=sampling.temperature, top_p=sampling.top_p, seed=sampling.seed)
            said.append([token for token in reply if token != END])
        return said, session.state


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.0, top_p=0.9, seed=5)])
def test_side_by_side_as_alone(model: Watched, opened: Callable[..., MemoryEngine], sampling: Sampling) -> None:
    engine = opened()
    conversations = [[prompt, PROMPTS[at - 1], PROMPTS[at - 2]] for at, prompt in enumerate(PROMPTS)]
    requests: list[list[Request]] = []
    for turns in conversations:
        memory = None
        requests.append([])
        for turn in turns:  # all at once: each waits for the memory behind the one before it
            requests[-1].append(asked(turn, memory, sampling=sampling))
            memory = after(requests[-1][-1])
    tickets = [[engine.submit(request) for request in turns] for turns in requests]
    found = [[ids_of(answer(ticket)) for ticket in turns] for turns in tickets]
    states = [after(turns[-1]).result(SECONDS) for turns in requests]
    assert max(model.rows) == len(PROMPTS), "they were decoded together"
    for turns, said, state in zip(conversations, found, states, strict=True):
        wanted, memory_alone = alone(model, turns, sampling)
        assert said == wanted
        assert state.version == 3
        assert torch.allclose(state.slots, memory_alone.slots, atol=1e-5)
    assert len({tuple(said) for turns in found for said in turns}) > len(PROMPTS)


def test_a_request_joins_while_others_decode(model: Watched, opened: Callable[..., MemoryEngine]) -> None:
    engine = opened()
    whole = [ids_of(answer(engine.submit(asked(prompt, ends=())))) for prompt in PROMPTS[:3]]
    model.rows.clear()
    first = engine.submit(asked(PROMPTS[0], ends=()))
    assert first.next(SECONDS) is not None
    joined: list[Any] = []

    def join() -> None:
        if not joined:
            joined.extend(engine.submit(asked(prompt, ends=())) for prompt in PROMPTS[1:3])

    first.notify(join)  # the engine's thread itself hands the others in, in the middle of the first answer
    pieces = ids_of(answer(first))
    assert len(pieces) >= len(whole[0]) - 1
    assert [ids_of(answer(ticket)) for ticket in joined] == whole[1:]
    assert 3 in model.rows and model.rows[0] == 1
    assert pieces == whole[0][-len(pieces) :]


def test_an_answer_is_complete_before_its_memory_and_the_next_waits(
    model: Watched, opened: Callable[..., MemoryEngine]
) -> None:
    engine = opened()
    model.gate.clear()
    first = asked(PROMPTS[0])
    said = ids_of(answer(engine.submit(first)))  # the last piece came although nothing can be written
    assert model.begun.wait(SECONDS)
    assert after(first).running() and not after(first).done()
    later = asked(PROMPTS[1], after(first))
    ticket = engine.submit(later)
    assert ticket.next(0.1) is None
    model.gate.set()
    assert [said, ids_of(answer(ticket))] == alone(model, PROMPTS[:2], GREEDY)[0]


def test_whoever_has_the_last_piece_knows_that_the_memory_is_on_its_way(opened: Callable[..., MemoryEngine]) -> None:
    engine, seen = opened(), list[bool]()
    held: Future[MemoryState] = Future()
    request = asked(PROMPTS[0], held)
    ticket = engine.submit(request)
    ticket.notify(lambda: seen.append(after(request).running()))  # by the engine's thread, as each piece is there
    held.set_result(engine.new.result())
    num = len(answer(ticket))
    after(request).result(SECONDS)
    assert seen == [*[False] * (num - 1), True]


def test_what_is_written_is_what_was_said_or_what_the_caller_makes_of_it(
    model: Watched, opened: Callable[..., MemoryEngine]
) -> None:
    engine = opened()
    plain = asked(PROMPTS[0])
    pieces = answer(engine.submit(plain))
    after(plain).result(SECONDS)
    end = [END] if pieces[-1].finish == "stop" else []
    assert model.written == [[*PROMPTS[0], *ids_of(pieces), *end]]
    told: list[tuple[str, tuple[int, ...]]] = []

    def row(text: str, tokens: tuple[int, ...]) -> list[int]:
        told.append((text, tokens))
        return [1, 2]

    other = asked(PROMPTS[0], row=row)
    text = "".join(piece.text for piece in answer(engine.submit(other)))
    after(other).result(SECONDS)
    assert model.written[-1] == [1, 2]
    assert told == [(text, tuple(model.written[0]))]
    assert ids_of(answer(engine.submit(Request(ids=(1, 2), max_tokens=3, sampling=GREEDY))))
    assert len(model.written) == 2, "without an interaction nothing is remembered"


def test_a_client_that_goes_leaves_what_there_is(model: Watched, opened: Callable[..., MemoryEngine]) -> None:
    engine = opened()
    request = asked(PROMPTS[0], ends=())
    ticket = engine.submit(request)
    ticket.notify(ticket.cancel)  # from the engine's thread, at the first piece
    pieces = answer(ticket)
    assert pieces[-1].finish == "cancelled"
    assert after(request).result(SECONDS).version == 1
    assert model.written == [[*PROMPTS[0], *ids_of(pieces)]]
    held: Future[MemoryState] = Future()
    waiting = asked(PROMPTS[0], held)
    ticket = engine.submit(waiting)
    ticket.cancel()
    held.set_result(model.start())
    assert answer(ticket)[-1].finish == "cancelled"
    with pytest.raises(ClientError, match="before it began"):
        after(waiting).result(SECONDS)


def test_one_memory_twice_is_a_fork(opened: Callable[..., MemoryEngine]) -> None:
    engine = opened()
    root = asked(PROMPTS[2])
    answer(engine.submit(root))
    before = after(root).result(SECONDS).slots.clone()
    one, other = asked(PROMPTS[0], after(root)), asked(PROMPTS[1], after(root))
    for ticket in [engine.submit(one), engine.submit(other)]:
        answer(ticket)
    assert not torch.equal(after(one).result(SECONDS).slots, after(other).result(SECONDS).slots)
    assert torch.equal(after(root).result().slots, before)


def no_numbers(slots: Tensor) -> Tensor:
    return slots * float("nan")


def no_memory(slots: Tensor) -> Tensor:
    raise MemoryError("told to fail")


@pytest.mark.parametrize(("spoil", "told"), [(no_numbers, "what is no number"), (no_memory, "told to fail")])
def test_an_update_that_fails_fails_alone(
    model: Watched, opened: Callable[..., MemoryEngine], spoil: Callable[[Tensor], Tensor], told: str
) -> None:
    engine = opened()
    model.wrong = lambda row, slots: spoil(slots) if row[0] == PROMPTS[1][0] else slots
    held: Future[MemoryState] = Future()
    requests = [asked(prompt, held, ends=(), max_tokens=3) for prompt in PROMPTS[:3]]
    later = asked(PROMPTS[0], after(requests[1]))
    tickets = [engine.submit(request) for request in (*requests, later)]
    held.set_result(model.start())
    last = [answer(ticket)[-1] for ticket in tickets][-1]
    assert max(model.rows) == 3, "they ended, and were written, together"
    assert [after(requests[at]).result(SECONDS).version for at in (0, 2)] == [1, 1]
    with pytest.raises(ClientError, match=f"{told}.*version 0 of the memory, from before it"):
        after(requests[1]).result(SECONDS)
    assert last.finish == "error" and "could not be written" in (last.error or "")
    again = asked(PROMPTS[0], held)
    assert answer(engine.submit(again))[-1].finish in ("stop", "length"), "the memory from before it is as it was"


def test_a_pass_that_fails_is_told_and_the_engine_goes_on(
    model: Watched, opened: Callable[..., MemoryEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened()
    good = ids_of(answer(engine.submit(asked(PROMPTS[0]))))
    for broken in ("turn", "logits"):
        with monkeypatch.context() as patch:
            patch.setattr(model, broken, lambda *_: 1 / 0)
            request = asked(PROMPTS[0])
            last = answer(engine.submit(request))[-1]
            assert last.finish == "error" and "ZeroDivisionError" in (last.error or "")
            assert isinstance(after(request).exception(SECONDS), ClientError)
    assert ids_of(answer(engine.submit(asked(PROMPTS[0])))) == good


@pytest.mark.parametrize(("step_tokens", "rows"), [(90, [1, 3]), (60, [1, 2, 1]), (1, [1, 1, 1, 1])])
def test_updates_share_a_step_as_far_as_it_has_room(
    model: Watched, opened: Callable[..., MemoryEngine], step_tokens: int, rows: list[int]
) -> None:
    engine = opened(step_tokens=step_tokens)
    together: list[int] = []
    plain = model.end_turn

    def end_turn(tokens: Tensor, mask: Tensor, state: MemoryState) -> MemoryState:
        together.append(len(tokens))
        return plain(tokens, mask, state)

    model.end_turn = end_turn  # type: ignore[method-assign]
    model.gate.clear()
    made: list[Future[MemoryState]] = [Future() for _ in range(4)]
    engine.write([1] * 24, engine.new, made[0])
    assert model.begun.wait(SECONDS)
    for after in made[1:]:  # these wait behind the first: 24 tokens and 6 slots each
        engine.write([2] * 24, engine.new, after)
    model.gate.set()
    assert [after.result(SECONDS).version for after in made] == [1] * 4
    assert together == rows


def test_rows_that_cannot_be_put_together_are_told_so(
    model: Watched, opened: Callable[..., MemoryEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened()
    requests = [asked(prompt, ends=(), max_tokens=at + 2) for at, prompt in enumerate(PROMPTS[:3])]
    with monkeypatch.context() as patch:
        patch.setattr("riallm.engine.memory_engine.left", lambda *_: 1 / 0)
        last = [answer(ticket)[-1] for ticket in [engine.submit(request) for request in requests]]
    assert {piece.finish for piece in last} == {"length", "error"}
    assert all(after(request).exception(SECONDS) or after(request).result().version == 1 for request in requests)
    assert answer(engine.submit(asked(PROMPTS[0])))[-1].finish in ("stop", "length")


def test_history_is_written_without_an_answer(model: Watched, opened: Callable[..., MemoryEngine]) -> None:
    engine = opened()
    memory = engine.new
    for row in PROMPTS[:3]:
        made: Future[MemoryState] = Future()
        engine.write(row, memory, made)
        memory = made
    with Session(model) as session:
        for row in PROMPTS[:3]:
            session.tell_rows([row])
        wanted = session.state
    assert torch.allclose(memory.result(SECONDS).slots, wanted.slots, atol=1e-6)
    assert (memory.result().version, engine.writes) == (3, 3)


def test_histories_that_wait_are_not_looked_through(opened: Callable[..., MemoryEngine]) -> None:
    class Counted(Future[MemoryState]):
        looks = 0

        def done(self) -> bool:
            self.looks += 1
            return super().done()

    engine, first = opened(), Counted()
    made: list[Future[MemoryState]] = [Future() for _ in range(20)]
    for after in made:
        engine.write([1], first, after)
    assert len(ids_of(answer(engine.submit(asked(PROMPTS[0], ends=()))))) > 10
    assert first.looks <= len(made), "once each at most, and not with every token"
    first.set_result(engine.new.result())
    assert [after.result(SECONDS).version for after in made] == [1] * len(made)


def test_who_gives_a_history_up_takes_no_other_along(model: Watched, opened: Callable[..., MemoryEngine]) -> None:
    engine = opened()
    model.gate.clear()
    made: list[Future[MemoryState]] = [Future() for _ in range(4)]
    made[3].cancel()
    for after in made:
        engine.write([1], engine.new, after)
    assert model.begun.wait(SECONDS)
    assert not made[1].cancel(), "it is on its way"
    model.gate.set()
    assert [after.result(SECONDS).version for after in made[:3]] == [1, 1, 1]


def test_what_cannot_be_is_refused(model: Watched, opened: Callable[..., MemoryEngine]) -> None:
    engine = opened()
    with pytest.raises(UsageError, match="shorten it by 2"):
        engine.submit(asked([1] * 10, max_tokens=16))
    with pytest.raises(UsageError, match="40 is no token"):
        engine.submit(asked([40]))
    with pytest.raises(UsageError, match="interaction of 25 tokens"):
        engine.write([1] * 25, engine.new, Future())
    with pytest.raises(UsageError, match="no hooks for adapters"):
        engine.publish(Adapter(name="a", version=1, tensors={}))
    engine.publish(None)
    with pytest.raises(ClientError, match="no embeddings"):
        engine.embed([[1]])
    with pytest.raises(UsageError, match="kv_bytes is 5"):
        opened(kv_bytes=5)
    with pytest.raises(UsageError, match="int8_kv"):
        opened(int8_kv=True)
    start = model.start()
    for wrong, complaint in (
        (replace(start, slots=start.slots[:, :, :3]), "shape"),
        (replace(start, slots=start.slots * float("inf")), "no number"),
        (replace(start, slots=start.slots.double()), "float64"),
        (model.start(2), "2 conversations"),
    ):
        given: Future[MemoryState] = Future()
        given.set_result(wrong)
        last = answer(engine.submit(asked([1], given)))[-1]
        assert last.finish == "error" and complaint in (last.error or "")


def test_no_more_run_than_there_is_room_for(model: Watched, opened: Callable[..., MemoryEngine]) -> None:
    size = opened().conversation_bytes
    engine = opened(kv_bytes=2 * size)
    tickets = [engine.submit(asked(prompt, ends=())) for prompt in PROMPTS]
    found = [ids_of(answer(ticket)) for ticket in tickets]
    assert max(model.rows) == 2
    assert all(len(said) == TINY.max_interaction - len(prompt) for said, prompt in zip(found, PROMPTS, strict=True))
    engine = opened(max_waiting=1)
    held: Future[MemoryState] = Future()
    ticket = engine.submit(asked([1], held))
    with pytest.raises(BudgetError, match="ask again later"):
        engine.submit(asked([1], held))
    held.set_result(model.start())
    answer(ticket)


def test_closing_writes_what_is_complete(model: Watched, opened: Callable[..., MemoryEngine]) -> None:
    engine = opened()
    model.gate.clear()
    request = asked(PROMPTS[0])
    answer(engine.submit(request))
    threading.Timer(0.1, model.gate.set).start()
    engine.close()
    assert after(request).result(0).version == 1
    with pytest.raises(BudgetError, match="closing"):
        engine.submit(asked([1]))
    assert isinstance(engine._state, TurnState | None)


def test_closing_goes_on_with_no_history(model: Watched, opened: Callable[..., MemoryEngine]) -> None:
    engine = opened()
    model.gate.clear()
    made: list[Future[MemoryState]] = [Future() for _ in range(4)]
    for memory, after in zip([engine.new, *made], made, strict=False):
        engine.write([1], memory, after)
    assert model.begun.wait(SECONDS)
    late: Future[MemoryState] = Future()
    engine.write([1], Future(), late)  # what this one waits for never comes
    closing = threading.Thread(target=engine.close, daemon=True)
    closing.start()
    while engine._closing is None:
        threading.Event().wait(0.01)
    model.gate.set()
    closing.join(SECONDS)
    assert not closing.is_alive() and [after.result(0).version for after in made[:2]] == [1, 2]
    for dropped in (*made[2:], late):
        assert "was closed before" in str(dropped.exception(0))
