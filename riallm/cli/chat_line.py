"""A line of somebody who talks: with a prompt and what edits a line where that is a person at a terminal."""

from __future__ import annotations

import sys
from contextlib import suppress


def next_line() -> str | None:
    """None at the end of the input. Lines of this run come back with the arrow keys; no file has them."""
    if not sys.stdin.isatty():
        sys.stdout.flush()
        return sys.stdin.readline() or None
    with suppress(ImportError):  # some interpreters are built without it
        import readline

        # Else a pasted text would be one line, and the terminal be sent codes of its own around every prompt.
        readline.parse_and_bind("set enable-bracketed-paste off")
    try:
        return input("> ")
    except EOFError:
        sys.stdout.write("\n")  # Ctrl-D leaves the cursor behind the prompt
        return None
