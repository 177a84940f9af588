"""Memories of conversations that outlive the process: snapshots that never change, and heads that move along them.

A snapshot names the one that it was made from, and any number may name the same, so a fork costs nothing.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Protocol

from riallm.core.errors import UsageError
from riallm.nn.memory_state import MemoryState


class UnknownSession(UsageError):
    """No snapshot or conversation has this name."""


class ExpiredSession(UnknownSession):
    """The snapshot was there, and a limit of time or size had it dropped."""


class Conflict(UsageError):
    """The head of a conversation is not where the caller expected it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """A memory as it was put; note: bytes of the caller; created: in unix seconds."""

    id: str
    parent: str | None
    state: MemoryState
    note: bytes
    created: float


class SessionStore(Protocol):
    """Where memories of conversations are kept."""

    def put(self, state: MemoryState, *, parent: str | None, note: bytes = b"", id: str | None = None) -> str:
        """The id of a new snapshot, one of `new_id` that was promised already or None. Raises UsageError for a state
        whose numbers `MemoryState.check` refuses or that is larger than the store, and UnknownSession for a parent that
        never was."""

    def get(self, id: str, *, model: str = "") -> Snapshot:
        """The snapshot, which counts as a use of it. Raises UnknownSession, or ExpiredSession where a limit had it
        dropped; UsageError when another model than `model` wrote it; CheckpointError when it is damaged."""

    def head(self, conversation: str) -> str | None:
        """The id of the snapshot where a conversation stands; None when there is no such conversation. A head that a
        limit had dropped is still named, and `get` of it says so."""

    def begun(self, conversation: str) -> float:
        """When a conversation began, in unix seconds. Raises UnknownSession."""

    def advance(self, conversation: str, *, expected: str | None, to: str) -> None:
        """Move the head to the snapshot `to` if it is `expected`; None begins a conversation. Raises Conflict if the
        head is another one, and UnknownSession for `to`."""

    def put_and_advance(
        self,
        state: MemoryState,
        *,
        conversation: str,
        expected: str | None,
        note: bytes = b"",
        id: str | None = None,
    ) -> str:
        """Put a child of `expected` and move the head to it, both or neither. Returns and raises as those two do."""

    def delete(self, id: str) -> None:
        """Remove one snapshot, and conversations that stand there; what was made from it counts as made from its
        parent, so that `forget` still finds what lies before. Raises UnknownSession."""

    def forget(self, conversation: str) -> None:
        """Remove a conversation, and of the snapshots that lead to its head those that lead to no other. Raises
        UnknownSession."""


def new_id() -> str:
    """An id that no snapshot has; nobody can guess it."""
    return f"resp_{secrets.token_hex(16)}"
