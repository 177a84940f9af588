"""What an answer must be, held token by token: llguidance behind the engine's protocol `Grammar`."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from riallm.core.errors import UsageError
from riallm.tokenizer.text import TextTokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

# Free white space would let a small model write spaces until its tokens are used up.
LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

OPEN, CLOSE = "<tool_call>", "</tool_call>"
"""Around a call, as Hermes and Qwen write it."""


class Matched:
    """One answer's way through a grammar. Not safe to share between threads. Raises UsageError for a token that is not
    allowed, and for a grammar that grows beyond all limits on the way: the library would call it complete."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allowed(self) -> bytes:
        mask = self._matcher.compute_bitmask()
        self._check()
        return mask

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)
        self._check()

    @property
    def complete(self) -> bool:
        self._check()
        return self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise UsageError(f"the format cannot be held any further: {_reason(self._matcher)}")


class Grammars:
    """Grammars over one tokenizer, which is read once, at the first use. Safe to share between threads."""

    def __init__(self, tokenizer: TextTokenizer, *, vocab_size: int | None = None) -> None:
        """vocab_size: of the model's logits, which may have more rows than the tokenizer has tokens."""
        self._tokenizer = tokenizer
        self._size = max(vocab_size or 0, tokenizer.vocab_size)
        self._library: LLTokenizer | None = None
        self._lock = threading.Lock()

    def json_schema(self, schema: Mapping[str, Any]) -> Matched:
        """An answer that the schema fits. Raises UsageError for a schema that cannot be held."""
        return self._matched(json.dumps(_grammars({"json_schema": _laid_out(schema)})))

    def json_object(self) -> Matched:
        """Any JSON object."""
        return self.json_schema({"type": "object"})

    def regex(self, pattern: str) -> Matched:
        """An answer that the expression matches as a whole (Rust's syntax)."""
        from llguidance import LLMatcher

        return self._matched(LLMatcher.grammar_from_regex(pattern))

    def tool_calls(
        self, tools: Sequence[Mapping[str, Any]], *, parallel: bool, answer: Mapping[str, Any] | None = None
    ) -> Matched:
        """At least one call of the tools (function objects, as chat templates read them), or what the schema `answer`
        says."""
        rules = [
            f"start: {'answer | ' if answer is not None else ''}calls",
            f"calls: call{' (SEPARATOR call)*' if parallel else ''}",
            f"call: {json.dumps(OPEN)} inner",
        ]
        if answer is not None:
            rules.append(f"answer: %json {json.dumps(_laid_out(answer))}")
        return self._lark([*rules, *_inner(tools)])

    def text_and_calls(self, tools: Sequence[Mapping[str, Any]], *, parallel: bool) -> Matched:
        """Any text, and where it opens a call, one of the tools with arguments that its schema fits."""
        rules = [
            f"start: call{'*' if parallel else '?'} TEXT",
            "call: opened inner",
            f"opened[lazy]: TEXT {json.dumps(OPEN)}",
            r"TEXT: /(.|\n)*/",
        ]
        return self._lark([*rules, *_inner(tools)])

    def _lark(self, rules: Sequence[str]) -> Matched:
        return self._matched(json.dumps(_grammars({"lark_grammar": "\n".join(rules)})))

    def _matched(self, grammar: str) -> Matched:
        from llguidance import LLMatcher

        matcher = LLMatcher(self._tokens(), grammar, log_level=0)
        if matcher.is_error():
            raise UsageError(f"this format cannot be held: {_reason(matcher)}; make it simpler, or leave it out")
        return Matched(matcher)

    def _tokens(self) -> LLTokenizer:
        from llguidance import LLTokenizer, TokenizerWrapper

        with self._lock:
            if self._library is None:
                ends = list(self._tokenizer.ends)
                if not ends:
                    raise UsageError("this model has no token that ends an answer, so no format can be held")
                listing = _Listing(self._tokenizer, self._size)
                self._library = LLTokenizer(TokenizerWrapper(listing), eos_token=ends)
            return self._library


def _reason(matcher: LLMatcher) -> str:
    return " ".join(matcher.get_error().partition("<state>")[0].split())[:300]


class _Listing:
    """A tokenizer as llguidance wants it: the bytes of every id."""

    def __init__(self, tokenizer: TextTokenizer, size: int) -> None:
        self._tokenizer = tokenizer
        known = range(tokenizer.vocab_size)
        self.tokens = [tokenizer.decode_bytes([index], specials=True) for index in known]
        self.tokens += [b""] * (size - tokenizer.vocab_size)
        self.special_token_ids = sorted(tokenizer.hidden)
        self.eos_token_id = tokenizer.ends[0]
        self.bos_token_id = None

    def __call__(self, text: bytes | str) -> list[int]:
        return self._tokenizer.encode(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)


def _grammars(grammar: Mapping[str, Any]) -> dict[str, Any]:
    return {"grammars": [grammar]}


def _laid_out(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {**schema, "x-guidance": LAYOUT}


def _inner(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rules for what stands between the marks of a call."""
    bodies = [_laid_out(_call_schema(tool["function"])) for tool in tools]
    return [
        'SEPARATOR: "\\n"',
        f"inner: SEPARATOR body SEPARATOR {json.dumps(CLOSE)}",
        f"body: {' | '.join(f'body_{at}' for at in range(len(bodies)))}",
        *(f"body_{at}: %json {json.dumps(body)}" for at, body in enumerate(bodies)),
    ]


def _call_schema(function: Mapping[str, Any]) -> dict[str, Any]:
    """A call of one function. What its schema refers to is found from the root, so it moves there."""
    parameters = dict(function.get("parameters") or {"type": "object"})
    moved = {name: parameters.pop(name) for name in ("$defs", "definitions") if name in parameters}
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
        **moved,
    }
