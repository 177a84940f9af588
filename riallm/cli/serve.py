"""`riallm serve`: models behind OpenAI's API, for editors and clients of this machine."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from riallm.cli.opened import add_model_options, open_model, served
from riallm.core.errors import UsageError

if TYPE_CHECKING:
    from riallm.engine.auto import LocalModel
    from riallm.engine.memory_model import MemoryModel
    from riallm.engine.sqlite_sessions import SQLiteSessions
    from riallm.serve.served import Served


def parser() -> argparse.ArgumentParser:
    """The options; `docs/cli.md` is made from this."""
    made = argparse.ArgumentParser(prog="riallm serve", description=__doc__)
    add_model_options(made)
    made.add_argument("--host", default="127.0.0.1", help="the address (default: 127.0.0.1, this machine alone)")
    made.add_argument("--port", type=int, default=8080, help="the port; 0: any free one (default: 8080)")
    made.add_argument("--public", action="store_true", help="allow a host that other machines reach")
    made.add_argument("--api-key-file", type=Path, metavar="F", help="keys, one a line; without it none is asked for")
    made.add_argument("--name", action="append", default=[], help="a name of this machine that clients may use")
    made.add_argument("--origin", action="append", default=[], help="a page's origin that may call from a browser")
    made.add_argument("--drain", type=float, default=30.0, metavar="S", help="seconds to finish in (default: 30)")
    made.add_argument(
        "--sessions",
        type=Path,
        metavar="FILE",
        help="keep the memories of conversations in this file; without it they end with the server",
    )
    made.add_argument("--sessions-size", type=float, metavar="MIB", help="of all memories (default: 1024)")
    made.add_argument("--sessions-days", type=float, metavar="D", help="memories unused for longer go (default: 30)")
    made.add_argument("--quiet", action="store_true", help="no line for each request")
    return made


def main(argv: list[str]) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    options = parser().parse_args(argv)
    try:
        from riallm.serve.app import create_app
        from riallm.serve.run import serve
        from riallm.serve.served import ServeOptions, read_keys
    except ImportError as error:
        raise UsageError(f"a server needs more: {error}. Run: pip install 'riallm[models,serve]'") from None
    keys = () if options.api_key_file is None else read_keys(options.api_key_file)
    if options.public and not keys:
        raise UsageError("--public without --api-key-file would let anybody use the model; give keys")
    if not 0 <= options.drain < math.inf:
        raise UsageError(f"--drain is {options.drain}; it is a number of seconds, 0 or more")
    model = open_model(options)
    opened: Served | None = None
    store: SQLiteSessions | None = None
    try:
        limits = ServeOptions(
            keys=keys,
            hosts=tuple(options.name),
            origins=tuple(options.origin),
            log=None if options.quiet else lambda line: sys.stderr.write(line + "\n"),
        )
        store = _store(options, model)
        opened = served(model, store)
        app = create_app({model.name: opened}, limits)
        serve(
            app,
            host=options.host,
            port=options.port,
            public=options.public,
            drain_seconds=options.drain,
            ready=lambda address: sys.stderr.write(f"{model.name} answers at {address}/v1  (Ctrl-C ends it)\n"),
        )
    finally:
        model.close()
        if opened is not None and opened.memories is not None:
            opened.memories.close()
        if store is not None:
            store.close()
    return 0


def _store(options: argparse.Namespace, model: LocalModel | MemoryModel) -> SQLiteSessions | None:
    """Where memories are kept; None for a model without one. Raises UsageError for options of such a model, for a file
    that nothing goes to, and for a size that no memory goes into."""
    from riallm.engine.memory_model import MemoryModel
    from riallm.engine.sqlite_sessions import SQLiteSessions

    if not isinstance(model, MemoryModel):
        for name in ("sessions", "sessions_size", "sessions_days"):
            if getattr(options, name) is not None:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option}: {model.name} keeps no memory of conversations; leave it out")
        return None
    mebibytes = 1024.0 if options.sessions_size is None else options.sessions_size
    days = 30.0 if options.sessions_days is None else options.sessions_days
    if not 0 < mebibytes < math.inf:
        raise UsageError(f"--sessions-size is {mebibytes}; it is a number of MiB above 0")
    if not days > 0:
        raise UsageError(f"--sessions-days is {days}; it is above 0")
    file: Path | None = options.sessions
    if file is not None and file.is_dir():
        raise UsageError(f"--sessions {file}: it is a folder; give a file in it")
    if file is not None and not file.parent.is_dir():
        raise UsageError(f"--sessions {file}: there is no folder {file.parent} for it; make it first")
    size, least = int(mebibytes * 2**20), len(model.engine.new.result().to_bytes())
    if size < least:
        raise UsageError(f"--sessions-size is {size} bytes; one memory of {model.name} takes {least}. Give more")
    return SQLiteSessions(file, max_bytes=size, max_seconds=days * 86400)
