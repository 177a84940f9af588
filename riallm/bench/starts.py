"""What a command in the sandbox costs before it does anything: per tier, the first one and one of many.

riallm bench starts [N]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from riallm.bench.card import Card, Figure, emit
from riallm.sandbox import open_sandbox, probe
from riallm.sandbox.base import Policy

_RUNS = 50


def main(argv: Sequence[str] | None = None) -> int:
    """Measure N starts of `true` in each tier that works here, and emit a card. Milliseconds."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="riallm bench starts", description="what a command in the sandbox costs")
    parser.add_argument("runs", nargs="?", type=int, default=_RUNS, metavar="N", help=f"of each (default: {_RUNS})")
    count: int = parser.parse_args(words).runs
    figures: dict[str, Figure] = {"runs": count}
    for report in probe():
        if not report.available:
            continue
        with (
            tempfile.TemporaryDirectory() as folder,
            open_sandbox(Policy(workspace=Path(folder)), tier=report.tier) as sandbox,
        ):
            times = []
            for _ in range(count):
                began = time.perf_counter()
                sandbox.exec(["true"])
                times.append(1000 * (time.perf_counter() - began))
        figures[f"{report.tier} median ms"] = round(median(times), 1)
        figures[f"{report.tier} least ms"] = round(min(times), 1)
    emit(Card(name="starts", command=" ".join(["riallm bench starts", *words]), figures=figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
