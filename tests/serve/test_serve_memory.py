"""A model with a memory behind the API, by the real client: what is gone on with, written, and refused."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, BadRequestError, ConflictError, InternalServerError, NotFoundError
from remembering_server import SECONDS, Remembering, remembering

from riallm.engine.conversation import Session
from riallm.engine.sqlite_sessions import SQLiteSessions
from riallm.nn.memory_state import MemoryState
from riallm.testing.tiny_rxt import write_tiny_rxt
from riallm.tokenizer.interaction import interaction_ids, markers, query_ids

Start = Callable[..., Remembering]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_rxt(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(remembering(folder, *args, **options))


@pytest.fixture
def told(start: Start) -> Remembering:
    return start()


def respond(server: Remembering, text: str, **more: Any) -> Any:
    """A response by the likeliest tokens, not too long."""
    return server.client.responses.create(
        **{"model": "tiny", "input": text, "temperature": 0.0, "max_output_tokens": 12, **more}
    )


def chat(server: Remembering, messages: list[Any], **more: Any) -> str:
    given = {"model": "tiny", "temperature": 0.0, "max_tokens": 8, **more}
    text = server.client.chat.completions.create(messages=messages, **given).choices[0].message.content
    assert text is not None
    return str(text)


def until(there: Callable[[], bool]) -> None:
    """Wait; the test's own time limit is the limit."""
    while not there():
        threading.Event().wait(0.01)


def alone(server: Remembering, texts: list[str]) -> tuple[list[str], MemoryState]:
    """What a session says to them, and its memory."""
    tokenizer, said = server.text.tokenizer, []
    with Session(server.memories.engine.model, ends=server.text.ends) as session:
        for text in texts:
            prompt = [*query_ids(tokenizer, text), markers(tokenizer).answer]
            reply = session.ask(prompt, temperature=0.0, max_tokens=12)
            said.append(server.text.decode_bytes(list(reply)).decode("utf-8", "replace"))
        return said, session.state


def test_responses_go_on_from_responses_as_a_session_does(told: Remembering) -> None:
    first = respond(told, "one")
    second = respond(told, "two", previous_response_id=first.id)
    third = respond(told, "three", previous_response_id=second.id)
    said, state = alone(told, ["one", "two", "three"])
    assert [each.output_text for each in (first, second, third)] == said
    found = told.memories.behind(third.id).memory.result(SECONDS)
    assert (found.version, found.model) == (3, state.model)
    assert float((found.slots - state.slots).abs().max()) < 1e-5
    assert (first.store, first.previous_response_id, third.previous_response_id) == (True, None, second.id)
    assert respond(told, "three").output_text != third.output_text, "without the memory it would say something else"
    fork = respond(told, "three", previous_response_id=second.id)
    assert (fork.output_text, fork.id != third.id) == (third.output_text, True)


def test_the_events_carry_the_id_and_the_next_may_come_before_the_memory(told: Remembering) -> None:
    told.watch.gate.clear()
    events = list(respond(told, "one", stream=True))
    assert told.watch.begun.wait(SECONDS) and not told.watch.written, "complete while nothing can be written"
    assert events[0].response.id == events[-1].response.id
    assert events[-1].type in ("response.completed", "response.incomplete")
    threading.Timer(0.2, told.watch.gate.set).start()
    second = respond(told, "two", previous_response_id=events[-1].response.id)
    assert [events[-1].response.output_text, second.output_text] == alone(told, ["one", "two"])[0]


def test_what_is_not_stored_is_not_there(told: Remembering) -> None:
    first = respond(told, "one")
    silent = respond(told, "two", previous_response_id=first.id, store=False)
    assert (silent.store, silent.output_text) == (False, alone(told, ["one", "two"])[0][1])
    assert len(told.watch.written) == 3, "the first one, and the two of the session beside it"
    with pytest.raises(NotFoundError) as caught:
        respond(told, "three", previous_response_id=silent.id)
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


def test_a_client_that_goes_away_is_remembered(told: Remembering) -> None:
    with respond(told, "one", stream=True, max_output_tokens=None) as stream:
        events = iter(stream)
        id = next(events).response.id
        piece = next(event.delta for event in events if event.type == "response.output_text.delta")
    second = respond(told, "two", previous_response_id=id)
    assert told.memories.behind(second.id).memory.result(SECONDS).version == 2
    prompt = [*query_ids(told.text.tokenizer, "one"), markers(told.text.tokenizer).answer]
    row = told.watch.written[0]
    assert row[: len(prompt)] == prompt
    assert told.text.decode_bytes(row[len(prompt) :]).decode("utf-8", "replace").startswith(piece)


