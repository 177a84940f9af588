"""The trusted end of a launch: starts the launcher, moves the bytes, and makes sure that it ends."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Protocol

from riallm.core.errors import SandboxError
from riallm.sandbox.output import Capture
from riallm.sandbox.spec import PROCESS, Result, Spec, receive, send

_HOME = str(Path(__file__).resolve().parents[2])
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from riallm.sandbox.server import main; sys.exit(main(sys.argv[2:]))"
)
_PATIENCE = 20.0  # seconds that the launcher may take to end everything before it is killed itself
_FLOOD = 256  # times the kept output: past this a command is ended
_PIECE = 1 << 16
_WORDS = 2000  # bytes of an error text that are looked at
_NOT_STARTED = b"bwrap: execvp "  # how bubblewrap says that a program is missing or no program


class Sink(Protocol):
    """Where output goes as it comes."""

    total: int

    def add(self, data: bytes) -> None: ...


class Server:
    """The launch server of this process; made on first use, and anew in a forked child or when it is gone."""

    _current: Server | None = None
    _lock = threading.Lock()

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.control, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, _HOME, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={},
                cwd="/",
            )
        atexit.register(self.close)

    @classmethod
    def launch(cls, descriptors: list[int]) -> None:
        """Have a launcher forked that gets these: its channel, and the command's stdin, stdout and stderr."""
        with cls._lock:
            for _ in range(2):
                server = cls._current
                if server is None or server.owner != os.getpid() or server.process.poll() is not None:
                    cls._current = server = cls()
                try:
                    socket.send_fds(server.control, [b"x"], descriptors)
                    return
                except OSError:
                    server.process.wait(_PATIENCE)
            words = cls._current.words() if cls._current else ""
            raise SandboxError(f"the launch server ({sys.executable}) does not start: {words}")

    def words(self) -> str:
        """What it said before it ended."""
        text = self.process.stderr.read() if self.process.stderr else b""
        return text.decode("utf-8", "replace").strip()[-2000:] or "it said nothing"

    def close(self) -> None:
        """End it and wait; only in the process that started it."""
        if self.owner == os.getpid():
            self.control.close()
            if self.process.stderr:
                self.process.stderr.close()
            self.process.wait(_PATIENCE)


