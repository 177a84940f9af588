"""riallm sandbox exec: one command in the sandbox, with its output as it comes and its exit code as ours."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

from riallm.core.errors import UsageError
from riallm.sandbox import open_sandbox
from riallm.sandbox.base import MEGABYTE, Applied, Limits, Policy, Stop, Tier
from riallm.sandbox.interpreter import prefixes
from riallm.sandbox.output import Live, clean

_TIME_OVER = 124
_SECONDS = 300.0
_STANDARD_PATH = "/usr/local/bin:/usr/bin:/bin"


def parser() -> argparse.ArgumentParser:
    """The options of `riallm sandbox`."""
    top = argparse.ArgumentParser(
        prog="riallm sandbox",
        description="Run one command in the sandbox. It sees the working directory, no other folder of yours, and no "
        "network. What it writes is thrown away, save below --writable.",
        epilog="Exit code: the command's own, 128 and the signal's number when a signal ended it, 124 when its time "
        "was over, 127 when there is no such program, 2 for wrong options, 3 when there is no sandbox.",
    )
    run = top.add_subparsers(dest="action", required=True, metavar="exec").add_parser(
        "exec", usage="riallm sandbox exec [OPTIONS] -- COMMAND [ARGUMENT ...]", help="run a command"
    )
    run.add_argument("--writable", metavar="DIR", action="append", default=[], help="keep what is written below DIR")
    run.add_argument("--readable", metavar="DIR", action="append", default=[], help="show a further folder, read-only")
    run.add_argument("--env", metavar="NAME=VALUE", action="append", default=[], help="set an environment variable")
    run.add_argument(
        "--memory", metavar="MB", type=_positive, default=512, help="memory of all processes (%(default)s)"
    )
    run.add_argument("--pids", metavar="N", type=_positive, default=200, help="processes and threads (%(default)s)")
    where = "in each of workspace, /tmp and /dev/shm (%(default)s)"
    run.add_argument("--disk", metavar="MB", type=_positive, default=100, help=where)
    run.add_argument("--seconds", metavar="S", type=float, default=_SECONDS, help="time (%(default)g)")
    run.add_argument("--tier", choices=[str(t) for t in Tier], help="this kind of isolation, or none at all")
    run.add_argument("--unsafe", action="store_true", help="go on without isolation where none can be had")
    return top


def main(argv: list[str]) -> int:
    """Run the command after `--`; UsageError for options that contradict themselves."""
    cut = argv.index("--") if "--" in argv else len(argv)
    options = parser().parse_args(argv[:cut])
    command = argv[cut + 1 :]
    if not command:
        raise UsageError("no command: write it after --, as in: riallm sandbox exec -- make test")
    if options.seconds <= 0:
        raise UsageError(f"--seconds must be more than 0, got {options.seconds:g}")
    here = Path.cwd()
    writable = [_inside(here, Path(name)) for name in options.writable]
    python = _python()
    limits = Limits(
        seconds=options.seconds,
        memory_bytes=options.memory * MEGABYTE,
        disk_bytes=options.disk * MEGABYTE,
        processes=options.pids,
    )
    folders = (*prefixes(python), *map(Path, options.readable))
    policy = Policy(workspace=here, readable=folders, env=_environment(python, options.env), limits=limits)
    out, err = Live(limits.output_bytes, _writer(sys.stdout)), Live(limits.output_bytes, _writer(sys.stderr))
    with open_sandbox(policy, tier=Tier(options.tier) if options.tier else None, unsafe=options.unsafe) as sandbox:
        if sandbox.tier is Tier.NONE:
            sys.stderr.write("riallm sandbox: no isolation (--unsafe): limits only\n")
        ended = sandbox.stream(command, out, err, stdin=_stdin(), keep=bool(writable))
        out.finish()
        err.finish()
        for below in writable:
            _tell(sandbox.apply(below=below))
    if ended.missing:
        sys.stderr.write(f"riallm sandbox: {clean(command[0])}: no such program in the sandbox\n")
    if ended.stopped is not None:
        sys.stderr.write(f"riallm sandbox: ended by a limit: {ended.stopped}\n")
    if ended.stopped is Stop.TIME:
        return _TIME_OVER
    return ended.returncode if ended.returncode >= 0 else 128 - ended.returncode


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def _inside(here: Path, folder: Path) -> str:
    """`folder` relative to the working directory."""
    real = (here / folder).resolve()
    if not real.is_relative_to(here):
        raise UsageError(
            f"--writable {folder} is not inside the working directory {here}; go to a folder that holds it"
        )
    return "" if real == here else str(real.relative_to(here))


def _python() -> Path:
    """The Python that the user works with: the active virtual environment's, else ours."""
    active = os.environ.get("VIRTUAL_ENV")
    candidate = Path(active) / "bin" / "python" if active else Path(sys.executable)
    return candidate if candidate.exists() else Path(sys.executable)


def _environment(python: Path, pairs: list[str]) -> dict[str, str]:
    environment = {"PATH": f"{python.parent}:{_STANDARD_PATH}"}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise UsageError(f"--env takes NAME=VALUE, got {pair!r}")
        environment[name] = value
    return environment


def _stdin() -> bytes | IO[bytes]:
    return b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer


def _writer(stream: IO[str]) -> Callable[[str], None]:
    def show(text: str) -> None:
        stream.write(text)
        stream.flush()

    return show


def _tell(applied: Applied) -> None:
    for path, why in applied.refused:
        sys.stderr.write(f"riallm sandbox: not brought home: {clean(path)}: {why}\n")
