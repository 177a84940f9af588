"""The record of what was run and who said yes: append-only JSON lines, each chained to the one before by hash.

One file a project, in our state folder and not in the project. An entry holds the hash of its own content and
that of its predecessor; the last hash also stands in a file beside it, so that a shortened record shows. Secrets
are taken out before writing.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riallm.core.errors import UsageError
from riallm.core.files import atomic_write, canonical_json, sha256, state_home

START = "0" * 64
SECRETS = re.compile(
    r"""(?ix)
    (?P<key> \b[\w-]*(?:password|passwd|secret|token|api[_-]?key|authorization|credential)[\w-]*["']?\s*[:=]\s*
        (?:bearer\s+|basic\s+)?["']?)
    [^\s"',;&}]{4,}
    | \b(?:AKIA|ASIA)[0-9A-Z]{16}\b
    | \bgh[pousr]_[A-Za-z0-9]{20,}\b | \bgithub_pat_\w{20,}\b | \bglpat-[\w-]{16,}\b
    | \bsk-[A-Za-z0-9_-]{16,}\b | \bxox[abprs]-[\w-]{10,}\b
    | \beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,}\b
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?-----END\ [A-Z ]*PRIVATE\ KEY-----
    | (?<=://)[^/\s:@]+:[^/\s@]+(?=@)
    """,
    re.DOTALL,
)


def redact(value: Any) -> Any:
    """`value` with what looks like a secret replaced, in strings at any depth."""
    if isinstance(value, str):
        return SECRETS.sub(lambda match: (match.group("key") or "") + "[redacted]", value)
    if isinstance(value, dict):
        return {redact(key): redact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def user() -> str:
    """Who we are, by name where the machine knows one."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line: when (seconds since 1970), who, what kind of event, its data, and the two hashes."""

    time: float
    user: str
    event: str
    data: dict[str, Any]
    previous: str
    hash: str


class AuditLog:
    """The record of one project folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.path = state_home() / "audit" / f"{self.root.name or 'root'}-{sha256(str(self.root).encode())[:16]}.jsonl"

    @property
    def _head(self) -> Path:
        return self.path.with_suffix(".head")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.path.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def append(self, event: str, **data: Any) -> Entry:
        """Write one entry and flush it to disk before returning."""
        with self._locked():
            previous = self._head.read_text("ascii").strip() if self._head.exists() else START
            body = {
                "time": round(time.time(), 3),
                "user": user(),
                "event": event,
                "data": redact(data),
                "previous": previous,
            }
            digest = sha256(canonical_json(body).encode())
            with self.path.open("a", encoding="ascii") as file:
                file.write(canonical_json({**body, "hash": digest}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            atomic_write(self._head, digest.encode())
        return Entry(**body, hash=digest)

    def entries(self) -> list[Entry]:
        """All entries, oldest first. UsageError when there is no record or a line is no entry."""
        if not self.path.exists():
            raise UsageError(f"there is no record of {self.root}; riallm fix writes one")
        found = []
        for number, line in enumerate(self.path.read_text("ascii", "replace").splitlines(), 1):
            try:
                found.append(Entry(**json.loads(line)))
            except (json.JSONDecodeError, TypeError):
                raise UsageError(f"{self.path}:{number} is not an entry: the record was changed") from None
        return found

    def verify(self) -> tuple[int, str]:
        """(number of entries, what is wrong); an empty string when every hash holds up to the last."""
        entries, previous = self.entries(), START
        for number, entry in enumerate(entries, 1):
            body = {"time": entry.time, "user": entry.user, "event": entry.event, "data": entry.data}
            digest = sha256(canonical_json({**body, "previous": entry.previous}).encode())
            if entry.previous != previous:
                return len(entries), f"entry {number} does not follow the one before it: something was removed or moved"
            if digest != entry.hash:
                return len(entries), f"entry {number} was changed after it was written"
            previous = entry.hash
        head = self._head.read_text("ascii").strip() if self._head.exists() else START
        if head != previous:
            return len(entries), "the record ends before its last known entry: it was shortened"
        return len(entries), ""
