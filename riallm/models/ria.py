"""RIA: a decoder with attention that knows files, a dual-path feed-forward network and a tool router (RIA document, 2).

Letters: B rows, T tokens, D hidden, V vocabulary. What the document does not have is an option of `RIAConfig` whose
default is the document's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from riallm.core.errors import UsageError
from riallm.models.base import Costs, Model, Output, StateSpec, Unit
from riallm.nn.attention import BLOCK, Attention, Mask, Ranges, in_blocks, visible
from riallm.nn.feedforward import Activation, DualPathFeedForward, FeedForward
from riallm.nn.linear import Linear
from riallm.nn.meta import TokenMeta
from riallm.nn.norm import RMSNorm
from riallm.nn.rope import RopeScaling, angles, frequencies
from riallm.nn.state import KVState, ModelState, joined


@dataclass(frozen=True, slots=True, kw_only=True)
class RIAConfig:
    """Names of the document's appendix A first, then what its text describes, then options beyond it.

    local_window, file_window: attention ranges in tokens (2.3.2); None turns the ranges off. dual_path_rank: rank of
    each path's own part, 0 for a plain network. num_tools: kinds of tools that the router tells apart (2.4.1).
    qk_norm: queries and keys are normed. norm_gain: norms have a learned gain. softcap: logits are bounded by
    softcap * tanh(logits / softcap). skip_scalars: each block mixes its input with the embeddings by two learned
    numbers. zero_output: output projections begin at zero.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    use_cache: bool = True

    file_bias: bool = True
    local_window: int | None = 4096
    file_window: int | None = 16_384
    dual_path_rank: int = 8
    num_tools: int = 8

    rope_scaling: RopeScaling | None = None
    activation: Activation = "swiglu"
    qk_norm: bool = False
    norm_gain: bool = True
    softcap: float | None = None
    skip_scalars: bool = False
    zero_output: bool = False

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise UsageError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of num_key_value_heads "
                f"({self.num_key_value_heads})"
            )
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


