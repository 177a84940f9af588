"""Writes docs/cli.md from the program's own help. `make docs` runs it, and a test fails when the page is old."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from riallm.__main__ import COMMANDS

PAGE = Path(__file__).parent / "cli.md"
HEAD = """# Every command, and its options

This page is written by `make docs` from the program's own help; edit the program, not the page.
"""
INNER = re.compile(r"^    ([a-z][\w-]*)  ", flags=re.M)


def help_of(*command: str) -> str:
    """What `riallm COMMAND --help` prints on a terminal of 100 columns without colours."""
    env = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "PYTHON_COLORS": "0"}
    argv = [sys.executable, "-m", "riallm", *command, "--help"]
    done = subprocess.run(argv, cwd=PAGE.parents[1], env=env, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"riallm {' '.join(command)} --help ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout.rstrip() + "\n"


def section(*command: str) -> str:
    """The page's part on one command, and on the commands inside it."""
    text = help_of(*command)
    title = f"\n## riallm {' '.join(command)}\n" if command else ""
    page = f"{title}\n```text\n{text}```\n"
    return page + "".join(section(*command, name) for name in inner(text) if command)


def inner(text: str) -> list[str]:
    """Commands inside a command, when its usage says that something follows: argparse indents them by four."""
    if not re.search(r"^usage:.* \.\.\.$", text, flags=re.M):
        return []
    return INNER.findall(text.partition("positional arguments:")[2].partition("\n\n")[0])


def page() -> str:
    """The whole page, in the order of the command table."""
    return HEAD + section() + "".join(section(name) for name in COMMANDS)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