def test_a_conversation_has_one_head(told: Remembering) -> None:
    conversation = told.client.conversations.create()
    assert told.client.conversations.retrieve(conversation.id).id == conversation.id
    first = respond(told, "one", conversation=conversation.id)
    second = respond(told, "two", conversation={"id": conversation.id})
    assert [first.output_text, second.output_text] == alone(told, ["one", "two"])[0]
    assert second.conversation is not None and second.conversation.id == conversation.id
    assert told.memories.store.head(conversation.id) in (first.id, second.id)
    aside = respond(told, "three", conversation=conversation.id, store=False)
    assert aside.output_text == alone(told, ["one", "two", "three"])[0][2]
    again = respond(told, "three", conversation=conversation.id)
    assert again.output_text == aside.output_text
    assert told.client.conversations.delete(conversation.id).deleted
    for call in (
        lambda: respond(told, "x", conversation=conversation.id),
        lambda: told.client.conversations.retrieve(conversation.id),
        lambda: told.client.conversations.delete(conversation.id),
    ):
        with pytest.raises(NotFoundError) as caught:
            call()
        assert caught.value.code == "conversation_not_found"


def test_the_second_writer_is_told(told: Remembering) -> None:
    conversation = told.client.conversations.create().id
    told.watch.gate.clear()
    blocking = respond(told, "else")  # its update holds up the engine, so that the next answer cannot end
    assert told.watch.begun.wait(SECONDS)
    found: list[Any] = []
    writer = threading.Thread(target=lambda: found.append(respond(told, "one", conversation=conversation)))
    writer.start()
    until(lambda: told.memories.engine.load().waiting > 0)
    with pytest.raises(ConflictError) as caught:
        respond(told, "two", conversation=conversation)
    assert caught.value.code == "conversation_locked"
    told.watch.gate.set()
    writer.join(SECONDS)
    assert found[0].output_text == alone(told, ["one"])[0][0]
    assert respond(told, "two", conversation=conversation).output_text == alone(told, ["one", "two"])[0][1]
    assert blocking.id


def test_a_whole_history_is_written_once(told: Remembering) -> None:
    tokenizer, written = told.text.tokenizer, told.watch.written
    history = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "first"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "second"},
    ]
    asked = [*history, {"role": "user", "content": "three"}]
    text = chat(told, asked)
    turns = [interaction_ids(tokenizer, "one", "first"), interaction_ids(tokenizer, "two", "second")]
    until(lambda: len(written) == 3)
    assert written == [*turns, interaction_ids(tokenizer, "three", text)]
    longer = [*asked, {"role": "assistant", "content": text}, {"role": "user", "content": "four"}]
    again = chat(told, longer)
    until(lambda: told.memories.engine.writes >= 4)
    assert written[3:] == [interaction_ids(tokenizer, "four", again)], "one more turn, and nothing is replayed"
    assert told.memories.engine.writes == 4
    assert again != chat(told, longer[-1:]), "the history counts"


def test_a_history_says_the_same_on_a_server_that_never_saw_it(told: Remembering, start: Start) -> None:
    messages: list[Any] = []
    for text in ("one", "two", "three"):
        messages.append({"role": "user", "content": text})
        messages.append({"role": "assistant", "content": chat(told, messages)})
    messages.append({"role": "user", "content": "four"})
    other = start()
    assert chat(other, messages) == chat(told, messages)
    assert len(other.watch.written) >= 3


def test_several_answers_seeds_logprobs_and_grammars_are_honoured(told: Remembering) -> None:
    ask: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "one"}], "max_tokens": 6}
    several = told.client.chat.completions.create(**ask, n=3, seed=1)
    same = told.client.chat.completions.create(**ask, n=3, seed=1)
    texts = [choice.message.content for choice in several.choices]
    assert texts == [choice.message.content for choice in same.choices] and len(set(texts)) == 3
    shown = told.client.chat.completions.create(**ask, logprobs=True, top_logprobs=2).choices[0].logprobs
    assert shown is not None and shown.content is not None and len(shown.content[0].top_logprobs) == 2
    held = told.client.chat.completions.create(
        **{**ask, "max_tokens": 20}, extra_body={"response_format": {"type": "regex", "pattern": "[ab]{3}"}}
    )
    assert set(held.choices[0].message.content or "") <= set("ab")
    assert len(held.choices[0].message.content or "") == 3


