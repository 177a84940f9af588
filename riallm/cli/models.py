"""`riallm models`: the models by name, what their dimensions come to, and the memory that they take."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from riallm.core.errors import UsageError

if TYPE_CHECKING:
    from riallm.models.llama import LlamaConfig
    from riallm.models.ria import RIAConfig
    from riallm.models.rxt import RxTConfig

FORMATS = {"bf16": 2.0, "int8": 1.0625, "4-bit": 0.5625}
"""Bytes a parameter, scales included: groups of 32 with a scale of two bytes; None in a row: not in that format."""


def main(argv: list[str]) -> int:
    """Print the table, or one JSON object."""
    parser = argparse.ArgumentParser(prog="riallm models", description="Models by name: parameters, costs, memory.")
    parser.add_argument("name", nargs="*", help="only these (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args(argv)
    try:
        rows = [describe(name) for name in options.name or names()]
    except ImportError as error:
        raise UsageError(f"models need more than the core: {error}. Run: pip install 'riallm[models]'") from None
    if options.json:
        sys.stdout.write(json.dumps({"models": rows}) + "\n")
    else:
        show(rows)
    return 0


def names() -> list[str]:
    """All names of the zoo."""
    from riallm.models.zoo import ZOO

    return list(ZOO)


def describe(name: str) -> dict[str, Any]:
    """One model, counted on the device `meta`. Bytes, and FLOPs of the forward pass of one token. memory_bytes: of a
    conversation, however long it is."""
    from riallm.models.zoo import build, entry

    model, found = build(name), entry(name)
    costs, specs = model.costs(), model.state_specs()
    return {
        "name": name,
        "parameters": costs.num_parameters,
        "written_billions": found.written,
        "context": longest_of(found.config),
        "flops_per_token": costs.flops_per_token,
        "kv_bytes_per_token": sum(spec.bytes_per_token for spec in specs),
        "memory_bytes": sum(spec.fixed_bytes for spec in specs),
        "weight_bytes": {
            kind: round(costs.num_parameters * size) if kind in packed_as(found.config) else None
            for kind, size in FORMATS.items()
        },
        "source": found.source,
    }


def longest_of(config: RIAConfig | LlamaConfig | RxTConfig) -> int:
    """Tokens of a prompt and its answer; with a memory, those of one interaction, of which there may be any number."""
    from riallm.models.rxt import RxTConfig

    return config.max_interaction if isinstance(config, RxTConfig) else config.max_position_embeddings


def packed_as(config: RIAConfig | LlamaConfig | RxTConfig) -> tuple[str, ...]:
    """The formats that its weights can have in memory: those of models with a memory are not packed there."""
    from riallm.models.rxt import RxTConfig

    return ("bf16",) if isinstance(config, RxTConfig) else tuple(FORMATS)


def size(num_bytes: float) -> str:
    """For people."""
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**29 else f"{num_bytes / 2**20:.0f} MiB"


def show(rows: list[dict[str, Any]]) -> None:
    """The table for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Models", title_justify="left")
    for column in ("name", "parameters", "as written", "context", "GFLOP/token", *FORMATS, "state, full context"):
        table.add_column(column, justify="left" if column == "name" else "right", no_wrap=column == "name")
    for row in rows:
        written = row["written_billions"]
        table.add_row(
            row["name"],
            f"{row['parameters'] / 1e9:.2f} B",
            "-" if written is None else f"{written} B",
            f"{row['context'] // 1024}K",
            f"{row['flops_per_token'] / 1e9:.1f}",
            *("-" if row["weight_bytes"][kind] is None else size(row["weight_bytes"][kind]) for kind in FORMATS),
            size(row["kv_bytes_per_token"] * row["context"] + row["memory_bytes"]),
        )
    console = Console()
    whole = console.measure(table, options=console.options.update(width=1000)).maximum
    console.width = max(console.width, whole)  # a longer line can be read, half a number cannot
    console.print(table)
    sys.stdout.write("No weights of these ship: the sizes were counted by building them without memory.\n")
