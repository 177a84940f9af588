"""Reading parts of files that must stay as they were when they were opened.

Bytes are read into memory of ours, never mapped: a file that is cut while it is mapped kills the process.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riallm.core.errors import CheckpointError

MOST_JSON_BYTES = 100 << 20
"""No configuration, index or tokenizer is larger; more is a mistake or an attack."""
REQUEST_BYTES = 1 << 30
"""Linux gives at most 2 GiB a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A file as it was when it was opened. mtime_ns: nanoseconds since 1970."""

    path: Path
    num_bytes: int
    mtime_ns: int
    inode: int


def look(path: Path) -> Seen:
    """Raises CheckpointError for what is no readable file."""
    try:
        found = path.stat()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; copy or download the model again") from None
    if not path.is_file():
        raise CheckpointError(f"{path} is no file")
    return Seen(path=path, num_bytes=found.st_size, mtime_ns=found.st_mtime_ns, inode=found.st_ino)


def read(seen: Seen, offset: int, num_bytes: int) -> Tensor:
    """(num_bytes,) uint8, in memory of its own. Raises CheckpointError for a file that changed or ends too early."""
    data = torch.empty(num_bytes, dtype=torch.uint8)
    read_into(seen, offset, data.numpy().data)
    return data


def read_into(seen: Seen, offset: int, target: memoryview) -> None:
    """Fill `target` from the file. Raises CheckpointError for a file that changed or ends too early."""
    try:
        descriptor = os.open(seen.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise CheckpointError(f"{seen.path} cannot be read: {error.strerror}") from None
    try:
        unchanged(seen, os.fstat(descriptor))
        done = 0
        while done < len(target):
            got = os.preadv(descriptor, [target[done : done + REQUEST_BYTES]], offset + done)
            if got == 0:
                raise CheckpointError(
                    f"{seen.path} ends too early: at {offset} expected {len(target)} bytes, got {done}; "
                    "copy or download it again"
                )
            done += got
    except OSError as error:
        raise CheckpointError(f"{seen.path} cannot be read at {offset + done}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def unchanged(seen: Seen, now: os.stat_result) -> None:
    """Raises CheckpointError for another size, time or inode than when the model was opened."""
    pairs = {
        "size": (seen.num_bytes, now.st_size),
        "time": (seen.mtime_ns, now.st_mtime_ns),
        "inode": (seen.inode, now.st_ino),
    }
    for what, (before, after) in pairs.items():
        if before != after:
            raise CheckpointError(
                f"{seen.path} changed while it was in use: {what} {after}, it was opened with {before}; "
                "load the model again"
            )


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file. Raises CheckpointError for anything else."""
    seen = look(path)
    if seen.num_bytes > MOST_JSON_BYTES:
        raise CheckpointError(f"{path} has {seen.num_bytes} bytes; expected at most {MOST_JSON_BYTES}")
    data = read(seen, 0, seen.num_bytes).numpy().tobytes()
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no complete JSON ({error}); copy or download it again") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}; expected an object")
    return found