class RIABlock(nn.Module):
    """Attention, then the feed-forward network, each on normed input and added to the stream."""

    def __init__(self, config: RIAConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, gain=config.norm_gain)
        self.self_attn = Attention(
            hidden_size=config.hidden_size,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            bias=config.attention_bias,
            qk_norm_eps=config.rms_norm_eps if config.qk_norm else None,
            file_bias=config.file_bias,
        )
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, gain=config.norm_gain)
        sizes = {"hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size}
        self.mlp: FeedForward = (
            DualPathFeedForward(**sizes, rank=config.dual_path_rank, activation=config.activation)
            if config.dual_path_rank
            else FeedForward(**sizes, activation=config.activation)
        )
        self.skips = nn.Parameter(torch.tensor([1.0, 0.0])) if config.skip_scalars else None

    def forward(
        self,
        x: Tensor,
        first: Tensor,
        *,
        turn: tuple[Tensor, Tensor],
        meta: TokenMeta,
        mask: Mask | None,
        state: KVState | None,
        key_meta: TokenMeta | None,
    ) -> tuple[Tensor, KVState | None]:
        """x (B, T, D): the stream; first (B, T, D): the normed embeddings. The other arguments are `Attention`'s."""
        if self.skips is not None:
            skips = self.skips.to(x.dtype)
            x = skips[0] * x + skips[1] * first
        seen, state = self.self_attn(
            self.input_layernorm(x), turn=turn, meta=meta, mask=mask, state=state, key_meta=key_meta
        )
        x = x + seen
        return x + self.mlp(self.post_attention_layernorm(x)), state


class RIA(Model):
    """The RIA language model. `dtype`: of activations; parameters keep the type that they were made in."""

    def __init__(self, config: RIAConfig, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config, self.dtype = config, dtype
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(RIABlock(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, gain=config.norm_gain)
        self.lm_head = None if config.tie_word_embeddings else Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tool_router = ToolRouter(config.hidden_size, config.num_tools)
        self.ranges = (
            None if config.local_window is None else Ranges(local=config.local_window, file=config.file_window)
        )
        self._inverse, self._scale = frequencies(config.head_dim, config.rope_theta, config.rope_scaling)

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

    def forward(
        self, tokens: Tensor, meta: TokenMeta, state: ModelState | None = None, *, taps: Sequence[int] = ()
    ) -> Output:
        """See `Model.forward`."""
        x = self.embed_tokens(tokens).to(self.dtype)
        first = x
        key_meta = meta if state is None else joined(state.meta, meta)
        turn = angles(meta.positions, self._inverse, self._scale)
        mask = self.mask(meta, key_meta)
        layers: list[KVState] = []
        tapped: dict[int, Tensor] = {}
        for number, block in enumerate(self.layers):
            own = None if state is None else state.layers[number]
            x, own = block(x, first, turn=turn, meta=meta, mask=mask, state=own, key_meta=key_meta)
            if own is not None:
                layers.append(own)
            if number in taps:
                tapped[number] = x
        after = None if state is None else ModelState(layers=tuple(layers), meta=key_meta)
        return Output(hidden=self.norm(x), state=after, taps=tapped)

    def mask(self, meta: TokenMeta, key_meta: TokenMeta) -> Mask:
        """(B, 1, T, S): what each token may see in every layer; in blocks where a GPU's kernel is made for them."""
        seen = visible(meta, key_meta, self.ranges)
        blocks = seen.is_cuda and torch.compiler.is_compiling() and key_meta is meta and seen.shape[-1] % BLOCK == 0
        return in_blocks(seen) if blocks else seen

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Model.logits`."""
        weight = self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        logits = nn.functional.linear(hidden, weight.to(hidden.dtype)).float()
        softcap = self.config.softcap
        return logits if softcap is None else softcap * torch.tanh(logits / softcap)

    def empty_state(self, meta: TokenMeta) -> ModelState:
        """See `Model.empty_state`."""
        rows, device = meta.positions.shape[0], self.embed_tokens.weight.device
        shape = (rows, self.config.num_key_value_heads, 0, self.config.head_dim)
        empty = KVState(
            keys=torch.empty(shape, dtype=self.dtype, device=device),
            values=torch.empty(shape, dtype=self.dtype, device=device),
        )
        nothing = meta.positions[:, :0]
        before = TokenMeta(positions=nothing, segments=nothing, files=nothing, relations=meta.relations)
        return ModelState(layers=(empty,) * len(self.layers), meta=before)

    def state_specs(self) -> tuple[StateSpec, ...]:
        """Keys and values of every layer; the ranges limit what is seen, not what must be kept."""
        config = self.config
        token = 2 * config.num_key_value_heads * config.head_dim * self.dtype.itemsize
        return (StateSpec(kind="kv", bytes_per_token=token),) * config.num_hidden_layers

    def costs(self) -> Costs:
        """Matrix products only; the head counts, the look-up of embeddings does not."""
        config = self.config
        matrices = sum(p.numel() for name, p in self.layers.named_parameters() if p.ndim == 2)
        head = config.vocab_size * config.hidden_size
        pair = 4 * config.num_attention_heads * config.head_dim * config.num_hidden_layers
        return Costs(
            num_parameters=sum(p.numel() for p in self.parameters()),
            flops_per_token=2 * (matrices + head),
            attention_flops_per_token_pair=pair,
        )

    def units(self) -> Iterator[Unit]:
        """Embeddings, then attention and feed-forward of every block, then the final norm and head."""
        yield Unit(name="embed_tokens", module=self.embed_tokens, run=self.embed_tokens)
        for number, block in enumerate(self.layers):
            assert isinstance(block, RIABlock)
            yield Unit(name=f"layers.{number}.self_attn", module=block.self_attn, run=block.self_attn)
            yield Unit(name=f"layers.{number}.mlp", module=block.mlp, run=block.mlp)
        yield Unit(name="norm", module=self.norm, run=self.norm)


def written_layers(config: RIAConfig) -> int:
    """Parameters of one block without biases and small parts: what the document's tables count."""
    attention = config.hidden_size * config.head_dim * (2 * config.num_attention_heads + 2 * config.num_key_value_heads)
    return attention + 3 * config.hidden_size * config.intermediate_size


def scaled_windows(context: int) -> tuple[int, int]:
    """The document's ranges at another context: an eighth and a half of it, as 4K and 16K are of RIA-1B's 32K."""
    return max(1, math.ceil(context / 8)), max(1, math.ceil(context / 2))
