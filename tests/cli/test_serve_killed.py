"""`riallm serve` with a memory, killed at any moment: at most the update in flight is lost, and what is stored is
whole."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import openai
import pytest

from riallm.engine.sqlite_sessions import SQLiteSessions
from riallm.models.load import load_rxt
from riallm.testing.tiny_rxt import write_tiny_rxt

RUN = [sys.executable, "-m", "riallm", "serve", "--port", "0", "--quiet"]
SECONDS = 60.0
KILLS = 5


@contextmanager
def serving(folder: Path, store: Path) -> Iterator[tuple[subprocess.Popen[str], openai.OpenAI]]:
    process = subprocess.Popen(
        [*RUN, "--model", str(folder), "--sessions", str(store)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert line.startswith("tiny answers at http://127.0.0.1:"), line + process.stderr.read()
        with openai.OpenAI(base_url=line.split()[3], api_key="none", max_retries=0, timeout=SECONDS) as client:
            yield process, client
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


class Life:
    """Two conversations with one server, until it is killed: responses behind each other, and one by its name."""

    def __init__(self, client: openai.OpenAI, last: str | None, conversation: str) -> None:
        self.ids: list[str] = [] if last is None else [last]
        self.spoken = 0
        self._client, self._conversation = client, conversation
        self._threads = [threading.Thread(target=each) for each in (self._respond, self._speak)]
        self.begun = threading.Barrier(3)
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()

    def _respond(self) -> None:
        with contextlib.suppress(openai.APIConnectionError):
            while True:
                previous = self.ids[-1] if self.ids else openai.omit
                said = self._client.responses.create(
                    model="tiny", input=f"turn {len(self.ids)}", previous_response_id=previous, max_output_tokens=3
                )
                self.ids.append(said.id)
                self._first(len(self.ids) - 1)

    def _speak(self) -> None:
        with contextlib.suppress(openai.APIConnectionError):
            while True:
                self._client.responses.create(
                    model="tiny", input="again", conversation=self._conversation, max_output_tokens=3
                )
                self.spoken += 1
                self._first(self.spoken)

    def _first(self, num: int) -> None:
        if num == 1:
            self.begun.wait(SECONDS)


@pytest.mark.slow
def test_a_killed_server_loses_at_most_the_update_in_flight(tmp_path: Path) -> None:
    folder, store = write_tiny_rxt(tmp_path / "tiny"), tmp_path / "sessions.sqlite"
    model, draw = load_rxt(folder), random.Random(5)
    last, version, conversation, spoken = None, 0, None, 0
    for _ in range(KILLS):
        with serving(folder, store) as (process, client):
            conversation = conversation or client.conversations.create().id
            life = Life(client, last, conversation)
            life.begun.wait(SECONDS)  # both have been answered at least once
            threading.Event().wait(draw.uniform(0.0, 0.8))
            process.kill()
            life.join()
        with closing(SQLiteSessions(store)) as opened:
            with closing(sqlite3.connect(store)) as plain:
                kept = {id for (id,) in plain.execute("SELECT id FROM snapshots")}
            for id in kept:
                state = opened.get(id, model=model.fingerprint).state
                state.check(model.config.memory_shape, model.fingerprint)
            told = life.ids[0 if last is None else 1 :]
            lost = [id for id in told if id not in kept]
            assert lost in ([], told[-1:]), "every answer that was told, but for the last one's memory"
            versions = [opened.get(id).state.version for id in told if id in kept]
            assert versions == list(range(version + 1, version + 1 + len(versions)))
            version += len(versions)
            last = next((id for id in reversed(told) if id in kept), last)
            head = opened.head(conversation)
            assert head is not None
            reached = opened.get(head).state.version
            assert spoken + life.spoken - 1 <= reached <= spoken + life.spoken + 1
            spoken = reached
    assert last is not None and conversation is not None
    with serving(folder, store) as (_, client):
        client.responses.create(model="tiny", input="more", previous_response_id=last, max_output_tokens=2)
        client.responses.create(model="tiny", input="more", conversation=conversation, max_output_tokens=2)
