"""One process at a time: a lock that the system lets go of when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from riallm.core.errors import UsageError


@contextlib.contextmanager
def only_one(lock: Path, busy: str, *, error: type[UsageError] = UsageError) -> Iterator[None]:
    """Hold the file `lock`, whose folder is there. Raises `error` with `busy` where another holds it, in which
    "{holder}" is its process."""
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise error(busy.replace("{holder}", file.read().strip() or "unknown")) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
