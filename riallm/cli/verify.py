"""`riallm verify`: whether a model on the disk is whole, to the byte where its form has hashes."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from riallm.cli.convert import bytes_bar
from riallm.core.errors import UsageError


def main(argv: list[str]) -> int:
    """Print what was found, or one JSON object; 2 for a model that is damaged."""
    parser = argparse.ArgumentParser(
        prog="riallm verify",
        description="Check a model: every hash that it comes with, and all sizes and headers. Nothing is changed.",
    )
    parser.add_argument("path", type=Path, help="a model folder, or a .gguf file")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    options = parser.parse_args(argv)
    try:
        from riallm.checkpoint.verifying import verify
    except ImportError as error:
        raise UsageError(f"models need more than the core: {error}. Run: pip install 'riallm[models]'") from None
    with bytes_bar(options.path.name) as hear:
        found = verify(options.path, hear)
    if options.json:
        sys.stdout.write(json.dumps({**asdict(found), "path": str(found.path)}) + "\n")
    elif found.num_hashed:
        sys.stdout.write(
            f"{found.path}: {found.num_tensors} tensors; {found.num_hashed} files, {found.num_bytes:,} bytes, "
            "every hash is right\n"
        )
    else:
        sys.stdout.write(
            f"{found.path}: {found.num_tensors} tensors; sizes and headers are right, there are no hashes to compare\n"
        )
    return 0
