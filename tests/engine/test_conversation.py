"""Sessions of a model with a memory: when it is written, what is read meanwhile, and that nothing is lost or leaks."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from riallm.core.errors import ClientError, UsageError
from riallm.engine.conversation import Session
from riallm.models.rxt import RxT
from riallm.nn.memory_state import MemoryState, load_memory
from riallm.nn.meta import TokenMeta
from riallm.testing.tiny_rxt import tiny_rxt

TINY = tiny_rxt(vocab_size=40, max_interaction=12)
PROMPT, OTHER = [1, 2, 3], [4, 5]
SECONDS = 20.0


class Watched(RxT):
    """A model whose updates wait at a gate, and are counted."""

    def __init__(self) -> None:
        super().__init__(TINY)
        self.initialise(0)
        with torch.no_grad():  # as it begins, it would say the last token again and again
            self.lm_head.weight.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.2)
        self.eval()
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()
        self.written: list[list[list[int]]] = []
        self.wrong: Exception | float | None = None

    def end_turn(self, tokens: Tensor, mask: Tensor, state: MemoryState) -> MemoryState:
        self.begun.set()
        assert self.gate.wait(SECONDS)
        assert not torch.is_grad_enabled()
        assert threading.current_thread() is not threading.main_thread()
        self.written.append([row[here].tolist() for row, here in zip(tokens, mask, strict=True)])
        if isinstance(self.wrong, Exception):
            raise self.wrong
        after = super().end_turn(tokens, mask, state)
        return after if self.wrong is None else replace(after, slots=after.slots * self.wrong)


@pytest.fixture
def model() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.gate.set()


@torch.no_grad()
def plainly(model: RxT, ids: list[int], memory: MemoryState, num: int) -> list[int]:
    """What greedy decoding without a cache says."""
    for _ in range(num):
        tokens = torch.tensor([ids])
        hidden = model(tokens, TokenMeta.plain(*tokens.shape), model.turn(memory, keep=False)).hidden
        ids = [*ids, int(model.logits(hidden[:, -1]).argmax())]
    return ids[-num:]


def test_greedy_answers_are_the_model_s_and_the_same_every_time(model: Watched) -> None:
    found = []
    for _ in range(2):
        with Session(model) as session:
            first = list(session.ask(PROMPT, temperature=0.0))
            memory = session.state
            second = list(session.ask(OTHER, temperature=0.0))
        assert first == plainly(model, PROMPT, model.start(), 9)
        assert second == plainly(model, OTHER, memory, 10)
        assert second != plainly(model, OTHER, model.start(), 10)
        found.append((first, second, session.state.slots))
    assert found[0][:2] == found[1][:2]
    assert torch.equal(found[0][2], found[1][2])
    assert model.written[:2] == [[PROMPT + found[0][0]], [OTHER + found[0][1]]]


def test_what_is_drawn_is_told_by_the_seed(model: Watched) -> None:
    def said(**options: float) -> list[int]:
        with Session(model) as session:
            return list(session.ask(PROMPT, **options))  # type: ignore[arg-type]

    assert said(seed=1) == said(seed=1)
    assert said(seed=1) != said(seed=2)
    greedy = said(temperature=0.0)
    assert said(top_k=1) == said(top_p=1e-9) == greedy
    assert said(seed=1) != greedy


def test_an_answer_stops_at_its_end_and_at_the_limits(model: Watched) -> None:
    whole = list(Session(model).ask(PROMPT, temperature=0.0))
    assert len(whole) == TINY.max_interaction - len(PROMPT)
    end = whole[4]
    at = whole.index(end) + 1
    with Session(model, ends=(end,)) as session:
        assert list(session.ask(PROMPT, temperature=0.0)) == whole[:at]
    assert model.written[-1] == [PROMPT + whole[:at]]
    assert list(Session(model).ask(PROMPT, temperature=0.0, max_tokens=2)) == whole[:2]
    assert list(Session(model).ask(PROMPT, temperature=0.0, max_length=6)) == whole[:3]


def test_an_answer_is_complete_before_its_memory_is_written(model: Watched) -> None:
    model.gate.clear()
    session = Session(model)
    reply, seen = session.ask(PROMPT), []
    for token in reply:
        assert not model.begun.wait(0.03)
        seen.append(token)
    assert len(seen) == 9, "the whole answer, while the update cannot go on"
    assert model.begun.wait(SECONDS)
    assert (session.version, session.behind) == (0, 1)
    model.gate.set()
    assert session.state.version == 1
    assert (session.version, session.behind) == (1, 0)
    assert model.written == [[PROMPT + seen]]


def test_the_next_question_waits_for_the_update(model: Watched) -> None:
    model.gate.clear()
    session = Session(model)
    list(session.ask(PROMPT))
    found: list[int] = []
    asking = threading.Thread(target=lambda: found.append(session.ask(OTHER).version))
    asking.start()
    asking.join(0.2)
    assert asking.is_alive()
    assert found == []
    model.gate.set()
    asking.join(SECONDS)
    assert found == [1]


def test_a_stale_answer_comes_at_once_from_the_memory_before(model: Watched) -> None:
    model.gate.clear()
    session = Session(model)
    list(session.ask(PROMPT, temperature=0.0))
    stale = session.ask(OTHER, temperature=0.0, stale=True)
    assert list(stale) == plainly(model, OTHER, model.start(), 10)
    assert (stale.version, stale.behind, session.version) == (0, 1, 0)
    model.gate.set()
    assert session.state.version == 2, "both are in the memory, one behind the other"
    assert [rows[0][: len(ids)] for rows, ids in zip(model.written, (PROMPT, OTHER), strict=True)] == [PROMPT, OTHER]
    fresh = session.ask(OTHER, stale=True)
    assert (fresh.version, fresh.behind) == (2, 0)


def test_an_answer_that_nobody_reads_on_is_written_as_far_as_it_came(model: Watched) -> None:
    session = Session(model)
    for number, _ in enumerate(session.ask(PROMPT, temperature=0.0)):  # the reply is dropped with the loop
        if number == 1:
            break
    assert session.state.version == 1
    whole = plainly(model, PROMPT, model.start(), 2)
    assert model.written == [[PROMPT + whole]]

    closed = session.ask(OTHER)
    first = next(closed)
    closed.close()
    closed.close()
    assert session.state.version == 2
    assert model.written[-1] == [[*OTHER, first]]
    assert list(closed) == []

    kept = session.ask(PROMPT)
    first = next(kept)
    assert session.state.version == 2, "it is still open"
    session.ask(OTHER, max_tokens=1)
    assert session.state.version == 4, "asking ended it, and what was asked was dropped unread"
    assert model.written[-2:] == [[[*PROMPT, first]], [OTHER]]
    assert list(kept) == []


def test_an_answer_in_a_circle_is_written_when_it_is_collected(model: Watched) -> None:
    session = Session(model)
    circle: list[object] = [session.ask(PROMPT)]
    next(circle[0])  # type: ignore[call-overload]
    circle.append(circle)
    del circle
    assert not model.begun.is_set()
    gc.collect()
    assert model.begun.wait(SECONDS), "at once, not when somebody asks"
    assert session.state.version == 1


def test_closing_waits_for_what_is_open(model: Watched) -> None:
    with Session(model) as session:
        open_one = session.ask(PROMPT)
        next(open_one)
    assert session.state.version == 1
    assert len(model.written[0][0]) == len(PROMPT) + 1
    for call in (lambda: session.ask(PROMPT), lambda: session.tell_rows([PROMPT])):
        with pytest.raises(UsageError, match="this session is closed"):
            call()
    session.close()


@pytest.mark.parametrize("wrong", [RuntimeError("no room"), float("nan")])
def test_an_update_that_fails_leaves_the_memory_and_is_told_once(model: Watched, wrong: Exception | float) -> None:
    session = Session(model)
    list(session.ask(PROMPT))
    before = session.state
    model.wrong = wrong
    list(session.ask(PROMPT))
    assert session.state is before
    assert session.behind == 0
    model.wrong = None
    with pytest.raises(ClientError, match=r"could not be written behind an earlier answer .* version 1 of the memory"):
        session.ask(OTHER)
    assert list(session.ask(OTHER, temperature=0.0)) == plainly(model, OTHER, before, 10)
    model.wrong = wrong
    assert session.state.version == 2
    list(session.ask(PROMPT))
    with pytest.raises(ClientError):
        session.close()
    with pytest.raises(KeyError), Session(model) as other:
        list(other.ask(PROMPT))
        raise KeyError
    assert other.state.version == 0


def test_a_state_that_is_loaded_wins_over_what_was_open_or_failed(model: Watched) -> None:
    session = Session(model)
    list(session.ask(PROMPT))
    kept = session.state
    model.wrong = RuntimeError("no room")
    reply = session.ask(OTHER)
    next(reply)
    session.load(kept)
    assert torch.equal(session.state.slots, kept.slots)
    assert list(reply) == []
    model.wrong = None
    assert session.ask(OTHER).version == 1


def test_a_fork_goes_its_own_way(model: Watched) -> None:
    session = Session(model, ends=(0,))
    list(session.ask(PROMPT, seed=1))
    kept = session.state.slots.clone()
    fork = session.fork()
    assert fork.ends == session.ends
    list(session.ask(OTHER, seed=2))
    assert torch.equal(fork.state.slots, kept)
    said = list(fork.ask(PROMPT, seed=3))
    session.load(replace(session.state, slots=kept, version=1))
    assert list(session.ask(PROMPT, seed=3)) == said
    assert torch.equal(session.state.slots, fork.state.slots)


def test_rows_say_what_they_would_say_alone(model: Watched) -> None:
    prompts = [[1, 2, 3, 4, 5, 6], [7], [8, 9, 10]]
    start = model.start(3, seed=5)
    end = plainly(model, prompts[2], start.rows([2]), 3)[-1]
    for options in ({"temperature": 0.0}, {"seed": 4}):
        together = Session(model, start, ends=(end,))
        steps = list(together.ask_rows(prompts, **options))
        assert len({sum(step[row] is not None for step in steps) for row in range(3)}) > 1
        for row, prompt in enumerate(prompts):
            alone = Session(model, start.rows([row]), ends=(end,))
            own = {"seed": options["seed"] + row} if "seed" in options else options
            said = list(alone.ask(prompt, **own))
            assert [step[row] for step in steps] == said + [None] * (len(steps) - len(said))
            assert (alone.state.slots - together.state.slots[:, [row]]).abs().max() < 1e-4


@pytest.mark.parametrize("enabled", [True, False])
def test_the_caller_s_gradients_stay_as_they_are(model: Watched, enabled: bool) -> None:
    session = Session(model)
    with torch.set_grad_enabled(enabled):
        for _ in session.ask(PROMPT):
            assert torch.is_grad_enabled() is enabled
            assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled() is enabled
        state = session.state
    assert not state.slots.requires_grad
    tokens = torch.tensor([PROMPT])
    RxT.end_turn(model, tokens, torch.ones_like(tokens, dtype=torch.bool), state).slots.sum().backward()  # type: ignore[no-untyped-call]


def test_a_saved_state_goes_on_to_the_bit(model: Watched, tmp_path: Path) -> None:
    model.fingerprint = "a" * 64
    session = Session(model)
    list(session.ask(PROMPT))
    session.state.save(tmp_path / "state")
    again = Session(model, load_memory(tmp_path / "state"))
    assert again.version == 1
    assert list(again.ask(OTHER)) == list(session.ask(OTHER))
    assert torch.equal(again.state.slots, session.state.slots)


def test_what_is_told_is_written_and_not_answered(model: Watched) -> None:
    session = Session(model, model.start(2))
    session.tell_rows([PROMPT, OTHER])
    session.wait()
    assert session.version == 1
    assert model.written == [[PROMPT, OTHER]]
    model.wrong = RuntimeError("no room")
    session.tell_rows([PROMPT, OTHER])
    with pytest.raises(ClientError, match="no room"):
        session.wait()
    session.wait()


def test_what_cannot_be_is_refused_before_anything_happens(model: Watched) -> None:
    session = Session(model)
    kept = session.ask(PROMPT)
    next(kept)
    for ids, message in (
        ([], "of 0 tokens"),
        ([1] * 13, "of 13 tokens; this model takes 1 to 12"),
        ([1] * 12, "12 tokens leaves no room"),
        ([40], "40 is no token"),
    ):
        with pytest.raises(UsageError, match=message):
            session.ask(ids)
    for options, message in (
        ({"temperature": -0.5}, "temperature is -0.5"),
        ({"top_k": -1}, "top_k is -1; it is at least 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_length": 13}, "max_length is 13; this model takes 1 to 12"),
        ({"max_length": 3}, "3 tokens leaves no room: query and answer together have 3"),
    ):
        with pytest.raises(UsageError, match=message):
            session.ask(PROMPT, **options)
    for rows in ([], [PROMPT, OTHER]):
        with pytest.raises(UsageError, match=f"{len(rows)} rows for a session of 1"):
            session.ask_rows(rows)
    with pytest.raises(UsageError, match="of 2 conversations"):
        session.load(model.start(2))
    with pytest.raises(UsageError, match="ask them together, with `ask_rows`"):
        Session(model, model.start(2)).ask(PROMPT)
    broken = model.start()
    broken.slots[0, 0, 0, 0] = float("inf")
    for state, message in (
        (broken, "no number"),
        (replace(model.start(), slots=torch.zeros(2, 1, 5, 32)), "this model's is"),
        (replace(model.start(), slots=model.start().slots.double()), r"numbers are torch.float64, .* torch.float32"),
    ):
        for call in (session.load, lambda state: Session(model, state)):
            with pytest.raises(UsageError, match=message):
                call(state)
    model.fingerprint = "a" * 64
    with pytest.raises(UsageError, match="written by the model bbb"):
        session.load(replace(model.start(), model="b" * 64))
    assert len(list(kept)) == 8, "the answer that was open is still open"
    assert session.state.version == 1
