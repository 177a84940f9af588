"""A real server in a thread, over a tiny model with a memory, whose updates can be held up and are counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from openai import OpenAI
from serving import Running
from torch import Tensor

from riallm.engine.memories import Memories
from riallm.engine.memory_engine import MemoryEngine
from riallm.engine.sqlite_sessions import SQLiteSessions
from riallm.models.load import TOKENIZER, load_rxt
from riallm.models.rxt import RxT
from riallm.nn.memory_state import MemoryState
from riallm.serve.app import create_app
from riallm.serve.interactions import InteractionPrompts
from riallm.serve.run import listen, prepare
from riallm.serve.served import Served, ServeOptions
from riallm.tokenizer import saved
from riallm.tokenizer.interaction import InteractionText

SECONDS = 30.0


class Watch:
    """What a model writes: interactions in order; `gate` holds updates up, `wrong` spoils them."""

    def __init__(self, model: RxT) -> None:
        self.written: list[list[int]] = []
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()
        self.wrong = 1.0
        self._plain = model.end_turn
        model.end_turn = self._end_turn  # type: ignore[method-assign]

    def _end_turn(self, tokens: Tensor, mask: Tensor, state: MemoryState) -> MemoryState:
        self.begun.set()
        assert self.gate.wait(SECONDS)
        self.written += [row[here].tolist() for row, here in zip(tokens, mask, strict=True)]
        after = self._plain(tokens, mask, state)
        return replace(after, slots=after.slots * self.wrong)


@dataclass(frozen=True, kw_only=True)
class Remembering(Running):
    """A server that answers, and what it remembers with."""

    watch: Watch
    memories: Memories
    text: InteractionText


@contextmanager
def remembering(
    folder: Path, store: SQLiteSessions | None = None, *, seed: int | None = None, **options: Any
) -> Iterator[Remembering]:
    """seed: other weights than the folder's."""
    model = load_rxt(folder)
    if seed is not None:
        model.initialise(seed)
        model.fingerprint = f"drawn {seed}"
    text = InteractionText(saved.load(folder / TOKENIZER))
    with torch.no_grad():
        engine = MemoryEngine(model, name="tiny", decode=text.decode_bytes)
    memories = Memories(engine, store or SQLiteSessions(None))
    served = Served(
        engine=engine, tokenizer=text, prompts=InteractionPrompts(text.tokenizer), embeds=False, memories=memories
    )
    lines: list[str] = []
    app = create_app({"tiny": served}, ServeOptions(log=lines.append, **options))
    listening, server = listen("127.0.0.1", 0), prepare(app, drain_seconds=1)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    port = listening.getsockname()[1]
    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=30)
    watch, untyped = Watch(model), dict[str, Any](engine=engine)
    try:
        yield Remembering(port=port, lines=lines, client=client, watch=watch, memories=memories, text=text, **untyped)
    finally:
        watch.gate.set()
        client.close()
        engine.close()
        memories.close()
        server.should_exit = True
        thread.join(timeout=20)
        listening.close()
        assert not thread.is_alive()
