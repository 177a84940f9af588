"""The body of a chat request: messages, tools, and what must hold between them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from riallm.serve.errors import ApiError
from riallm.serve.wire import Answering, Content, Count, Wire, text_of

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.:-]{1,128}$")]


class Function(Wire):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Wire):
    type: Literal["function"]
    function: Function


class CalledFunction(Wire):
    name: Name
    arguments: str


class ToolCall(Wire):
    id: Annotated[str, Field(min_length=1)]
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class Message(Wire):
    """name, refusal and reasoning_content are let through and change nothing: templates do not know them."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> Message:
        if self.role != "assistant" and (self.tool_calls or self.content is None):
            raise ValueError(f"a message of role {self.role} has content and no tool_calls")
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise ValueError("a message has tool_call_id if and only if its role is tool")
        return self


class NamedFunction(Wire):
    name: Name


class NamedTool(Wire):
    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedTool


class ChatBody(Answering):
    """POST /v1/chat/completions"""

    messages: Annotated[list[Message], Field(min_length=1)]
    tools: list[Tool] | list[str] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    agentic_mode: bool | None = None


def for_template(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """As chat templates read them: developer is system, content is text, arguments are an object. Raises ApiError."""
    check_answers(messages)
    return [_for_template(message) for message in messages]


def _for_template(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": text_of(message.content),
    }
    if message.tool_calls:
        made["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": _object(call.function.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        made["tool_call_id"] = message.tool_call_id
    return made


def _object(arguments: str) -> Any:
    """What a call was made with; text that is no JSON stays text, since models write such calls."""
    try:
        return json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments


def check_answers(messages: Sequence[Message]) -> None:
    """Every call has its answer before anyone else speaks, and every answer its call, as OpenAI wants it."""
    open_ids: set[str] = set()
    for at, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in open_ids:
                raise ApiError(
                    400,
                    f"messages with role 'tool' must follow a message with 'tool_calls' that has their tool_call_id; "
                    f"messages[{at}] does not",
                    param=f"messages[{at}].tool_call_id",
                    code="invalid_value",
                )
            open_ids.discard(message.tool_call_id)
            continue
        _closed(open_ids, at)
        open_ids = {call.id for call in message.tool_calls or ()}
    _closed(open_ids, len(messages))


def _closed(open_ids: set[str], at: int) -> None:
    if open_ids:
        raise ApiError(
            400,
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            "'tool_call_id'. The following tool_call_ids did not have response messages: "
            + ", ".join(sorted(open_ids)),
            param=f"messages[{at - 1}]",
            code="invalid_value",
        )
