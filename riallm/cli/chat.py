"""`riallm chat`: talk to a model, line by line; or ask once with --prompt.

Words for the program begin with a colon: :reset forgets the conversation, :quit ends. With a model that keeps the
conversation in a memory there are :save, :load, :fork, :go, :forget, :inspect and :help as well.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from riallm.cli.chat_line import next_line
from riallm.cli.opened import add_model_options, open_model, served
from riallm.core.errors import UsageError

if TYPE_CHECKING:
    from riallm.engine.auto import LocalModel
    from riallm.engine.memory_model import MemoryModel
    from riallm.engine.request import Delta, Sampling, Usage
    from riallm.serve.served import Served


def parser() -> argparse.ArgumentParser:
    """The options; `docs/cli.md` is made from this."""
    made = argparse.ArgumentParser(
        prog="riallm chat", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_options(made)
    made.add_argument("--prompt", metavar="TEXT", help="ask this and end")
    made.add_argument("--raw", action="store_true", help="go on with the text itself, without a chat template")
    made.add_argument("--max-tokens", type=int, default=256, metavar="N", help="of an answer (default: 256)")
    made.add_argument(
        "--temperature",
        type=float,
        help="0: the likeliest token each time (default: 0.7; with a memory of slots 0, as its recall is measured)",
    )
    made.add_argument("--top-p", type=float, default=0.95, help="(default: 0.95)")
    made.add_argument("--seed", type=int, help="the same seed gives the same answer")
    made.add_argument("--json", action="store_true", help="with --prompt: print one JSON object")
    return made


def main(argv: list[str]) -> int:
    """0 at the end of the conversation."""
    options = parser().parse_args(argv)
    if options.json and options.prompt is None:
        raise UsageError("--json: a conversation is no JSON object; give --prompt, or leave it out")
    if options.max_tokens < 1:
        raise UsageError(f"--max-tokens is {options.max_tokens}; an answer has at least 1")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text end no conversation
    model = open_model(options)
    try:
        with_prompts = served(model)
        if options.temperature is None:
            options.temperature = 0.7 if with_prompts.memories is None else 0.0
        _sampling(options)  # what cannot be is told before anybody asks
        if with_prompts.memories is not None and options.raw:
            raise UsageError(f"--raw: {model.name} answers queries and does not go on with text; leave it out")
        if options.prompt is not None:
            return _once(options, model, with_prompts)
        if with_prompts.note:
            sys.stderr.write(with_prompts.note + "\n")
        if with_prompts.memories is not None:
            _remember(options, model)
        else:
            _converse(options, model, with_prompts)
    finally:
        model.close()
    return 0


def _remember(options: argparse.Namespace, model: LocalModel | MemoryModel) -> None:
    from riallm.cli.chat_memory import converse
    from riallm.engine.memory_model import MemoryModel

    assert isinstance(model, MemoryModel)
    converse(options, model)


def _once(options: argparse.Namespace, model: LocalModel | MemoryModel, with_prompts: Served) -> int:
    pieces = []
    for piece in _answer(options, model, with_prompts, [{"role": "user", "content": options.prompt}]):
        pieces.append(piece)
        if not options.json:
            sys.stdout.write(piece.text)
            sys.stdout.flush()
    text, last = "".join(piece.text for piece in pieces), pieces[-1]
    if options.json:
        assert last.usage is not None
        told = {"model": model.name, "text": text, "finish_reason": last.finish, "usage": asdict(last.usage)}
        sys.stdout.write(json.dumps(told))
    sys.stdout.write("\n")
    if last.finish == "error":
        sys.stderr.write(f"riallm chat: {model.name} failed: {last.error}\n")
    return 1 if last.finish == "error" else 0


def _converse(options: argparse.Namespace, model: LocalModel | MemoryModel, with_prompts: Served) -> None:
    messages: list[dict[str, Any]] = []
    shown = sys.stdin.isatty()
    while True:
        line = next_line()
        if line is None or line.strip() == ":quit":
            return
        if line.strip() == ":reset":
            messages = []
        elif line.strip().startswith(":"):
            sys.stderr.write(f"no word {line.strip()}; there are :reset and :quit\n")
        elif line.strip():
            messages.append({"role": "user", "content": line.rstrip("\n")})
            text = ""
            usage: Usage | None = None
            for piece in _answer(options, model, with_prompts, messages):
                sys.stdout.write(piece.text)
                sys.stdout.flush()
                text, usage = text + piece.text, piece.usage
                if piece.error is not None:
                    sys.stderr.write(f"{model.name} failed: {piece.error}\n")
            messages.append({"role": "assistant", "content": text})
            sys.stdout.write("\n")
            if usage is not None and usage.completion_seconds and shown:
                speed = usage.completion_tokens / usage.completion_seconds
                sys.stderr.write(f"[{usage.completion_tokens} tokens, {speed:.1f} a second]\n")


def _sampling(options: argparse.Namespace) -> Sampling:
    """Raises UsageError for numbers that cannot be."""
    from riallm.engine.request import Sampling

    return Sampling(temperature=options.temperature, top_p=options.top_p, seed=options.seed)


def _answer(
    options: argparse.Namespace,
    model: LocalModel | MemoryModel,
    with_prompts: Served,
    messages: list[dict[str, Any]],
) -> Iterator[Delta]:
    """Pieces as they come; an answer that is left, by Ctrl-C for instance, is cancelled."""
    from riallm.engine.request import Request

    if options.raw:
        prompt = with_prompts.prompts.text("".join(message["content"] for message in messages), files=())
    else:
        prompt = with_prompts.prompts.chat(messages, tools=(), files=())
    ticket = model.engine.submit(
        Request(
            ids=prompt.ids,
            meta=prompt.meta,
            max_tokens=max(1, min(options.max_tokens, model.context - len(prompt.ids))),
            sampling=_sampling(options),
            ends=with_prompts.tokenizer.ends,
        )
    )
    finished = False
    try:
        while not finished:
            piece = ticket.next()
            assert piece is not None
            finished = piece.finish is not None
            yield piece
    finally:
        if not finished:
            ticket.cancel()
