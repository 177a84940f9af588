"""A real server in a thread, over the engine that says what it was told to."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

from openai import OpenAI

from riallm.serve.app import create_app
from riallm.serve.prompts import PlainPrompts
from riallm.serve.run import listen, prepare
from riallm.serve.served import Served, ServeOptions
from riallm.testing.engine import ScriptedEngine


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that answers, the engine behind it, and the lines of its log."""

    port: int
    engine: ScriptedEngine
    lines: list[str]
    client: OpenAI

    def send(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of a request without any client; a body that is no bytes is sent as JSON."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, body=data, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def post(self, path: str, body: Any, **more: Any) -> tuple[int, Any]:
        """(status, JSON) of a POST."""
        status, _, data = self.send("POST", path, body, **more)
        return status, json.loads(data)

    def events(self, path: str, body: Any) -> list[tuple[str | None, Any]]:
        """(name, JSON) of each event of a stream; [DONE] as text."""
        status, headers, data = self.send("POST", path, body)
        assert status == 200, data
        assert headers["content-type"].startswith("text/event-stream")
        found = []
        for block in data.decode().split("\n\n")[:-1]:
            lines = dict(line.split(": ", 1) for line in block.split("\n"))
            found.append((lines.get("event"), "[DONE]" if lines["data"] == "[DONE]" else json.loads(lines["data"])))
        return found

    def settled(self) -> None:
        """Wait until the engine runs nothing; the test's own time limit is the limit."""
        while (load := self.engine.load()).running + load.waiting:
            threading.Event().wait(0.01)


def served(engine: ScriptedEngine, **more: Any) -> Served:
    return Served(engine=engine, tokenizer=engine.tokenizer, prompts=PlainPrompts(engine.tokenizer), **more)


@contextmanager
def running(engine: ScriptedEngine, *, drain_seconds: float = 1, **options: Any) -> Iterator[Running]:
    lines: list[str] = []
    app = create_app({"scripted": served(engine)}, ServeOptions(log=lines.append, **options))
    listening: socket.socket = listen("127.0.0.1", 0)
    server = prepare(app, drain_seconds=drain_seconds)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    port = listening.getsockname()[1]
    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=30)
    try:
        yield Running(port=port, engine=engine, lines=lines, client=client)
    finally:
        client.close()
        engine.close()
        server.should_exit = True
        thread.join(timeout=20)
        listening.close()
        assert not thread.is_alive()
