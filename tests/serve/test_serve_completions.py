"""Completions, embeddings and the list of models by the real client."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Callable
from typing import Any

import pytest
from openai import APIStatusError, BadRequestError
from serving import Running

from riallm.testing.engine import ScriptedEngine

Start = Callable[..., Running]


def told_by(server: Running, **more: Any) -> str:
    """What the model was asked, as text."""
    return server.engine.tokenizer.decode_bytes(server.engine.asked[-1].ids, specials=True).decode()


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [("abc", ["abc"]), (["abc", "de"], ["abc", "de"]), ([97, 98], ["ab"]), ([[97], [98, 99]], ["a", "bc"])],
)
def test_prompts_of_all_kinds(echo: Running, prompt: Any, texts: list[str]) -> None:
    answer = echo.client.completions.create(model="scripted", prompt=prompt)
    assert [choice.text for choice in answer.choices] == texts
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == sum(map(len, texts))
    stream = echo.client.completions.create(model="scripted", prompt=prompt, stream=True)
    found = [""] * len(texts)
    for chunk in stream:
        assert chunk.object == "text_completion"
        found[chunk.choices[0].index] += chunk.choices[0].text
    assert found == texts


def test_echo_and_the_number_of_tokens(echo: Running) -> None:
    answer = echo.client.completions.create(model="scripted", prompt="x" * 40, echo=True)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("x" * (40 + 16), "length")
    answer = echo.client.completions.create(model="scripted", prompt="abc", max_tokens=0, echo=True)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("abc", "length")
    stream = echo.client.completions.create(model="scripted", prompt=[97, 98], n=2, echo=True, stream=True)
    texts = ["", ""]
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == ["abab", "abab"]


def test_logprobs_of_a_completion(echo: Running) -> None:
    answer = echo.client.completions.create(model="scripted", prompt="aé", logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert (logprobs.tokens, logprobs.token_logprobs) == (["a", "\ufffd", "\ufffd"], [-0.5] * 3)
    assert logprobs.top_logprobs is not None
    assert logprobs.top_logprobs[0] == {"a": -0.5, "b": -1.5}
    with pytest.raises(BadRequestError) as caught:
        echo.client.completions.create(model="scripted", prompt="a", logprobs=2, echo=True)
    assert caught.value.param == "logprobs"
    with pytest.raises(BadRequestError) as caught:
        echo.client.completions.create(model="scripted", prompt="a", best_of=3)
    assert caught.value.param == "best_of"


def test_a_suffix_is_honoured_by_the_markers_of_a_hole(echo: Running) -> None:
    echo.client.completions.create(model="scripted", prompt="def f(", suffix="):\n    pass\n")
    assert told_by(echo) == "<|fim_prefix|>def f(<|fim_suffix|>):\n    pass\n<|fim_middle|>"
    request = echo.engine.asked[-1]
    assert set(echo.engine.tokenizer.fim.ids) <= set(request.ends)  # type: ignore[union-attr]


def test_markers_in_a_prompt_are_markers_and_others_are_text(echo: Running) -> None:
    written = "<|fim_prefix|>a<|im_end|><|fim_suffix|>b<|fim_middle|>"
    echo.client.completions.create(model="scripted", prompt=written)
    ids = echo.engine.asked[-1].ids
    assert [index for index in ids if index >= 256] == [259, 260, 261]
    assert told_by(echo) == written
    echo.client.completions.create(model="scripted", prompt="only <|fim_prefix|> here")
    assert max(echo.engine.asked[-1].ids) < 256


def test_files_stand_before_a_prompt(echo: Running) -> None:
    files = {"files": [{"path": "a.py", "text": "x = 1"}]}
    echo.client.completions.create(model="scripted", prompt="y", extra_body=files)
    assert told_by(echo) == "<|file_sep|>a.py\nx = 1\ny"


def test_a_model_without_markers_refuses_a_suffix(start: Start) -> None:
    from riallm.testing.engine import ByteTokenizer

    server = start(ScriptedEngine(tokenizer=ByteTokenizer(fills=False)))
    with pytest.raises(BadRequestError, match="no markers for fill-in-the-middle"):
        server.client.completions.create(model="scripted", prompt="a", suffix="b")
    server.client.completions.create(
        model="scripted", prompt="a", extra_body={"files": [{"path": "a.py", "text": "x"}]}
    )
    assert told_by(server) == "# a.py\nx\n\na"


def test_a_regex_holds(echo: Running) -> None:
    answer = echo.client.completions.create(
        model="scripted", prompt="zzz", extra_body={"response_format": {"type": "regex", "pattern": "[a-c]{3}"}}
    )
    assert answer.choices[0].text == "aaa"


def test_embeddings_as_numbers_and_as_bytes(echo: Running) -> None:
    made = echo.client.embeddings.create(model="scripted", input=["ab", "a"])  # the client asks for base64
    assert made.data[0].embedding == pytest.approx([0.5**0.5] * 2)
    assert [each.index for each in made.data] == [0, 1]
    assert made.usage.prompt_tokens == 3
    made = echo.client.embeddings.create(model="scripted", input=[97, 98], encoding_format="float")
    assert made.data[0].embedding == pytest.approx([0.5**0.5] * 2)
    status, raw = echo.post("/v1/embeddings", {"input": "ab", "encoding_format": "base64"})
    assert status == 200
    assert struct.unpack("<2f", base64.b64decode(raw["data"][0]["embedding"])) == pytest.approx([0.5**0.5] * 2)
    with pytest.raises(BadRequestError) as caught:
        echo.client.embeddings.create(model="scripted", input="a", dimensions=1)
    assert caught.value.param == "dimensions"
    with pytest.raises(BadRequestError) as caught:
        echo.client.embeddings.create(model="scripted", input="x" * 5000)
    assert caught.value.code == "context_length_exceeded"


def test_models_and_what_is_said_of_the_server(echo: Running) -> None:
    assert [model.id for model in echo.client.models.list()] == ["scripted"]
    assert echo.client.models.retrieve("scripted").owned_by == "riallm"
    with pytest.raises(APIStatusError) as caught:
        echo.client.models.retrieve("other")
    assert caught.value.status_code == 404
    for path in ("/models", "/health", "/v1/health", "/props", "/load", "/"):
        assert echo.send("GET", path)[0] == 200, path
    assert json.loads(echo.send("GET", "/props")[2])["default_generation_settings"]["n_ctx"] == 4096
    load = json.loads(echo.send("GET", "/load")[2])
    assert load["models"]["scripted"]["running"] == 0
    assert load["memory"]["process_bytes"] > 0


def test_the_page_needs_nothing_from_elsewhere(echo: Running) -> None:
    status, headers, data = echo.send("GET", "/")
    page = data.decode()
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert policy.count("'sha256-") == 2
    assert not re.search(r"//\S", page)
    for name in ("model", "key", "load", "requests", "pages", "memory", "speed", "log", "prompt", "send"):
        assert f'id="{name}"' in page


def test_metrics(start: Start) -> None:
    server = start()
    server.client.completions.create(model="scripted", prompt="abcd")
    server.client.completions.create(model="scripted", prompt="abcd")
    with pytest.raises(APIStatusError):
        server.client.completions.create(model="other", prompt="abcd")
    page = server.send("GET", "/metrics")[2].decode().splitlines()
    for line in (
        'riallm_requests_total{endpoint="/v1/completions",status="200"} 2.0',
        'riallm_requests_total{endpoint="/v1/completions",status="404"} 1.0',
        'riallm_prompt_tokens_total{model="scripted"} 8.0',
        'riallm_completion_tokens_total{model="scripted"} 8.0',
        'riallm_cached_tokens_total{model="scripted"} 4.0',
        'riallm_first_token_seconds_count{model="scripted"} 2.0',
        'riallm_token_gap_seconds_count{model="scripted"} 6.0',
        'riallm_requests_running{model="scripted"} 0.0',
        'riallm_pages{model="scripted"} 64.0',
    ):
        assert line in page
