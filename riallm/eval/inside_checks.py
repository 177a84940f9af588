"""Runs many small programs against their checks inside the sandbox. Standard library only; each program in a fork.

Reads a JSON list of [module name, code, support, checks] from standard input and prints MARK and a JSON list with,
for each program, one letter a check: p passed, f failed, h over its second, which ends the program. One that
cannot be run has none.
"""

import contextlib
import io
import json
import os
import signal
import sys
import types

MARK = "@@checks "
SECONDS = 1.0


class OverTime(BaseException):
    """Raised by the timer; no `except Exception` of a program catches it."""


def over(signum: int, frame: object) -> None:
    """The timer's handler."""
    raise OverTime


def judge(name: str, code: str, support: str, checks: list) -> str:  # type: ignore[type-arg]
    """One letter a check."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, 3 * SECONDS)
    try:
        exec(compile(code, name + ".py", "exec"), module.__dict__)
        space: dict = {"__name__": "checks"}  # type: ignore[type-arg]
        exec(compile(support, "checks.py", "exec"), space)
    except BaseException:
        return ""
    letters = ""
    for check in checks:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            exec(compile(check, "check.py", "exec"), dict(space))
            letters += "p"
        except OverTime:
            letters += "h"
            break
        except BaseException:
            letters += "f"
    signal.setitimer(signal.ITIMER_REAL, 0)
    return letters


def main() -> None:
    """One fork a program, one after the other; a child that dies or sleeps on has no letters."""
    told = []
    for program in json.load(sys.stdin):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            sys.setrecursionlimit(2000)
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            with contextlib.redirect_stdout(io.StringIO()):
                letters = judge(*program)
            os.write(writer, letters.encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            told.append(pipe.read().decode())
        os.waitpid(child, 0)
    sys.stdout.write("\n" + MARK + json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
