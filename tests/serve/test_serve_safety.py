"""Who may come in, what is too much, and clients that vanish, read nothing, or are cut off."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openai import APIError, APIStatusError, AuthenticationError, OpenAI, RateLimitError
from serving import Running

from riallm.core.errors import UsageError
from riallm.serve.run import listen
from riallm.serve.served import key_hash, read_keys
from riallm.testing.engine import ScriptedEngine

Start = Callable[..., Running]

ENDLESS = {"go": "x" * 400_000}


def endless(**more: Any) -> ScriptedEngine:
    """An engine whose answer takes longer than any test."""
    return ScriptedEngine(answers=ENDLESS, context=1_000_000, **{"pause": 0.001, **more})


def raw(server: Running, body: Any, *, receive_bytes: int | None = None) -> socket.socket:
    """A connection on which a request was sent."""
    connection = socket.socket()
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", server.port))
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def runs(server: Running, num: int = 1) -> None:
    """Wait until so many requests run."""
    while server.engine.load().running < num:
        threading.Event().wait(0.005)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:99", 200),
        ("127.0.0.1", 200),
        ("[::1]:8080", 200),
        ("model.lan", 200),
        ("evil.example", 403),
        ("evil.example:8080", 403),
        ("localhost.evil.example", 403),
        ("", 403),
    ],
)
def test_a_page_that_calls_its_own_name_is_not_let_in(start: Start, host: str, status: int) -> None:
    server = start(hosts=("model.lan",))
    assert server.send("GET", "/v1/models", headers={"Host": host})[0] == status


def test_pages_of_other_sites_may_not_call(start: Start) -> None:
    server = start()
    body = {"prompt": "x"}
    for origin, status in (("https://evil.example", 403), ("null", 403), (f"http://127.0.0.1:{server.port}", 200)):
        got, headers, _ = server.send("POST", "/v1/completions", body, headers={"Origin": origin})
        assert (got, "access-control-allow-origin" in headers) == (status, False), origin
    allowed = start(origins=("https://app.example",))
    ask = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    got, headers, _ = allowed.send("OPTIONS", "/v1/completions", headers=ask)
    assert (got, headers["access-control-allow-origin"]) == (200, "https://app.example")
    got, headers, _ = allowed.send("POST", "/v1/completions", body, headers={"Origin": "https://app.example"})
    assert (got, headers["access-control-allow-origin"]) == (200, "https://app.example")
    assert allowed.send("POST", "/v1/completions", body, headers={"Origin": "https://evil.example"})[0] == 403


def test_keys(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nsk-one\n\nsk-two\n")
    file.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        read_keys(file)
    file.chmod(0o600)
    assert read_keys(file) == (key_hash("sk-one"), key_hash("sk-two"))
    with pytest.raises(UsageError, match="cannot be read"):
        read_keys(tmp_path / "none")
    (tmp_path / "empty").touch(0o600)
    with pytest.raises(UsageError, match="holds no key"):
        read_keys(tmp_path / "empty")

    server = start(keys=read_keys(file))
    with pytest.raises(AuthenticationError) as caught:
        server.client.models.list()
    assert caught.value.code == "invalid_api_key"
    for path, status in (("/v1/models", 401), ("/metrics", 401), ("/load", 401), ("/health", 200), ("/", 200)):
        assert server.send("GET", path)[0] == status, path
    with OpenAI(base_url=str(server.client.base_url), api_key="sk-two", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["scripted"]
    for sent in ("sk-one", "Basic sk-one", "Bearer sk-on", "Bearer sk-oneé".encode("latin-1").decode("latin-1")):
        assert server.send("GET", "/v1/models", headers={"Authorization": sent})[0] == 401, sent


def test_only_loopback_unless_it_is_said() -> None:
    with pytest.raises(UsageError, match="other machines"):
        listen("0.0.0.0", 0)
    with listen("0.0.0.0", 0, public=True) as first, pytest.raises(UsageError, match="another port"):
        listen("127.0.0.1", first.getsockname()[1])
    with pytest.raises(UsageError, match="--port 70000"):
        listen("127.0.0.1", 70_000)


def test_a_body_that_is_too_long(start: Start) -> None:
    server = start(max_body_bytes=1000)
    status, answer = server.post("/v1/completions", {"prompt": "x" * 2000})
    assert (status, answer["error"]["code"]) == (413, "body_too_long")
    # One that does not say how long it is.
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"7d0\r\n" + b"x" * 2000 + b"\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")
    assert server.post("/v1/completions", {"prompt": "x"})[0] == 200


def test_too_many_that_wait(start: Start) -> None:
    server = start(endless(most=1), max_waiting=1)
    body = {"prompt": "go", "max_tokens": 100_000}
    with raw(server, body):
        runs(server)
        with raw(server, body):
            while server.engine.load().waiting < 1:
                threading.Event().wait(0.005)
            with pytest.raises(RateLimitError) as caught:
                server.client.completions.create(model="scripted", prompt="x")
            assert caught.value.response.headers["retry-after"] == "1"
    server.settled()
    assert server.client.completions.create(model="scripted", prompt="x").choices[0].text == "x"


def test_too_many_in_one(start: Start) -> None:
    server = start(max_waiting=8)
    status, answer = server.post("/v1/completions", {"prompt": ["x", "y", "z"], "n": 3})
    assert (status, "ask for 8 at most" in answer["error"]["message"]) == (400, True)
    assert server.post("/v1/completions", {"prompt": ["x", "y", "z"], "n": 2})[0] == 200
    with pytest.raises(UsageError, match="max_waiting is 0"):
        start(max_waiting=0)


def test_what_was_handed_over_is_taken_back_when_the_rest_is_refused(start: Start) -> None:
    server = start(endless(max_waiting=3, most=1))
    with pytest.raises(RateLimitError):
        server.client.completions.create(model="scripted", prompt="go", max_tokens=100_000, n=16)
    server.settled()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_vanishes_frees_the_engine(start: Start, stream: bool) -> None:
    server = start(endless())
    connection = raw(server, {"prompt": "go", "max_tokens": 100_000, "stream": stream})
    runs(server)
    if stream:
        assert connection.recv(10) == b"HTTP/1.1 2"
    connection.close()
    server.settled()
    assert server.engine.load().completion_tokens < 100_000


def test_a_client_that_reads_a_byte_a_second_frees_the_engine(start: Start) -> None:
    server = start(endless(), stall_seconds=0.5)
    with raw(
        server, {"prompt": "go", "max_tokens": 400_000, "stream": True, "logprobs": 5}, receive_bytes=4096
    ) as slow:
        runs(server)
        while server.engine.load().running:
            assert slow.recv(1)
            threading.Event().wait(1)
    assert server.engine.load().completion_tokens < 400_000


def test_a_request_has_an_end(start: Start) -> None:
    server = start(endless(), request_seconds=0.3)
    with pytest.raises(APIStatusError) as caught:
        server.client.completions.create(model="scripted", prompt="go", max_tokens=100_000)
    assert caught.value.status_code == 504
    server.settled()
    with pytest.raises(APIError, match=r"more than 0\.3 seconds"):
        for _ in server.client.completions.create(model="scripted", prompt="go", max_tokens=100_000, stream=True):
            pass
    server.settled()


def test_an_engine_that_closes_ends_its_streams(start: Start) -> None:
    server = start(endless())
    with pytest.raises(APIError, match="stopping"):
        for _ in server.client.completions.create(model="scripted", prompt="go", max_tokens=100_000, stream=True):
            server.engine.close()


def test_a_line_for_every_request_and_no_word_of_it(start: Start) -> None:
    server = start()
    secret = "s3cr3t"
    status, headers, _ = server.send("POST", "/v1/completions", {"prompt": secret}, headers={"X-Request-Id": "abc-1"})
    assert (status, headers["x-request-id"]) == (200, "abc-1")
    _, headers, _ = server.send("POST", "/v1/completions", {secret: 1}, headers={"X-Request-Id": f"{secret}\t'"})
    assert headers["x-request-id"].startswith("req_")
    server.send("GET", f"/{secret}")
    server.send("GET", f"/v1/models/{secret}")
    while len(server.lines) < 4:
        threading.Event().wait(0.005)
    lines = [json.loads(line) for line in server.lines]
    assert [(line["endpoint"], line["status"]) for line in lines] == [
        ("/v1/completions", 200),
        ("/v1/completions", 400),
        ("other", 404),
        ("/v1/models/{name:path}", 404),
    ]
    assert (lines[0]["id"], lines[0]["prompt_tokens"], lines[0]["completion_tokens"]) == ("abc-1", 6, 6)
    assert secret not in "".join(server.lines)


SERVER = """
import sys
from riallm.serve.app import create_app
from riallm.serve.prompts import PlainPrompts
from riallm.serve.run import serve
from riallm.serve.served import Served, ServeOptions
from riallm.testing.engine import ScriptedEngine

engine = ScriptedEngine(answers={"go": "abcdefghij" * 10}, pause=0.02)
served = Served(engine=engine, tokenizer=engine.tokenizer, prompts=PlainPrompts(engine.tokenizer))
app = create_app({"scripted": served}, ServeOptions())
serve(app, port=0, drain_seconds=60, ready=lambda address: print(address, flush=True))
print("drained", engine.load().running, flush=True)
"""


def test_a_signal_lets_requests_finish() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        text = ""
        with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            stream = client.completions.create(model="scripted", prompt="go", max_tokens=200, stream=True)
            for chunk in stream:
                if not text:
                    process.send_signal(signal.SIGTERM)
                text += chunk.choices[0].text
        assert text == "abcdefghij" * 10
        assert process.stdout.read() == "drained 0\n"
        assert process.wait() == 0
