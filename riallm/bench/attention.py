"""Attention as the formula says, fused, and over pages: `riallm bench attention [--tokens 2048,8192,32768]`.

One layer reads a whole prompt, in RuvLTRA-Medium's shape. Each way computes in a process of its own, so that its peak
of memory is its own; what the process had before is taken off. The naive way holds all scores: where those of all heads
do not fit into `--naive-gb`, it takes as many heads at a time as do, and the memory of all together is told beside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from riallm.bench.card import Card, Figure, emit
from riallm.bench.peak import check_peak, peak, peak_from_now
from riallm.core.errors import RiallmError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

HEADS, KV_HEADS, HEAD_DIM = 16, 2, 128
WAYS = ("naive", "fused", "pages")
SCORE_BYTES = 3 * 4 + 1
"""Of one score of the naive way: itself, masked, as a weight, in float32; and the mask."""
DOCUMENT = {2048: (2.5, 30), 8192: (4.2, 50), 32768: (7.1, 70)}
"""Speed-up and per cent of memory saved that RuvLTRA's document claims ("Flash Attention 2")."""


def main(argv: list[str]) -> int:
    """Measure, print the card."""
    parser = argparse.ArgumentParser(prog="riallm bench attention", description="naive and fused attention")
    parser.add_argument("--tokens", default="2048,8192,32768", help="of the prompts (default: 2048,8192,32768)")
    parser.add_argument("--rounds", type=int, default=3, help="the medians are over so many (default: 3)")
    parser.add_argument("--naive-gb", type=float, default=6.0, help="that the naive way may take (default: 6)")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    try:
        check_peak()
        sizes = [int(text) for text in options.tokens.split(",")]
        if min(sizes) < 1 or options.rounds < 1:
            raise UsageError("--tokens and --rounds are from 1 on")
        if options.one:
            sys.stdout.write(json.dumps(one(options.one, sizes[0], options.naive_gb)) + "\n")
            return 0
        figures = measure(sizes, options.rounds, options.naive_gb)
    except ValueError as error:
        sys.stderr.write(f"attention: {error}\n")
        return error.exit_code if isinstance(error, RiallmError) else UsageError.exit_code
    emit(Card(name="attention", command=" ".join(["riallm bench attention", *argv]), figures=figures))
    return 0


def measure(sizes: list[int], rounds: int, naive_gb: float) -> dict[str, Figure]:
    """Seconds, peak memory and ratios for each size; the ways take turns within a round."""
    import torch

    figures: dict[str, Figure] = {
        "heads": HEADS,
        "kv_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "threads": torch.get_num_threads(),
    }
    for num in sizes:
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                found[way].append(_apart(way, num, naive_gb))
        for way, runs in found.items():
            figures[f"{num}_{way}_seconds"] = statistics.median(run["seconds"] for run in runs)
            figures[f"{num}_{way}_peak_megabytes"] = statistics.median(run["megabytes"] for run in runs)
        figures[f"{num}_naive_heads_at_a_time"] = int(found["naive"][0]["heads"])
        figures[f"{num}_naive_all_heads_megabytes"] = HEADS * num * num * SCORE_BYTES / 1e6
        for way in WAYS[1:]:
            ratios = [a["seconds"] / b["seconds"] for a, b in zip(found["naive"], found[way], strict=True)]
            figures[f"{num}_{way}_speedup"] = statistics.median(ratios)
        if num in DOCUMENT:
            figures[f"{num}_document_speedup"], figures[f"{num}_document_memory_saved_percent"] = DOCUMENT[num]
    return figures


def one(way: str, num: int, naive_gb: float) -> dict[str, float]:
    """In this process: seconds and the peak of memory over what was there before."""
    import torch

    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, num, HEAD_DIM, generator=draw) for heads in (HEADS, KV_HEADS, KV_HEADS))
    heads = HEADS
    while way == "naive" and heads > 1 and heads * num * num * SCORE_BYTES > naive_gb * 1e9:
        heads //= 2
    with torch.inference_mode():
        run = _naive(q, k, v, heads) if way == "naive" else _fused(q, k, v) if way == "fused" else _pages(q, k, v)
        before = peak_from_now()
        began = time.perf_counter()
        run()
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "megabytes": (peak() - before) * 1024 / 1e6, "heads": heads}


def _naive(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Callable[[], object]:
    from riallm.nn.attention import attend_reference
    from riallm.nn.meta import TokenMeta

    meta, shared = TokenMeta.plain(1, q.shape[2]), HEADS // KV_HEADS
    k, v = (each.repeat_interleave(shared, dim=1) for each in (k, v))

    def run() -> None:
        for first in range(0, HEADS, heads):
            own = slice(first, first + heads)
            attend_reference(q[:, own], k[:, own], v[:, own], mask=None, terms=None, query=meta, key=meta)

    return run


def _fused(q: Tensor, k: Tensor, v: Tensor) -> Callable[[], object]:
    from riallm.nn.attention import attend
    from riallm.nn.meta import TokenMeta

    meta = TokenMeta.plain(1, q.shape[2])
    return lambda: attend(q, k, v, mask=None, terms=None, query=meta, key=meta)


def _pages(q: Tensor, k: Tensor, v: Tensor) -> Callable[[], object]:
    """Keys and values are in their pages already, as the engine has them."""
    import torch

    from riallm.nn.page_attention import attend_pages, available
    from riallm.nn.paged import PAGE, PagedState, PageStore, Table, row_of

    if not available():
        raise UsageError("attention over pages is compiled, and there is no C++ compiler here; install g++")
    num = q.shape[2]
    store = PageStore(num_pages=-(-num // PAGE), num_layers=1, num_kv_heads=KV_HEADS, head_dim=HEAD_DIM)
    table = Table(pages=tuple(range(store.num_pages)), num_tokens=0, relations=torch.ones(1, 1, dtype=torch.int64))
    within = PagedState(store=store, tables=(table,)).begin(row_of([table], [[0] * num]), None)
    store.write(0, within.places, k[0].transpose(0, 1), v[0].transpose(0, 1))
    rows = q[0].transpose(0, 1).contiguous()
    return lambda: attend_pages(rows, *store.layer(0), within.queries, None)


def _apart(way: str, num: int, naive_gb: float) -> dict[str, float]:
    command = [sys.executable, "-m", "riallm.bench.attention", "--one", way]
    command += ["--tokens", str(num), "--naive-gb", str(naive_gb)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UsageError(f"{way} of {num} tokens ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
