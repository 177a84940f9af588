"""Running programs that nobody has read: each in the sandbox, in a new interpreter, with a time limit.

A program has passed when it came to its end, and it says so with a word that it cannot know: leaving early with exit
code 0 is no pass. A program that looks for that word in the frames around it would find it; models do not.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from riallm.core.errors import SandboxError
from riallm.eval.runner import Opener, interpreter_prefixes
from riallm.sandbox import open_sandbox
from riallm.sandbox.base import MEGABYTE, Limits, Policy, Stop

FILE = "program.py"
MEMORY_BYTES = 1024 * MEGABYTE

# What runs inside. The program's own output goes nowhere; stdin is at its end when the program begins.
INSIDE = f"""\
import os, sys
def judge():
    told, word = os.dup(1), sys.stdin.readline().strip()
    sys.stdout = sys.stderr = open(os.devnull, "w")
    try:
        with open({FILE!r}, "rb") as file:
            code = compile(file.read(), {FILE!r}, "exec", dont_inherit=True)
        exec(code, {{"__name__": "__main__"}})
        found = "passed"
    except AssertionError:
        found = "failed"
    except BaseException:
        found = "error"
    os.write(told, f"\\n{{word}} {{found}}\\n".encode())
    os._exit(0)
judge()
"""


class Outcome(StrEnum):
    """How a program ended. ERROR: it does not parse, raised what is no AssertionError, died or outgrew a limit."""

    PASSED = "passed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    ERROR = "error"


class Judge:
    """One sandbox for many programs; nothing that a program writes is there for the next. Context manager.

    seconds: wall time of one program, the start of its interpreter included.
    """

    def __init__(self, *, seconds: float, opener: Opener = open_sandbox) -> None:
        """Raises SandboxError where no sandbox can be had."""
        self._folder = tempfile.TemporaryDirectory(prefix="riallm-pass-")
        policy = Policy(
            workspace=Path(self._folder.name).resolve(),
            readable=interpreter_prefixes(),
            env={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            limits=Limits(seconds=seconds, memory_bytes=MEMORY_BYTES),
        )
        try:
            self._sandbox = opener(policy)
        except BaseException:
            self._folder.cleanup()
            raise
        self.tier = str(self._sandbox.tier)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sandbox.close()
        self._folder.cleanup()

    def __call__(self, program: str) -> Outcome:
        """Run a program. Raises SandboxError when the interpreter cannot be started, never for what runs."""
        self._sandbox.write_file(FILE, program.encode("utf-8", "surrogatepass"))
        word = secrets.token_hex(16)
        # -S: the standard library alone, so that the outcome does not depend on what is installed here.
        done = self._sandbox.exec([sys.executable, "-S", "-P", "-c", INSIDE], stdin=f"{word}\n".encode())
        if done.returncode == 127 and done.stderr.endswith("no such program in the sandbox\n"):
            raise SandboxError(f"{sys.executable} cannot be started inside the sandbox: {done.stderr.strip()[-300:]}")
        told = [line.removeprefix(word).strip() for line in done.stdout.splitlines() if line.startswith(word)]
        if told:
            return Outcome(told[-1])
        return Outcome.TIMEOUT if done.stopped is Stop.TIME else Outcome.ERROR