class Launcher:
    """One launcher process with the pipes of its command."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.details: Mapping[str, str] = {}
        self.channel, theirs = socket.socketpair()
        stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
        self.stdin: IO[bytes] = os.fdopen(stdin[1], "wb")
        self.stdout: IO[bytes] = os.fdopen(stdout[0], "rb")
        self.stderr: IO[bytes] = os.fdopen(stderr[0], "rb")
        given = [theirs.fileno(), stdin[0], stdout[1], stderr[1]]
        try:
            try:
                Server.launch(given)
            finally:
                theirs.close()
                for descriptor in given[1:]:
                    os.close(descriptor)
            self.channel.settimeout(_PATIENCE)
            send(self.channel, spec)
            first = self.next()
            if first.failure:
                raise SandboxError(f"{first.failure}; {self._words()}")
            self.details = first.details
            self.channel.settimeout(None)
        except BaseException:
            self.close()
            raise

    def next(self) -> Result:
        """The launcher's next message; SandboxError when it failed or ended without one."""
        try:
            message = receive(self.channel)
        except (ConnectionResetError, TimeoutError):
            message = None
        if message is None:
            raise SandboxError(f"the launcher of the {self.spec.tier} tier ended without a result; {self._words()}")
        return Result(**message)

    def _words(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            os.set_blocking(self.stderr.fileno(), False)
            text = (self.stderr.read() or b"").decode("utf-8", "replace").strip()
            if text:
                return f"it said: {text[-2000:]}"
        return "it said nothing more"

    def has_message(self) -> bool:
        """Whether `next` would not wait."""
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        return bool(poll.poll(0))

    def end(self) -> None:
        """Tell the launcher to end everything, without waiting for it."""
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Tell the launcher to end everything, and wait until it has; then it is gone itself. Twice is once."""
        if self.channel.fileno() < 0:
            return
        self.end()
        for pipe in (self.stdin, self.stdout, self.stderr):
            with contextlib.suppress(OSError, ValueError):
                pipe.close()
        with self.channel:
            try:
                self.channel.settimeout(_PATIENCE)
                while self.channel.recv(_PIECE):
                    pass
            except ConnectionError:
                return
            except TimeoutError:
                process = int(self.details.get(PROCESS, 0))
                if process:
                    os.kill(process, signal.SIGKILL)


def converse(
    launcher: Launcher, stdin: bytes | IO[bytes], stdout: Sink, stderr: Sink, output_bytes: int
) -> tuple[Result, bool]:
    """Feed the command, drain it, wait for its result; and tell whether it was ended for too much output."""
    most = max(_FLOOD * output_bytes, 64 << 20)
    result: Result | None = None
    flooded, closing = False, 0.0
    seconds = launcher.spec.seconds
    latest = time.monotonic() + seconds + _PATIENCE if seconds else float("inf")
    feed = memoryview(stdin if isinstance(stdin, bytes) else b"")
    words = _Words(stderr)
    with selectors.DefaultSelector() as selector:
        selector.register(launcher.channel, selectors.EVENT_READ)
        for pipe, sink in ((launcher.stdout, stdout), (launcher.stderr, words)):
            selector.register(pipe, selectors.EVENT_READ, sink)
        if feed:
            os.set_blocking(launcher.stdin.fileno(), False)
            selector.register(launcher.stdin, selectors.EVENT_WRITE)
        elif isinstance(stdin, bytes):
            launcher.stdin.close()
        else:
            threading.Thread(target=_pump, args=(stdin, launcher.stdin), daemon=True).start()
        while len(selector.get_map()) and not (result and time.monotonic() > closing):
            if time.monotonic() > latest:
                raise SandboxError(f"the command did not end {_PATIENCE:g} s after its time limit of {seconds:g} s")
            for key, _ in selector.select(0.5):
                if key.fileobj is launcher.channel:
                    result = launcher.next()
                    closing = time.monotonic() + 1.0  # everything is dead by now: what is in the pipes is all
                    selector.unregister(launcher.channel)
                elif key.fileobj is launcher.stdin:
                    feed = _feed(selector, launcher.stdin, feed)
                else:
                    _drain(selector, key.fd, key.data)
            if not flooded and stdout.total + stderr.total > most:
                flooded = True
                launcher.channel.shutdown(socket.SHUT_WR)
    if result is None:
        raise SandboxError("the launcher ended without a result")
    if result.failure:
        if words.first.startswith(_NOT_STARTED):
            return replace(result, failure="", missing=True), flooded
        raise SandboxError(f"{result.failure}; it said: {words.first.decode('utf-8', 'replace').strip() or 'nothing'}")
    words.release()
    return result, flooded


class _Words:
    """Passes output on and remembers how it began; holds back what may be bubblewrap telling of a missing program."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._held = b""
        self.first = b""
        self.total = 0

    def add(self, data: bytes) -> None:
        self.total += len(data)
        if len(self.first) < _WORDS:
            self.first = (self.first + data)[:_WORDS]
        # it comes in pieces, so a beginning that could still become those words is held back too
        if self.total < _WORDS and (self.first.startswith(_NOT_STARTED) or _NOT_STARTED.startswith(self.first)):
            self._held += data
            return
        self.release()
        self._sink.add(data)

    def release(self) -> None:
        """Pass on what was held back: the command itself wrote it."""
        if self._held:
            self._sink.add(self._held)
            self._held = b""


def _pump(source: IO[bytes], target: IO[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError), target:
        while data := os.read(source.fileno(), _PIECE):
            target.write(data)
            target.flush()


def _feed(selector: selectors.BaseSelector, pipe: IO[bytes], feed: memoryview) -> memoryview:
    try:
        feed = feed[os.write(pipe.fileno(), feed[:_PIECE]) :]
    except BrokenPipeError:
        feed = feed[:0]
    if not feed:
        selector.unregister(pipe)
        pipe.close()
    return feed


def _drain(selector: selectors.BaseSelector, descriptor: int, sink: Sink) -> None:
    data = os.read(descriptor, _PIECE)
    if data:
        sink.add(data)
    else:
        selector.unregister(descriptor)


class StderrTail:
    """Drains a pipe in the background and keeps its head and tail."""

    def __init__(self, pipe: IO[bytes], limit: int) -> None:
        self._capture = Capture(limit)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._drain, args=(pipe,), daemon=True)
        self._thread.start()

    def _drain(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := os.read(pipe.fileno(), _PIECE):
                with self._lock:
                    self._capture.add(data)

    def text(self) -> str:
        """What was kept so far."""
        with self._lock:
            return self._capture.text()

    def join(self) -> None:
        """Wait for the end of the stream."""
        self._thread.join(1.0)