def function(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


USER = {"role": "user", "content": "one"}


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("chat/completions", {"messages": [{"role": "system", "content": "be"}, USER]}, 400, "no place for a message"),
        ("chat/completions", {"messages": [USER], "tools": [function("f")]}, 400, "knows no tools"),
        ("chat/completions", {"messages": [USER], "files": [{"path": "a", "text": "b"}]}, 400, "shown no files"),
        ("chat/completions", {"messages": [USER, USER]}, 400, "got user, user"),
        ("chat/completions", {"messages": [USER, {"role": "assistant", "content": "x"}]}, 400, "one of 'user'"),
        ("chat/completions", {"messages": [{"role": "user", "content": " "}]}, 400, "is empty"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "x" * 900}]},
            400,
            "length is 64 tokens. However, your prompt has 903 tokens, and the answer takes 2 at least. Please reduce",
        ),
        (
            "chat/completions",
            {"messages": [USER, {"role": "assistant", "content": "y" * 900}, USER]},
            400,
            "an interaction of 9",
        ),
        ("chat/completions", {"messages": [USER], "store": True}, 400, "nothing is stored"),
        ("responses", {"input": "one", "instructions": "be"}, 400, "no place for a message"),
        ("responses", {"input": ""}, 400, "is empty"),
        ("responses", {"input": "one", "previous_response_id": "resp_0"}, 404, "not found"),
        ("responses", {"input": "one", "conversation": "conv_0"}, 404, "not found"),
        ("responses", {"input": "one", "conversation": {"id": 3}}, 400, "'conversation.id'"),
        ("responses", {"input": "one", "conversation": {"id": ""}}, 400, "'conversation.id': String should have at"),
        ("responses", {"input": "one", "conversation": "c" * 5000}, 404, f"there is no conversation '{'c' * 100}'."),
        ("responses", {"input": []}, 400, "'input': List should have at least 1 item"),
        ("responses", {"input": [{"type": "foo"}]}, 400, "'input[0]': its type is 'foo', and may be 'message'"),
        ("responses", {"input": [{**USER, "content": None}]}, 400, "content': Input should be a valid string"),
        ("responses", {"input": [{"type": "reasoning"}]}, 400, "'input': it has reasoning alone"),
        ("responses", [], 400, "no object"),
        ("responses", {"input": "one", "previous_response_id": "r", "conversation": "c"}, 400, "give one of them"),
        ("responses", {"input": "one", "previous_response_id": "\ud800"}, 400, "no JSON"),
        ("conversations", {"items": [USER]}, 400, "begins with nothing"),
        ("completions", {"prompt": "one"}, 400, "does not go on with text"),
        ("completions", {"prompt": [1, 2]}, 400, "does not go on with text"),
        ("embeddings", {"input": "one"}, 501, "no embeddings"),
        ("infill", {"input_prefix": "one"}, 501, "fills no holes"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    refusing: Remembering, path: str, body: Any, status: int, words: str
) -> None:
    before = len(refusing.watch.written)
    found, told = refusing.post(f"/{path}" if path == "infill" else f"/v1/{path}", body)
    assert found == status and words in told["error"]["message"], told
    assert len(refusing.watch.written) == before
    assert respond(refusing, "one", store=False).output_text == refusing_says(refusing)


def test_what_is_too_long_is_named_as_it_was_sent(refusing: Remembering) -> None:
    for path, name, body in (
        ("responses", "input", {"input": "x" * 900}),
        ("chat/completions", "messages", {"messages": [{"role": "user", "content": "x" * 900}]}),
    ):
        found, told = refusing.post(f"/v1/{path}", body)
        assert (found, told["error"]["param"], told["error"]["code"]) == (400, name, "context_length_exceeded")


@pytest.fixture(scope="module")
def refusing(folder: Path) -> Iterator[Remembering]:
    """One for all that is refused."""
    with remembering(folder) as server:
        yield server


def refusing_says(server: Remembering) -> str:
    return str(respond(server, "one", store=False).output_text)


