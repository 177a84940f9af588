"""POST /infill, as llama.cpp answers it: the hole at the cursor of an editor."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from riallm.engine.request import Finish, Request, Sampling, Usage
from riallm.serve.answer import Answers, in_thread
from riallm.serve.asking import Room, files_of, reason, stops_of
from riallm.serve.errors import ApiError
from riallm.serve.served import File
from riallm.serve.stream import event
from riallm.serve.wire import InfillBody

DEFAULT_TOKENS = 128


class Infill:
    """One request of an editor."""

    def __init__(self, room: Room, body: InfillBody) -> None:
        self.room, self.body = room, body
        self.answers = Answers(room.tally)
        self._indent = Indent(body.n_indent or 0)
        self._finish: Finish = "stop"
        self._usage = Usage(prompt_tokens=0, completion_tokens=0)

    async def ask(self) -> None:
        """Hand it to the engine."""
        request = await in_thread(self._request)
        await self.answers.ask(self.room.served.engine, [request], max_waiting=self.room.options.max_waiting)

    def _request(self) -> Request:
        body, served = self.body, self.room.served
        if served.tokenizer.fim is None:
            raise ApiError(501, f"The model '{self.room.name}' fills no holes.", param="model", code="not_implemented")
        asked = DEFAULT_TOKENS if body.n_predict is None else body.n_predict if body.n_predict >= 0 else None
        context = served.engine.context
        room = max(context - (asked if asked is not None else context // 4), context // 2)
        extra = [File(path=file.filename, text=file.text) for file in body.input_extra or ()]
        prompt = served.prompts.infill(
            body.input_prefix + (body.prompt or ""),
            body.input_suffix,
            files=[*files_of(body.files), *extra],
            path=body.path,
            room=room,
        )
        seconds = body.t_max_predict_ms / 1000 if body.t_max_predict_ms else None
        return Request(
            ids=prompt.ids,
            meta=prompt.meta,
            max_tokens=self.room.max_tokens(prompt, asked),
            sampling=self._sampling(),
            ends=(*served.tokenizer.ends, *served.tokenizer.fim.ids),
            stop=stops_of(body.stop),
            seconds=seconds,
        )

    def _sampling(self) -> Sampling:
        body = self.body
        return Sampling(
            temperature=body.temperature or 0.0,
            top_k=max(body.top_k or 0, 0),
            top_p=body.top_p or 1.0,
            min_p=body.min_p or 0.0,
            repetition_penalty=body.repeat_penalty or 1.0,
            presence_penalty=body.presence_penalty or 0.0,
            frequency_penalty=body.frequency_penalty or 0.0,
            seed=None if body.seed is None or body.seed < 0 else body.seed,
        )

    async def texts(self) -> AsyncGenerator[str, None]:
        """What is to be shown, as it comes."""
        async for index, piece in self.answers.pieces():
            text = self._indent.feed(piece.text)
            if self._indent.over:
                self.answers.stop(index)
            if piece.finish is not None:
                text += self._indent.finish()
                self._finish, self._usage = piece.finish, piece.usage or self._usage
            if text:
                yield text

    async def whole(self) -> dict[str, Any]:
        """The answer in one, or those of its fields that were asked for."""
        text = "".join([piece async for piece in self.texts()])
        return selected(self._final(text), self.body.response_fields)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The answer as events."""
        async for text in self.texts():
            yield event({"index": 0, "content": text, "stop": False})
        yield event(selected(self._final(""), self.body.response_fields))

    def failed(self, error: ApiError) -> bytes:
        """The event that says so."""
        return event(error.body)

    def _final(self, text: str) -> dict[str, Any]:
        usage = self._usage
        read, drawn = usage.prompt_tokens - usage.cached_tokens, usage.completion_tokens
        return {
            "index": 0,
            "content": text,
            "stop": True,
            "model": self.room.name,
            "tokens_predicted": drawn,
            "tokens_evaluated": usage.prompt_tokens,
            "tokens_cached": usage.cached_tokens,
            "truncated": False,
            "stop_type": "limit" if reason(self._finish) == "length" else "eos",
            "timings": {
                "cache_n": usage.cached_tokens,
                **_timing("prompt", read, usage.prompt_seconds),
                **_timing("predicted", drawn, usage.completion_seconds),
            },
        }


class Indent:
    """Ends a text before a line that is less indented than `least`; the first line goes on one that is there, and blank
    lines say nothing."""

    def __init__(self, least: int) -> None:
        self._least = least
        self._held = ""
        self.over = False

    def feed(self, text: str) -> str:
        """What may be shown now."""
        if not self._least or self.over:
            return "" if self.over else text
        text, self._held = self._held + text, ""
        lines = text.split("\n")
        for at, line in enumerate(lines[1:], start=1):
            code = line.lstrip(" \t")
            if code and len(line) - len(code) < self._least:
                self.over = True
                return "\n".join(lines[:at]).rstrip("\n") if at > 1 else lines[0]
        # Blank lines at the end may turn out to stand before a line that is left out.
        keep = len(text.rstrip(" \t\n")) if "\n" in text else len(text)
        self._held = text[keep:]
        return text[:keep]

    def finish(self) -> str:
        """What was held back."""
        held, self._held = self._held, ""
        return "" if self.over else held


def selected(answer: dict[str, Any], fields: Sequence[str] | None) -> dict[str, Any]:
    """The fields asked for, all by default; `timings/prompt_n` is the inner one, under that name. Unknown ones are left
    out: clients ask with [""] for nothing."""
    if fields is None:
        return answer
    found = {}
    for field in fields:
        value: Any = answer
        for name in field.split("/"):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            found[field] = value
    return found


def _timing(name: str, num: int, seconds: float) -> dict[str, Any]:
    return {
        f"{name}_n": num,
        f"{name}_ms": round(1000 * seconds, 3),
        f"{name}_per_token_ms": round(1000 * seconds / num, 3) if num else 0.0,
        f"{name}_per_second": round(num / seconds, 3) if seconds else 0.0,
    }
