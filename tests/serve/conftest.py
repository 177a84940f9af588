"""A real server in a thread, over the engine that says what it was told to, and the real client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from openai import OpenAI

from riallm.serve.app import create_app
from riallm.serve.prompts import PlainPrompts
from riallm.serve.run import address, listen, prepare
from riallm.serve.served import Served, ServeOptions
from riallm.testing.engine import ScriptedEngine


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that answers at `url`, and the engine behind it."""

    url: str
    engine: ScriptedEngine
    lines: list[str]

    @property
    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)


def served(engine: ScriptedEngine, *, note: str | None = None) -> Served:
    return Served(engine=engine, tokenizer=engine.tokenizer, prompts=PlainPrompts(engine.tokenizer), note=note)


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    """start(engine, **options): a server over the engine, gone after the test."""
    stops: list[Callable[[], None]] = []

    def start(engine: ScriptedEngine | None = None, **options: object) -> Running:
        engine = engine or ScriptedEngine()
        lines: list[str] = []
        app = create_app({"scripted": served(engine)}, ServeOptions(log=lines.append, **options))  # type: ignore[arg-type]
        listening = listen("127.0.0.1", 0)
        server = prepare(app, drain_seconds=1)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()

        def stop() -> None:
            engine.close()
            server.should_exit = True
            thread.join(timeout=20)
            listening.close()
            assert not thread.is_alive()

        stops.append(stop)
        return Running(url=address(listening), engine=engine, lines=lines)

    yield start
    for stop in stops:
        stop()
