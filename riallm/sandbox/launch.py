"""The launcher: a small process between us and what is not trusted. Standard library only.

Forked by the launch server. It makes the namespaces and the file tree, starts the command in its tier, watches
limits, and when the command has ended, or its time is over, or the other end of its channel is closed (we ended,
however), it kills everything that the command started, gathers the changes that are to be kept, and tells how it
went.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from typing import Any

from riallm.sandbox import bubblewrap, cgroup, copies, kernel, layer, namespaces, plain, root, watch
from riallm.sandbox.child import Child
from riallm.sandbox.spec import PROCESS, Result, Spec, drop_uid, receive, send

_TOO_LARGE = (-int(signal.SIGXFSZ), 128 + int(signal.SIGXFSZ))  # by itself, or told by a shell
_LOOK_EVERY = 0.05  # seconds between looks at memory and disk


class Launch:
    """One launch from its spec to its result."""

    def __init__(self, spec: Spec, channel: socket.socket) -> None:
        self.spec = spec
        self.channel = channel
        self.stopped = ""
        self.details: dict[str, str] = {PROCESS: str(os.getpid())}
        self._tree: root.Tree | None = None
        self._work: copies.Snapshot | None = None
        self._stage = os.open(spec.staging, os.O_PATH | os.O_DIRECTORY) if spec.staging else -1
        self._group: cgroup.Group | None = None
        self._room = 0

    def run(self) -> Result:
        """Run to the end. Never raises for what the command does; OSError when the sandbox fails."""
        spec = self.spec
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        name = f"{cgroup.PREFIX}{os.getpid()}-{time.monotonic_ns()}"
        if spec.groups:
            self._group = cgroup.create(name, memory_bytes=spec.memory_bytes, processes=spec.processes)
        self.details["limits"] = f"cgroup v{self._group.version}" if self._group else "rlimits and watching"
        try:
            return self._run()
        finally:
            end_all(self._group)
            if self._group is not None:
                with contextlib.suppress(OSError):
                    self._group.remove()

    def _run(self) -> Result:
        child = self._prepare()
        started = time.monotonic()
        child.start()
        _let_go_of_pipes()
        send(self.channel, Result(details=self.details))
        status = self._wait(child.pid, started)
        seconds = time.monotonic() - started
        code, missing = child.finish(status)
        end_all(self._group)
        if code is None and not self.stopped and self._group is not None and self._group.memory_kills():
            self.stopped = "memory"  # memory that belongs to no process: the kernel took the first process instead
        if code is None and self.stopped:
            code = -int(signal.SIGKILL)
        if code is None:
            return Result(failure=f"the {self.spec.tier} tier failed to start the command", details=self.details)
        self._explain(code)
        if self.spec.keep:
            self._gather()
        return Result(returncode=code, stopped=self.stopped, seconds=seconds, missing=missing, details=self.details)

    def _prepare(self) -> Child:
        spec, group = self.spec, self._group
        if spec.tier in ("landlock", "none"):
            self._work = plain.prepare(spec)
            self._room = watch.disk_used(spec.scratch) + spec.disk_bytes
            self.details["workspace"] = "private copy at another path"
            if spec.tier == "landlock":
                self.details["landlock"] = f"version {kernel.landlock_abi()}"
            return plain.Plain(spec, group)
        root.enter_private_namespace()
        account = bubblewrap.ACCOUNT if spec.tier == "bubblewrap" else namespaces.account()
        self._tree = root.build(spec, account)
        self.details |= self._tree.details
        return (bubblewrap.Bubblewrap if spec.tier == "bubblewrap" else namespaces.Namespaces)(spec, group)

    def _wait(self, pid: int, started: float) -> int:
        """Wait for the command and return its wait status; sets `stopped` when a limit ended it."""
        process = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.register(self.channel, select.POLLIN | select.POLLHUP)
        owner = _watch(self.spec.owner)
        if owner is not None:
            poll.register(owner, select.POLLIN)
        pause = _LOOK_EVERY
        while True:
            left = self.spec.seconds - (time.monotonic() - started) if self.spec.seconds else pause
            events = dict(poll.poll(max(0.0, min(left, pause)) * 1000))
            if process in events:
                break
            if self.channel.fileno() in events or owner in events:
                self.stopped = self.stopped or "closed"
                break
            if self.spec.seconds and time.monotonic() - started >= self.spec.seconds:
                self.stopped = "time"
                break
            looked = time.monotonic()
            if self._group is None and self._over_memory():
                self.stopped = "memory"
                break
            if self._work is not None and watch.disk_used(self.spec.scratch) > self._room:
                self.stopped = "disk"
                break
            pause = max(_LOOK_EVERY, 20 * (time.monotonic() - looked))
        for descriptor in filter(None, (process, owner)):
            os.close(descriptor)
        if self.stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return os.waitpid(pid, 0)[1]

    def _over_memory(self) -> bool:
        processes = watch.descendants(os.getpid())
        limit = self.spec.memory_bytes
        return watch.memory_used(processes) > limit and watch.memory_shared_out(processes) > limit

    def _explain(self, code: int) -> None:
        """Say which limit a failed command ran into, where no watching stopped it."""
        if code == 0 or self.stopped:
            return
        if self._group is not None and self._group.memory_kills():
            self.stopped = "memory"
        elif code in _TOO_LARGE or (self._tree is not None and watch.is_full(self._tree.sized)):
            self.stopped = "disk"

    def _gather(self) -> None:
        stage = b"/proc/self/fd/%d" % self._stage
        if self._work is not None:
            copies.collect(os.fsencode(plain.workspace(self.spec)), self._work, stage, drop_uid())
        elif self._tree is not None and self._tree.copied is not None:
            copies.collect(root.COPY, self._tree.copied, stage, drop_uid())
        else:
            layer.merge(root.UPPER, stage, drop_uid())


def end_all(group: cgroup.Group | None) -> None:
    """Kill and reap every process that is left; processes that lost their parent are ours by now."""
    while True:
        left = watch.descendants(os.getpid())
        if group is not None:
            with contextlib.suppress(OSError):
                left += group.members()
        for process in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            time.sleep(0.001)
        except ChildProcessError:
            return


def _watch(owner: int) -> int | None:
    """A descriptor that becomes readable when the process that asked for this launch ends.

    The channel alone would not tell: a process that the owner forked may hold a copy of its other end.
    """
    try:
        return os.pidfd_open(owner)
    except OSError:
        return None


def _let_go_of_pipes() -> None:
    """The command alone holds its pipes, so that their ends are seen."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def _spec(message: dict[str, Any]) -> Spec:
    for name in ("readable", "argv"):
        message[name] = tuple(message[name])
    message["links"] = tuple((a, b) for a, b in message["links"])
    return Spec(**message)


def serve(channel: socket.socket) -> int:
    """Take a spec from the channel, run it, answer with results; the return value is an exit code."""
    message = receive(channel)
    if message is None:
        return 1
    try:
        result = Launch(_spec(message), channel).run()
    except Exception as error:
        result = Result(failure=f"{type(error).__name__}: {error}")
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        send(channel, result)
    return 0
