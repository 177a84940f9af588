"""Whether the GPU computes what the processor computes, and how fast it trains and decodes.

python -m riallm.bench.gpu.check --out $OUT
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from riallm.bench.card import Card, Figure, emit, machine
from riallm.bench.gpu import command, equality, memory_equality, speed
from riallm.core.errors import UsageError
from riallm.core.files import atomic_write

if TYPE_CHECKING:
    from riallm.models.ria import RIAConfig

CARD = "check.json"


def body(argv: Sequence[str]) -> int:
    """Check, time, emit a card."""
    parser = command.parser("check", "Equality with the processor, and speed, on a GPU.")
    parser.add_argument("--recipe", default="ria_small", help="whose model, batch and settings are timed")
    parser.add_argument("--minutes", type=float, default=4.0, help="of all timing, compilation included where it fits")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help=f"{CARD} goes here")
    options = parser.parse_args(argv)
    try:
        import torch

        from riallm.models.zoo import nano
        from riallm.recipes.table import recipe
    except ImportError as error:
        raise UsageError(f"this needs more than the core: {error}. Run: pip install 'riallm[models]'") from None
    device = "cpu" if options.rehearse else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("PyTorch sees no GPU here, so there is nothing to check; --rehearse runs it on the processor")
    stage = recipe(options.recipe)
    until = time.monotonic() + 60.0 * options.minutes
    figures: dict[str, Figure] = {"gpu": None if device == "cpu" else torch.cuda.get_device_name()}
    figures["torch"] = torch.__version__
    wrong = []
    for found in chain(equality.all_checks(device), memory_equality.all_checks(device)):
        command.say(f"{'holds' if found.holds else 'FAILS'}  {found.name}: {found.distance:.2e} of {found.allowed:.0e}")
        figures[found.name] = found.distance
        wrong += [] if found.holds else [found.name]
    figures["failed"] = len(wrong)
    if options.rehearse:
        model = nano(hidden=256, layers=1, inner=256, vocab=96, context=32)
        figures |= _timed(model, rows=2, context=32, device=device, until=time.monotonic(), compile=False)
    else:
        figures |= _timed(
            stage.model,
            rows=stage.batches.rows,
            context=stage.batches.context,
            device=device,
            until=until,
            compile=stage.compile,
        )
    words = " ".join(["python -m riallm.bench.gpu.check", *argv])
    options.out.mkdir(parents=True, exist_ok=True)
    told = {"command": words, **machine(), **figures}
    atomic_write(options.out / CARD, json.dumps(told, indent=1).encode())
    emit(Card(name="gpu-check", command=words, figures=figures))
    return 1 if wrong else 0


def _timed(model: RIAConfig, *, rows: int, context: int, device: str, until: float, compile: bool) -> dict[str, Figure]:
    """Training as the recipe trains, then decoding; compilation may take most of the time before the first step."""
    import torch

    figures: dict[str, Figure] = {}
    share = max(0.0, until - time.monotonic()) / 4

    def note(name: str, found: speed.Speed) -> None:
        figures[f"{name} tokens a second"] = round(found.tokens_per_second, 1)
        figures[f"{name} TFLOP a second"] = round(found.flops_per_second / 1e12, 4)
        figures[f"{name} warm-up seconds"] = round(found.warm_seconds, 1)
        figures[f"{name} peak GiB"] = round(found.peak_bytes / 2**30, 2)
        command.say(f"{name}: {found.tokens_per_second:,.0f} tokens/s, {found.flops_per_second / 1e12:.3f} TFLOP/s")

    dtype = torch.bfloat16
    sizes = {"rows": rows, "context": context}
    note("training", speed.training(model, **sizes, device=device, seconds=share, compile=compile, dtype=dtype))
    for num in (1, rows):
        found = speed.decoding(model, rows=num, prefix=context // 2, device=device, seconds=share / 2, dtype=dtype)
        note(f"decoding {num}", found)
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """0 when everything holds, 1 when something does not, 2 without a GPU or for bad usage."""
    return command.guarded(body, argv)


if __name__ == "__main__":
    sys.exit(main())
