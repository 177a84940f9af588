"""Requests as agents and editors send them, taken down from codex, opencode, Continue, llama.vim and minuet."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from serving import Running

from riallm.testing.engine import ByteTokenizer, ScriptedEngine

Start = Callable[..., Running]

SCHEMA = {
    "type": "object",
    "properties": {"command": {"type": "array", "items": {"type": "string"}}, "workdir": {"type": "string"}},
    "required": ["command"],
    "additionalProperties": False,
}

CODEX: dict[str, Any] = {
    "model": "scripted",
    "instructions": "You are a coding agent.",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "<permissions>"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "<environment_context>"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "fix it"}]},
    ],
    "tools": [
        {"type": "function", "name": "shell", "description": "Runs.", "strict": False, "parameters": SCHEMA},
        {
            "type": "namespace",
            "name": "mcp__docs",
            "description": "Docs.",
            "tools": [{"type": "function", "name": "x"}],
        },
        {"type": "web_search", "external_web_access": False},
        {
            "type": "custom",
            "name": "apply_patch",
            "format": {"type": "grammar", "syntax": "lark", "definition": "s: /x/"},
        },
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0199-abc",
    "text": {"verbosity": "medium"},
    "client_metadata": {"x-codex-installation-id": "1"},
    "service_tier": "auto",
}

OPENCODE: dict[str, Any] = {
    "model": "scripted",
    "max_tokens": 32000,
    "temperature": 0.55,
    "top_p": 1,
    "messages": [
        {"role": "system", "content": "You are opencode."},
        {"role": "user", "content": "fix it"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "bash", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "ok"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "bash",
                "description": "Runs.",
                "parameters": {"$schema": "https://json-schema.org/draft/2020-12/schema", **SCHEMA},
            },
        }
    ],
    "tool_choice": "auto",
    "stream": True,
    "stream_options": {"include_usage": True},
}

CONTINUE: dict[str, Any] = {
    "model": "scripted",
    "prompt": "<|fim_prefix|>def f(<|fim_suffix|>):\n<|fim_middle|>",
    "max_tokens": 256,
    "temperature": 0.01,
    "stream": True,
    "stop": ["<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "/src/", "#- coding: utf-8", "```"],
}

MINUET: dict[str, Any] = {
    "model": "scripted",
    "prompt": "# language: python\ndef f(",
    "suffix": "):\n    return 1\n",
    "stream": True,
    "max_tokens": 56,
    "top_p": 0.9,
    "n": 1,
    "stop": ["\n\n"],
}

LLAMA_VIM: dict[str, Any] = {
    "id_slot": 0,
    "input_prefix": "import os\n\n",
    "input_suffix": "\nprint(f())\n",
    "input_extra": [{"text": "def g(): ...", "filename": "g.py", "time": [1712345678, 9]}],
    "prompt": "def f(",
    "n_predict": 64,
    "stop": [],
    "n_indent": 0,
    "top_k": 40,
    "top_p": 0.90,
    "stream": False,
    "samplers": ["top_k", "top_p", "infill"],
    "cache_prompt": True,
    "t_max_prompt_ms": 500,
    "t_max_predict_ms": 1000,
    "response_fields": [
        "content",
        "timings/prompt_n",
        "timings/prompt_ms",
        "timings/prompt_per_token_ms",
        "timings/prompt_per_second",
        "timings/predicted_n",
        "timings/predicted_ms",
        "timings/predicted_per_token_ms",
        "timings/predicted_per_second",
        "truncated",
        "tokens_cached",
    ],
    "model": "",
}


@pytest.fixture
def told(start: Start) -> Running:
    call = '<tool_call>\n{"name": "shell", "arguments": {"command": ["ls"]}}\n</tool_call>'
    return start(ScriptedEngine(answers={"You are a coding agent": call, "def f(": "x: int"}))


def test_codex(told: Running) -> None:
    names = dict(told.events("/v1/responses", CODEX))
    item = names["response.output_item.done"]["item"]
    assert (item["type"], item["name"], json.loads(item["arguments"])) == (
        "function_call",
        "shell",
        {"command": ["ls"]},
    )
    usage = names["response.completed"]["response"]["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    # What it sends when it ran the command.
    output = {"type": "function_call_output", "call_id": item["call_id"], "output": "a.py"}
    again = {**CODEX, "input": [*CODEX["input"], item, output]}
    assert "response.completed" in dict(told.events("/v1/responses", again))


def test_opencode(told: Running) -> None:
    *chunks, done = [value for _, value in told.events("/v1/chat/completions", OPENCODE)]
    assert done == "[DONE]"
    assert chunks[-1]["usage"]["prompt_tokens"] == len(told.engine.asked[0].ids)
    # The call for a title has no tools.
    title = {key: value for key, value in OPENCODE.items() if key not in ("tools", "tool_choice")}
    assert told.events("/v1/chat/completions", title)[-1] == (None, "[DONE]")


def test_continue_completes_with_markers_of_its_own(told: Running) -> None:
    chunks = [value for _, value in told.events("/v1/completions", CONTINUE)][:-1]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "x: int"
    assert [index for index in told.engine.asked[0].ids if index >= 256] == [259, 260, 261]


def test_minuet(told: Running) -> None:
    chunks = [value for _, value in told.events("/v1/completions", MINUET)][:-1]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "x: int"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_llama_vim(told: Running) -> None:
    status, _, data = told.send("POST", "/infill", LLAMA_VIM, headers={"Content-Type": "application/json"})
    answer = json.loads(data)
    assert (status, answer["content"]) == (200, "x: int")
    assert list(answer) == LLAMA_VIM["response_fields"], "flat, and nothing else"
    assert answer["timings/predicted_n"] == 6
    assert data == json.dumps(answer, separators=(",", ":")).encode(), "compact"
    request = told.engine.asked[0]
    prompt = told.engine.tokenizer.decode_bytes(request.ids, specials=True).decode()
    assert prompt == (
        "<|file_sep|>g.py\ndef g(): ...\n<|fim_prefix|>import os\n\ndef f(<|fim_suffix|>\nprint(f())\n<|fim_middle|>"
    )
    assert (request.seconds, request.sampling.top_k, request.sampling.temperature) == (1.0, 40, 0.0)


def test_llama_vim_warms_up(told: Running) -> None:
    warm = {**LLAMA_VIM, "n_predict": 0, "response_fields": [""], "t_max_predict_ms": 1}
    status, _, data = told.send("POST", "/infill", warm)
    assert (status, data) == (200, b"{}")
    told.post("/infill", LLAMA_VIM)
    first, second = told.engine.asked
    assert (first.ids, first.max_tokens) == (second.ids, 0)
    assert told.engine.load().cached_tokens == len(second.ids)


def test_llama_vscode(told: Running) -> None:
    body = {"input_prefix": "def f(", "input_suffix": ")", "input_extra": [], "prompt": "", "stream": True}
    events = [value for _, value in told.events("/infill", body)]
    assert "".join(each["content"] for each in events) == "x: int"
    assert [each["stop"] for each in events] == [False] * 6 + [True]
    assert events[-1]["stop_type"] == "eos"


def test_an_infill_that_must_be_indented(start: Start) -> None:
    lines = "b()\n\n    c()\n\nd()\n" + "e()\n" * 50_000
    server = start(ScriptedEngine(answers={"if a:": lines}, pause=0.001, context=400_000))
    status, answer = server.post("/infill", {"input_prefix": "if a:\n    ", "n_indent": 4, "n_predict": 200_000})
    assert (status, answer["content"]) == (200, "b()\n\n    c()")
    server.settled()
    assert server.engine.load().completion_tokens < 100_000, "the engine stops too"


def test_a_long_file_is_cut_around_the_hole(start: Start) -> None:
    server = start(ScriptedEngine(answers={"HERE": "x"}, context=200))
    body = {"input_prefix": "a" * 5000 + "HERE", "input_suffix": "THERE" + "b" * 5000, "n_predict": 20}
    extra = [{"filename": "far.py", "text": "f" * 50}, {"filename": "near.py", "text": "n" * 9000}]
    assert server.post("/infill", {**body, "input_extra": extra})[0] == 200
    prompt = server.engine.tokenizer.decode_bytes(server.engine.asked[0].ids, specials=True).decode()
    assert 180 - 180 // 8 <= len(server.engine.asked[0].ids) <= 180
    assert "aHERE<|fim_suffix|>THEREb" in prompt
    assert "n" * 20 not in prompt


def test_a_model_without_markers_fills_no_holes(start: Start) -> None:
    server = start(ScriptedEngine(tokenizer=ByteTokenizer(fills=False)))
    status, answer = server.post("/infill", LLAMA_VIM)
    assert (status, answer["error"]["code"]) == (501, "not_implemented")


def test_the_table_of_fields_and_the_wire_types_agree() -> None:
    from riallm.serve.app import BODIES
    from riallm.serve.fields import TABLE, Fate

    honoured = {
        endpoint: {name for name, field in table.items() if field.fate is Fate.HONOURED}
        for endpoint, table in TABLE.items()
    }
    assert honoured == {endpoint: set(body.model_fields) for endpoint, body in BODIES.items()}
