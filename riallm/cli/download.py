"""`riallm download`: a model from a Hugging Face hub, as data alone, checked against the hub's hashes."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from riallm.cli.convert import bytes_bar
from riallm.core.errors import UsageError


def main(argv: list[str]) -> int:
    """Print what was got, or one JSON object."""
    parser = argparse.ArgumentParser(
        prog="riallm download",
        description="Get a model from a Hugging Face hub (HF_ENDPOINT names another one): safetensors or GGUF, "
        "configuration and tokenizer, never pickles. Stopped or killed, the same command goes on.",
    )
    parser.add_argument("repository", metavar="OWNER/NAME", help="the model")
    parser.add_argument("--to", type=Path, metavar="DIR", help="the folder to be made (default: NAME, here)")
    parser.add_argument("--revision", help="a branch, tag or commit (default: main)")
    parser.add_argument(
        "--include",
        action="append",
        default=[],
        metavar="PATTERN",
        help="these weights only, for instance '*q8_0.gguf'",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    options = parser.parse_args(argv)
    try:
        from riallm.checkpoint.download import download
    except ImportError as error:
        raise UsageError(f"models need more than the core: {error}. Run: pip install 'riallm[models]'") from None
    target = options.to or Path(options.repository.rpartition("/")[2] or "model")
    with bytes_bar(options.repository) as hear:
        got = download(options.repository, target, revision=options.revision, include=options.include, hear=hear)
    if options.json:
        sys.stdout.write(json.dumps({**asdict(got), "path": str(got.path)}) + "\n")
    else:
        sys.stdout.write(f"{got.path}: {len(got.files)} files, {got.num_bytes:,} bytes, revision {got.revision}\n")
    return 0
