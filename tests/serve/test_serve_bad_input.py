"""What is wrong is answered with 400 and the field's name, never with 500, and the server goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from serving import Running

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/infill")
HI = [{"role": "user", "content": "hi"}]
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def refused(server: Running, path: str, body: Any) -> dict[str, Any]:
    """The error that a body is answered with."""
    status, answer = server.post(path, body)
    assert status == 400, (status, answer)
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["type"] == "invalid_request_error"
    found: dict[str, Any] = answer["error"]
    return found


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"nonsense", b"\xff\xfe", b"[]", b"null", b'"x"', b"3", b'{"a": NaN}', b'{"a": Infinity}',
        b'{"seed": 1e999}', b"[" * 100_000, b'{"a":' * 50_000, b'{"prompt": "\\ud800"}', b"1" * 10_000,
    ],
    ids=range(15),
)  # fmt: skip
def test_bodies_that_are_no_json_object(echo: Running, path: str, data: bytes) -> None:
    assert refused(echo, path, data)["code"] == "invalid_json"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", {}, "messages"),
        ("/v1/chat/completions", {"messages": []}, "messages"),
        ("/v1/chat/completions", {"messages": "hi"}, "messages"),
        ("/v1/chat/completions", {"messages": HI, "surprise": 1}, "surprise"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x", "odd": 1}]}, "messages[0].odd"),
        ("/v1/chat/completions", {"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": None}]}, "messages[0]"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
        ),
        ("/v1/chat/completions", {"messages": HI, "temperature": "hot"}, "temperature"),
        ("/v1/chat/completions", {"messages": HI, "temperature": 3}, "temperature"),
        ("/v1/chat/completions", {"messages": HI, "temperature": True}, "temperature"),
        ("/v1/chat/completions", {"messages": HI, "top_p": 0}, "top_p"),
        ("/v1/chat/completions", {"messages": HI, "max_tokens": -1}, "max_tokens"),
        ("/v1/chat/completions", {"messages": HI, "max_tokens": 1.5}, "max_tokens"),
        ("/v1/chat/completions", {"messages": HI, "max_tokens": 10**30}, "max_tokens"),
        ("/v1/chat/completions", {"messages": HI, "max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
        ("/v1/chat/completions", {"messages": HI, "seed": 2**70}, "seed"),
        ("/v1/chat/completions", {"messages": HI, "n": 0}, "n"),
        ("/v1/chat/completions", {"messages": HI, "n": 1000}, "n"),
        ("/v1/chat/completions", {"messages": HI, "stop": ""}, "stop"),
        ("/v1/chat/completions", {"messages": HI, "stop": ["x"] * 33}, "stop"),
        ("/v1/chat/completions", {"messages": HI, "logit_bias": {"x": 1}}, "logit_bias"),
        ("/v1/chat/completions", {"messages": HI, "logit_bias": {"999999": 1}}, "logit_bias"),
        ("/v1/chat/completions", {"messages": HI, "logit_bias": {"1": 1000}}, "logit_bias"),
        ("/v1/chat/completions", {"messages": HI, "top_logprobs": 3}, "top_logprobs"),
        ("/v1/chat/completions", {"messages": HI, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ("/v1/chat/completions", {"messages": HI, "stream_options": {"include_usage": True}}, "stream_options"),
        ("/v1/chat/completions", {"messages": HI, "store": True}, "store"),
        ("/v1/chat/completions", {"messages": HI, "functions": [{"name": "f"}]}, "functions"),
        ("/v1/chat/completions", {"messages": HI, "audio": {}}, "audio"),
        ("/v1/chat/completions", {"messages": HI, "modalities": ["text", "audio"]}, "modalities"),
        ("/v1/chat/completions", {"messages": HI, "tool_choice": "required"}, "tool_choice"),
        ("/v1/chat/completions", {"messages": HI, "tools": [TOOL, TOOL]}, "tools"),
        (
            "/v1/chat/completions",
            {"messages": HI, "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "tool_choice",
        ),
        ("/v1/chat/completions", {"messages": HI, "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ("/v1/chat/completions", {"messages": [*HI, CALLING]}, "messages[1]"),
        ("/v1/chat/completions", {"messages": [*HI, CALLING, *HI]}, "messages[1]"),
        (
            "/v1/chat/completions",
            {"messages": [*HI, {"role": "tool", "tool_call_id": "b", "content": "x"}]},
            "messages[1].tool_call_id",
        ),
        (
            "/v1/chat/completions",
            {"messages": HI, "response_format": {"type": "json_schema"}},
            "response_format.json_schema.schema",
        ),
        ("/v1/chat/completions", {"messages": HI, "files": [{"path": "", "text": "x"}]}, "files[0].path"),
        ("/v1/completions", {}, "prompt"),
        ("/v1/completions", {"prompt": []}, "prompt"),
        ("/v1/completions", {"prompt": [-1]}, "prompt"),
        ("/v1/completions", {"prompt": ["a", 1]}, "prompt"),
        ("/v1/completions", {"prompt": "a", "best_of": 2}, "best_of"),
        ("/v1/completions", {"prompt": "a", "logprobs": 6}, "logprobs"),
        ("/v1/completions", {"prompt": [1], "suffix": "x"}, "suffix"),
        ("/v1/completions", {"prompt": "a", "response_format": {"type": "regex"}}, "response_format.pattern"),
        ("/v1/embeddings", {}, "input"),
        ("/v1/embeddings", {"input": "x", "dimensions": 8}, "dimensions"),
        ("/v1/embeddings", {"input": "x", "encoding_format": "hex"}, "encoding_format"),
        ("/v1/responses", {}, "input"),
        ("/v1/responses", {"input": "x", "store": True}, "store"),
        ("/v1/responses", {"input": "x", "tools": [{"type": "function"}]}, "tools[0].name"),
        ("/v1/responses", {"input": "x", "truncation": "auto"}, "truncation"),
        ("/infill", {"input_prefix": 1}, "input_prefix"),
        ("/infill", {"n_predict": -2}, "n_predict"),
        ("/infill", {"n_probs": 3}, "n_probs"),
    ],
)
def test_the_field_is_named(echo: Running, path: str, body: Any, param: str) -> None:
    error = refused(echo, path, body)
    named = error["param"]
    assert named == param or str(named).startswith(f"{param}[")
    assert error["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": ""}),
        ("/v1/completions", {"prompt": [300]}),
        ("/v1/embeddings", {"input": ""}),
        ("/v1/completions", {"prompt": "a", "response_format": {"type": "regex", "pattern": "("}}),
        (
            "/v1/completions",
            {"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "odd"}}}},
        ),
        (
            "/v1/chat/completions",
            {
                "messages": HI,
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "#/nowhere"}}}],
                "tool_choice": "required",
            },
        ),
    ],
)
def test_what_only_the_model_can_refuse(echo: Running, path: str, body: Any) -> None:
    assert refused(echo, path, body)["message"]


def test_labels_and_hints_change_nothing(echo: Running) -> None:
    body = {
        "messages": HI, "user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto",
        "reasoning_effort": "low", "modalities": ["text"], "prompt_cache_key": "k", "functions": None,
    }  # fmt: skip
    status, answer = echo.post("/v1/chat/completions", body)
    assert status == 200, answer


def test_paths_and_methods_that_there_are_not(echo: Running) -> None:
    for method, path, status in (("GET", "/v2/x", 404), ("GET", "/v1/completions", 405), ("POST", "/health", 405)):
        got, _, data = echo.send(method, path)
        assert got == status
        assert set(json.loads(data)["error"]) == {"message", "type", "param", "code"}
    assert echo.send("GET", "/docs")[0] == 404
    assert echo.send("GET", "/redoc")[0] == 404


def test_deep_values_inside_honoured_fields(echo: Running) -> None:
    deep: Any = {"type": "string"}
    for _ in range(150):
        deep = {"type": "object", "properties": {"a": deep}}
    form = {"type": "json_schema", "json_schema": {"schema": deep}}
    tool = {"type": "function", "function": {"name": "f", "parameters": deep}}
    for more in ({"response_format": form}, {"tools": [tool]}, {"tools": [tool], "tool_choice": "required"}):
        status, answer = echo.post("/v1/chat/completions", {"messages": HI, "max_tokens": 3, **more})
        assert status in (200, 400), answer
