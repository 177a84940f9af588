"""Prompts of models with a memory: the last query is read, and what was said before is interactions to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from riallm.core.errors import UsageError
from riallm.serve.served import File, Prompt
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.interaction import interaction_ids, markers, query_ids


class InteractionPrompts:
    """For models of the RxT family."""

    def __init__(self, tokenizer: HybridTokenizer) -> None:
        self._tokenizer, self._answer = tokenizer, markers(tokenizer).answer

    @property
    def tools(self) -> bool:
        return False

    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]], files: Sequence[File]
    ) -> Prompt:
        if tools:
            raise UsageError("this model knows no tools; leave `tools` out, or take another model")
        if files:
            raise UsageError("this model is shown no files; leave `files` out, or write what matters into the message")
        roles = [message["role"] for message in messages]
        strange = next((role for role in roles if role not in ("user", "assistant")), None)
        if strange is not None:
            raise UsageError(
                f"this model reads a query at a time and has no place for a message of role {strange!r}; say it in a "
                "message of role 'user'"
            )
        if len(roles) % 2 == 0 or any(role != ("user", "assistant")[at % 2] for at, role in enumerate(roles)):
            raise UsageError(
                "this model remembers interactions: messages of role 'user' and 'assistant' in turn, and one of 'user' "
                f"in the end; got {', '.join(roles)}"
            )
        said = [str(message["content"]) for message in messages]
        if not all(text.strip() for text in said[::2]):
            raise UsageError("a message of role 'user' is empty; write something")
        pairs = zip(said[:-1:2], said[1::2], strict=True)
        return Prompt(
            ids=(*query_ids(self._tokenizer, said[-1]), self._answer),
            history=tuple(tuple(interaction_ids(self._tokenizer, query, answer)) for query, answer in pairs),
            whole=lambda text: interaction_ids(self._tokenizer, said[-1], text),
        )

    def text(self, prompt: str | Sequence[int], *, files: Sequence[File]) -> Prompt:
        raise UsageError(
            "this model answers queries and does not go on with text; ask /v1/chat/completions or /v1/responses"
        )

    def infill(self, prefix: str, suffix: str, *, files: Sequence[File], path: str | None, room: int) -> Prompt:
        raise UsageError("this model fills no holes; take another one")
