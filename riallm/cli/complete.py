"""`riallm complete --file F --line N`: fill a hole in a file with the shipped model, likeliest first.

The line is taken out and filled; with --insert a new line is put before it. With --apply the first filling is written.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from riallm.agent.client import Context
from riallm.agent.local import LocalClient
from riallm.code.source import parse_text
from riallm.core.errors import UsageError
from riallm.core.files import atomic_write
from riallm.core.shipped import DEFAULT, folder_of


def parser() -> argparse.ArgumentParser:
    """The options; `docs/cli.md` is made from this."""
    made = argparse.ArgumentParser(
        prog="riallm complete", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--file", type=Path, required=True, metavar="F", help="a Python file")
    made.add_argument("--line", type=int, required=True, metavar="N", help="the line to fill, from 1")
    made.add_argument("--insert", action="store_true", help="fill a new line before it instead")
    made.add_argument("--model", default=DEFAULT, metavar="NAME|DIR", help=f"the model (default: {DEFAULT})")
    made.add_argument("--num", type=int, default=5, metavar="N", help="fillings to show (default 5)")
    made.add_argument("--any", action="store_true", help="show fillings that do not parse as well")
    made.add_argument("--apply", action="store_true", help="write the first filling into the file")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def main(argv: list[str]) -> int:
    """0 with a filling, 1 without one, 2 for bad usage."""
    options = parser().parse_args(argv)
    if options.num < 1:
        raise UsageError(f"--num {options.num}: expected at least 1")
    try:
        text = options.file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--file {options.file}: cannot be read as UTF-8 text ({error})") from None
    before, after = hole(text, options.line, insert=options.insert)
    context = Context(path=options.file.name, prefix=before, suffix=after)
    # A beam twice as wide as what is shown, since not all of it parses.
    found = LocalClient(folder_of(options.model)).infill(context, num=2 * options.num, max_chars=400)
    shown = [each for each in found if options.any or parses(before + each.text + after)][: options.num]
    if options.json:
        fillings = [{"text": each.text, "logprob": each.logprob} for each in shown]
        sys.stdout.write(json.dumps({"file": str(options.file), "line": options.line, "fillings": fillings}) + "\n")
    else:
        for each in shown:
            sys.stdout.write(f"{each.logprob:8.2f}  {each.text}\n")
    if shown and options.apply:
        atomic_write(options.file, (before + shown[0].text + after).encode())
    if not shown:
        sys.stderr.write("riallm complete: nothing that parses was found; --any shows what does not\n")
    return 0 if shown else 1


def hole(text: str, line: int, *, insert: bool) -> tuple[str, str]:
    """What stands before and after a line's code, or before and after a new line of the same depth."""
    lines = text.splitlines(keepends=True)
    if not 1 <= line <= len(lines):
        raise UsageError(f"--line {line}: the file has lines 1 to {len(lines)}")
    own = lines[line - 1]
    start = sum(map(len, lines[: line - 1]))
    depth = len(own) - len(own.lstrip(" \t"))
    code = own.strip()
    if insert:
        end = "\r\n" if own.endswith("\r\n") else "\n"
        return text[:start] + own[:depth], end + text[start:]
    return text[: start + depth], text[start + depth + len(code) :]


def parses(text: str) -> bool:
    """Whether the file would still be a program."""
    try:
        parse_text(text)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True
