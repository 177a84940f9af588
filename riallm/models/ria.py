"""RIA: a decoder with attention that knows files, a dual-path feed-forward network and a tool router (RIA document, 2).

Letters: B rows, T tokens, D hidden. What the document does not have is an option of `RIAConfig` whose default is the
document's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from riallm.core.errors import UsageError
from riallm.models.decoder import Block, Decoder, DecoderConfig
from riallm.nn.adapter import AdapterPart
from riallm.nn.attention import Ranges
from riallm.nn.attention_layer import Attention
from riallm.nn.feedforward import Activation, DualPathFeedForward, FeedForward
from riallm.nn.linear import Linear
from riallm.nn.norm import RMSNorm
from riallm.nn.state import Pass


@dataclass(frozen=True, slots=True, kw_only=True)
class RIAConfig(DecoderConfig):
    """With `DecoderConfig` the names of the document's appendix A, then what its text describes, then options of ours.

    local_window, file_window: attention ranges in tokens (2.3.2); None turns the ranges off. dual_path_rank: rank of
    each path's own part, 0 for a plain network. num_tools: kinds of tools that the router tells apart (2.4.1).
    qk_norm: queries and keys are normed. norm_gain: norms have a learned gain. softcap: logits are bounded by
    softcap * tanh(logits / softcap). skip_scalars: each block mixes its input with the embeddings by two learned
    numbers. zero_output: output projections begin at zero.
    """

    use_cache: bool = True

    file_bias: bool = True
    local_window: int | None = 4096
    file_window: int | None = 16_384
    dual_path_rank: int = 8
    num_tools: int = 8

    activation: Activation = "swiglu"
    qk_norm: bool = False
    norm_gain: bool = True
    softcap: float | None = None
    skip_scalars: bool = False
    zero_output: bool = False

    def __post_init__(self) -> None:
        DecoderConfig.__post_init__(self)
        if (self.local_window is None) != (self.file_window is None):
            raise UsageError("local_window and file_window are given together, or neither")


class ToolDecision(NamedTuple):
    """probability (...): that a tool should be called; logits (..., number of tools): which one."""

    probability: Tensor
    logits: Tensor


class ToolRouter(nn.Module):
    """Decides whether and which tool to call (2.4). Untrained until there is data for it; nothing here calls a tool."""

    def __init__(self, hidden_size: int, num_tools: int) -> None:
        super().__init__()
        self.call = Linear(hidden_size, 1)
        self.choose = Linear(hidden_size, num_tools)

    def forward(self, hidden: Tensor) -> ToolDecision:
        """hidden (..., D), for instance at the last token."""
        return ToolDecision(probability=torch.sigmoid(self.call(hidden)).squeeze(-1), logits=self.choose(hidden))


class RIABlock(Block):
    """A block whose network has two paths, and which may mix its input with the embeddings."""

    def __init__(self, config: RIAConfig) -> None:
        hidden, inner = config.hidden_size, config.intermediate_size
        eps = config.rms_norm_eps if config.qk_norm else None
        attention = replace(config.attention(), qk_norm_eps=eps, file_bias=config.file_bias)
        super().__init__(
            norms=(_norm(config), _norm(config)),
            attention=Attention(attention),
            mlp=(
                DualPathFeedForward(
                    hidden_size=hidden,
                    intermediate_size=inner,
                    rank=config.dual_path_rank,
                    activation=config.activation,
                )
                if config.dual_path_rank
                else FeedForward(hidden_size=hidden, intermediate_size=inner, activation=config.activation)
            ),
        )
        self.skips = nn.Parameter(torch.tensor([1.0, 0.0])) if config.skip_scalars else None

    def forward(
        self,
        x: Tensor,
        first: Tensor,
        *,
        turn: tuple[Tensor, Tensor],
        within: Pass,
        layer: int,
        adapter: AdapterPart | None = None,
    ) -> Tensor:
        """See `Block.forward`."""
        if self.skips is not None:
            skips = self.skips.to(x.dtype)
            x = skips[0] * x + skips[1] * first
        return super().forward(x, first, turn=turn, within=within, layer=layer, adapter=adapter)


def _norm(config: RIAConfig) -> RMSNorm:
    return RMSNorm(config.hidden_size, eps=config.rms_norm_eps, gain=config.norm_gain)


class RIA(Decoder):
    """The RIA language model."""

    def __init__(self, config: RIAConfig, *, dtype: torch.dtype = torch.float32) -> None:
        blocks = [RIABlock(config) for _ in range(config.num_hidden_layers)]
        super().__init__(config, blocks, norm=_norm(config), dtype=dtype)
        self.config = config
        self.tool_router = ToolRouter(config.hidden_size, config.num_tools)
        if config.local_window is not None:
            self.ranges = Ranges(local=config.local_window, file=config.file_window)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all weights anew: normal with standard deviation D^-0.5, output projections smaller by the depth."""
        device = self.embed_tokens.weight.device
        draw = torch.Generator(device=device).manual_seed(seed)
        depth = (2 * len(self.layers)) ** -0.5
        for name, parameter in self.named_parameters():
            if name.endswith((".bias", "alpha")):
                parameter.zero_()
            if parameter.ndim < 2 or name.endswith("alpha"):
                continue
            ends = name.endswith(("o_proj.weight", "down_proj.weight", "plan_out.weight", "execute_out.weight"))
            scale = parameter.shape[1] ** -0.5 * (depth if ends else 1.0)
            if name == "embed_tokens.weight":
                scale = 0.02 if self.lm_head is None else 1.0
            if ends and self.config.zero_output:
                scale = 0.0
            parameter.normal_(0.0, 1.0, generator=draw).mul_(scale)

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Model.logits`."""
        logits, softcap = super().logits(hidden), self.config.softcap
        return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def written_layers(config: RIAConfig) -> int:
    """Parameters of one block without biases and small parts: what the document's tables count."""
    attention = config.hidden_size * config.head_dim * (2 * config.num_attention_heads + 2 * config.num_key_value_heads)
    return attention + 3 * config.hidden_size * config.intermediate_size


def scaled_windows(context: int) -> tuple[int, int]:
    """The document's ranges at another context: an eighth and a half of it, as 4K and 16K are of RIA-1B's 32K."""
    return max(1, math.ceil(context / 8)), max(1, math.ceil(context / 2))
