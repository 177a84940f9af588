"""`riallm route`: one address before several servers of one model; a request goes where its prefix was read before."""

from __future__ import annotations

import argparse
import sys

from riallm.core.errors import UsageError


def parser() -> argparse.ArgumentParser:
    """The options; `docs/cli.md` is made from this."""
    made = argparse.ArgumentParser(prog="riallm route", description=__doc__)
    made.add_argument("--to", action="append", default=[], metavar="URL", help="a server's address; several times")
    made.add_argument("--host", default="127.0.0.1", help="the address (default: 127.0.0.1, this machine alone)")
    made.add_argument("--port", type=int, default=8079, help="the port; 0: any free one (default: 8079)")
    made.add_argument(
        "--public", action="store_true", help="allow a host that other machines reach; keys are the servers'"
    )
    made.add_argument("--name", action="append", default=[], help="a name of this machine that clients may use")
    return made


def main(argv: list[str]) -> int:
    """Pass requests on until Ctrl-C or SIGTERM."""
    options = parser().parse_args(argv)
    try:
        from riallm.serve.router import create_router
        from riallm.serve.run import serve
        from riallm.serve.served import ServeOptions
    except ImportError as error:
        raise UsageError(f"a router needs more: {error}. Run: pip install 'riallm[models,serve]'") from None
    serve(
        create_router(options.to, ServeOptions(hosts=tuple(options.name))),
        host=options.host,
        port=options.port,
        public=options.public,
        ready=lambda address: sys.stderr.write(f"{len(options.to)} servers answer at {address}/v1  (Ctrl-C ends it)\n"),
    )
    return 0
