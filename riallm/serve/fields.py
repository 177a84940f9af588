"""The one table of what becomes of every field of the API: honoured, refused, or harmless.

Honoured fields are those of the wire types. A refused one is answered with 400 unless its value says what would be
done anyway. A harmless one changes no answer: a label, or a wish that clients send to all servers alike. A field that
is not here is unknown, and refused as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from riallm.serve.errors import ApiError, refused


class Fate(StrEnum):
    """What becomes of a field."""

    HONOURED = "honoured"
    REFUSED = "refused"
    HARMLESS = "harmless"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """word: what it does, or why it does not. accepted: values that a refused field may have, beside null."""

    fate: Fate
    word: str
    accepted: tuple[Any, ...] = ()


def _yes(word: str) -> Field:
    return Field(fate=Fate.HONOURED, word=word)


def _no(word: str, *accepted: Any) -> Field:
    return Field(fate=Fate.REFUSED, word=word, accepted=accepted)


def _mute(word: str) -> Field:
    return Field(fate=Fate.HARMLESS, word=word)


_LABELS = {
    "user": _mute("a label"),
    "metadata": _mute("a label; nothing is stored"),
    "safety_identifier": _mute("a label"),
    "service_tier": _mute("there is one tier"),
    "prompt_cache_key": _mute("prefixes are found by their content"),
    "prompt_cache_retention": _mute("prefixes stay while there is room"),
}

_DRAWING = {
    "temperature": _yes("0 to 2; 0 takes the likeliest token"),
    "top_p": _yes("above 0, to 1"),
    "top_k": _yes("own field, as vLLM has it; 0 is all tokens"),
    "min_p": _yes("own field, as vLLM has it"),
    "repetition_penalty": _yes("own field, as vLLM has it"),
    "presence_penalty": _yes("-2 to 2"),
    "frequency_penalty": _yes("-2 to 2"),
    "logit_bias": _yes("token id, as text -> -100 to 100"),
    "seed": _yes("equal requests with an equal seed draw alike; answer i of n has seed + i"),
}

_FILES = _yes("own field: list of {path, text}, files that the model sees beside the prompt")

CHAT: dict[str, Field] = {
    "model": _yes("a name of /v1/models; left out or empty: the first"),
    "messages": _yes("roles system, developer (the same), user, assistant, tool; content is text or parts of text"),
    "tools": _yes("function objects, `strict` ones by a grammar; a list of names is answered with 501"),
    "tool_choice": _yes("none, auto, required, or one function; the last two by a grammar"),
    "parallel_tool_calls": _yes("false: at most one call"),
    "stream": _yes("server-sent events"),
    "stream_options": _yes("include_usage"),
    "n": _yes("answers, 1 to 16"),
    "stop": _yes("up to 32 texts, not part of the answer"),
    "max_tokens": _yes("at most; the context ends an answer as well"),
    "max_completion_tokens": _yes("the newer name of max_tokens"),
    "logprobs": _yes("of the model's own distribution"),
    "top_logprobs": _yes("0 to 20; needs logprobs"),
    "response_format": _yes("text, json_object, json_schema, and our own {type: regex, pattern}; by a grammar"),
    "agentic_mode": _yes("true is answered with 501"),
    "files": _FILES,
    **_DRAWING,
    **_LABELS,
    "reasoning_effort": _mute("a hint; the model thinks as it does"),
    "verbosity": _mute("a hint; the model writes as it does"),
    "prediction": _mute("a hint for speed"),
    "store": _no("nothing is stored", False),
    "modalities": _no("only text is answered", ["text"]),
    "audio": _no("only text is answered"),
    "web_search_options": _no("there is no web search"),
    "functions": _no("its successor is `tools`", []),
    "function_call": _no("its successor is `tool_choice`"),
}

COMPLETIONS: dict[str, Field] = {
    "model": CHAT["model"],
    "prompt": _yes("a text, a list of texts, ids, or a list of lists of ids"),
    "suffix": _yes("the hole between prompt and suffix is filled, by the model's markers"),
    "stream": CHAT["stream"],
    "stream_options": CHAT["stream_options"],
    "n": CHAT["n"],
    "stop": CHAT["stop"],
    "max_tokens": _yes("at most, 16 by default; the context ends an answer as well"),
    "logprobs": _yes("0 to 5 alternatives a token; not together with echo"),
    "echo": _yes("the prompt stands before the answer"),
    "response_format": CHAT["response_format"],
    "files": _FILES,
    **_DRAWING,
    **_LABELS,
    "best_of": _no("answers are not compared; ask for n", 1),
}

EMBEDDINGS: dict[str, Field] = {
    "model": CHAT["model"],
    "input": COMPLETIONS["prompt"],
    "encoding_format": _yes("float or base64"),
    **_LABELS,
    "dimensions": _no("the vectors have the model's own size"),
}

RESPONSES: dict[str, Field] = {
    "model": CHAT["model"],
    "input": _yes("text, or items: messages, function_call, function_call_output; reasoning is passed over"),
    "instructions": _yes("a system message before the others"),
    "tools": _yes("functions; other types are passed over, since clients offer them to all servers alike"),
    "tool_choice": CHAT["tool_choice"],
    "parallel_tool_calls": CHAT["parallel_tool_calls"],
    "stream": CHAT["stream"],
    "max_output_tokens": _yes("at most; the context ends an answer as well"),
    "temperature": CHAT["temperature"],
    "top_p": CHAT["top_p"],
    "text": _yes("format: text, json_object, json_schema; verbosity is passed over"),
    "store": _yes("of a model with a memory: keep it behind the response; true by default. Others store nothing"),
    "previous_response_id": _yes("of a model with a memory: go on behind that response, which stays as it is"),
    "conversation": _yes("of a model with a memory: go on at its head; 409 while another request is answered there"),
    "files": _FILES,
    **_LABELS,
    "include": _mute("there is nothing more to include"),
    "reasoning": _mute("a hint; the model thinks as it does"),
    "client_metadata": _mute("a label"),
    "stream_options": _mute("events are not padded"),
    "top_logprobs": _no("ask /v1/chat/completions for logprobs", 0),
    "truncation": _no("input is never cut", "disabled"),
    "background": _no("a response is written while its request lasts", False),
    "prompt": _no("there are no stored prompts"),
    "max_tool_calls": _no("tools are called by the client"),
}

CONVERSATIONS: dict[str, Field] = {
    "model": CHAT["model"],
    "metadata": _LABELS["metadata"],
    "items": _no("it begins with nothing; say it in the first response", []),
}

INFILL: dict[str, Field] = {
    "model": CHAT["model"],
    "input_prefix": _yes("text before the hole"),
    "input_suffix": _yes("text behind it"),
    "input_extra": _yes("list of {filename, text}: other files"),
    "prompt": _yes("the line up to the cursor; goes on the prefix"),
    "files": _yes("list of {path, text}, as elsewhere"),
    "path": _yes("own field: the path of the file with the hole"),
    "n_predict": _yes("at most; 0 reads the prompt only, -1 is as many as fit; 128 by default"),
    "n_indent": _yes("the answer ends before a line of less indentation"),
    "t_max_predict_ms": _yes("from the first token on"),
    "stop": CHAT["stop"],
    "stream": CHAT["stream"],
    "response_fields": _yes("keys of the answer that are sent, inner ones as a/b"),
    "temperature": _yes("0 by default"),
    "top_k": CHAT["top_k"],
    "top_p": CHAT["top_p"],
    "min_p": CHAT["min_p"],
    "repeat_penalty": _yes("llama.cpp's name of repetition_penalty"),
    "presence_penalty": CHAT["presence_penalty"],
    "frequency_penalty": CHAT["frequency_penalty"],
    "seed": _yes("-1: another one every time"),
    "n_probs": _no("ask /v1/completions for logprobs", 0),
    "t_max_prompt_ms": _mute("llama.cpp reads it and does nothing with it"),
    "samplers": _mute("the order of drawing is fixed"),
    "cache_prompt": _mute("prefixes are always found"),
    "id_slot": _mute("there are no slots"),
    "lora": _no("there are no adapters to choose", []),
    "grammar": _no("ask /v1/completions for a response_format", ""),
}

TABLE: Mapping[str, Mapping[str, Field]] = {
    "chat": CHAT,
    "completions": COMPLETIONS,
    "embeddings": EMBEDDINGS,
    "responses": RESPONSES,
    "conversations": CONVERSATIONS,
    "infill": INFILL,
}
"""endpoint -> field -> what becomes of it."""


def sift(endpoint: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The honoured fields of a body. Raises ApiError 400 for one that is refused or unknown."""
    table = TABLE[endpoint]
    kept = {}
    for name, value in body.items():
        field = table.get(name)
        if field is None:
            raise ApiError(
                400, f"Unrecognized request argument supplied: {name[:100]}", param=name[:100], code="unknown_parameter"
            )
        if field.fate is Fate.HONOURED:
            kept[name] = value
        elif field.fate is Fate.REFUSED and value is not None and value not in field.accepted:
            raise refused(name, f"'{name}' is not supported: {field.word}.")
    return kept
