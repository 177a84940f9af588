"""POST /v1/completions: text or ids gone on with, or the hole between a prompt and a suffix filled."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from riallm.engine.request import Finish, Request, Token
from riallm.serve import logprobs
from riallm.serve.answer import Answers, in_thread
from riallm.serve.asking import Room, files_of, missing, needs_stream, reason, stops_of
from riallm.serve.errors import ApiError, refused
from riallm.serve.served import Prompt
from riallm.serve.stream import DONE, event
from riallm.serve.wire import CompletionBody

DEFAULT_TOKENS = 16


class Completion:
    """One completion request."""

    def __init__(self, room: Room, body: CompletionBody) -> None:
        """Raises ApiError for what cannot be honoured."""
        needs_stream(body.stream, body.stream_options)
        if body.echo and body.logprobs is not None:
            raise refused("logprobs", "The prompt's log-probabilities are not computed; ask without echo.")
        self.room, self.body = room, body
        self.prompts = prompts_of(body.prompt)
        if body.suffix is not None and not all(isinstance(prompt, str) for prompt in self.prompts):
            raise refused("suffix", "A suffix belongs to a prompt that is text; with ids write the markers yourself.")
        self.num = body.n or 1
        self.answers = Answers(room.tally, per_prompt=self.num)
        self.id = f"cmpl-{secrets.token_hex(12)}"
        self.created = int(time.time())

    async def ask(self) -> None:
        """Hand it to the engine."""
        requests = await in_thread(self._requests)
        await self.answers.ask(self.room.served.engine, requests, max_waiting=self.room.options.max_waiting)

    def _requests(self) -> list[Request]:
        return [request for prompt in self.prompts for request in self._of(prompt)]

    def _of(self, prompt: str | Sequence[int]) -> list[Request]:
        room, body, tokenizer = self.room, self.body, self.room.served.tokenizer
        asked = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
        made = self._prompt(prompt, asked)
        fim = tokenizer.fim
        return [
            Request(
                ids=made.ids,
                meta=made.meta,
                max_tokens=room.max_tokens(made, asked),
                sampling=room.sampling(body, index=index),
                # A marker of a hole in an answer says that the hole is filled.
                ends=(*tokenizer.ends, *(fim.ids if fim is not None else ())),
                stop=stops_of(body.stop),
                logprobs=body.logprobs,
                grammar=room.grammar(body.response_format),
            )
            for index in range(self.num)
        ]

    def _prompt(self, prompt: str | Sequence[int], asked: int) -> Prompt:
        maker, files = self.room.served.prompts, files_of(self.body.files)
        if self.body.suffix is None or not isinstance(prompt, str):
            return maker.text(prompt, files=files)
        context = self.room.served.engine.context
        room = max(context - asked, context // 2)
        return maker.infill(prompt, self.body.suffix, files=files, path=None, room=room)

    async def whole(self) -> dict[str, Any]:
        """The answer in one."""
        num = len(self.prompts) * self.num
        texts = [self._echo(index) for index in range(num)]
        tokens: list[list[Token]] = [[] for _ in range(num)]
        finish: list[Finish] = ["stop"] * num
        async for index, piece in self.answers.pieces():
            texts[index] += piece.text
            tokens[index] += piece.tokens
            finish[index] = piece.finish or finish[index]
        choices = [
            {
                "text": texts[index],
                "index": index,
                "logprobs": self._logprobs(tokens[index], 0),
                "finish_reason": reason(finish[index]),
            }
            for index in range(num)
        ]
        return {**self._head(), "choices": choices, "usage": self.room.usage()}

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The answer as events."""
        usage = bool(self.body.stream_options and self.body.stream_options.include_usage)
        num = len(self.prompts) * self.num
        offsets = [0] * num
        for index in range(num):
            if echo := self._echo(index):
                yield self._chunk(index, echo, usage=usage)
        async for index, piece in self.answers.pieces():
            if piece.text or piece.tokens or piece.finish is not None:
                shown = self._logprobs(piece.tokens, offsets[index]) if piece.tokens else None
                finish = reason(piece.finish) if piece.finish is not None else None
                yield self._chunk(index, piece.text, usage=usage, logprobs=shown, finish=finish)
                offsets[index] += len(piece.text)
        if usage:
            yield event({**self._head(), "choices": [], "usage": self.room.usage()})
        yield DONE

    def failed(self, error: ApiError) -> bytes:
        """The event that says so."""
        return event(error.body)

    def _echo(self, index: int) -> str:
        if not self.body.echo:
            return ""
        prompt = self.prompts[index // self.num]
        if isinstance(prompt, str):
            return prompt
        return self.room.served.tokenizer.decode_bytes(prompt, specials=True).decode("utf-8", "replace")

    def _head(self) -> dict[str, Any]:
        return {"id": self.id, "object": "text_completion", "created": self.created, "model": self.room.name}

    def _chunk(
        self,
        index: int,
        text: str,
        *,
        usage: bool,
        logprobs: dict[str, Any] | None = None,
        finish: str | None = None,
    ) -> bytes:
        choice = {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish}
        return event({**self._head(), "choices": [choice], **({"usage": None} if usage else {})})

    def _logprobs(self, tokens: Sequence[Token], offset: int) -> dict[str, Any] | None:
        if self.body.logprobs is None:
            return None
        return logprobs.for_completion(tokens, self.room.served.tokenizer, offset=offset)


def prompts_of(prompt: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]) -> list[str | Sequence[int]]:
    """Each prompt of a field that may hold one or many."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise missing("prompt")
    if isinstance(prompt[0], int):
        return [[index for index in prompt if isinstance(index, int)]]
    return [each for each in prompt if not isinstance(each, int)]
