"""The process that a launcher starts: limits and identity that every tier sets in the same way."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence

from riallm.sandbox import kernel
from riallm.sandbox.cgroup import Group
from riallm.sandbox.spec import Spec, drop_uid

_AS_LEAST = 16 << 30
_AS_FACTOR = 8
_NOT_STARTED = "exec: "


class Child:
    """One started process, its control group (None: none to be had), and how its end is told."""

    def __init__(self, spec: Spec, group: Group | None) -> None:
        self.spec = spec
        self.group = group
        self.pid = 0
        self.errors = -1
        self.missing = False
        self.kept: set[int] = set()  # descriptors that the child needs beside stdin, stdout and stderr

    def start(self) -> None:
        """Start the command; OSError when the sandbox could not be set up."""
        raise NotImplementedError

    def finish(self, status: int) -> tuple[int | None, bool]:
        """(return code, program missing) from the wait status; a code of None: the sandbox itself failed."""
        return os.waitstatus_to_exitcode(status), self.missing

    def spawn(self, become: Callable[[], None]) -> None:
        """Fork and let the child run `become`, which ends in `exec_command`; an error in it is raised here.

        `become` may close `self.errors` by itself where the process does not turn into another program.
        """
        read, self.errors = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            text = "ended without starting anything"
            try:
                close_all_but({0, 1, 2, self.errors, *self.kept})
                become()
            except BaseException as error:
                text = f"{type(error).__name__}: {error}"
            self.report(text)
            os._exit(126)
        os.close(self.errors)
        with os.fdopen(read, "rb") as file:
            message = file.read().decode("utf-8", "replace")
        if message.startswith(_NOT_STARTED):
            self.missing = True
        elif message:
            raise OSError(message)

    def report(self, text: str) -> None:
        """In the child: tell the launcher why nothing was started."""
        with contextlib.suppress(OSError):
            os.write(self.errors, text.encode("utf-8", "replace")[:4000])

    def exec_command(self, argv: Sequence[str], cwd: str, env: Mapping[str, str]) -> None:
        """In the child: become the command, or tell why not."""
        os.chdir(cwd)
        try:
            os.execvpe(argv[0], list(argv), dict(env))
        except OSError as error:
            self.report(_NOT_STARTED + str(error))
            os._exit(127)

    def limit(self) -> None:
        """In the child: the limits that are the same in every tier."""
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
        spec = self.spec
        limits = {
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_FSIZE: spec.disk_bytes,
            resource.RLIMIT_NOFILE: spec.open_files,
            resource.RLIMIT_MEMLOCK: 1 << 20,
            resource.RLIMIT_MSGQUEUE: 1 << 20,
        }
        if self.group is None:
            # address space is far from memory used: threads and allocators reserve much that they never touch
            limits[resource.RLIMIT_AS] = max(_AS_LEAST, _AS_FACTOR * spec.memory_bytes)
        for kind, value in limits.items():
            set_limit(kind, value)
        os.umask(0o022)

    def become_user(self) -> None:
        """In the child: give up root for good, if we have it, and die when the launcher dies."""
        uid = drop_uid()
        if uid is not None:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)


def close_all_but(kept: set[int]) -> None:
    """Close every other descriptor of this process: it will run, or stand near, what is not trusted."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def set_limit(kind: int, value: int) -> None:
    """Set a limit of this process for good, no higher than it may be."""
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def limit_processes(process: int, count: int) -> None:
    """Let the user of `process`, inside its own user namespace, have at most `count` processes.

    Set from outside once the namespace stands: set before, it would count all processes of the user. Done under the
    uid of `process`, for root may lack the right to change other users' limits.
    """
    helper = os.fork()
    if helper == 0:
        code = 1
        try:
            uid = drop_uid()
            if uid is not None:
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            resource.prlimit(process, resource.RLIMIT_NPROC, (count, count))
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(helper, 0)[1]:
        raise OSError("the number of processes could not be limited")
