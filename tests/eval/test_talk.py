"""Questions in English: scores of talkers whose answers are known, and a real model's way from text to text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from riallm.core.errors import UsageError
from riallm.data.conversations.conversation import ConversationConfig, Fact, Turn, conversation
from riallm.engine.conversation import Session
from riallm.eval.probes.counted import CONDITIONS, Asked, table
from riallm.eval.probes.rxt_talker import ANSWER_TOKENS, RxTTalker
from riallm.eval.probes.talk import Reply, ask
from riallm.models.load import TOKENIZER, load_rxt
from riallm.nn.memory_state import Reading
from riallm.nn.meta import TokenMeta
from riallm.testing.tiny_rxt import write_tiny_rxt
from riallm.tokenizer import saved
from riallm.tokenizer.interaction import markers, query_ids

CONFIG = ConversationConfig(num_turns=14, max_live=6, retell=0.15, untold=0.1, split="test")
Heard = tuple[tuple[str, ...], ...]


class Scripted:
    """Somebody whose memory is all that was said, and who gives the told value that `choose` takes of those that it
    finds, oldest first; reach: interactions that it looks back over."""

    def __init__(self, *, choose: int = -1, reach: int = 1000, always: str | None = None) -> None:
        self.choose, self.reach, self.always = choose, reach, always
        self.told: dict[str, tuple[Fact, str]] = {}
        self.asked: dict[str, Fact] = {}
        self.written: list[str] = []
        for number in range(400):
            for turn in conversation(CONFIG, number):
                if turn.kind in ("tell", "retell") and turn.fact and turn.value:
                    self.told[turn.query] = (turn.fact, turn.value)
                elif turn.fact:
                    self.asked[turn.query] = turn.fact

    def start(self, rows: int, *, seed: int) -> Heard:
        return ((),) * rows

    def chosen(self, memory: Heard, rows: Sequence[int]) -> Heard:
        return tuple(memory[row] for row in rows)

    def answer(self, queries: Sequence[str], memory: Heard, *, read: bool = True) -> list[Reply]:
        return [
            Reply(query, self._one(query, heard if read else ())) for query, heard in zip(queries, memory, strict=True)
        ]

    def nats(self, turns: Sequence[Turn], memory: Heard, *, read: bool = True) -> list[float] | None:
        return None

    def write(self, replies: Sequence[Reply], memory: Heard) -> Heard:
        self.written += [reply.text for reply in replies]
        return tuple((*heard, reply.query) for heard, reply in zip(memory, replies, strict=True))

    def _one(self, query: str, heard: tuple[str, ...]) -> str:
        if query not in self.asked:
            return "Noted."
        if self.always is not None:
            return self.always
        told = [self.told[each] for each in heard[-self.reach :] if each in self.told]
        values = [value for fact, value in told if fact == self.asked[query]]
        if not values:
            return "You have not told me that."
        return f"It is {values[max(self.choose, -len(values))]}."


def asked(talker: Scripted, num: int = 500) -> list[Asked]:
    return ask(talker, CONFIG, num=num, rows=32)


def test_who_remembers_all_is_always_right_and_the_controls_never_are() -> None:
    talker = Scripted()
    told: list[int] = []
    every = ask(talker, CONFIG, num=500, rows=32, hear=told.append)
    found = table(every)
    assert found["questions"] == sum(told) >= 500
    memory = found["memory"]
    for name in ("exact", "untold", "retold"):
        assert memory[name]["value"] == 1.0 and memory[name]["num"] > 20, name
    assert memory["none"]["value"] == memory["retold_stale"]["value"] == 0.0
    assert all(each["value"] == 1.0 for by in ("distance", "live", "group") for each in memory[f"by_{by}"].values())
    assert set(memory["by_distance"]) >= set(map(str, range(1, 10)))
    for name in CONDITIONS[1:]:
        assert found[name]["exact"]["value"] == 0.0
        assert found[name]["exact"]["num"] == found["questions"]
    for name in ("reset", "unread"):
        assert found[name]["none"]["value"] == found[name]["untold"]["value"] == 1.0
    assert found["swap"]["donor"]["value"] == 1.0
    assert found["swap"]["donor"]["num"] > 0.3 * found["questions"]


def test_the_questions_are_those_of_the_conversations() -> None:
    every = asked(Scripted(), 40)
    turns = [turn for number in range(32) for turn in conversation(CONFIG, number)]
    for name in CONDITIONS:
        these = [each for each in every if each.condition == name]
        for kind, told in (("ask", True), ("untold", False)):
            wanted = sorted((turn.distance, turn.live, turn.stale is not None) for turn in turns if turn.kind == kind)
            assert sorted((each.distance, each.live, each.retold) for each in these if each.told is told) == wanted
        numbers = [number for number in range(32) for turn in conversation(CONFIG, number) if turn.kind == "ask"]
        assert sorted(each.conversation for each in these if each.told) == numbers


def test_who_answers_wrongly_has_nothing() -> None:
    for answer in ("It is Captain Nobody.", "", "I do not know"):
        found = table(asked(Scripted(always=answer)))
        for name in CONDITIONS:
            for each in ("exact", "none", "untold"):
                assert found[name][each]["value"] == 0.0
        assert found["memory"]["retold_stale"]["value"] == found["swap"]["donor"]["value"] == 0.0
    found = table(asked(Scripted(always="You have not told me that.")))
    assert found["memory"]["exact"]["value"] == 0.0
    assert found["memory"]["none"]["value"] == found["memory"]["untold"]["value"] == 1.0


def test_who_answers_with_what_was_before_is_stale_after_a_change() -> None:
    memory = table(asked(Scripted(choose=-2)))["memory"]
    assert memory["retold"]["value"] == 0.0
    assert memory["retold_stale"]["value"] == 1.0
    untouched = memory["exact"]["num"] - memory["retold"]["num"]
    assert memory["exact"]["value"] == pytest.approx(untouched / memory["exact"]["num"])


def test_who_forgets_is_right_up_to_that_distance() -> None:
    by = table(asked(Scripted(reach=3)))["memory"]["by_distance"]
    assert {distance: each["value"] for distance, each in by.items()} == {
        distance: float(int(distance) <= 3) for distance in by
    }


def test_what_is_written_is_what_was_answered() -> None:
    talker = Scripted(always="It is Captain Nobody.")
    asked(talker, 10)
    assert len(talker.written) == 32 * CONFIG.num_turns
    assert set(talker.written) == {"Noted.", "It is Captain Nobody."}


def test_what_cannot_be_asked_is_refused() -> None:
    for wrong in ({"rows": 1}, {"num": 0}):
        with pytest.raises(UsageError, match="at least 2"):
            ask(Scripted(), CONFIG, **{"num": 1, **wrong})
    with pytest.raises(UsageError, match="ask is 0"):
        ask(Scripted(), ConversationConfig(num_turns=4, ask=0.0), num=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> RxTTalker:
    folder = write_tiny_rxt(tmp_path_factory.mktemp("rxt") / "tiny", max_interaction=80)
    return RxTTalker(load_rxt(folder), saved.load(folder / TOKENIZER))


QUERIES = (("My dog's name is Captain Rex.", "Hello!"), ("What is my dog's name?", "Anna's job is night nurse."))


def test_a_model_is_talked_to_as_in_a_session(tiny: RxTTalker) -> None:
    own = markers(tiny.tokenizer)
    memory = tiny.start(2, seed=4)
    session = Session(tiny.model, tiny.model.start(2, seed=4), ends=(own.end,))
    for queries in QUERIES:
        replies = tiny.answer(queries, memory)
        memory = tiny.write(replies, memory)
        rows = [[*query_ids(tiny.tokenizer, query), own.answer] for query in queries]
        said: list[list[int]] = [[], []]
        for step in session.ask_rows(rows, temperature=0.0, max_tokens=ANSWER_TOKENS):
            for row, token in zip(said, step, strict=True):
                row += [] if token is None else [token]
        assert [reply.text for reply in replies] == [tiny.tokenizer.decode(row, specials=False) for row in said]
        assert [reply.query for reply in replies] == list(queries)
        torch.testing.assert_close(memory.slots, session.state.slots, atol=1e-5, rtol=1e-5)
    session.close()
    with pytest.raises(AssertionError):
        torch.testing.assert_close(memory.slots, tiny.start(2, seed=4).slots)


def test_an_unread_memory_changes_nothing_and_a_read_one_does(tiny: RxTTalker) -> None:
    one, other = tiny.start(2, seed=1), tiny.start(2, seed=2)
    assert tiny.answer(QUERIES[0], one) != tiny.answer(QUERIES[0], other)
    assert tiny.answer(QUERIES[0], one, read=False) == tiny.answer(QUERIES[0], other, read=False)
    back = tiny.chosen(one, [1, 0])
    assert tiny.answer(QUERIES[0][::-1], back) == tiny.answer(QUERIES[0], one)[::-1]


def test_a_random_model_is_never_right(tiny: RxTTalker) -> None:
    found = table(ask(tiny, ConversationConfig(num_turns=6, max_live=3), num=12, rows=4))
    assert found["questions"] >= 12
    for name in CONDITIONS:
        assert found[name]["exact"]["value"] == 0.0


def test_a_model_that_has_no_room_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_rxt(tmp_path / "tiny", max_interaction=12)
    talker = RxTTalker(load_rxt(folder), saved.load(folder / TOKENIZER))
    with pytest.raises(UsageError, match="it takes 12"):
        talker.answer(["Please remember that my favourite dish is lemon soup."], talker.start(1, seed=0))


def test_nats_are_those_of_the_values_tokens(tiny: RxTTalker) -> None:
    turns = [turn for turn in conversation(CONFIG, 1) if turn.kind == "ask"][:3]
    memory = tiny.start(len(turns), seed=5)
    for read in (True, False):
        found = tiny.nats(turns, memory, read=read)
        for row, turn in enumerate(turns):
            assert turn.span is not None
            own = markers(tiny.tokenizer)
            begin, end = turn.span
            ids = [*query_ids(tiny.tokenizer, turn.query), own.answer, *tiny.tokenizer.encode(turn.answer[: begin - 1])]
            value = tiny.tokenizer.encode(turn.answer[begin - 1 : end])
            state = tiny.model.turn(memory.rows([row]))
            if not read:
                state = replace(state, reading=Reading(layers=(None,) * tiny.model.config.num_layers))
            tokens = torch.tensor([[*ids, *value]])
            with torch.inference_mode():
                logits = tiny.model.logits(tiny.model(tokens, TokenMeta.plain(*tokens.shape), state).hidden[0])
            probs = logits.log_softmax(dim=-1)
            wanted = -sum(float(probs[len(ids) - 1 + at, token]) for at, token in enumerate(value))
            assert found[row] == pytest.approx(wanted, rel=1e-4)
    assert tiny.nats(turns, memory) != pytest.approx(tiny.nats(turns, memory, read=False), rel=1e-4)
    every = table(ask(tiny, ConversationConfig(num_turns=3, max_live=2), num=2, rows=2))
    assert all(every[name]["nats"]["num"] == every["questions"] for name in CONDITIONS)
    assert every["memory"]["nats"]["value"] > 2.0
