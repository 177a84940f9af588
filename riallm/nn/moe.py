"""Mixture of experts: a router sends every token to k of E small networks (Shazeer et al. 2017), none is dropped.

The router is balanced by the load it makes (Fedus et al. 2021, eq. 4-6), over real tokens of the batch at hand, and
kept from growing by the z-loss (Zoph et al. 2022, eq. 5). Letters: N tokens, D hidden, I intermediate, E experts, k
experts a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riallm.core.errors import UsageError
from riallm.nn import expert_kernel
from riallm.nn.linear import Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Where N tokens went: logits (N, E) in float32, chosen (N, k). What training asks is computed when it asks, over
    tokens that are no padding, real (N,), or over all where that is None."""

    logits: Tensor
    chosen: Tensor
    real: Tensor | None

    @property
    def balance(self) -> Tensor:
        """E * sum of (share of the load) * (mean probability), 1 when even, with gradient."""
        return self.logits.shape[1] * (self.load * self._mean(self.logits.softmax(dim=-1))).sum()

    @property
    def z(self) -> Tensor:
        """Mean squared log-sum-exp of the router's logits, with gradient."""
        return self._mean(self.logits.logsumexp(dim=-1).square())

    @property
    def load(self) -> Tensor:
        """(E,): share of the choices that each expert got."""
        return self._mean(F.one_hot(self.chosen, self.logits.shape[1]).float().mean(dim=1))

    def _mean(self, x: Tensor) -> Tensor:
        """x (N, ...) -> (...)."""
        if self.real is None:
            return x.mean(dim=0)
        with torch.autocast(x.device.type, enabled=False):
            return self.real.to(x.dtype) @ x / self.real.sum().clamp(min=1)


class Experts(nn.Module):
    """E SwiGLU networks with biases, their weights behind each other: gate and up (E, I, D), down (E, D, I)."""

    def __init__(self, *, num_experts: int, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        inner, outer = (num_experts, intermediate_size, hidden_size), (num_experts, hidden_size, intermediate_size)
        self.gate_proj, self.up_proj = nn.Parameter(torch.empty(inner)), nn.Parameter(torch.empty(inner))
        self.down_proj = nn.Parameter(torch.empty(outer))
        self.gate_bias, self.up_bias = nn.Parameter(torch.empty(inner[:2])), nn.Parameter(torch.empty(inner[:2]))
        self.down_bias = nn.Parameter(torch.empty(outer[:2]))
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    @property
    def num_matrix(self) -> int:
        """Weights in matrices, of all experts."""
        return self.gate_proj.numel() + self.up_proj.numel() + self.down_proj.numel()

    def one(self, expert: int, x: Tensor) -> Tensor:
        """(n, D) -> (n, D): what one expert makes of its tokens."""

        def apply(weight: nn.Parameter, bias: nn.Parameter, x: Tensor) -> Tensor:
            return F.linear(x, weight[expert].to(x.dtype), bias[expert].to(x.dtype))

        inner = F.silu(apply(self.gate_proj, self.gate_bias, x)) * apply(self.up_proj, self.up_bias, x)
        return apply(self.down_proj, self.down_bias, inner)

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """x (N, D), chosen and weights (N, k) -> (N, D). Tokens of one expert are multiplied with it together."""
        matrices = (self.gate_proj, self.up_proj, self.down_proj)
        biases = (self.gate_bias, self.up_bias, self.down_bias)
        if expert_kernel.takes(x, (*matrices, *biases)):
            return expert_kernel.mixed(x, chosen, weights, matrices, biases)
        each = chosen.shape[1]
        order = chosen.flatten().argsort(stable=True)
        counts = chosen.flatten().bincount(minlength=len(self.gate_proj)).tolist()
        inputs = x[order // each]
        parts = [
            self.one(expert, inputs[end - num : end])
            for expert, (num, end) in enumerate(zip(counts, accumulate(counts), strict=True))
            if num
        ]
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        made = torch.cat(parts)[back].view(-1, each, x.shape[1])
        mixed: Tensor = (made * weights[..., None].to(made.dtype)).sum(dim=1)
        return mixed


class MixtureOfExperts(nn.Module):
    """A router without bias and its experts. The weights of a token's k experts add up to one."""

    def __init__(self, *, hidden_size: int, intermediate_size: int, num_experts: int, experts_per_token: int) -> None:
        super().__init__()
        if not 0 < experts_per_token <= num_experts:
            raise UsageError(f"experts_per_token is {experts_per_token}; expected 1 to {num_experts}, the experts")
        self.experts_per_token = experts_per_token
        self.router = Linear(hidden_size, num_experts, bias=False)
        self.experts = Experts(num_experts=num_experts, hidden_size=hidden_size, intermediate_size=intermediate_size)

    def forward(self, x: Tensor, real: Tensor | None = None) -> tuple[Tensor, Routing]:
        """x (..., D) -> (..., D). real (...): tokens that are no padding, of which alone the routing tells; all."""
        flat = x.flatten(0, -2)
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(flat.float(), self.router.weight.float())
            top, chosen = logits.softmax(dim=-1).topk(self.experts_per_token, dim=-1)
        out = self.experts(flat, chosen, top / top.sum(dim=-1, keepdim=True))
        return out.view_as(x), Routing(logits=logits, chosen=chosen, real=None if real is None else real.flatten())