def test_an_expired_memory_is_told(start: Start, tmp_path: Path) -> None:
    now = [1_000_000.0]
    with closing(SQLiteSessions(tmp_path / "s.sqlite", max_seconds=60, clock=lambda: now[0])) as store:
        server = start(store)
        first = respond(server, "one")
        conversation = server.client.conversations.create().id
        server.memories.behind(first.id).memory.result(SECONDS)
        begun = server.client.conversations.retrieve(conversation).created_at
        now[0] += 61
        assert server.client.conversations.retrieve(conversation).created_at == begun == 1_000_000
        server.memories.behind(respond(server, "else").id).memory.result(SECONDS)  # stored, and with it the limit kept
        for more in ({"previous_response_id": first.id}, {"conversation": conversation}):
            with pytest.raises(NotFoundError, match=r"was dropped at .*unused for"):
                respond(server, "two", **more)


def test_a_memory_of_another_model_is_refused(start: Start, tmp_path: Path) -> None:
    with closing(SQLiteSessions(tmp_path / "s.sqlite")) as store:
        first = start(store)
        id = respond(first, "one").id
        first.memories.behind(id).memory.result(SECONDS)
        other = start(store, seed=9)
        with pytest.raises(BadRequestError, match="a memory is read by the weights that wrote it"):
            respond(other, "two", previous_response_id=id)
        assert respond(first, "two", previous_response_id=id).output_text == alone(first, ["one", "two"])[0][1]


