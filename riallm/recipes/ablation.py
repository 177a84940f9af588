"""The document's ablation (7.4.2) at smoke size: `python -m riallm.recipes.ablation --out DIR`.

The same small model four times, as the document has it and without one part at a time, with several seeds; measured on
lines of held-out packages that use what another file defines. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from riallm.core.errors import RiallmError, UsageError
from riallm.core.files import atomic_write, made_folder
from riallm.eval.sets.held_out import default_data
from riallm.eval.stats import bootstrap
from riallm.eval.tasks.crossfile import Completed, Use, complete, uses
from riallm.models.load import TOKENIZER, load_ria
from riallm.models.ria import RIAConfig
from riallm.models.zoo import nano
from riallm.recipes.ria import HELD_OUT, LIBRARY
from riallm.tokenizer.saved import load
from riallm.train.batches import BatchConfig
from riallm.train.documents import TextConfig
from riallm.train.loop import TrainConfig
from riallm.train.optim import OptimiserConfig
from riallm.train.stage import Stage, run

CONTEXT = 512
VARIANTS: dict[str, Callable[[RIAConfig], RIAConfig]] = {
    "document": lambda model: model,
    "no file bias": lambda model: replace(model, file_bias=False),
    "no ranges": lambda model: replace(model, local_window=None, file_window=None),
    "no dual path": lambda model: replace(model, dual_path_rank=0),
}


def stage(variant: str, seed: int, steps: int) -> Stage:
    """One run: most rows hold a file and a part of one that it imports. The text is the interpreter's own library."""
    model = nano(hidden=256, layers=4, inner=512, vocab=2048, context=CONTEXT)
    return Stage(
        name=f"ablation {variant} {seed}",
        model=VARIANTS[variant](model),
        text=TextConfig(train=LIBRARY, held_out=HELD_OUT),
        batches=BatchConfig(rows=16, context=CONTEXT, mixture={"causal": 1.0}, neighbours=0.8, seed=seed),
        train=TrainConfig(max_steps=steps, seed=seed, ema=0.98, optimiser=OptimiserConfig(lr=0.01, embedding_lr=0.012)),
        compile=True,
        bits=None,
        validation_batches=2,
    )


def measured(folder: Path, variant: str, seed: int, steps: int, items: Sequence[Use]) -> list[Completed]:
    """Train where it was not done, complete the items where it was not done."""
    path = folder / "completed.json"
    if not path.exists():
        trained = run(stage(variant, seed, steps), folder)
        model, tokenizer = load_ria(trained.folder), load(trained.folder / TOKENIZER)
        told = [asdict(each) for each in complete(model, tokenizer, items, context=CONTEXT)]
        atomic_write(path, json.dumps(told).encode())
    found = [Completed(**each) for each in json.loads(path.read_text("utf-8"))]
    if len(found) != len(items):
        raise UsageError(f"{folder} holds {len(found)} items, not {len(items)}; name another folder by --out")
    return found


def table(results: dict[str, list[list[Completed]]]) -> dict[str, Any]:
    """Variant -> figures: bits per byte and share of exact lines, means over seeds; each with its difference to the
    document's, paired over the items (mean over seeds first), with a bootstrap interval."""
    num = len(results["document"][0])

    def per_item(name: str, what: Callable[[Completed], float]) -> list[float]:
        return [fmean(what(seed[item]) for seed in results[name]) for item in range(num)]

    found: dict[str, Any] = {}
    for name, seeds in results.items():
        size = sum(each.num_bytes for each in seeds[0])
        bits, exact = per_item(name, lambda each: each.bits), per_item(name, lambda each: float(each.exact))
        base_bits = per_item("document", lambda each: each.bits)
        base_exact = per_item("document", lambda each: float(each.exact))
        more = [one - other for one, other in zip(bits, base_bits, strict=True)]
        better = [one - other for one, other in zip(exact, base_exact, strict=True)]
        found[name] = {
            "bits_per_byte": sum(bits) / size,
            "exact": fmean(exact),
            "bits_per_byte_by_seed": [sum(each.bits for each in seed) / size for seed in seeds],
            "more_bits_a_line": asdict(bootstrap(more, fmean, seed=0)),
            "more_exact": asdict(bootstrap(better, fmean, seed=0)),
        }
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and, last, one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m riallm.recipes.ablation", description="parts of RIA, on and off")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="runs and results; goes on where it was")
    parser.add_argument("--data", type=Path, default=default_data(), help="held-out packages (default: the cache)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=250, help="of each run, 8,192 tokens each (default 250)")
    parser.add_argument("--items", type=int, default=400, help="lines (default 400)")
    options = parser.parse_args(argv)
    try:
        made_folder(options.out)
        items = uses(options.data, num=options.items, seed=0)
        results: dict[str, list[list[Completed]]] = {name: [] for name in VARIANTS}
        for seed in range(options.seeds):
            for name in VARIANTS:
                folder = options.out / f"{name.replace(' ', '-')}-{seed}"
                results[name].append(measured(folder, name, seed, options.steps, items))
                sys.stderr.write(f"{name}, seed {seed}: done\n")
    except RiallmError as error:
        sys.stderr.write(f"ablation: {error}\n")
        return error.exit_code
    found = table(results)
    for name, row in found.items():
        bits, exact = row["more_bits_a_line"], row["more_exact"]
        sys.stdout.write(
            f"{name:14} {row['bits_per_byte']:.4f} bits/byte, {row['exact']:.1%} exact; against the document's "
            f"{bits['value']:+.2f} [{bits['low']:+.2f}, {bits['high']:+.2f}] bits a line, "
            f"{100 * exact['value']:+.1f} [{100 * exact['low']:+.1f}, {100 * exact['high']:+.1f}] points\n"
        )
    told = {"task": "ablation", "items": len(items), "seeds": options.seeds, "steps": options.steps, "variants": found}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
