"""The contract of a language model: what every family gives to the trainer and to the engine.

Letters: B rows, T tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from riallm.core.errors import UsageError
from riallm.nn.adapter import Adapter
from riallm.nn.memory_state import MemoryState
from riallm.nn.meta import TokenMeta
from riallm.nn.moe import Routing
from riallm.nn.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """hidden (B, T, D), normed and ready for `logits`; the state given back; `taps`: hidden states (B, T, D) behind
    the asked-for layers, by number; `routing`: what the experts of each layer tell training, where there are any."""

    hidden: Tensor
    state: State | None
    taps: dict[int, Tensor] = field(default_factory=dict)
    routing: tuple[Routing, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSpec:
    """What one layer keeps for a conversation: bytes a token, bytes however long it is, and how far back it looks
    (None: all tokens)."""

    kind: Literal["kv", "window", "memory"]
    bytes_per_token: int
    fixed_bytes: int = 0
    window: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """num_parameters counts shared tensors once. flops_per_token: forward, of all matrix products but the scores;
    attention_flops_per_token_pair: forward, for each earlier token that a token looks at. Training costs three times
    as much."""

    num_parameters: int
    flops_per_token: int
    attention_flops_per_token_pair: int

    def training_flops(self, num_tokens: int, context: int) -> int:
        """FLOPs of forward and backward over rows of `context` tokens; causal, so half of the context on average."""
        pairs = self.attention_flops_per_token_pair * context // 2
        return 3 * num_tokens * (self.flops_per_token + pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A part of the model that is loaded as one: attention, gate and up, down, head. `module` owns its tensors;
    `run` is the code that the whole model runs as well."""

    name: str
    module: nn.Module
    run: Callable[..., Any]

    def tensors(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Name -> (shape, type) of every tensor of the unit, as the model's state dict calls them."""
        return {f"{self.name}.{name}": (tuple(p.shape), p.dtype) for name, p in self.module.named_parameters()}


class Model(nn.Module):
    """Base of all families. Parameters are made on the device and in the type that the caller's context says."""

    @abstractmethod
    def forward(
        self,
        tokens: Tensor,
        meta: TokenMeta,
        state: State | None = None,
        *,
        adapter: Adapter | None = None,
        taps: Sequence[int] = (),
    ) -> Output:
        """tokens (B, T) of integers. state: what `empty_state` or an earlier call gave; None keeps nothing. adapter:
        one that fits (`Adapter.check`), whose tensors get gradients where they want them, over packed matrices too.
        taps: numbers of layers.

        Every position must follow those in the state, which was made with the same adapter; a token sees what `meta`
        allows.
        """

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V) in float32."""

    @abstractmethod
    def hooks(self) -> dict[str, tuple[int, int]]:
        """The linear maps that an adapter may change, by name: outputs and inputs of each."""

    @abstractmethod
    def empty_state(self, meta: TokenMeta) -> State:
        """The state before the first token, for rows with the relations of `meta`."""

    def end_turn(self, tokens: Tensor, mask: Tensor, state: MemoryState) -> MemoryState:
        """What a family with memory does when an interaction is over: the memory behind it. tokens (B, T), mask (B, T):
        those that are no padding."""
        raise UsageError(f"{type(self).__name__} has no memory that outlives an interaction")

    @abstractmethod
    def state_specs(self) -> tuple[StateSpec, ...]:
        """One for each layer."""

    @abstractmethod
    def costs(self) -> Costs:
        """Parameters and FLOPs."""

    @abstractmethod
    def units(self) -> Iterator[Unit]:
        """All units in the order of a pass."""
