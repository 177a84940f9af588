"""A conversation as memory slots of fixed size: an explicit value that a model reads, writes anew, and never owns.

Letters: L layers, B rows (conversations), S slots, D hidden, T tokens, H heads, G key-value heads, K head size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from riallm.core.errors import CheckpointError, UsageError
from riallm.core.files import atomic_write
from riallm.nn.attention import Ranges
from riallm.nn.cross_attention import KeysValues, look
from riallm.nn.meta import TokenMeta
from riallm.nn.state import Alone, ModelState, Pass

_FORMAT = "riallm-memory-1"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MemoryState:
    """slots (L, B, S, D); version: interactions that were written into it; model: the fingerprint of the weights that
    wrote it, "" where nobody asked. Writing gives a new value, so a fork costs nothing."""

    slots: Tensor
    version: int = 0
    model: str = ""

    @property
    def num_rows(self) -> int:
        """B."""
        return self.slots.shape[1]

    @property
    def num_bytes(self) -> int:
        """Memory that it takes, however long the conversation was."""
        return self.slots.nbytes

    def rows(self, chosen: slice | Sequence[int] | Tensor) -> MemoryState:
        """The conversations `chosen`, in that order."""
        if isinstance(chosen, Sequence):
            chosen = torch.tensor(chosen, dtype=torch.int64, device=self.slots.device)
        return replace(self, slots=self.slots[:, chosen])

    def detached(self) -> MemoryState:
        """The same values, through which no gradient goes."""
        return replace(self, slots=self.slots.detach())

    def to(self, device: torch.device | str) -> MemoryState:
        """The state on another device."""
        return replace(self, slots=self.slots.to(device))

    def check(self, shape: tuple[int, int, int], model: str = "") -> None:
        """Raises UsageError unless the state has a model's (L, S, D), was written by it where both are named, and
        holds numbers only, of 16 bits or more: 8 do not all tell what is none."""
        slots = self.slots
        if slots.ndim != 4 or (slots.shape[0], *slots.shape[2:]) != shape:
            layers, num, hidden = shape
            raise UsageError(
                f"a memory of shape {tuple(slots.shape)}; this model's is ({layers} layers, rows, {num} slots, "
                f"{hidden} numbers)"
            )
        if model and self.model and model != self.model:
            raise UsageError(
                f"this memory was written by the model {self.model[:12]}, and this is {model[:12]}; a memory is read "
                "by the weights that wrote it. Begin a new conversation, or open that model"
            )
        if not slots.dtype.is_floating_point or slots.dtype.itemsize < 2:
            raise UsageError(
                f"the memory's numbers are {slots.dtype}; they are floats of 16 bits or more. Keep it in the type that "
                "the model computes in"
            )
        if not slots.isfinite().all():
            raise UsageError("the memory holds what is no number, or infinite; go back to an earlier state of it")

    def to_bytes(self) -> bytes:
        """The state as safetensors, every bit of it."""
        told = {"format": _FORMAT, "version": str(self.version), "model": self.model}
        return save({"slots": self.slots.detach().cpu().contiguous()}, metadata=told)

    def save(self, path: Path) -> None:
        """Write the state to a file, whole or not at all."""
        atomic_write(path, self.to_bytes())


def load_memory(path: Path) -> MemoryState:
    """What `MemoryState.save` wrote. Raises CheckpointError for a file that is damaged or something else."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read as a memory: {error}") from None
    return memory_from_bytes(data, where=str(path))


def memory_from_bytes(data: bytes, *, where: str) -> MemoryState:
    """What `MemoryState.to_bytes` gave; `where` it was kept, for messages. Raises CheckpointError for bytes that are
    damaged or something else."""
    try:
        tensors = load(data)
        told = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__") or {}
        if told.get("format") != _FORMAT:
            raise CheckpointError(f"{where} holds no memory of a conversation (format {told.get('format')!r})")
        return MemoryState(slots=tensors["slots"], version=int(told["version"]), model=told["model"])
    except (SafetensorError, KeyError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{where} cannot be read as a memory: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """What the decoder looks at of a memory: keys and values of the slots, layer by layer; the same for a whole reply.
    None in the place of a layer: the layer looks at nothing, as a control wants it. mask (B, S): slots that count; None
    is all of them."""

    layers: tuple[KeysValues | None, ...]
    mask: Tensor | None = None

    def look(self, layer: int, q: Tensor) -> Tensor | None:
        """(B, H, T, K): what the queries of a layer see of their rows' slots."""
        at = self.layers[layer]
        return None if at is None else look(q, at, self.mask)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TurnState:
    """Where an interaction stands: the memory from before it, as it is read, and the interaction's own tokens so far.
    memory None: only how it is read is kept. tokens None keeps none of them, as training does."""

    memory: MemoryState | None
    reading: Reading
    tokens: ModelState | None = None

    def begin(self, meta: TokenMeta, ranges: Ranges | None) -> TurnPass:
        """See `State.begin`."""
        within: Pass = Alone(meta, ranges) if self.tokens is None else self.tokens.begin(meta, ranges)
        return TurnPass(self, within)


class TurnPass:
    """A pass within an interaction: the tokens see each other as the inner pass has it, and the memory."""

    def __init__(self, state: TurnState, within: Pass) -> None:
        self.state, self.within = state, within

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor | None) -> Tensor:
        """See `Pass.attend`."""
        return self.within.attend(layer, q, k, v, alpha)

    def look(self, layer: int, q: Tensor) -> Tensor | None:
        """See `Reading.look`."""
        return self.state.reading.look(layer, q)

    def after(self) -> TurnState:
        """See `Pass.after`."""
        after = self.within.after()
        assert after is None or isinstance(after, ModelState)
        return replace(self.state, tokens=after)
