"""Leaves: forked, heard, ended with all that they started, and the files put back as they were."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import stat
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from riallm.sandbox.inside.channel import Channel

KEEP_BYTES = 32 << 20  # a workspace up to this size is put back after every leaf
KEEP_FILES = 1500
ERRORS = 3  # descriptor that the stem keeps for what should never happen: the host shows it


class Tree:
    """The workspace and /tmp as they were, to be put back after a leaf."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.files: dict[str, tuple[int, int]] | None = {}
        self.data: dict[str, bytes] = {}
        self.temporary = tempfile.gettempdir()
        self.spared = set(os.listdir(self.temporary))
        total = 0
        for path, status in self.scan():
            self.files[path] = (status.st_size, status.st_mtime_ns)
            total += status.st_size
            if len(self.files) > KEEP_FILES or total > KEEP_BYTES:
                self.files = None
                return
        for path in self.files:
            with contextlib.suppress(OSError), open(path, "rb") as file:
                self.data[path] = file.read()

    def scan(self) -> Iterator[tuple[str, os.stat_result]]:
        for folder, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if name not in (".git", ".venv", "__pycache__", "node_modules")]
            for name in names:
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError):
                    status = os.lstat(path)
                    if stat.S_ISREG(status.st_mode):
                        yield path, status

    def restore(self) -> None:
        for name in set(os.listdir(self.temporary)) - self.spared:
            path = os.path.join(self.temporary, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    os.unlink(path)
        if self.files is None:
            return
        found = {path: (status.st_size, status.st_mtime_ns) for path, status in self.scan()}
        for path in set(found) - set(self.files):
            with contextlib.suppress(OSError):
                os.unlink(path)
        for path, signature in self.files.items():
            if found.get(path) != signature and path in self.data:
                self.write(path, self.data[path])
                status = os.lstat(path)
                self.files[path] = (status.st_size, status.st_mtime_ns)

    @staticmethod
    def write(path: str, data: bytes) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.lexists(path) and not os.access(path, os.W_OK):
            os.unlink(path)  # read-only in the user's folder; this is our layer over it
        with open(path, "wb") as file:
            file.write(data)

    @staticmethod
    def write_edited(path: str, data: bytes) -> None:
        """Write with a time that the compiled original cannot have: of equal size, it would be taken for this. A time
        some seconds back would be the original's again after as many seconds of checks."""
        Tree.write(path, data)
        os.utime(path, (1, 1))


def silence() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.fork()


def become_reaper() -> None:
    """Orphans of a leaf come to us, so that they can be ended too."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def end(pid: int, spare: tuple[int, ...] = ()) -> None:
    """Kill a leaf, its session and what it left behind; reap all."""
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.waitpid(pid, 0)
    for _ in range(100):
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                strays = [int(word) for word in file.read().split() if int(word) not in spare]
        except OSError:
            return
        if not strays:
            return
        for stray in strays:
            with contextlib.suppress(OSError):
                os.kill(stray, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.waitpid(stray, 0)


def leaf(
    work: Callable[[Channel], None],
    others: list[Channel],
    on_message: Callable[[dict[str, Any]], float | None],
    seconds: float,
    spare: tuple[int, ...] = (),
) -> tuple[dict[str, Any] | None, str]:
    """Fork, let `work(channel)` run in the child, hand its messages on; the last one, or why there is none.

    `on_message(message) -> float | None` may return the seconds that the child has until its next message.
    """
    reader, writer = os.pipe()
    pid = fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()
            os.close(reader)
            for channel in others:
                channel.close()
            silence()
            work(Channel(reader, writer))
            code = 0
        except BaseException:
            os.write(ERRORS, traceback.format_exc().encode())
        finally:
            os._exit(code)
    os.close(writer)
    channel = Channel(reader, reader)
    last: dict[str, Any] | None = None
    try:
        while True:
            message = channel.receive(seconds)
            if message is None:
                return last, "crashed"
            last = message
            if message.get("end"):
                return last, "ended"
            seconds = on_message(message) or seconds
    except TimeoutError:
        return last, "hung"
    finally:
        end(pid, spare)
        os.close(reader)
