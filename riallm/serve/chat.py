"""POST /v1/chat/completions: messages to prompts, answers to choices or chunks, calls of tools among them."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from riallm.engine.request import Delta, Finish, Grammar, Interaction, Request, Token
from riallm.serve import logprobs
from riallm.serve.answer import Answers, in_thread
from riallm.serve.asking import Room, agentic, files_of, needs_stream, reason, schema_of, stops_of
from riallm.serve.errors import ApiError, refused
from riallm.serve.served import Prompt
from riallm.serve.stream import DONE, event
from riallm.serve.tool_calls import Arguments, Begin, CallReader, Event
from riallm.serve.wire import ResponseFormat
from riallm.serve.wire_chat import ChatBody, NamedTool, Tool, ToolChoice, for_template

FINGERPRINT = "riallm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One piece of one choice, read: its events, the tokens they are of, and how it ended when it did."""

    index: int
    events: tuple[Event, ...]
    tokens: tuple[Token, ...]
    finish: Finish | None
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What may be called. offered: as templates read them; none when the model need not know of any. strict: names of
    those whose arguments are held to their schema even where no call must be."""

    offered: tuple[dict[str, Any], ...] = ()
    strict: tuple[str, ...] = ()
    must: bool = False
    parallel: bool = True

    @property
    def names(self) -> frozenset[str]:
        """Of functions that may be called."""
        return frozenset(tool["function"]["name"] for tool in self.offered)


def tools_of(tools: Sequence[Tool], choice: ToolChoice | None, parallel: bool | None) -> Tools:
    """What a request offers. Raises ApiError for a choice that there is not."""
    offered: tuple[dict[str, Any], ...] = tuple(
        {"type": "function", "function": tool.function.model_dump(exclude_none=True, exclude={"strict"})}
        for tool in tools
    )
    names = [tool["function"]["name"] for tool in offered]
    if len(set(names)) < len(names):
        raise ApiError(400, "Two tools have one name.", param="tools", code="invalid_value")
    if choice is not None and not offered and choice not in ("none", "auto"):
        raise refused("tool_choice", "'tool_choice' is only allowed when 'tools' are specified.")
    if isinstance(choice, NamedTool):
        name = choice.function.name
        if name not in names:
            raise ApiError(400, f"There is no tool '{name}'.", param="tool_choice", code="invalid_value")
        offered = tuple(tool for tool in offered if tool["function"]["name"] == name)
    if choice == "none":
        return Tools()
    must = choice == "required" or isinstance(choice, NamedTool)
    strict = tuple(tool.function.name for tool in tools if tool.function.strict)
    return Tools(offered=offered, strict=strict, must=must, parallel=parallel is not False)


def grammar_of(room: Room, tools: Tools, form: ResponseFormat | None) -> Grammar | None:
    """What the answer must be: calls, a format, or either."""
    if tools.must:
        return room.grammars.tool_calls(tools.offered, parallel=tools.parallel)
    if not tools.offered:
        return room.grammar(form)
    if form is None or form.type == "text":
        return room.grammars.text_and_calls(_held(tools), parallel=tools.parallel) if tools.strict else None
    if form.type == "regex":
        raise refused("response_format", "A regex and tools are not held together; leave one of them out.")
    answer: Mapping[str, Any] = {"type": "object"} if form.type == "json_object" else schema_of(form)
    return room.grammars.tool_calls(tools.offered, parallel=tools.parallel, answer=answer)


def _held(tools: Tools) -> list[dict[str, Any]]:
    """The tools, those that are not strict without a schema."""
    return [
        tool if tool["function"]["name"] in tools.strict else {"function": {"name": tool["function"]["name"]}}
        for tool in tools.offered
    ]


class Chat:
    """One chat request. Messages are as templates read them."""

    def __init__(
        self, room: Room, body: ChatBody, *, interaction: Callable[[Prompt], Interaction | None] | None = None
    ) -> None:
        """interaction: what a model with a memory does with the prompt; None: all of its history is there. Raises
        ApiError for what cannot be honoured."""
        agentic(body.agentic_mode, body.tools)
        needs_stream(body.stream, body.stream_options)
        if body.top_logprobs is not None and not body.logprobs:
            raise refused("top_logprobs", "'top_logprobs' is only allowed when 'logprobs' is true.")
        if body.max_tokens is not None and body.max_completion_tokens is not None:
            raise refused("max_tokens", "'max_tokens' and 'max_completion_tokens' are one; give one of them.")
        self.room, self.body = room, body
        self._interaction = interaction or self._of_history
        self.messages = for_template(body.messages)
        objects = [tool for tool in body.tools or () if isinstance(tool, Tool)]
        self.tools = tools_of(objects, body.tool_choice, body.parallel_tool_calls)
        self.num = body.n or 1
        self.answers = Answers(room.tally, per_prompt=self.num)
        self.id = f"chatcmpl-{secrets.token_hex(12)}"
        self.created = int(time.time())

    async def ask(self) -> None:
        """Hand it to the engine."""
        requests = await in_thread(self._requests)
        await self.answers.ask(self.room.served.engine, requests, max_waiting=self.room.options.max_waiting)

    def _requests(self) -> list[Request]:
        room, body, served = self.room, self.body, self.room.served
        prompt: Prompt = served.prompts.chat(self.messages, tools=self.tools.offered, files=files_of(body.files))
        asked = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
        max_tokens = room.max_tokens(prompt, asked)
        drawn = [room.sampling(body, index=index) for index in range(self.num)]
        grammars = [grammar_of(room, self.tools, body.response_format) for _ in drawn]
        # Last, since from then on somebody may wait for what is remembered.
        interactions = [self._interaction(prompt) for _ in drawn]
        return [
            Request(
                ids=prompt.ids,
                meta=prompt.meta,
                max_tokens=max_tokens,
                sampling=drawn[index],
                ends=served.tokenizer.ends,
                stop=stops_of(body.stop),
                logprobs=(body.top_logprobs or 0) if body.logprobs else None,
                grammar=grammars[index],
                interaction=interactions[index],
            )
            for index in range(self.num)
        ]

    def _of_history(self, prompt: Prompt) -> Interaction | None:
        memories = self.room.served.memories
        if memories is None or prompt.whole is None:
            return None
        return memories.chat(memories.read(memories.new(), prompt.history), prompt.whole)

    async def turns(self) -> AsyncIterator[Turn]:
        """Pieces of all choices, read."""
        readers = [CallReader(self.tools.names) if self.tools.offered else None for _ in range(self.num)]
        async for index, piece in self.answers.pieces():
            reader = readers[index]
            events: list[Event] = [piece.text] if piece.text and reader is None else []
            if reader is not None:
                events = _read(reader, piece)
                if not self.tools.parallel and reader.closed:
                    first = [at for at, each in enumerate(events) if not isinstance(each, str) and each.index == 0]
                    events = events[: first[-1] + 1] if first else []
                    self.answers.stop(index)
            yield Turn(
                index=index,
                events=tuple(events),
                tokens=piece.tokens,
                finish=piece.finish,
                calls=reader.calls if reader else 0,
            )

    async def whole(self) -> dict[str, Any]:
        """The answer in one."""
        choices = [_Choice() for _ in range(self.num)]
        async for turn in self.turns():
            choices[turn.index].add(turn)
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.room.name,
            "system_fingerprint": FINGERPRINT,
            "choices": [
                {
                    "index": index,
                    "message": choice.message(),
                    "logprobs": self._logprobs(choice.tokens),
                    "finish_reason": reason(choice.finish, calls=bool(choice.calls)),
                }
                for index, choice in enumerate(choices)
            ],
            "usage": self.room.usage(),
        }

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The answer as events."""
        usage = bool(self.body.stream_options and self.body.stream_options.include_usage)
        for index in range(self.num):
            yield self._chunk(index, {"role": "assistant", "content": ""}, usage=usage)
        held: list[list[Token]] = [[] for _ in range(self.num)]
        async for turn in self.turns():
            held[turn.index] += turn.tokens
            for each in turn.events:
                tokens, held[turn.index] = held[turn.index], []
                yield self._chunk(turn.index, _delta(each), usage=usage, tokens=tokens)
            if turn.finish is not None:
                finish = reason(turn.finish, calls=bool(turn.calls))
                yield self._chunk(turn.index, {}, usage=usage, tokens=held[turn.index], finish=finish)
        if usage:
            yield event({**self._head(), "choices": [], "usage": self.room.usage()})
        yield DONE

    def failed(self, error: ApiError) -> bytes:
        """The event that says so."""
        return event(error.body)

    def _head(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.room.name,
            "system_fingerprint": FINGERPRINT,
        }

    def _chunk(
        self,
        index: int,
        delta: Mapping[str, Any],
        *,
        usage: bool,
        tokens: Sequence[Token] = (),
        finish: str | None = None,
    ) -> bytes:
        shown = self._logprobs(tokens) if tokens else None
        choice = {"index": index, "delta": delta, "logprobs": shown, "finish_reason": finish}
        return event({**self._head(), "choices": [choice], **({"usage": None} if usage else {})})

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        return logprobs.for_chat(tokens, self.room.served.tokenizer) if self.body.logprobs else None


