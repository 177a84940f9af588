"""What a run keeps: results line by line, and verdicts by (bug, candidate). Both survive a kill at any moment."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from riallm.core.errors import UsageError
from riallm.core.files import atomic_write

RULES = 2
"""Raised whenever the meaning of a cached verdict changes, so that old ones are not read."""

WAIT_SECONDS = 60.0
"""For another process to let go of the file of verdicts."""


class Verdicts:
    """A table (digest of the bug, kind of question, key of the candidate) -> JSON value, in SQLite.

    Several processes may use the same file. `hits` counts the answers that came from it.
    """

    def __init__(self, path: Path) -> None:
        self.hits = 0
        self._connection = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)
        self._keep_log()
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS verdicts (digest TEXT, kind TEXT, key TEXT, value TEXT,"
            " PRIMARY KEY (digest, kind, key)) WITHOUT ROWID"
        )

    def _keep_log(self) -> None:
        """Switch the file to a write-ahead log. Of several that do so to a new file at once, SQLite refuses all but one
        without waiting, whatever its timeout says."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def get(self, digest: str, kind: str, key: str) -> Any | None:
        """The value, or None."""
        row = self._connection.execute(
            "SELECT value FROM verdicts WHERE digest = ? AND kind = ? AND key = ?", (f"{RULES}:{digest}", kind, key)
        ).fetchone()
        if row is None:
            return None
        self.hits += 1
        return json.loads(row[0])

    def put(self, digest: str, kind: str, key: str, value: Any) -> None:
        """Keep a value."""
        self._connection.execute(
            "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?)", (f"{RULES}:{digest}", kind, key, json.dumps(value))
        )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class Results:
    """`results.jsonl` in a folder, one line a bug, and `config.json`, which says what the lines belong to."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Raises UsageError when the folder holds the results of another configuration."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "results.jsonl"
        known = folder / "config.json"
        text = json.dumps(dict(config), indent=1, sort_keys=True)
        if not known.exists():
            atomic_write(known, text.encode())
        elif json.loads(known.read_text()) != json.loads(text):
            raise UsageError(
                f"{folder} holds results of other settings ({known.name}); give another --out, or the same settings"
            )
        self._mend()

    def _mend(self) -> None:
        """Cut off a last line that a kill left unfinished."""
        if self.path.exists():
            data = self.path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if len(whole) != len(data):
                atomic_write(self.path, whole)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                yield json.loads(line)

    def latest(self) -> dict[str, dict[str, Any]]:
        """Id -> its last result; what ended by an error of ours is left out, so that it is tried again."""
        return {row["id"]: row for row in self if row["status"] != "error"}

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one line and make sure that it is on the disk."""
        with self.path.open("ab") as file:
            file.write((json.dumps(dict(row), ensure_ascii=True) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
