"""A real server, asked over HTTP: `riallm bench serving [--model M] [--clients C] [--soak SECONDS] ...`.

`riallm serve` runs as a process of its own on the same machine, and so do the clients, which take a part of the cores.
First somebody types into an editor, then `--clients` ask at once for several rounds, each something else; with `--soak`
they go on for so long, and vanish, read slowly and send nonsense between. Ctrl-C ends the server, and the card tells
what was measured until then. 1: a request was lost, or an answer under load was another one than without.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from riallm.bench.card import Card, Figure, emit
from riallm.bench.own_text import passages
from riallm.bench.progress import progress_bar
from riallm.bench.serving_client import Endpoint, LostError, RefusedError, connected, get
from riallm.bench.serving_company import company
from riallm.bench.serving_infill import infill
from riallm.bench.serving_process import Server, started
from riallm.bench.serving_soak import Soak
from riallm.core.errors import ClientError, RiallmError, UsageError
from riallm.core.shipped import DEFAULT

PROMPT_CHARS = 400
"""Of a client's text, where the model holds as much."""
SOAK_PROMPTS, LONG_PROMPTS = 12, 4
LONG_ANSWER = 400
"""Tokens for a slow reader, where the model holds as many."""


def main(argv: list[str]) -> int:
    """Measure, print the card."""
    parser = argparse.ArgumentParser(prog="riallm bench serving", description="a server, asked over HTTP")
    parser.add_argument("--model", default=DEFAULT, metavar="NAME|PATH", help=f"what is served (default: {DEFAULT})")
    parser.add_argument("--compression", default="none", choices=("none", "8bit", "4bit", "nf4"))
    parser.add_argument("--random-weights", action="store_true", help="for a name without weights")
    parser.add_argument("--requests", type=int, default=100, metavar="N", help="of the editor (default: 100)")
    parser.add_argument("--tokens", type=int, metavar="N", help="around its cursor (default: 1500, or what fits)")
    parser.add_argument("--predict", type=int, default=16, metavar="N", help="tokens for the editor (default: 16)")
    parser.add_argument("--clients", type=int, default=32, metavar="C", help="at once (default: 32)")
    parser.add_argument("--rounds", type=int, default=3, help="that each of them asks (default: 3)")
    parser.add_argument("--answer", type=int, default=48, metavar="N", help="tokens for a client (default: 48)")
    parser.add_argument("--soak", type=float, default=0.0, metavar="SECONDS", help="of clients of all kinds")
    parser.add_argument("--seed", type=int, default=0, help="of the texts, and of what clients do in the soak")
    options = parser.parse_args(argv)
    figures: dict[str, Figure] = {"load_before": os.getloadavg()[0]}
    faults: list[str] = []
    code = 0
    try:
        with terminable():
            _run(options, figures, faults)
    except RiallmError as error:
        sys.stderr.write(f"serving: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("\nserving: stopped; the server has ended, and this is what was measured until then\n")
        figures["stopped"] = "before its end"
        code = 130
    emit(Card(name="serving", command=" ".join(["riallm bench serving", *argv]), figures=figures))
    for fault in faults:
        sys.stderr.write(f"serving: {fault}\n")
    return code or int(bool(faults))


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM is as good as Ctrl-C, so that no server is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(options: argparse.Namespace, figures: dict[str, Figure], faults: list[str]) -> None:
    if min(options.requests, options.clients, options.rounds, options.predict, options.answer) < 1 or options.soak < 0:
        raise UsageError("--requests, --predict, --clients, --rounds and --answer are from 1 on, --soak from 0 on")
    try:
        import httpx2  # noqa: F401
    except ImportError as error:
        raise UsageError(f"a server needs more: {error}. Run: pip install 'riallm[models,serve]'") from None
    words = ["--model", options.model, "--compression", options.compression]
    with started([*words, *(["--random-weights"] if options.random_weights else [])]) as server:
        asyncio.run(measure(server, options, figures, faults))


async def measure(server: Server, options: argparse.Namespace, figures: dict[str, Figure], faults: list[str]) -> None:
    """Everything, one after the other. Figures and faults are written down as they are known, for one who stops it."""
    try:
        async with connected(server.address) as client:
            (model,) = json.loads(await get(client, "/v1/models"))["data"]
            template = json.loads(await get(client, "/props"))["chat_template"]
            context: int = model["max_model_len"]
            endpoint = Endpoint(path="/v1/chat/completions" if template else "/v1/completions")
            figures |= {"model": model["id"], "context": context, "endpoint": endpoint.path}
            with progress_bar("an editor", 2 * options.requests) as done:
                figures |= await infill(
                    client,
                    context=context,
                    requests=options.requests,
                    n_predict=options.predict,
                    tokens=options.tokens,
                    done=done,
                )
            texts = passages(min(PROMPT_CHARS, context // 4), seed=options.seed)
            max_tokens = min(options.answer, context // 4)
            bodies = [endpoint.body(text, max_tokens) for text in texts]
            with progress_bar(f"{options.clients} clients", options.rounds) as done:
                figures |= await company(
                    client, server, endpoint.path, bodies, clients=options.clients, rounds=options.rounds, done=done
                )
            figures["resident_mib"] = server.resident_mib()
        if options.soak:
            long_bodies = [endpoint.long_body(text, min(LONG_ANSWER, context // 2)) for text in texts[:LONG_PROMPTS]]
            soak = Soak(endpoint.path, bodies[:SOAK_PROMPTS], long_bodies, seed=options.seed)
            try:
                with progress_bar("clients of all kinds", options.soak) as done:
                    await soak.run(server, clients=options.clients, seconds=options.soak, done=done)
            finally:
                figures |= soak.figures()
                faults += soak.faults()
    except (LostError, RefusedError) as error:
        await asyncio.to_thread(server.check)
        raise ClientError(f"what the server must answer it did not: {error}") from None
    if figures["clients_lost"]:
        faults.append(f"{figures['clients_lost']} of the clients' requests were lost")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
