"""What the commands of this folder share: errors in plain words, and the option to rehearse."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from riallm.core.errors import RiallmError


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser that knows --rehearse."""
    made = argparse.ArgumentParser(prog=f"python -m riallm.bench.gpu.{name}", description=description)
    made.add_argument(
        "--rehearse", action="store_true", help="the same path at tiny size, on the processor, in seconds"
    )
    return made


def guarded(body: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """The exit code of `body`; errors that a user can mend are told in a line."""
    try:
        return body(sys.argv[1:] if argv is None else argv)
    except RiallmError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def say(line: str) -> None:
    """A line on stdout, at once: a command may be cut off at any time."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
