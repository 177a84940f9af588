"""`riallm bench NAME`: the benchmarks, each with its own options; `python -m riallm.bench.NAME` is the same."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import sys
from collections.abc import Callable

from riallm.core.errors import UsageError

BENCHMARKS: dict[str, tuple[str, str]] = {
    "engine": ("riallm.bench.engine:main", "answers, prompts and company, beside llama.cpp with --peers"),
    "kernels": ("riallm.bench.kernels:main", "packed matrices times activations, and a mixture of experts"),
    "attention": ("riallm.bench.attention:main", "naive, fused and over pages: time and peak memory"),
    "compression": ("riallm.bench.compression:main", "bits a byte that each compression costs"),
    "serving": ("riallm.bench.serving:main", "a real server over HTTP: holes, company, and a soak with --soak"),
    "turns": ("riallm.bench.turns:main", "what a turn costs in a long conversation, with a memory and without"),
    "drafting": ("riallm.bench.drafting:main", "what drafts from the text gain and cost"),
    "scoring": ("riallm.bench.scoring:main", "how long a model takes over the candidates of a repair"),
    "repair_speed": ("riallm.bench.repair_speed:main", "candidates a second of riallm fix, and its memory"),
    "starts": ("riallm.bench.starts:main", "what a command in the sandbox costs"),
    "escape": ("riallm.bench.escape:main", "the attacks that the sandbox has to hold"),
}


def parser() -> argparse.ArgumentParser:
    """Of the name alone; options are read by the benchmarks themselves, but for --json."""
    made = argparse.ArgumentParser(
        prog="riallm bench",
        description="Measure, and print a card that names the machine; its last line is JSON. With --json, that line "
        "alone. riallm bench NAME --help tells the other options.",
    )
    names = made.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, (_, text) in BENCHMARKS.items():
        names.add_parser(name, help=text)
    return made


def main(argv: list[str]) -> int:
    """What the benchmark returns; its card goes to stdout."""
    name: str = parser().parse_args(argv[:1]).name
    words = [word for word in argv[1:] if word != "--json"]
    module, function = BENCHMARKS[name][0].split(":")
    try:
        measure: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
        return alone(measure, words) if "--json" in argv else measure(words)
    except ModuleNotFoundError as error:
        raise UsageError(f"{name} needs more than the core: {error}. Run: pip install 'riallm[models]'") from None


def alone(measure: Callable[[list[str]], int], words: list[str]) -> int:
    """Run a benchmark, and of what it prints pass on the last line, which is the card as JSON."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            code = measure(words)
    except SystemExit:
        sys.stdout.write(printed.getvalue())  # its help, for instance
        raise
    sys.stdout.write("".join(printed.getvalue().splitlines(keepends=True)[-1:]))
    return code
