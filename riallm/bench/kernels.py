"""Packed matrices times activations, beside torch's bfloat16, and a mixture of experts: `riallm bench kernels ...`.

One row of x is decided by memory, so its figure is GB of weights a second, to be held against the read bandwidth of the
same run; more rows are decided by arithmetic: GOP a second, two for a weight and a row. Contestants take turns within a
round, so that what else the machine does is shared out, and figures are medians over the rounds. The weights of each
are in several copies, together larger than any cache, which take turns too. The experts are in `riallm.bench.experts`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from riallm.bench import experts
from riallm.bench.card import Card, Figure, emit
from riallm.core.errors import RiallmError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from riallm.quant.packed import Kind
    from riallm.quant.prepared import Prepared

SHAPES = "1536x1536,256x1536,8960x1536,1536x8960"
"""Outputs x columns of Qwen2.5-1.5B's matrices."""
TORCH = "torch bfloat16"


def main(argv: list[str]) -> int:
    """Measure, print the card."""
    parser = argparse.ArgumentParser(prog="riallm bench kernels", description="speed of packed matrices and of experts")
    parser.add_argument("--shapes", default=SHAPES, help="outputs x columns, with commas; none: no matrices "
                        f"(default: {SHAPES})")  # fmt: skip
    parser.add_argument("--rows", default="1,4,16,64,512", help="rows of x, with commas (default: 1,4,16,64,512)")
    parser.add_argument("--kinds", help="with commas (default: all)")
    parser.add_argument("--rounds", type=int, default=7, help="the medians are over so many (default: 7)")
    parser.add_argument("--megabytes", type=int, default=512, help="that the read bandwidth is measured with, and a "
                        "quarter of it the copies of a matrix together (default: 512)")  # fmt: skip
    parser.add_argument("--experts", default=experts.BETA_MICRO, help="hidden x intermediate x experts x experts a "
                        f"token of a mixture; none: no mixture (default: {experts.BETA_MICRO})")  # fmt: skip
    parser.add_argument("--tokens", default="1,72,1024", help="of the mixture, with commas (default: 1,72,1024)")
    options = parser.parse_args(argv)
    import torch

    from riallm.quant.compiled import kernel_status
    from riallm.quant.packed import KINDS

    try:
        kinds = KINDS if options.kinds is None else _chosen(options.kinds.split(","))
        shapes = [] if options.shapes == "none" else [_shape(text) for text in options.shapes.split(",")]
        nums, tokens = _numbers("--rows", options.rows), _numbers("--tokens", options.tokens)
        figures: dict[str, Figure] = {"kernels": kernel_status(), "threads": torch.get_num_threads()}
        size = options.megabytes << 20
        figures["read GB/s"] = bandwidth(size, rounds=options.rounds)
        for shape in shapes:
            figures |= measure(shape, kinds, nums, num_bytes=size // 4, rounds=options.rounds)
        if options.experts != "none":
            figures |= experts.measure(options.experts, tokens, rounds=options.rounds)
        figures["read GB/s, at the end"] = bandwidth(size, rounds=options.rounds)
    except RiallmError as error:
        sys.stderr.write(f"kernels: {error}\n")
        return error.exit_code
    emit(Card(name="kernels", command=" ".join(["riallm bench kernels", *argv]), figures=figures))
    return 0


def measure(
    shape: tuple[int, int], kinds: Sequence[Kind], nums: Sequence[int], *, num_bytes: int, rounds: int
) -> dict[str, Figure]:
    """For one matrix and each number of rows: GB a second for one row, GOP a second for more."""
    import torch
    import torch.nn.functional as F

    from riallm.quant.matmul import linear
    from riallm.quant.prepared import Prepared

    def copy(matrix: Prepared) -> Prepared:
        codes, scales = matrix.codes.clone(), matrix.scales.clone()
        return Prepared(kind=matrix.kind, shape=matrix.shape, codes=codes, scales=scales)

    outputs, columns = shape
    sizes: dict[str, int] = {}
    copies: dict[str, list[Callable[[Tensor], Tensor]]] = {}  # name -> how to multiply with each copy
    for kind in kinds:
        matrix = random_matrix(kind, shape)
        sizes[kind] = matrix.num_bytes
        copies[kind] = [partial(linear, prepared=copy(matrix)) for _ in range(num_bytes // matrix.num_bytes + 1)]
    plain = torch.randn(outputs, columns).bfloat16()
    sizes[TORCH] = plain.nbytes
    copies[TORCH] = [partial(F.linear, weight=plain.clone()) for _ in range(num_bytes // plain.nbytes + 1)]
    figures: dict[str, Figure] = {}
    for num in nums:
        x = torch.randn(num, columns).bfloat16()
        taken: dict[str, list[float]] = {name: [] for name in sizes}
        for turn in range(rounds + 1):
            for name, several in copies.items():
                # Many rows take long enough with one copy, and hardly read it.
                chosen = several if num < 64 else several[:1]
                began = time.perf_counter()
                for multiply in chosen:
                    multiply(x)
                if turn:  # the first round warms up
                    taken[name].append((time.perf_counter() - began) / len(chosen))
        for name, size in sizes.items():
            work, unit = (size, "GB/s") if num == 1 else (2 * num * outputs * columns, "GOP/s")
            figures[f"{name} {outputs}x{columns} rows {num} {unit}"] = work / statistics.median(taken[name]) / 1e9
    return figures


def bandwidth(num_bytes: int, *, rounds: int) -> float:
    """GB a second that a sum over so much memory reads with torch's threads, the median."""
    import torch

    data = torch.ones(num_bytes // 4)
    data.sum()
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        data.sum()
        taken.append(time.perf_counter() - began)
    return num_bytes / statistics.median(taken) / 1e9


def random_matrix(kind: Kind, shape: tuple[int, int]) -> Prepared:
    """A matrix of a kind; a K-quant of random codes under scales near one hundredth."""
    import torch

    from riallm.quant import superblocks
    from riallm.quant.packed import BLOCK, Packed, quantise
    from riallm.quant.prepared import prepare

    outputs, columns = shape
    if kind not in superblocks.BYTES:
        return prepare(quantise(torch.randn(outputs, columns), kind))
    blocks = torch.randint(0, 256, (outputs * columns // BLOCK[kind], superblocks.BYTES[kind]), dtype=torch.uint8)
    scales = torch.full((len(blocks), 2), 0.01).half().view(torch.uint8)
    if kind == "q4_k":
        blocks[:, :4] = scales
    else:
        blocks[:, -2:] = scales[:, :2]
    return prepare(Packed(kind=kind, codes=blocks.reshape(outputs, -1), scales=None))


def _chosen(names: Sequence[str]) -> list[Kind]:
    from riallm.quant.packed import KINDS

    found: list[Kind] = [kind for kind in KINDS if kind in names]
    if unknown := set(names) - set(KINDS):
        raise UsageError(f"unknown kinds {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    return found


def _numbers(option: str, text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"{option} is {text!r}; expected whole numbers from 1 on, with commas between")
    return [int(part) for part in parts]


def _shape(text: str) -> tuple[int, int]:
    outputs, _, columns = text.partition("x")
    if not (outputs.isdecimal() and columns.isdecimal()) or int(columns) % 256:
        raise UsageError(f"got the shape {text!r}, expected outputs x columns, the columns a multiple of 256")
    return int(outputs), int(columns)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
