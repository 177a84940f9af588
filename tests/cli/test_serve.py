"""`riallm serve` and `riallm chat` as processes: a real client, a real model, and an end that loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from riallm.testing.tiny import write_tiny

RUN = [sys.executable, "-m", "riallm"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny", context=256)


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its address."""
    process = subprocess.Popen(
        [*RUN, "serve", "--model", str(folder), "--port", "0", "--quiet"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("tiny answers at http://127.0.0.1:"), line + process.stderr.read()
    yield process, line.split()[3]
    process.kill()
    process.wait()
    process.stderr.close()


def test_a_client_is_answered_by_the_model(served: tuple[subprocess.Popen[str], str]) -> None:
    client = openai.OpenAI(base_url=served[1], api_key="none")
    assert [model.id for model in client.models.list()] == ["tiny"]
    asked = {"model": "tiny", "prompt": "def wrap(text):\n", "max_tokens": 12, "temperature": 0.0}
    whole = client.completions.create(**asked)
    assert whole.usage is not None and whole.usage.completion_tokens == 12
    pieces = list(client.completions.create(**asked, stream=True))
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == whole.choices[0].text
    filled = client.completions.create(**asked, suffix="\n    return text\n")
    assert filled.choices[0].text != whole.choices[0].text
    chat = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=5, seed=1
    )
    assert chat.choices[0].finish_reason == "length"
    with pytest.raises(openai.NotFoundError, match="tiny"):
        client.completions.create(model="other", prompt="x")
    with pytest.raises(openai.BadRequestError, match="maximum context length is 256 tokens"):
        client.completions.create(model="tiny", prompt="x " * 300, max_tokens=5)


def test_an_answer_is_finished_before_the_end(served: tuple[subprocess.Popen[str], str]) -> None:
    process, address = served
    client = openai.OpenAI(base_url=address, api_key="none")
    stream = client.completions.create(model="tiny", prompt="def", max_tokens=200, temperature=1.0, seed=3, stream=True)
    pieces = [next(stream)]
    process.send_signal(signal.SIGTERM)
    pieces += list(stream)
    assert pieces[-1].choices[0].finish_reason in ("length", "stop")
    assert process.wait(60) == 0


def ran(*words: str, given: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *words], input=given, capture_output=True, text=True, env={**os.environ, **(env or {})}, check=False
    )


def test_chat_answers_once_or_line_by_line(folder: Path) -> None:
    asked = ("--prompt", "def wrap(", "--max-tokens", "6", "--temperature", "0", "--json")
    once = ran("--model", str(folder), "--device", "cpu", *asked)
    told = json.loads(once.stdout)
    assert once.returncode == 0 and told["model"] == "tiny" and told["usage"]["completion_tokens"] == 6
    talk = ran("chat", "--model", str(folder), "--max-tokens", "4", given="hello\n:nothing\n:reset\nagain\n:quit\nno\n")
    assert talk.returncode == 0 and "no word :nothing" in talk.stderr and "no chat model" in talk.stderr
    assert len(talk.stdout.splitlines()) >= 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("chat", "--model", "ria-1b"), "nobody has weights of ria-1b"),
        (("serve", "--model", "nowhere"), "no model 'nowhere'"),
        (("serve", "--lookahead", "-1"), "--lookahead is -1; it is at least 0"),
        (("serve", "--public", "--host", "0.0.0.0"), "give keys"),
        (("serve", "--api-key-file", "/nowhere"), "keys cannot be read"),
        (("chat", "--kv-memory", "0"), "--kv-memory is 0.0"),
    ],
)
def test_what_cannot_be_is_said(words: tuple[str, ...], complaint: str) -> None:
    done = ran(*words)
    assert done.returncode == 2 and complaint in done.stderr and "Traceback" not in done.stderr
