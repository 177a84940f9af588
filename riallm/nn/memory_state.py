"""A conversation as memory slots of fixed size: an explicit value that a model reads, writes anew, and never owns.

Letters: L layers, B rows (conversations), S slots, D hidden, T tokens, H heads, G key-value heads, K head size.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from riallm.core.errors import CheckpointError, UsageError
from riallm.core.files import atomic_write, canonical_json
from riallm.nn.attention import Ranges
from riallm.nn.cross_attention import KeysValues, look
from riallm.nn.meta import TokenMeta
from riallm.nn.state import Alone, ModelState, Pass

_FORMAT, _WITHOUT_HASH = "riallm-memory-2", "riallm-memory-1"
_TOLD = {_FORMAT: {"format", "version", "model", "sha256"}, _WITHOUT_HASH: {"format", "version", "model"}}
_LONGEST_HEADER = 1 << 16
_MOST_INTERACTIONS = 1 << 63


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
        """The conversations `chosen`, in that order: a slice, numbers, or truths, one a row. Raises UsageError for
        those that are not there."""
        if not isinstance(chosen, slice):
            num = self.num_rows
            try:
                found = torch.as_tensor(chosen, device=self.slots.device)
                whole = found.numel() == 0 or not (found.is_floating_point() or found.is_complex())
                found = found if found.dtype == torch.bool else found.long()
                inside = len(found) == num if found.dtype == torch.bool else ((found >= -num) & (found < num)).all()
                fits = whole and found.ndim == 1 and inside
            except (RuntimeError, TypeError, ValueError):
                fits = False
            if not fits:
                raise UsageError(f"rows {chosen} of a memory of {num}; expected a slice, or a list of 0 to {num - 1}")
            chosen = found
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
        if not torch.linalg.vector_norm(slots.detach().float(), dim=-1).isfinite().all():
            raise UsageError(
                "the memory holds what is no number, infinite, or too large to compute with; go back to an earlier "
                "state of it"
            )

    def to_bytes(self) -> bytes:
        """The state as safetensors, every bit of it, with a hash of numbers and header."""
        told = {"format": _FORMAT, "version": str(self.version), "model": self.model}
        tensors = {"slots": self.slots.detach().cpu().contiguous()}
        return save(tensors, metadata={**told, "sha256": _digest(save(tensors, metadata=told))})

    def save(self, path: str | Path) -> None:
        """Write the state to a file, whole or not at all. Raises CheckpointError where it cannot be written."""
        path = Path(path)
        try:
            if path.exists() and not path.is_file():
                raise CheckpointError(f"{path} is there and no regular file; give another")
            atomic_write(path, self.to_bytes())
        except OSError as error:
            raise CheckpointError(f"{path} cannot be written: {error.strerror}; give another") from None


def load_memory(path: str | Path) -> MemoryState:
    """What `MemoryState.save` wrote. Raises CheckpointError for a file that is damaged or something else, of which no
    more than the header is read. Files from before there was a hash are read as they are, so that damaged numbers of
    those are not noticed."""
    return memory_from_bytes(_read(path, whole=True), where=str(path))


def check_memory_file(path: str | Path) -> None:
    """Raises CheckpointError for a file that is none of a memory by its header and size; its numbers are not read."""
    _read(path, whole=False)


def memory_from_bytes(data: bytes, *, where: str) -> MemoryState:
    """What `MemoryState.to_bytes` gave, now or before there was a hash; `where` it was kept, for messages. Raises
    CheckpointError for bytes that are damaged or something else."""
    header = _header(BytesIO(data), len(data), where)
    if header.sha256 is not None and _digest(data) != header.sha256:
        raise CheckpointError(f"{where} is damaged: its hash is not the one that was written; take an earlier one")
    try:
        return MemoryState(slots=load(data)["slots"], version=header.version, model=header.model)
    except SafetensorError as error:
        raise CheckpointError(f"{where} cannot be read as a memory: {error}") from None


class _Header(NamedTuple):
    """What is told before the numbers. sha256: None in files from before there was one."""

    version: int
    model: str
    sha256: str | None


def _read(path: str | Path, *, whole: bool) -> bytes:
    """A file, when its header is a memory's and its size what that says; else b""."""
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a device may have no end, and a pipe nobody who writes
            raise CheckpointError(f"{path} cannot be read as a memory: it is no regular file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            _header(file, size, str(path))
            file.seek(0)
            return file.read(size) if whole else b""
    except (OSError, MemoryError) as error:
        raise CheckpointError(f"{path} cannot be read as a memory: {error or 'it is too large'}") from None


def _header(file: BinaryIO, size: int, where: str) -> _Header:
    """Of safetensors of `size` bytes, from which no more is read. Raises CheckpointError unless it is a memory's, which
    fills the rest."""
    try:
        num = int.from_bytes(file.read(8), "little")
        if not 0 < num <= min(_LONGEST_HEADER, size - 8):
            raise ValueError("it has no header of ours")
        header = json.loads(file.read(num))
        told = header.get("__metadata__") or {}
        if set(told) != _TOLD.get(str(told.get("format"))):
            raise ValueError(f"it is no memory of a conversation (format {told.get('format')!r:.60})")
        if set(header) != {"__metadata__", "slots"}:
            raise ValueError(f"it holds {', '.join(header)!s:.200}; expected __metadata__ and slots")
        version, (first, end) = int(told["version"]), header["slots"]["data_offsets"]
        if not 0 <= version < _MOST_INTERACTIONS:
            raise ValueError(f"its version is {version!s:.40}")
        if first != 0 or 8 + num + end != size:
            raise ValueError(f"it has {size} bytes, and its header tells of another number")
        return _Header(version, str(told["model"]), told.get("sha256"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{where} cannot be read as a memory: {error}") from None


def _digest(data: bytes) -> str:
    """Of header and numbers, the hash itself left out."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"].pop("sha256", None)
    found = hashlib.sha256(canonical_json(header).encode())
    found.update(memoryview(data)[end:])
    return found.hexdigest()


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
