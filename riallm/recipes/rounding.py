"""Weights in few bits, with and without training for it: `python -m riallm.recipes.rounding --start MODEL --out DIR`.

Three short runs from a model's weights over the same rows: one as ever, and one each whose matrices compute in eight
and in four bits from the first step on. The first is written in eight bits and in four, the others in their own; all
are read back and measured on the validation packages. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from riallm.core.errors import RiallmError
from riallm.core.files import atomic_write, made_folder
from riallm.eval.stats import bootstrap
from riallm.models.load import TOKENIZER, load_ria, save_ria
from riallm.models.ria import RIA
from riallm.quant.blocks import Bits
from riallm.recipes.ria import ria_nano
from riallm.tokenizer.saved import load
from riallm.train import documents
from riallm.train.stage import Stage, bytes_per_token, run, validation_batches

WRITTEN: tuple[Bits, ...] = (8, 4)
Batch = tuple[float, float]


def stage(start: Path, steps: int, bits: Bits | None) -> Stage:
    """One run of the recipe `ria_nano` from `start`; bits: what it is trained for, None for nothing."""
    nano = ria_nano()
    optimiser = replace(nano.train.optimiser, lr=0.002, embedding_lr=0.002)
    return replace(
        nano,
        name=f"rounding {bits}",
        model=load_ria(start).config,
        start=str(start),
        batches=replace(nano.batches, mixture={"causal": 1.0}, later=None, later_from=0, seed=3),
        train=replace(
            nano.train,
            max_steps=steps,
            max_seconds=None,
            ema=0.95,
            optimiser=optimiser,
            round_bits=bits,
            round_from=0.0,
        ),
        bits=bits,
        validation_batches=32,
    )


def read_back(stage: Stage, folder: Path) -> list[Batch]:
    """(bits, bytes) of each validation batch, by the model in a folder, with its weights as they were written."""
    tokenizer = load(folder / TOKENIZER)
    ratio = bytes_per_token(tokenizer, documents.rows(stage.text, "validation"))
    return validation_batches(stage, load_ria(folder, dtype=torch.bfloat16), tokenizer, ratio)


def measured(start: Path, out: Path, steps: int) -> dict[str, list[Batch]]:
    """Name of what was written -> its batches."""
    path = out / "measured.json"
    if path.exists():
        return {name: [(bits, size) for bits, size in told] for name, told in json.loads(path.read_text()).items()}
    found: dict[str, list[Batch]] = {}
    plain = stage(start, steps, None)
    trained = run(plain, out / "plain")
    found["as trained"] = read_back(plain, trained.folder)
    files = {TOKENIZER: (trained.folder / TOKENIZER).read_bytes()}
    for bits in WRITTEN:
        rounded = out / f"plain-{bits}"
        if not rounded.exists():
            model: RIA = load_ria(trained.folder)
            save_ria(model, rounded, bits=bits, files=files)
        found[f"{bits} bits, rounded at the end"] = read_back(plain, rounded)
        aware = stage(start, steps, bits)
        found[f"{bits} bits, trained for"] = read_back(aware, run(aware, out / f"aware-{bits}").folder)
    atomic_write(path, json.dumps(found).encode())
    return found


def table(found: dict[str, list[Batch]]) -> dict[str, Any]:
    """Name -> bits per byte, and how many more than of the weights as trained, over the same batches."""
    base = found["as trained"]
    told = {}
    for name, batches in found.items():
        more = [(bits - of_base) / size for (bits, size), (of_base, _) in zip(batches, base, strict=True)]
        value = sum(bits for bits, _ in batches) / sum(size for _, size in batches)
        told[name] = {"bits_per_byte": value, "more": asdict(bootstrap(more, fmean, seed=0))}
    return told


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and, last, one JSON object."""
    parser = argparse.ArgumentParser(
        prog="python -m riallm.recipes.rounding", description="few bits, trained for or not"
    )
    parser.add_argument("--start", type=Path, required=True, metavar="MODEL", help="for instance weights/ria-nano")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="runs and results; goes on where it was")
    parser.add_argument("--steps", type=int, default=60, help="of each run, 16,384 tokens each (default 60)")
    options = parser.parse_args(argv)
    try:
        made_folder(options.out)
        told = table(measured(options.start, options.out, options.steps))
    except RiallmError as error:
        sys.stderr.write(f"rounding: {error}\n")
        return error.exit_code
    for name, row in told.items():
        more = row["more"]
        sys.stdout.write(
            f"{name:26} {row['bits_per_byte']:.4f} bits/byte, {more['value']:+.4f} "
            f"[{more['low']:+.4f}, {more['high']:+.4f}] against the weights as trained\n"
        )
    sys.stdout.write(json.dumps({"task": "rounding", "steps": options.steps, "rows": told}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
