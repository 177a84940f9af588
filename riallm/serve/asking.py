"""What all endpoints that answer with text have in common: which model, how it draws, when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from riallm.engine.request import Finish, Grammar, Sampling
from riallm.serve.answer import Tally
from riallm.serve.errors import ApiError, refused
from riallm.serve.grammar import Grammars
from riallm.serve.served import File, Prompt, Served, ServeOptions
from riallm.serve.wire import Drawing, FileText, ResponseFormat

_PROMPTS = {"/v1/chat/completions": "messages", "/v1/responses": "input"}
"""What an endpoint calls its prompt, where that is not "prompt"."""


class House:
    """The models of one server, and what is made of them once."""

    def __init__(self, models: Mapping[str, Served], options: ServeOptions) -> None:
        self.models, self.options = dict(models), options
        self.grammars = {
            name: Grammars(served.tokenizer, vocab_size=served.engine.vocab_size) for name, served in models.items()
        }

    def find(self, name: str | None, tally: Tally) -> Room:
        """The model of that name; none or "" is the first. Raises ApiError 404 for one that there is not."""
        name = name or next(iter(self.models))
        if name not in self.models:
            raise ApiError(
                404,
                f"The model '{name[:200]}' does not exist; there are {', '.join(self.models)}.",
                param="model",
                code="model_not_found",
            )
        tally.model = name
        return Room(
            name=name, served=self.models[name], grammars=self.grammars[name], options=self.options, tally=tally
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """One request's model and limits."""

    name: str
    served: Served
    grammars: Grammars
    options: ServeOptions
    tally: Tally

    def max_tokens(self, prompt: Prompt, asked: int | None) -> int:
        """As many as were asked for, and as the context has room for. Raises ApiError when it has none."""
        context = self.served.engine.context
        end = int(prompt.whole is not None)  # it is written with the answer
        room = context - len(prompt.ids) - end
        if room < 0 or (room < 1 and asked != 0):
            raise ApiError(
                400,
                f"This model's maximum context length is {context} tokens. However, your prompt has "
                f"{len(prompt.ids)} tokens, and the answer takes {end + (asked != 0)} at least. Please reduce the "
                "length of the prompt.",
                param=_PROMPTS.get(self.tally.endpoint, "prompt"),
                code="context_length_exceeded",
            )
        return room if asked is None else min(asked, room)

    def sampling(self, body: Drawing, *, index: int = 0) -> Sampling:
        """How answer number `index` is drawn."""
        given = {
            name: value
            for name in (
                "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"
            )
            if (value := getattr(body, name)) is not None
        }  # fmt: skip
        seed = None if body.seed is None else (body.seed + index) % 2**63
        return Sampling(**given, seed=seed, logit_bias=self._bias(body.logit_bias or {}))

    def _bias(self, bias: Mapping[str, float]) -> dict[int, float]:
        for text in bias:
            if not (
                text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < self.served.engine.vocab_size
            ):
                raise ApiError(
                    400,
                    f"'{text[:50]}' is no token id; there are 0 to {self.served.engine.vocab_size - 1}.",
                    param="logit_bias",
                    code="invalid_value",
                )
        return {int(text): float(value) for text, value in bias.items()}

    def grammar(self, form: ResponseFormat | None) -> Grammar | None:
        """What the answer must be. A new one for every answer."""
        if form is None or form.type == "text":
            return None
        if form.type == "json_object":
            return self.grammars.json_object()
        if form.type == "regex":
            if form.pattern is None:
                raise missing("response_format.pattern")
            return self.grammars.regex(form.pattern)
        return self.grammars.json_schema(schema_of(form))

    def usage(self) -> dict[str, Any]:
        """So far, as chat and completions write it."""
        return {
            "prompt_tokens": self.tally.prompt_tokens,
            "completion_tokens": self.tally.completion_tokens,
            "total_tokens": self.tally.prompt_tokens + self.tally.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.tally.cached_tokens},
        }


def schema_of(form: ResponseFormat) -> Mapping[str, Any]:
    """The schema of a format `json_schema`."""
    if form.json_schema is None or form.json_schema.schema_ is None:
        raise missing("response_format.json_schema.schema")
    return form.json_schema.schema_


def missing(param: str) -> ApiError:
    """A field that this request needs."""
    return ApiError(400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def files_of(files: Sequence[FileText] | None) -> tuple[File, ...]:
    """Files of a body."""
    return tuple(File(path=file.path, text=file.text) for file in files or ())


def stops_of(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """Stop texts of a body."""
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def reason(finish: Finish, *, calls: bool = False) -> str:
    """OpenAI's word for how an answer ended."""
    return "length" if finish == "length" else "tool_calls" if calls else "stop"


def agentic(mode: bool | None, tools: Sequence[Any] | None) -> None:
    """Raises ApiError 501 for tools by name, and for work that would go on by itself."""
    if mode:
        raise ApiError(
            501,
            "agentic_mode is not there yet: this server answers, and the client runs tools. Leave agentic_mode out.",
            param="agentic_mode",
            code="not_implemented",
        )
    if tools and isinstance(tools[0], str):
        raise ApiError(
            501,
            "Tools by name would run on the server, which does not run any yet. Offer them as function objects, and "
            "run them yourself.",
            param="tools",
            code="not_implemented",
        )


def needs_stream(stream: bool | None, options: object | None) -> None:
    """Raises ApiError for stream_options without stream."""
    if options is not None and not stream:
        raise refused("stream_options", "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
