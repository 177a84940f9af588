"""Responses by the real client: items, events, tools, and what is not stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from openai import BadRequestError
from serving import Running

from riallm.testing.engine import ScriptedEngine

Start = Callable[..., Running]

CALL = 'Well.\n<tool_call>\n{"name": "run", "arguments": {"command": "ls"}}\n</tool_call>'
TOOL: Any = {"type": "function", "name": "run", "parameters": {"type": "object"}, "strict": False}


@pytest.fixture
def told(start: Start) -> Running:
    return start(ScriptedEngine(answers={"list!": CALL, "user\nhi": "Hello"}))


def test_text_in_one(told: Running) -> None:
    made = told.client.responses.create(model="scripted", input="hi", instructions="be brief")
    assert (made.output_text, made.status, made.store) == ("Hello", "completed", False)
    assert made.usage is not None
    assert (made.usage.output_tokens, made.usage.input_tokens) == (5, len(told.engine.asked[0].ids))
    prompt = told.engine.tokenizer.decode_bytes(told.engine.asked[0].ids, specials=True).decode()
    assert prompt.startswith("<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>")
    made = told.client.responses.create(model="scripted", input="hi", max_output_tokens=2)
    assert (made.output_text, made.status) == ("He", "incomplete")
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"


def test_the_events_of_a_text(told: Running) -> None:
    events = list(told.client.responses.create(model="scripted", input="hi", stream=True))
    kinds = [event.type for event in events]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 5,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "Hello"
    assert last.response.usage is not None
    named = told.events("/v1/responses", {"input": "hi", "stream": True})
    assert all(name == value["type"] for name, value in named)
    added, done = (
        value for name, value in named if name in ("response.output_item.added", "response.output_item.done")
    )
    assert (added["item"]["content"], added["item"]["status"]) == ([], "in_progress")
    assert done["item"]["content"][0]["text"] == "Hello"


def test_a_call_and_its_result(told: Running) -> None:
    events = list(told.client.responses.create(model="scripted", input="list!", tools=[TOOL], stream=True))
    last = events[-1]
    assert last.type == "response.completed"
    message, call = last.response.output
    assert (message.type, call.type) == ("message", "function_call")
    assert (call.name, json.loads(call.arguments)) == ("run", {"command": "ls"})  # type: ignore[union-attr]
    pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(pieces) == call.arguments  # type: ignore[union-attr]
    assert "response.function_call_arguments.done" in {event.type for event in events}
    told.client.responses.create(
        model="scripted",
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "list!"}]},
            {"type": "reasoning", "id": "r", "summary": []},
            *[item.model_dump(exclude_none=True) for item in last.response.output],
            {"type": "function_call_output", "call_id": call.call_id, "output": "a.py"},  # type: ignore[union-attr]
        ],
        tools=[TOOL, {"type": "web_search"}],
    )
    prompt = told.engine.tokenizer.decode_bytes(told.engine.asked[-1].ids, specials=True).decode()
    assert "<|im_start|>assistant\nWell.\n<tool_call>" in prompt
    assert "<tool_response>\na.py\n</tool_response>" in prompt
    assert "web_search" not in prompt


def test_a_schema(told: Running) -> None:
    form: Any = {
        "type": "json_schema",
        "name": "n",
        "schema": {
            "type": "object",
            "properties": {"n": {"const": 1}},
            "required": ["n"],
            "additionalProperties": False,
        },
    }
    made = told.client.responses.create(model="scripted", input="hi", text={"format": form})
    assert json.loads(made.output_text) == {"n": 1}


@pytest.mark.parametrize(
    "more", [{"store": True}, {"previous_response_id": "resp_1"}, {"background": True}, {"conversation": "c"}]
)
def test_what_would_have_to_be_stored_is_refused(told: Running, more: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as caught:
        told.client.responses.create(model="scripted", input="hi", **more)
    assert caught.value.param in more
    told.client.responses.create(model="scripted", input="hi", store=False)


def test_errors_speak_of_input(told: Running) -> None:
    with pytest.raises(BadRequestError) as caught:
        told.client.responses.create(
            model="scripted", input=[{"type": "function_call_output", "call_id": "x", "output": "y"}]
        )
    assert caught.value.param == "input"
    with pytest.raises(BadRequestError) as caught:
        told.client.responses.create(model="scripted", input=[{"type": "computer_call"}])  # type: ignore[list-item, misc]
    assert caught.value.param is not None
    assert caught.value.param.startswith("input")


def test_a_failure_is_an_event(start: Start) -> None:
    server = start(ScriptedEngine(fail_after=2))
    events = list(server.client.responses.create(model="scripted", input="hi", stream=True))
    last = events[-1]
    assert last.type == "response.failed"
    assert last.response.status == "failed"
    assert last.response.error is not None
    assert "told to fail" in last.response.error.message
