"""Feed-forward networks: SwiGLU, squared ReLU, and the dual path of the RIA document (2.5).

Letters: D hidden, I intermediate, R rank of a path's own part.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riallm.nn.adapter import AdapterPart, adapted
from riallm.nn.linear import Linear

Activation = Literal["swiglu", "relu2"]


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020): down(silu(gate(x)) * up(x)); or squared ReLU (So et al. 2021): down(relu(up(x))^2)."""

    def __init__(
        self, *, hidden_size: int, intermediate_size: int, activation: Activation = "swiglu", bias: bool = False
    ) -> None:
        super().__init__()
        self.gate_proj = Linear(hidden_size, intermediate_size, bias=bias) if activation == "swiglu" else None
        self.up_proj = Linear(hidden_size, intermediate_size, bias=bias)
        self.down_proj = Linear(intermediate_size, hidden_size, bias=bias)

    def inner(self, x: Tensor, adapter: AdapterPart | None = None) -> Tensor:
        """(..., D) -> (..., I)."""
        if self.gate_proj is None:
            return F.relu(adapted(self.up_proj, x, adapter, "up_proj")).square()
        gate = F.silu(adapted(self.gate_proj, x, adapter, "gate_proj"))
        return gate * adapted(self.up_proj, x, adapter, "up_proj")

    def forward(self, x: Tensor, adapter: AdapterPart | None = None) -> Tensor:
        """(..., D) -> (..., D). adapter: what one has for the maps of this network."""
        return adapted(self.down_proj, self.inner(x, adapter), adapter, "down_proj")


class DualPathFeedForward(FeedForward):
    """g(x) * planning(x) + (1 - g(x)) * execution(x), where both paths share gate, up and down.

    If they shared everything the gate would do nothing, so each path adds a correction of rank R to its output, from
    its own two small matrices; together those stay below one percent of the layer.
    """

    def __init__(
        self, *, hidden_size: int, intermediate_size: int, rank: int, activation: Activation = "swiglu"
    ) -> None:
        super().__init__(hidden_size=hidden_size, intermediate_size=intermediate_size, activation=activation)
        self.path_gate = Linear(hidden_size, 1, bias=True)
        self.plan_in = Linear(hidden_size, rank, bias=False)
        self.plan_out = Linear(rank, hidden_size, bias=False)
        self.execute_in = Linear(hidden_size, rank, bias=False)
        self.execute_out = Linear(rank, hidden_size, bias=False)

    def gate(self, x: Tensor, adapter: AdapterPart | None = None) -> Tensor:
        """(..., D) -> (..., 1): how much the planning path counts."""
        return torch.sigmoid(adapted(self.path_gate, x, adapter, "path_gate"))

    def correction(self, x: Tensor, adapter: AdapterPart | None = None) -> Tensor:
        """(..., D) -> (..., D): what the two paths add to their shared part, mixed by the gate."""
        gate = self.gate(x, adapter)
        plan = gate * adapted(self.plan_in, x, adapter, "plan_in")
        plan = adapted(self.plan_out, plan, adapter, "plan_out")
        execute = (1.0 - gate) * adapted(self.execute_in, x, adapter, "execute_in")
        return plan + adapted(self.execute_out, execute, adapter, "execute_out")

    def forward(self, x: Tensor, adapter: AdapterPart | None = None) -> Tensor:
        """See `FeedForward.forward`."""
        return super().forward(x, adapter) + self.correction(x, adapter)
