"""`riallm convert`: a model in another form. At most two tensors are in memory; an interrupted conversion goes on."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from riallm.core.errors import UsageError

FORMS = ("split", "gguf", "hf")
COMPRESSIONS = ("none", "8bit", "4bit", "nf4", "q8_0")
DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


def main(argv: list[str]) -> int:
    """Print what was written, or one JSON object."""
    parser = argparse.ArgumentParser(
        prog="riallm convert",
        description="Write a model in another form: a folder of ours, of Hugging Face's, or a GGUF file (Llama, Qwen2, "
        "Qwen3). Stopped or killed, the same command goes on. The source stays as it is.",
    )
    parser.add_argument("source", type=Path, help="a model folder, or a .gguf file")
    parser.add_argument("target", type=Path, help="what to write; for gguf a name that ends with .gguf")
    parser.add_argument("--to", choices=FORMS, default="split", help="the form (default: split, one file a layer)")
    parser.add_argument(
        "--compression",
        choices=COMPRESSIONS,
        default="none",
        help="of matrices; embeddings and head have 8 bits where it has 4 (default: none, as the source has them)",
    )
    parser.add_argument(
        "--dtype", choices=tuple(DTYPES), help="of matrices that are not compressed (default: the same)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    options = parser.parse_args(argv)
    try:
        from riallm.models.foreign_write import convert
    except ImportError as error:
        raise UsageError(f"models need more than the core: {error}. Run: pip install 'riallm[models]'") from None
    with bytes_bar(f"{options.target.name}") as hear:
        made = convert(
            options.source,
            options.target,
            to=options.to,
            compression=options.compression,
            dtype=None if options.dtype is None else DTYPES[options.dtype],
            hear=hear,
        )
    if options.json:
        sys.stdout.write(json.dumps({**asdict(made), "path": str(made.path)}) + "\n")
    else:
        kept = ", ".join(f"{number} {name}" for name, number in sorted(made.kept.items()))
        sys.stdout.write(f"{made.path}: {made.num_tensors} tensors ({kept}), {made.num_bytes:,} bytes\n")
    return 0


@contextmanager
def bytes_bar(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr where that is a terminal; hears (name, bytes done, bytes in all)."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=None)
        yield lambda name, done, total: progress.update(bar, completed=done, total=total, description=name)
