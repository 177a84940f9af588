"""RxT: a decoder that sees one interaction and a memory of fixed size, an encoder that reads the interaction when it is
over, and memory attention that writes it into the memory (RxT document; shapes by the fact sheet's recount).

Letters: L layers, B rows, T tokens, S slots, D hidden, V vocabulary, K head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor, nn

from riallm.core.errors import UsageError
from riallm.models.base import Costs, Model, Output, StateSpec, Unit
from riallm.nn.adapter import Adapter
from riallm.nn.attention_layer import Attention, AttentionConfig
from riallm.nn.cross_attention import CrossAttention, KeysValues, align
from riallm.nn.feedforward import FeedForward
from riallm.nn.linear import Embedding, Linear
from riallm.nn.memory_attention import MemoryAttention, MemoryAttentionConfig
from riallm.nn.memory_state import MemoryState, Reading, TurnPass, TurnState
from riallm.nn.meta import TokenMeta
from riallm.nn.moe import Experts, MixtureOfExperts, Routing
from riallm.nn.norm import RMSNorm
from riallm.nn.rope import angles, frequencies
from riallm.nn.state import KVState, ModelState, State

_TYPES = (torch.float32, torch.bfloat16)
"""That a model may be opened in, see `resident.DTYPES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RxTConfig:
    """Sizes. num_heads is that of full attention and gives the head size, hidden_size / num_heads; each part has fewer.

    max_interaction: tokens of a query and its answer together. trained_start: a conversation begins with learned slots,
    else with drawn ones. final_norm: a norm before the head. The document's model has neither.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    max_interaction: int
    num_slots: int
    decoder_heads: int
    decoder_kv_heads: int
    num_experts: int
    experts_per_token: int
    expert_size: int
    encoder_heads: int
    encoder_kv_heads: int
    encoder_size: int
    memory: MemoryAttentionConfig = field(default_factory=MemoryAttentionConfig)
    trained_start: bool = False
    final_norm: bool = False
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0

    def __post_init__(self) -> None:
        for name in (each.name for each in fields(self) if each.type == "int"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it is at least 1")
        if self.hidden_size % self.num_heads or self.head_dim % 2:
            raise UsageError(
                f"hidden_size ({self.hidden_size}) divided by num_heads ({self.num_heads}) must be an even head size"
            )

    @property
    def head_dim(self) -> int:
        """K."""
        return self.hidden_size // self.num_heads

    @property
    def memory_shape(self) -> tuple[int, int, int]:
        """(L, S, D) of a conversation."""
        return self.num_layers, self.num_slots, self.hidden_size


class EncoderLayer(nn.Module):
    """Attention in both directions, then SwiGLU."""

    def __init__(self, config: RxTConfig) -> None:
        super().__init__()
        self.attn_norm, self.mlp_norm = _norm(config), _norm(config)
        self.attn = CrossAttention(
            hidden_size=config.hidden_size,
            num_heads=config.encoder_heads,
            num_kv_heads=config.encoder_kv_heads,
            head_dim=config.head_dim,
        )
        self.mlp = FeedForward(hidden_size=config.hidden_size, intermediate_size=config.encoder_size, bias=True)

    def forward(self, x: Tensor, *, turn: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """x (B, T, D), mask (B, T): tokens that are no padding -> (B, T, D)."""
        normed = self.attn_norm(x)
        x = x + self.attn(normed, normed, query_turn=turn, key_turn=turn, mask=mask)
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class DecoderLayer(nn.Module):
    """Causal attention within the interaction, a look at the memory's slots, then experts."""

    also_forward = ("reading",)

    def __init__(self, config: RxTConfig) -> None:
        super().__init__()
        hidden, heads, kv_heads = config.hidden_size, config.decoder_heads, config.decoder_kv_heads
        self.self_norm, self.read_norm, self.mlp_norm = _norm(config), _norm(config), _norm(config)
        self.slot_norm = _norm(config)
        self.self_attn = Attention(
            AttentionConfig(
                hidden_size=hidden, num_heads=heads, num_kv_heads=kv_heads, head_dim=config.head_dim, output_bias=True
            )
        )
        self.read_attn = CrossAttention(
            hidden_size=hidden, num_heads=heads, num_kv_heads=kv_heads, head_dim=config.head_dim
        )
        self.mlp = MixtureOfExperts(
            hidden_size=config.hidden_size,
            intermediate_size=config.expert_size,
            num_experts=config.num_experts,
            experts_per_token=config.experts_per_token,
        )

    def reading(self, slots: Tensor) -> KeysValues:
        """slots (B, S, D) as this layer looks at them."""
        return self.read_attn.keys_values(self.slot_norm(slots))

    def forward(
        self, x: Tensor, *, turn: tuple[Tensor, Tensor], within: TurnPass, layer: int, real: Tensor
    ) -> tuple[Tensor, Routing]:
        """x (B, T, D) -> (B, T, D). The slots have no order, so the queries alone are turned."""
        x = x + self.self_attn(self.self_norm(x), turn=turn, within=within, layer=layer)
        seen = within.look(layer, self.read_attn.queries(self.read_norm(x), turn))
        if seen is not None:
            x = x + self.read_attn.output(seen)
        out, routing = self.mlp(self.mlp_norm(x), real)
        return x + out, routing


def truths(mask: Tensor, shape: torch.Size) -> Tensor:
    """A mask (B, T) of truths, or of 1 and 0 as tokenizers give it, as truths. Raises UsageError for another."""
    if mask.shape != shape:
        raise UsageError(f"a mask of shape {tuple(mask.shape)} for tokens of shape {tuple(shape)}; expected the same")
    if mask.dtype == torch.bool:
        return mask
    if mask.is_floating_point() or mask.is_complex() or not ((mask == 0) | (mask == 1)).all():
        raise UsageError(f"a mask of {mask.dtype}; expected truths, or integers 1 (a token) and 0 (padding)")
    return mask.bool()


def _norm(config: RxTConfig) -> RMSNorm:
    return RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class RxT(Model):
    """The Reactive Transformer.

    `fingerprint`: of the weights, for states to name; a loader sets it. `also_forward`: what computes with weights and
    is no `forward`, for sharding.
    """

    also_forward = ("encode", "write", "reading")

    def __init__(self, config: RxTConfig, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config, self.dtype, self.fingerprint = config, dtype, ""
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.memory_attention = MemoryAttention(
            config.memory,
            num_layers=config.num_layers,
            hidden_size=config.hidden_size,
            head_dim=config.head_dim,
            num_slots=config.num_slots,
            eps=config.rms_norm_eps,
        )
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.norm = _norm(config) if config.final_norm else None
        self.lm_head = Linear(config.hidden_size, config.vocab_size)
        self.start_slots = nn.Parameter(torch.zeros(config.memory_shape)) if config.trained_start else None
        self.restart()

    def restart(self) -> None:
        """Compute anew what is no weight: for a model that was made on `meta`, where nothing is computed."""
        with torch.device("cpu"):
            self._inverse, _ = frequencies(self.config.head_dim, self.config.rope_theta)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all weights anew: normal with standard deviation inputs^-0.5, output maps smaller by the depth."""
        draw = torch.Generator(device=self.lm_head.weight.device).manual_seed(seed)
        depth = (2 * self.config.num_layers) ** -0.5
        for name, parameter in self.named_parameters():
            own = name.endswith(("norm.weight", "_gate.weight", "_gate.bias"))
            if own:
                continue
            if name.endswith("bias"):
                parameter.zero_()
                continue
            ends = name.endswith(("o_proj.weight", "down_proj.weight", "down_proj"))
            scale = parameter.shape[-1] ** -0.5 * (depth if ends and "memory" not in name else 1.0)
            if name.startswith(("embed_tokens", "start_slots")) or name.endswith(("identity", "names")):
                scale = 1.0
            parameter.normal_(0.0, 1.0, generator=draw).mul_(scale)
        for layer in (*self.memory_attention.modules(), *(each.read_attn for each in self.layers)):
            if isinstance(layer, CrossAttention):  # attention among tokens would only find each token itself
                align(layer, draw)
        self.lm_head.weight.copy_(self.embed_tokens.weight * self.config.hidden_size**-0.5)

    # The memory

    def start(self, num_rows: int = 1, *, seed: int = 0) -> MemoryState:
        """The memory before a conversation. seed: of drawn slots, normal as the document has them; learned ones are
        the same for all. Raises UsageError for less than one row."""
        if num_rows < 1:
            raise UsageError(f"{num_rows} conversations; there is at least 1")
        if self.start_slots is not None:
            slots = self.start_slots[:, None].expand(-1, num_rows, -1, -1)
        else:
            layers, num, hidden = self.config.memory_shape
            draw = torch.Generator().manual_seed(seed)
            slots = torch.randn((layers, num_rows, num, hidden), generator=draw).to(self.lm_head.weight.device)
        return MemoryState(slots=slots.to(self.dtype), model=self.fingerprint)

    def encode(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """tokens (B, T), mask (B, T): those that are no padding -> (L, B, T, D): what each encoder layer gives."""
        x = self.embed_tokens(tokens).to(self.dtype)
        turn = self._turn(tokens)
        found = []
        for layer in self.encoder:
            x = layer(x, turn=turn, mask=mask)
            found.append(x)
        return torch.stack(found)

    def write(self, encoded: Tensor, mask: Tensor, memory: MemoryState) -> MemoryState:
        """The memory after an interaction, encoded (L, B, T, D); a row whose mask (B, T) is empty stays as it is."""
        positions = torch.arange(mask.shape[1], device=mask.device)[None]
        turn = angles(positions, self._inverse)
        slots = self.memory_attention(memory.slots, encoded, mask=mask, key_turn=turn)
        return replace(memory, slots=slots, version=memory.version + 1)

    def end_turn(self, tokens: Tensor, mask: Tensor, state: MemoryState) -> MemoryState:
        """See `Model.end_turn`; mask: truths, or 1 and 0. Raises UsageError for a memory that does not fit, or is of
        other rows, and for a mask of another shape or with other numbers."""
        self.check_interaction(tokens)
        self.check_memory(state)
        if state.num_rows != len(tokens):
            raise UsageError(f"{len(tokens)} interactions for a memory of {state.num_rows} rows; expected one each")
        mask = truths(mask, tokens.shape)
        return self.write(self.encode(tokens, mask), mask, state)

    def reading(self, memory: MemoryState) -> Reading:
        """The memory as the decoder looks at it, computed once for a reply."""
        found = []
        for layer, slots in zip(self.layers, memory.slots, strict=True):
            assert isinstance(layer, DecoderLayer)
            found.append(layer.reading(slots))
        return Reading(layers=tuple(found))

    def turn(self, memory: MemoryState, *, keep: bool = True) -> TurnState:
        """The state before the first token of an interaction. keep: the tokens, for calls that follow."""
        self.check_memory(memory)
        return self.open_turn(memory, self.reading(memory), keep=keep)

    def decode(self, ids: Tensor, state: MemoryState | TurnState) -> tuple[Tensor, TurnState]:
        """The plain form: ids (B, T) of an interaction -> logits (B, T, V) of what follows each, and the state behind
        them. state: the memory, with which an interaction begins, or what the call before gave. Raises UsageError for
        a state of other rows."""
        state = self.turn(state) if isinstance(state, MemoryState) else state
        if state.tokens is None:
            raise UsageError("this state keeps no tokens, so nothing goes on from it; begin with `turn(memory)`")
        rows, start = state.tokens.meta.positions.shape
        if rows != len(ids):
            raise UsageError(f"{len(ids)} rows of tokens for a state of {rows}; expected one each")
        out = self(ids, TokenMeta.plain(*ids.shape, start=start, device=ids.device), state)
        return self.logits(out.hidden), out.state

    def open_turn(self, memory: MemoryState, reading: Reading, *, keep: bool) -> TurnState:
        """`turn`, with the reading given."""
        tokens = None
        if keep:
            rows, device = memory.num_rows, memory.slots.device
            shape = (rows, self.config.decoder_kv_heads, 0, self.config.head_dim)
            nothing = torch.empty(shape, dtype=self.dtype, device=device)
            layers = (KVState(keys=nothing, values=nothing),) * self.config.num_layers
            tokens = ModelState(layers=layers, meta=TokenMeta.plain(rows, 0, device=device))
        return TurnState(memory=memory, reading=reading, tokens=tokens)

    def check_memory(self, memory: MemoryState) -> None:
        """Raises UsageError for a memory of another type, shape or model, or that holds what is no number."""
        if memory.slots.dtype != self.dtype:
            does = "open the model in that type" if memory.slots.dtype in _TYPES else "no model here writes such a one"
            raise UsageError(
                f"the memory's numbers are {memory.slots.dtype}, this model computes in {self.dtype}; {does}"
            )
        memory.check(self.config.memory_shape, self.fingerprint)

    def check_interaction(self, tokens: Tensor) -> None:
        """Raises UsageError for an interaction that is empty or too long, or ids that are no tokens of this model."""
        num, limit = tokens.shape[-1], self.config.max_interaction
        if not 0 < num <= limit:
            raise UsageError(
                f"an interaction of {num} tokens; this model takes 1 to {limit}, query and answer together"
            )
        low, high = (int(each) for each in tokens.aminmax())
        if low < 0 or high >= self.config.vocab_size:
            wrong = low if low < 0 else high
            raise UsageError(f"{wrong} is no token of this model, which has 0 to {self.config.vocab_size - 1}")

    # The contract of a model

    def forward(
        self,
        tokens: Tensor,
        meta: TokenMeta,
        state: State | None = None,
        *,
        adapter: Adapter | None = None,
        taps: Sequence[int] = (),
    ) -> Output:
        """See `Model.forward`. state: what `turn` or an earlier call gave; None is the start of a conversation."""
        if adapter is not None:
            raise UsageError(f"{adapter}: RxT has no hooks for adapters")
        if state is None:
            state = self.turn(self.start(len(tokens)), keep=False)
        within = state.begin(meta, None)
        assert isinstance(within, TurnPass), "RxT reads a memory: the state comes from `turn`"
        x = self.embed_tokens(tokens).to(self.dtype)
        turn = angles(meta.positions, self._inverse)
        tapped: dict[int, Tensor] = {}
        routings: list[Routing] = []
        for number, layer in enumerate(self.layers):
            x, routing = layer(x, turn=turn, within=within, layer=number, real=meta.real)
            routings.append(routing)
            if number in taps:
                tapped[number] = x
        hidden = x if self.norm is None else self.norm(x)
        return Output(hidden=hidden, state=within.after(), taps=tapped, routing=tuple(routings))

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Model.logits`."""
        found: Tensor = self.lm_head(hidden)
        return found.float()

    def hooks(self) -> dict[str, tuple[int, int]]:
        """None."""
        return {}

    def empty_state(self, meta: TokenMeta) -> TurnState:
        """The first interaction of a new conversation."""
        return self.turn(self.start(len(meta.positions)))

    def state_specs(self) -> tuple[StateSpec, ...]:
        """A layer keeps keys and values of the interaction, and its slots with their keys and values."""
        config, item = self.config, self.dtype.itemsize
        shared = 2 * config.decoder_kv_heads * config.head_dim * item
        fixed = config.num_slots * (config.hidden_size * item + shared)
        return (StateSpec(kind="memory", bytes_per_token=shared, fixed_bytes=fixed),) * config.num_layers

    def costs(self) -> Costs:
        """A token that is decoded and later written: its way through the decoder (k experts of E), encoder and the
        keys and values of the write. What the slots cost, whatever the tokens, is `slot_flops`."""
        config = self.config
        decoder = sum(p.numel() for p in self.layers.parameters() if p.ndim >= 2)
        experts = sum(module.num_matrix for module in self.modules() if isinstance(module, Experts))
        idle = experts * (config.num_experts - config.experts_per_token) // config.num_experts
        encoder = sum(p.numel() for p in self.encoder.parameters() if p.ndim == 2)
        inner = config.memory.num_kv_heads * config.head_dim
        written = 2 * config.num_layers * config.hidden_size * inner
        head = config.vocab_size * config.hidden_size
        heads = config.decoder_heads + 2 * config.encoder_heads
        return Costs(
            num_parameters=sum(p.numel() for p in self.parameters()),
            flops_per_token=2 * (decoder - idle + encoder + written + head),
            attention_flops_per_token_pair=4 * heads * config.head_dim * config.num_layers,
        )

    def units(self) -> Iterator[Unit]:
        """Embeddings, encoder, memory attention, then the parts of every decoder layer, and the head."""
        yield Unit(name="embed_tokens", module=self.embed_tokens, run=self.embed_tokens)
        for number, block in enumerate(self.encoder):
            yield Unit(name=f"encoder.{number}", module=block, run=block)
        yield Unit(name="memory_attention", module=self.memory_attention, run=self.memory_attention)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, DecoderLayer)
            for name in ("self_attn", "read_attn", "mlp"):
                part = getattr(layer, name)
                yield Unit(name=f"layers.{number}.{name}", module=part, run=part)
        yield Unit(name="lm_head", module=self.lm_head, run=self.lm_head)

    def _turn(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        return angles(positions, self._inverse)
