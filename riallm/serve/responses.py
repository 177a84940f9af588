"""POST /v1/responses: chat in the shape of items and named events. What a model with a memory knows behind a response
is kept under its id; of other models nothing is."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from riallm.engine.request import Finish
from riallm.serve.answer import Answers
from riallm.serve.asking import Room
from riallm.serve.chat import Chat
from riallm.serve.errors import ApiError
from riallm.serve.remembering import Remembering
from riallm.serve.stream import event
from riallm.serve.tool_calls import Arguments, Begin, Event
from riallm.serve.wire_responses import ResponseBody, as_chat, renamed


class Response:
    """One request for a response."""

    def __init__(self, room: Room, body: ResponseBody) -> None:
        """Raises ApiError for what cannot be honoured."""
        self.room, self.body = room, body
        self._remembering = Remembering(room, body)
        try:
            self._chat = Chat(room, as_chat(body), interaction=self._remembering.interaction)
        except ApiError as error:
            raise renamed(error) from None
        self.id = f"resp_{secrets.token_hex(16)}"
        self.created = int(time.time())
        self._items = Items()

    @property
    def answers(self) -> Answers:
        """What was asked of the engine."""
        return self._chat.answers

    async def ask(self) -> None:
        """Hand it to the engine."""
        try:
            await self._chat.ask()
        except ApiError as error:
            self._remembering.drop()
            raise renamed(error) from None
        except BaseException:
            self._remembering.drop()
            raise
        if self._remembering.saying is not None:
            self.id = self._remembering.saying.id

    async def whole(self) -> dict[str, Any]:
        """The answer in one."""
        finish: Finish = "stop"
        try:
            async for turn in self._chat.turns():
                for each in turn.events:
                    list(self._items.take(each))
                finish = turn.finish or finish
        except ApiError as error:
            raise self._remembering.why(error) from None
        list(self._items.end(finish))
        return self._object(finish)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The answer as events."""
        yield self._event({"type": "response.created", "response": self._object(None)})
        yield self._event({"type": "response.in_progress", "response": self._object(None)})
        finish: Finish = "stop"
        async for turn in self._chat.turns():
            for each in turn.events:
                for told in self._items.take(each):
                    yield self._event(told)
            finish = turn.finish or finish
        for told in self._items.end(finish):
            yield self._event(told)
        kind = "response.incomplete" if finish == "length" else "response.completed"
        yield self._event({"type": kind, "response": self._object(finish)})

    def failed(self, error: ApiError) -> bytes:
        """The event that says so."""
        error = self._remembering.why(error)
        said = {"code": error.code or "server_error", "message": str(error)}
        return self._event({"type": "response.failed", "response": {**self._object("error"), "error": said}})

    def _event(self, value: dict[str, Any]) -> bytes:
        return event({**value, "sequence_number": self._items.number()}, name=value["type"])

    def _object(self, finish: Finish | None) -> dict[str, Any]:
        body, cut = self.body, finish == "length"
        status = "in_progress" if finish is None else "incomplete" if cut else "completed"
        choice = body.tool_choice or "auto"
        form = body.text.format if body.text is not None else None
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": "failed" if finish == "error" else status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": self.room.name,
            "output": self._items.done,
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "reasoning": {"effort": None, "summary": None},
            "temperature": 1.0 if body.temperature is None else body.temperature,
            "text": {"format": form.model_dump(by_alias=True, exclude_none=True) if form else {"type": "text"}},
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "tools": [tool for tool in body.tools or () if tool.get("type") == "function"],
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "truncation": "disabled",
            "usage": None if finish is None else self._usage(),
            "user": None,
            "metadata": {},
            **self._remembering.told,
        }

    def _usage(self) -> dict[str, Any]:
        tally = self.room.tally
        return {
            "input_tokens": tally.prompt_tokens,
            "input_tokens_details": {"cached_tokens": tally.cached_tokens},
            "output_tokens": tally.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tally.prompt_tokens + tally.completion_tokens,
        }


class Items:
    """The items of a response, while they are written: a message, then calls."""

    def __init__(self) -> None:
        self.done: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._numbers = 0

    def number(self) -> int:
        """Of the next event."""
        self._numbers += 1
        return self._numbers - 1

    def take(self, each: Event) -> Iterator[dict[str, Any]]:
        """Events that one more piece of the answer makes."""
        if isinstance(each, str):
            if self._open is None or self._open["type"] != "message":
                yield from self._close("completed")
                yield from self._message()
            yield {"type": "response.output_text.delta", **self._part(), "delta": each, "logprobs": []}
            assert self._open is not None
            self._open["content"][0]["text"] += each
        elif isinstance(each, Begin):
            yield from self._close("completed")
            head = {"id": f"fc_{secrets.token_hex(12)}", "type": "function_call", "status": "in_progress"}
            yield from self._begin({**head, "call_id": each.id, "name": each.name, "arguments": ""})
        elif isinstance(each, Arguments):
            assert self._open is not None
            self._open["arguments"] += each.text
            yield {"type": "response.function_call_arguments.delta", **self._place(), "delta": each.text}

    def end(self, finish: Finish) -> Iterator[dict[str, Any]]:
        """Events of the end; an answer of nothing is an empty message."""
        if self._open is None and not self.done:
            yield from self._message()
        yield from self._close("incomplete" if finish == "length" else "completed")

    def _message(self) -> Iterator[dict[str, Any]]:
        head = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "status": "in_progress", "role": "assistant"}
        yield from self._begin({**head, "content": []})
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield {"type": "response.content_part.added", **self._part(), "part": part}
        assert self._open is not None
        self._open["content"] = [dict(part)]

    def _begin(self, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
        self._open = item
        yield {"type": "response.output_item.added", "output_index": len(self.done), "item": dict(item)}

    def _close(self, status: str) -> Iterator[dict[str, Any]]:
        item = self._open
        if item is None:
            return
        if item["type"] == "message":
            part = item["content"][0]
            yield {"type": "response.output_text.done", **self._part(), "text": part["text"], "logprobs": []}
            yield {"type": "response.content_part.done", **self._part(), "part": part}
        else:
            said = {"arguments": item["arguments"], "name": item["name"]}
            yield {"type": "response.function_call_arguments.done", **self._place(), **said}
        item["status"] = status
        yield {"type": "response.output_item.done", "output_index": len(self.done), "item": item}
        self.done.append(item)
        self._open = None

    def _place(self) -> dict[str, Any]:
        assert self._open is not None
        return {"item_id": self._open["id"], "output_index": len(self.done)}

    def _part(self) -> dict[str, Any]:
        return {**self._place(), "content_index": 0}