class _Choice:
    """A choice that is put together from its pieces."""

    def __init__(self) -> None:
        self.text = ""
        self.calls: list[dict[str, Any]] = []
        self.tokens: list[Token] = []
        self.finish: Finish = "stop"

    def add(self, turn: Turn) -> None:
        self.tokens += turn.tokens
        self.finish = turn.finish or self.finish
        for each in turn.events:
            if isinstance(each, str):
                self.text += each
            elif isinstance(each, Begin):
                function = {"name": each.name, "arguments": ""}
                self.calls.append({"id": each.id, "type": "function", "function": function})
            else:
                self.calls[each.index]["function"]["arguments"] += each.text

    def message(self) -> dict[str, Any]:
        content = None if self.calls and not self.text else self.text
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        return {**message, "tool_calls": self.calls} if self.calls else message


def _read(reader: CallReader, piece: Delta) -> list[Event]:
    events = reader.feed(piece.text) if piece.text else []
    return events + (reader.finish() if piece.finish is not None else [])


def _delta(each: Event) -> dict[str, Any]:
    """id and name come once, then nothing but fragments of the arguments."""
    if isinstance(each, str):
        return {"content": each}
    if isinstance(each, Arguments):
        return {"tool_calls": [{"index": each.index, "function": {"arguments": each.text}}]}
    function = {"name": each.name, "arguments": ""}
    return {"tool_calls": [{"index": each.index, "id": each.id, "type": "function", "function": function}]}
