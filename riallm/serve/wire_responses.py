"""The body of a request for a response, and how it becomes one of chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, FiniteFloat, Tag, ValidationError

from riallm.serve.errors import ApiError, of_validation
from riallm.serve.wire import Content, Count, FileText, JsonSchema, TextPart, Wire
from riallm.serve.wire_chat import ChatBody, Function, Name


class InputMessage(Wire):
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class FunctionCall(Wire):
    type: Literal["function_call"]
    call_id: Annotated[str, Field(min_length=1)]
    name: Name
    arguments: str
    id: str | None = None
    status: str | None = None


class FunctionCallOutput(Wire):
    type: Literal["function_call_output"]
    call_id: Annotated[str, Field(min_length=1)]
    output: Content
    id: str | None = None
    status: str | None = None


class Reasoning(Wire):
    """Of another model; it is passed over."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)
    type: Literal["reasoning"]


def _kind(value: Any) -> str | None:
    kind = value.get("type", "message") if isinstance(value, Mapping) else getattr(value, "type", None)
    return kind if isinstance(kind, str) else None


Item = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")]
    | Annotated[Reasoning, Tag("reasoning")],
    Discriminator(_kind),
]


class TextFormat(Wire):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class TextOptions(Wire):
    format: TextFormat | None = None
    verbosity: str | None = None


class NamedChoice(Wire):
    type: Literal["function"]
    name: Name


class ConversationRef(Wire):
    id: Annotated[str, Field(min_length=1)]


class ResponseBody(Wire):
    """POST /v1/responses"""

    model: str | None = None
    input: str | Annotated[list[Item], Field(min_length=1)]
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    max_output_tokens: Count | None = None
    temperature: Annotated[FiniteFloat, Field(ge=0, le=2)] | None = None
    top_p: Annotated[FiniteFloat, Field(gt=0, le=1)] | None = None
    text: TextOptions | None = None
    store: bool | None = None
    previous_response_id: Annotated[str, Field(min_length=1)] | None = None
    conversation: Annotated[str, Field(min_length=1)] | ConversationRef | None = None
    files: list[FileText] | None = None


class ConversationBody(Wire):
    """POST /v1/conversations"""

    model: str | None = None


class FunctionTool(Function):
    """A tool of this endpoint: flat, where chat has an object inside."""

    type: Literal["function"]


def as_chat(body: ResponseBody) -> ChatBody:
    """The same request to chat. Raises ApiError, with `input` for what chat calls messages."""
    messages = _messages(body)
    if not messages:
        said = "Invalid value for 'input': it has reasoning alone, which is passed over; say something."
        raise ApiError(400, said, param="input", code="invalid_value")
    made: dict[str, Any] = {
        "messages": messages,
        "tools": _tools(body) or None,
        "tool_choice": _choice(body),
        "parallel_tool_calls": body.parallel_tool_calls,
        "max_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "response_format": _format(body),
        "files": [file.model_dump() for file in body.files] if body.files is not None else None,
    }
    try:
        return ChatBody.model_validate(made)
    except ValidationError as error:
        raise renamed(of_validation(error)) from None


def renamed(error: ApiError) -> ApiError:
    """An error of chat in the words of this endpoint."""
    param = "input" if error.param and error.param.startswith("messages") else error.param
    return ApiError(error.status, str(error), param=param, code=error.code, headers=error.headers)


def _messages(body: ResponseBody) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if body.instructions:
        messages.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        return [*messages, {"role": "user", "content": body.input}]
    for item in body.input:
        if isinstance(item, InputMessage):
            parts = item.content if isinstance(item.content, str) else [part.model_dump() for part in item.content]
            messages.append({"role": item.role, "content": parts})
        elif isinstance(item, FunctionCall):
            call = {"id": item.call_id, "function": {"name": item.name, "arguments": item.arguments}}
            # Calls in a row, and the text before them, are one turn of the model.
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            messages[-1].setdefault("tool_calls", []).append(call)
        elif isinstance(item, FunctionCallOutput):
            output = item.output if isinstance(item.output, str) else "".join(part.text for part in item.output or ())
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": output})
    return messages


def _tools(body: ResponseBody) -> list[dict[str, Any]]:
    """Functions; whatever else is offered (web search, namespaces) is not for us."""
    found = []
    for at, tool in enumerate(body.tools or ()):
        if tool.get("type") == "function":
            try:
                function = FunctionTool.model_validate(tool).model_dump(exclude={"type"})
            except ValidationError as error:
                wrong = of_validation(error)
                raise ApiError(400, str(wrong), param=f"tools[{at}].{wrong.param}", code=wrong.code) from None
            found.append({"type": "function", "function": function})
    return found


def _choice(body: ResponseBody) -> Any:
    choice = body.tool_choice
    return {"type": "function", "function": {"name": choice.name}} if isinstance(choice, NamedChoice) else choice


def _format(body: ResponseBody) -> dict[str, Any] | None:
    form = body.text.format if body.text is not None else None
    if form is None:
        return None
    schema = None
    if form.type == "json_schema":
        schema = JsonSchema.model_validate({"name": form.name, "schema": form.schema_}).model_dump(by_alias=True)
    return {"type": form.type, "json_schema": schema}
