"""What is served, and how: models with their prompts, and the limits of a server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from riallm.core.errors import UsageError
from riallm.engine.memories import Memories
from riallm.engine.request import Engine
from riallm.nn.meta import TokenMeta
from riallm.tokenizer.text import TextTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file that the model sees beside the prompt; the path is a label and is never opened."""

    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the model reads; meta says which file each token belongs to, None: there is one.

    Of a model with a memory: history has the interactions before this one, as they are written, and whole makes this
    one of the answer's text; the answer leaves room for its end.
    """

    ids: tuple[int, ...]
    meta: TokenMeta | None = None
    history: tuple[tuple[int, ...], ...] = ()
    whole: Callable[[str], Sequence[int]] | None = None


class PromptMaker(Protocol):
    """How a model's prompts are written. Raises UsageError for what the model cannot be asked. Called from threads."""

    @property
    def tools(self) -> bool:
        """Whether tools can be offered to the model."""
        ...

    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]], files: Sequence[File]
    ) -> Prompt:
        """Messages and tools are as chat templates read them."""
        ...

    def text(self, prompt: str | Sequence[int], *, files: Sequence[File]) -> Prompt:
        """A text that is gone on with, or its ids, which are taken as they are."""
        ...

    def infill(self, prefix: str, suffix: str, *, files: Sequence[File], path: str | None, room: int) -> Prompt:
        """A hole between prefix and suffix, of a file at `path`. At most `room` tokens: what lies furthest from the
        hole is left out first, other files before the hole's own."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model behind its name. created: seconds since 1970. note: a word on it for /v1/models, for instance that it
    is no chat model. embeds: whether its embeddings are offered. memories: of a model that keeps conversations in a
    memory, which the engine must be of."""

    engine: Engine
    tokenizer: TextTokenizer
    prompts: PromptMaker
    created: int = 0
    owner: str = "riallm"
    note: str | None = None
    embeds: bool = True
    memories: Memories | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Limits and doors of a server.

    keys: SHA-256 of each API key; none: no key is asked for. hosts: names that the Host header may have beside
    localhost, the name bound to, and IP addresses. origins: of pages in browsers that may call, "*" for all; none by
    default. max_body_bytes: longest body. max_waiting: more waiting answers of a model are refused with 429, and
    so many at most may one request ask for.
    request_seconds: longest time for a whole request. stall_seconds: longest time that a client may read nothing.
    log: is given one JSON line a request.
    """

    keys: tuple[bytes, ...] = ()
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_body_bytes: int = 8 << 20
    max_waiting: int = 64
    request_seconds: float = 600.0
    stall_seconds: float = 20.0
    log: Callable[[str], object] | None = None

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "max_waiting", "request_seconds", "stall_seconds"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}; expected more than 0")


def read_keys(path: Path) -> tuple[bytes, ...]:
    """API keys of a file, one a line, as hashes; lines with # are comments. Raises UsageError for a file without any,
    and for one that others may read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the keys cannot be read from {path} ({error}); give a text file with one key a line"
        ) from None
    if mode & 0o077:
        raise UsageError(f"others may read the keys in {path}; run: chmod 600 {path}")
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        raise UsageError(f"{path} holds no key; write one a line")
    return tuple(key_hash(key) for key in keys)


def key_hash(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).digest()