def test_a_damaged_memory_is_the_servers_fault(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with closing(SQLiteSessions(path)) as store:
        server = start(store)
        id = respond(server, "one").id
        server.memories.behind(id).memory.result(SECONDS)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE states SET state = zeroblob(100)")
        with pytest.raises(InternalServerError, match="is damaged") as caught:
            respond(server, "two", previous_response_id=id)
        assert caught.value.code == "store_error"


def test_an_update_without_numbers_leaves_the_last_good_memory(told: Remembering) -> None:
    conversation = told.client.conversations.create().id
    first = respond(told, "one", conversation=conversation)
    told.memories.at(conversation).memory.result(SECONDS)
    told.watch.wrong = float("nan")
    lost = respond(told, "two", conversation=conversation)
    assert lost.status in ("completed", "incomplete"), "the answer was good"
    with pytest.raises(NotFoundError):
        respond(told, "three", previous_response_id=lost.id)  # it waited for the update, or came behind it
    told.watch.wrong = 1.0
    until(lambda: not told.memories._pending)
    with pytest.raises(NotFoundError, match=r"not found: the memory could not be written .* version 1 of the memory"):
        respond(told, "three", previous_response_id=lost.id)
    patient = told.client.with_options(max_retries=2)
    with pytest.raises(InternalServerError, match=r"could not be written .* version 1 of the memory") as failed:
        patient.responses.create(model="tiny", input="three", conversation=conversation)
    assert (failed.value.code, failed.value.param) == ("interaction_lost", "conversation")
    later = respond(told, "three", conversation=conversation)
    assert later.output_text == alone(told, ["one", "three"])[0][1]
    assert first.output_text == alone(told, ["one"])[0][0]


def test_who_waits_for_an_update_that_fails_is_told_as_whoever_comes_later(told: Remembering) -> None:
    conversation = told.client.conversations.create().id
    patient = told.client.with_options(max_retries=2)
    for place in ("conversation", "previous_response_id"):
        told.watch.wrong = float("nan")
        told.watch.gate.clear()
        lost = respond(told, "two", **{"conversation": conversation} if place == "conversation" else {})
        given = {place: conversation if place == "conversation" else lost.id}
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(patient.responses.create, model="tiny", input="three", **given)
            until(lambda: told.memories.engine.load().waiting > 0)
            told.watch.gate.set()
            error = waiting.exception()
        told.watch.wrong = 1.0
        assert isinstance(error, APIStatusError)
        expected = (500, "interaction_lost") if place == "conversation" else (404, "previous_response_not_found")
        assert (error.status_code, error.code, error.param) == (*expected, place)
        assert "could not be written" in str(error)
    events = list(patient.responses.create(model="tiny", input="four", conversation=conversation, stream=True))
    assert events[-1].type in ("response.completed", "response.incomplete"), "it was told once"


def test_of_two_servers_that_answer_at_once_the_later_one_tells(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with closing(SQLiteSessions(path)) as store, closing(SQLiteSessions(path)) as other:
        first, second = start(store), start(other)
        conversation = first.client.conversations.create().id
        second.watch.gate.clear()
        beside = respond(second, "two", conversation=conversation)
        won = respond(first, "one", conversation=conversation)
        first.memories.at(conversation).memory.result(SECONDS)
        second.watch.gate.set()
        until(lambda: not second.memories._pending)
        patient = second.client.with_options(max_retries=2)
        with pytest.raises(InternalServerError, match=f"it is kept as '{beside.id}'") as told:
            patient.responses.create(model="tiny", input="three", conversation=conversation)
        assert (told.value.code, told.value.param) == ("interaction_lost", "conversation")
        later = respond(second, "three", conversation=conversation)
        aside = respond(second, "three", previous_response_id=beside.id)
        said = [alone(first, [text, "three"])[0] for text in ("one", "two")]
        assert [[won.output_text, later.output_text], [beside.output_text, aside.output_text]] == said


def test_a_response_can_be_deleted(told: Remembering) -> None:
    id = respond(told, "one").id
    told.memories.behind(id).memory.result(SECONDS)
    told.client.responses.delete(id)
    with pytest.raises(NotFoundError):
        respond(told, "two", previous_response_id=id)
    with pytest.raises(NotFoundError, match=f"Response with id '{id}' not found") as caught:
        told.client.responses.delete(id)
    assert (caught.value.code, caught.value.param) == ("response_not_found", "response_id")


def test_what_is_being_answered_is_locked(told: Remembering) -> None:
    told.watch.gate.clear()
    respond(told, "else")
    assert told.watch.begun.wait(SECONDS)  # the engine is held up, so that nothing is answered
    with respond(told, "one", stream=True) as stream:
        id = next(iter(stream)).response.id
        with pytest.raises(ConflictError, match="is being answered") as caught:
            told.client.responses.delete(id)
        assert (caught.value.code, caught.value.param) == ("response_in_progress", None)
        told.watch.gate.set()
        assert [event.type for event in stream][-1] in ("response.completed", "response.incomplete")
    told.client.responses.delete(id)


def test_too_many_leave_the_conversation_free(start: Start) -> None:
    server = start(max_waiting=1)
    conversation = server.client.conversations.create().id
    server.watch.gate.clear()
    respond(server, "else")
    assert server.watch.begun.wait(SECONDS)
    waiting = threading.Thread(target=lambda: respond(server, "one"))
    waiting.start()
    until(lambda: server.memories.engine.load().waiting > 0)
    status, told = server.post("/v1/responses", {"input": "two", "conversation": conversation})
    assert status == 429, told
    server.watch.gate.set()
    waiting.join(SECONDS)
    assert respond(server, "two", conversation=conversation).status in ("completed", "incomplete")


def test_turns_of_the_input_are_written_on_top_and_bad_ones_leave_the_conversation_free(told: Remembering) -> None:
    conversation = told.client.conversations.create().id
    said, _ = alone(told, ["one"])
    turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "y" * 900}]
    last = {"role": "user", "content": "two"}
    with pytest.raises(BadRequestError, match="an interaction of"):
        respond(told, [*turns, last], conversation=conversation)  # type: ignore[arg-type]
    assert respond(told, "one", conversation=conversation).output_text == said[0]
    told.memories.at(conversation).memory.result(SECONDS)
    turns[1]["content"] = "well"
    respond(told, [*turns, last], conversation=conversation)  # type: ignore[arg-type]
    assert told.memories.at(conversation).memory.result(SECONDS).version == 3
    row = interaction_ids(told.text.tokenizer, "one", "well")
    assert row in told.watch.written


def test_it_says_that_it_answers_messages(told: Remembering) -> None:
    model = told.client.models.retrieve("tiny")
    assert model.model_extra is not None
    assert (model.model_extra["chats"], model.model_extra["max_model_len"]) == (True, 64)


def test_a_full_disk_is_the_servers_fault(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(SQLiteSessions(tmp_path / "s.sqlite")) as store:
        server = start(store)
        first = respond(server, "one")
        server.memories.behind(first.id).memory.result(SECONDS)

        def full(*_: Any) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr("riallm.engine.sqlite_sessions._remove", full)
        monkeypatch.setattr("riallm.engine.sqlite_sessions._move", full)
        for call in (lambda: server.client.conversations.create(), lambda: server.client.responses.delete(first.id)):
            with pytest.raises(InternalServerError, match="disk is full") as caught:
                call()
            assert caught.value.code == "store_error"
        monkeypatch.undo()
        server.client.responses.delete(first.id)
