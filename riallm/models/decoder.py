"""What decoders have in common: embeddings, blocks of attention and feed-forward, a final norm, logits.

Letters: B rows, T tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from riallm.core.errors import UsageError
from riallm.models.base import Costs, Model, Output, StateSpec, Unit
from riallm.nn.adapter import Adapter, AdapterPart
from riallm.nn.attention import Ranges
from riallm.nn.attention_layer import Attention, AttentionConfig
from riallm.nn.feedforward import FeedForward
from riallm.nn.linear import Embedding, Linear, PackedLinear
from riallm.nn.meta import TokenMeta
from riallm.nn.norm import RMSNorm
from riallm.nn.paged import PagedPass
from riallm.nn.program import Program
from riallm.nn.rope import RopeScaling, angles, frequencies
from riallm.nn.state import Alone, KVState, ModelState, Pass, State


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """Sizes, by the names that Hugging Face's configurations have. attention_bias: of the query, key and value maps."""

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
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = True
    attention_bias: bool = False

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise UsageError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of num_key_value_heads "
                f"({self.num_key_value_heads})"
            )

    def attention(self) -> AttentionConfig:
        """A layer's attention, but for what only a family has."""
        return AttentionConfig(
            hidden_size=self.hidden_size,
            num_heads=self.num_attention_heads,
            num_kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            bias=self.attention_bias,
        )


class Block(nn.Module):
    """Attention, then the feed-forward network, each on normed input and added to the stream."""

    def __init__(self, *, norms: tuple[RMSNorm, RMSNorm], attention: Attention, mlp: FeedForward) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = norms
        self.self_attn, self.mlp = attention, mlp

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
        """x (B, T, D): the stream; first (B, T, D): the embeddings. adapter: what one has for this block. The other
        arguments are `Attention`'s."""
        attention, mlp = (None, None) if adapter is None else (adapter.inside("self_attn"), adapter.inside("mlp"))
        x = x + self.self_attn(self.input_layernorm(x), turn=turn, within=within, layer=layer, adapter=attention)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x), mlp)
        return out


class Decoder(Model):
    """Base of the decoders; a family gives the blocks, and may bound what tokens see (`ranges`) or the logits.

    `dtype`: of activations; parameters keep the type that they were made in. `program`: the blocks as one compiled call
    (`compile_blocks`), taken for sequences in pages.
    """

    ranges: Ranges | None = None
    program: Program | None = None

    def __init__(
        self, config: DecoderConfig, blocks: Sequence[Block], *, norm: RMSNorm, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.sizes, self.dtype = config, dtype
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(blocks)
        self.norm = norm
        self.lm_head = None if config.tie_word_embeddings else Linear(config.hidden_size, config.vocab_size, bias=False)
        self.restart()

    def restart(self) -> None:
        """Compute anew what is no weight: for a model that was made on `meta`, where nothing is computed."""
        sizes = self.sizes
        with torch.device("cpu"):
            self._inverse, self._scale = frequencies(sizes.head_dim, sizes.rope_theta, sizes.rope_scaling)

    def forward(
        self,
        tokens: Tensor,
        meta: TokenMeta,
        state: State | None = None,
        *,
        adapter: Adapter | None = None,
        taps: Sequence[int] = (),
    ) -> Output:
        """See `Model.forward`."""
        x = self.embed_tokens(tokens).to(self.dtype)
        first = x
        turn = angles(meta.positions, self._inverse, self._scale)
        within: Pass = Alone(meta, self.ranges) if state is None else state.begin(meta, self.ranges)
        if self.program is not None and isinstance(within, PagedPass) and adapter is None and not taps:
            rows = tuple(each[0, 0] for each in turn)
            return Output(hidden=self.program.run(x[0], (rows[0], rows[1]), within)[None], state=within.after())
        tapped: dict[int, Tensor] = {}
        for layer, block in enumerate(self.layers):
            own = None if adapter is None else adapter.inside(f"layers.{layer}")
            x = block(x, first, turn=turn, within=within, layer=layer, adapter=own)
            if layer in taps:
                tapped[layer] = x
        return Output(hidden=self.norm(x), state=within.after(), taps=tapped)

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Model.logits`."""
        found: Tensor = self.embed_tokens.logits(hidden) if self.lm_head is None else self.lm_head(hidden)
        return found.float()

    def hooks(self) -> dict[str, tuple[int, int]]:
        """Every linear map of the blocks."""
        found = {}
        for name, module in self.layers.named_modules(prefix="layers"):
            if isinstance(module, Linear):
                found[name] = (module.out_features, module.in_features)
            elif isinstance(module, PackedLinear):
                found[name] = module.prepared.shape
        return found

    def empty_state(self, meta: TokenMeta) -> ModelState:
        """See `Model.empty_state`."""
        rows, device = meta.positions.shape[0], meta.positions.device
        shape = (rows, self.sizes.num_key_value_heads, 0, self.sizes.head_dim)
        empty = KVState(
            keys=torch.empty(shape, dtype=self.dtype, device=device),
            values=torch.empty(shape, dtype=self.dtype, device=device),
        )
        nothing = meta.positions[:, :0]
        before = TokenMeta(positions=nothing, segments=nothing, files=nothing, relations=meta.relations)
        return ModelState(layers=(empty,) * len(self.layers), meta=before)

    def state_specs(self) -> tuple[StateSpec, ...]:
        """Keys and values of every layer; ranges limit what is seen, not what must be kept."""
        token = 2 * self.sizes.num_key_value_heads * self.sizes.head_dim * self.dtype.itemsize
        return (StateSpec(kind="kv", bytes_per_token=token),) * len(self.layers)

    def costs(self) -> Costs:
        """Matrix products only; the head counts, the look-up of embeddings does not."""
        sizes = self.sizes
        matrices = sum(p.numel() for p in self.layers.parameters() if p.ndim == 2)
        head = sizes.vocab_size * sizes.hidden_size
        pair = 4 * sizes.num_attention_heads * sizes.head_dim * sizes.num_hidden_layers
        return Costs(
            num_parameters=sum(p.numel() for p in self.parameters()),
            flops_per_token=2 * (matrices + head),
            attention_flops_per_token_pair=pair,
        )

    def units(self) -> Iterator[Unit]:
        """Embeddings, then attention and feed-forward of every block, then the final norm and head."""
        yield Unit(name="embed_tokens", module=self.embed_tokens, run=self.embed_tokens)
        for number, block in enumerate(self.layers):
            assert isinstance(block, Block)
            yield Unit(name=f"layers.{number}.self_attn", module=block.self_attn, run=block.self_attn)
            yield Unit(name=f"layers.{number}.mlp", module=block.mlp, run=block.mlp)
        yield Unit(name="norm", module=self.norm, run=self.norm)
        if self.lm_head is not None:
            yield Unit(name="lm_head", module=self.lm_head, run=self.lm_head)
