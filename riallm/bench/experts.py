"""A mixture of experts, beside two plain ways to compute it and a dense layer of equal FLOPs: `riallm bench kernels`.

The plain ways are a loop over all experts that picks each one's tokens by a mask, and all experts at once, each over as
many places as the busiest one has tokens. Letters: N tokens, D hidden, I intermediate, E experts, k experts a token, P
places.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from riallm.bench.card import Figure
from riallm.core.errors import RiallmError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from riallm.nn.feedforward import FeedForward
    from riallm.nn.moe import Experts, MixtureOfExperts

BETA_MICRO = "256x512x42x4"
"""D x I x E x k of RxT-Beta-Micro."""
FEW, CALLS = 64, 16
"""Fewer tokens than the one are computed so many times in a row, each time others: with the same ones the weights
would be in a cache, which a model's other layers have between two tokens of an answer."""
CLOSE = 1e-4
"""What the ways may differ by; what they compute is near one."""


def measure(shape: str, nums: Sequence[int], *, rounds: int) -> dict[str, Figure]:
    """For each number of tokens: milliseconds of our experts, the other ways as multiples of that, and the whole layer,
    its router included, as a multiple of the dense one; medians over the rounds, of ratios within a round."""
    import torch

    from riallm.nn.feedforward import FeedForward
    from riallm.nn.moe import MixtureOfExperts

    hidden, size, num_experts, each = _sizes(shape)
    mixture = MixtureOfExperts(
        hidden_size=hidden, intermediate_size=size, num_experts=num_experts, experts_per_token=each
    )
    for parameter in mixture.parameters():
        torch.nn.init.normal_(parameter, std=hidden**-0.5)
    dense = [FeedForward(hidden_size=hidden, intermediate_size=each * size, bias=True) for _ in range(CALLS)]
    figures: dict[str, Figure] = {}
    for num in nums:
        taken = _seconds(mixture, dense, num, rounds=rounds)
        about = f"experts {shape} tokens {num}"
        figures[f"{about} grouped ms"] = 1e3 * statistics.median(taken["grouped"])
        for name, beside in (("loop", "grouped"), ("padded", "grouped"), ("layer", "dense")):
            ratios = [one / other for one, other in zip(taken[name], taken[beside], strict=True)]
            figures[f"{about} {name} / {beside}"] = statistics.median(ratios)
    return figures


def _seconds(
    mixture: MixtureOfExperts, dense: Sequence[FeedForward], num: int, *, rounds: int
) -> dict[str, list[float]]:
    """Name -> seconds of a call in each round. Raises RiallmError where the ways disagree."""
    import torch

    calls = CALLS if num < FEW else 1
    experts = mixture.experts
    inputs = [torch.randn(num, experts.gate_proj.shape[2]) for _ in range(calls)]
    with torch.inference_mode():
        routed = [mixture.router(x).softmax(dim=-1).topk(mixture.experts_per_token) for x in inputs]
        given = [(x, best, top / top.sum(dim=-1, keepdim=True)) for x, (top, best) in zip(inputs, routed, strict=True)]
        ways: dict[str, Callable[[int], Tensor]] = {
            "grouped": lambda at: experts(*given[at]),
            "loop": lambda at: loop(experts, *given[at]),
            "padded": lambda at: padded(experts, *given[at]),
            "layer": lambda at: mixture(inputs[at])[0],
            "dense": lambda at: dense[at](inputs[at]),
        }
        for name in ("loop", "padded", "layer"):
            far = float((ways[name](0) - ways["grouped"](0)).abs().max())
            if not far <= CLOSE:
                raise RiallmError(f"{name} and the grouped experts differ by {far:.2g}, expected at most {CLOSE}")
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name, way in ways.items():
                began = time.perf_counter()
                for at in range(calls):
                    way(at)
                if turn:  # the first round warms up
                    taken[name].append((time.perf_counter() - began) / calls)
    return taken


def loop(experts: Experts, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """x (N, D), chosen and weights (N, k) -> (N, D). Each expert in turn, over the tokens that a mask picks for it."""
    import torch

    out = torch.zeros_like(x)
    for expert in range(len(experts.gate_proj)):
        rows, places = (chosen == expert).nonzero(as_tuple=True)
        if len(rows):
            out[rows] += weights[rows, places, None] * experts.one(expert, x[rows])
    return out


def padded(experts: Experts, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """x (N, D), chosen and weights (N, k) -> (N, D). All experts at once, (E, P, D), whoever is idle too."""
    import torch
    import torch.nn.functional as F

    expert, order = chosen.flatten().sort(stable=True)
    counts = expert.bincount(minlength=len(experts.gate_proj))
    place = torch.arange(len(order)) - (counts.cumsum(dim=0) - counts)[expert]
    inputs = x.new_zeros(len(counts), int(counts.max()), x.shape[1])
    inputs[expert, place] = x[order // chosen.shape[1]]

    def apply(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        return torch.baddbmm(bias[:, None], x, weight.mT)

    gate = F.silu(apply(experts.gate_proj, experts.gate_bias, inputs))
    made = apply(experts.down_proj, experts.down_bias, gate * apply(experts.up_proj, experts.up_bias, inputs))
    each = torch.empty(len(order), x.shape[1])
    each[order] = made[expert, place]
    return (each.view(*chosen.shape, -1) * weights[..., None]).sum(dim=1)


def _sizes(text: str) -> tuple[int, int, int, int]:
    parts = text.split("x")
    if len(parts) != 4 or not all(part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"got the experts {text!r}, expected hidden x intermediate x experts x experts a token")
    hidden, size, num_experts, each = map(int, parts)
    return hidden, size, num_experts, each
