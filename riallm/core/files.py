"""Files that are whole or absent: atomic writes, hashes, and where our own data lives."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from riallm.core.errors import UsageError


def atomic_write(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Replace `path` by `data` in one step; on any failure the old content stays.

    `mode` defaults to the mode of the file being replaced, or 0o644 for a new one.
    """
    path = Path(path)
    if mode is None:
        mode = path.stat().st_mode & 0o7777 if path.exists() else 0o644
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def made_folder(path: Path, option: str = "--out") -> Path:
    """A folder for what is made, which is there or is made now; `option` names it. Raises UsageError where none can be,
    or where nothing can be written into it."""
    try:
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is no folder; name another for what is made, by {option}")
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UsageError(
            f"nothing can be written into the folder {path}: {error.strerror}; name another, by {option}"
        ) from None
    return path


def sync(path: Path) -> None:
    """Have a file, or a folder's names, on the disk before anything else is done."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(data: bytes) -> str:
    """Hex digest of `data`."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> str:
    """The one spelling of `value` that hashes are taken of: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def state_home() -> Path:
    """Folder of our own records (audit, locks): `$XDG_STATE_HOME/riallm`, outside every project."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "riallm"


def cache_home() -> Path:
    """Folder for what can be made again (evaluation data, verdicts): `$XDG_CACHE_HOME/riallm`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "riallm"
