"""A model with a memory by name or path, ready to be asked: alone in a session, or by many through its engine."""

from __future__ import annotations

from pathlib import Path

import torch

from riallm.core.errors import CheckpointError, UsageError
from riallm.engine.auto import ModelOptions, device_named, place_of
from riallm.engine.conversation import Session
from riallm.engine.local import EngineOptions
from riallm.engine.memory_engine import MemoryEngine
from riallm.models import load
from riallm.models.resident import DTYPES
from riallm.nn.memory_state import MemoryState
from riallm.tokenizer import saved
from riallm.tokenizer.interaction import InteractionText


def keeps_memory(path_or_name: str | Path) -> bool:
    """Whether the conversations of a model are a memory of fixed size. Raises UsageError for a name that is not known
    or has no weights."""
    return load.keeps_memory(place_of(str(path_or_name)))


class MemoryModel:
    """A model in this process. `engine` answers many conversations at once, a `session` is one alone."""

    def __init__(
        self, path_or_name: str | Path, options: ModelOptions, *, engine_options: EngineOptions | None = None
    ) -> None:
        """Raises UsageError for a name that is not known, for a tokenizer without markers of interactions, and for
        options that such a model has not; CheckpointError for a damaged one."""
        if options.compression != "none":
            raise UsageError(
                f"compression is {options.compression!r}; a model with a memory is run in the type that it is opened "
                "in. Leave it out"
            )
        if options.random_weights or options.profiling_mode:
            raise UsageError(
                "a model with a memory has no random_weights and no profiling_mode; `bench turns` measures"
            )
        if options.dtype not in DTYPES:
            raise UsageError(f"dtype is {options.dtype!r}; there are {', '.join(DTYPES)}")
        place = place_of(str(path_or_name))
        self.name, self.device = place.name, device_named(options.device)
        self.model = load.load_rxt(place, dtype=DTYPES[options.dtype]).to(self.device)
        self.tokenizer = InteractionText(saved.load(place / load.TOKENIZER))
        longest, known = self.model.config.max_interaction, self.model.config.vocab_size
        if self.tokenizer.vocab_size > known:
            raise CheckpointError(
                f"{self.name}: its tokenizer has {self.tokenizer.vocab_size} tokens, its configuration {known}; they "
                "are not of one model"
            )
        if options.max_seq_len is not None and not 0 < options.max_seq_len <= longest:
            raise UsageError(f"max_seq_len is {options.max_seq_len}; {self.name} was made for 1 to {longest} tokens")
        self.context = options.max_seq_len or longest
        self._engine_options = engine_options or EngineOptions()
        self._engine: MemoryEngine | None = None

    @property
    def engine(self) -> MemoryEngine:
        """The engine, which starts when it is first asked for."""
        if self._engine is None:
            self._engine = MemoryEngine(
                self.model,
                name=self.name,
                decode=self.tokenizer.decode_bytes,
                options=self._engine_options,
                context=self.context,
            )
        return self._engine

    def session(self, memory: MemoryState | None = None) -> Session:
        """A conversation; memory: where it goes on, None: a new one."""
        with torch.no_grad():
            return Session(self.model, memory, ends=self.tokenizer.ends)

    def close(self) -> None:
        """Stop the engine, when what is complete is written."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
