"""A model by name or path, ready to be asked: the Python surface (RIA document, 6.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from riallm.core.errors import ClientError, UsageError
from riallm.core.shipped import folder_of, home, names
from riallm.engine.drafting import same_tokens
from riallm.engine.local import EngineOptions, LocalEngine
from riallm.engine.profiler import Profiler
from riallm.engine.request import Finish, Request, Sampling, Usage
from riallm.models import resident
from riallm.models.decoder import Decoder
from riallm.models.resident import Resident
from riallm.models.zoo import ZOO
from riallm.nn.meta import TokenMeta
from riallm.quant.packed import Kind
from riallm.tokenizer.opened import tokenizer_of
from riallm.tokenizer.text import TextTokenizer

Compression = Literal["none", "8bit", "4bit", "nf4"]
KINDS: dict[str, Kind | None] = {"none": None, "8bit": "int8", "4bit": "int4", "nf4": "nf4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """compression: of matrices that are not packed already. device: "cpu", "cuda:0", or "mps", which nobody has tried
    here. max_seq_len: longest prompt and answer, at most what the model was made for. profiling_mode: measure where the
    time goes. dtype: of activations, keys and values. random_weights: for a name whose weights nobody has, to measure.
    """

    compression: Compression = "none"
    device: str = "cpu"
    max_seq_len: int | None = None
    profiling_mode: bool = False
    dtype: str = "bfloat16"
    random_weights: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """An answer. timings: tokens and seconds."""

    text: str
    ids: tuple[int, ...]
    finish_reason: Finish
    timings: Usage


class AutoModel:
    """How models are opened."""

    @staticmethod
    def from_pretrained(
        path_or_name: str | Path,
        options: ModelOptions | None = None,
        *,
        engine_options: EngineOptions | None = None,
        draft: str | Path | None = None,
    ) -> LocalModel:
        """A model that comes with us by its name; any other by its folder or GGUF file. draft: a small one of the same
        tokens that writes ahead. Raises UsageError for a name
        that is not known or has no weights, CheckpointError for a damaged model."""
        options = options or ModelOptions()
        if options.compression not in KINDS:
            raise UsageError(f"compression is {options.compression!r}; there are {', '.join(KINDS)}")
        name = Path(path_or_name).name.removesuffix(".gguf")
        kind = KINDS[options.compression]
        if options.random_weights:
            found = resident.random(name, kind=kind, dtype=options.dtype)
        else:
            found = resident.load(place_of(str(path_or_name)), kind=kind, dtype=options.dtype)
        small = None
        if draft is not None:
            opened = AutoModel.from_pretrained(draft, replace(options, max_seq_len=None, profiling_mode=False))
            small = opened.model
        made = LocalModel(name, found, options, engine_options=engine_options, small=small)
        if draft is not None:
            _same_words(made, opened)
        return made


def _same_words(model: LocalModel, small: LocalModel) -> None:
    same_tokens(model.model, small.model)
    for index in range(model.tokenizer.vocab_size):
        if model.tokenizer.decode_bytes([index], specials=True) != small.tokenizer.decode_bytes([index], specials=True):
            raise UsageError(f"{small.name} cannot draft for {model.name}: token {index} is another one")


def place_of(path_or_name: str) -> Path:
    """Where a model lies, by its name or path. Raises UsageError for a name that is not known or has no weights."""
    if Path(path_or_name).exists():
        return Path(path_or_name)
    if (home() / path_or_name).is_dir():
        return folder_of(path_or_name)
    known = ", ".join(names()) or "none"
    if path_or_name in ZOO:
        raise UsageError(
            f"nobody has weights of {path_or_name}: it is a shape. Shipped models: {known}; a folder or a .gguf file "
            "is given by its path. For measuring, --random-weights (random_weights=True) makes some up"
        )
    raise UsageError(
        f"no model {path_or_name!r}: it is no folder, no file, and no name. Shipped models: {known}; shapes without "
        f"weights: {', '.join(ZOO)}"
    )


class LocalModel:
    """A model in this process. `engine` takes many requests at once; the methods here ask it one thing at a time."""

    def __init__(
        self,
        name: str,
        found: Resident,
        options: ModelOptions,
        *,
        engine_options: EngineOptions | None = None,
        small: Decoder | None = None,
    ) -> None:
        """small: a model of the same tokens, on the same device, that drafts."""
        self.name, self.resident, self.options = name, found, options
        self.device = device_named(options.device)
        sizes = found.model.sizes
        longest = sizes.max_position_embeddings
        if options.max_seq_len is not None and not 0 < options.max_seq_len <= longest:
            raise UsageError(f"max_seq_len is {options.max_seq_len}; {name} was made for 1 to {longest} tokens")
        self.context = options.max_seq_len or longest
        self.model = found.model.to(self.device)
        self.tokenizer: TextTokenizer = tokenizer_of(found.files, vocab_size=sizes.vocab_size, what=name)
        self._engine_options = engine_options or EngineOptions()
        self._small = small
        self._engine: LocalEngine | None = None
        self._profiler = Profiler(self.model) if options.profiling_mode else None

    @property
    def engine(self) -> LocalEngine:
        """The engine, which starts when it is first asked for."""
        if self._engine is None:
            self._engine = LocalEngine(
                self.model,
                name=self.name,
                identity=self.resident.identity,
                decode=self.tokenizer.decode_bytes,
                context=self.context,
                options=self._engine_options,
                small=self._small,
            )
        return self._engine

    @property
    def profiler(self) -> Profiler:
        """Raises UsageError unless `profiling_mode` was asked for."""
        if self._profiler is None:
            raise UsageError("nothing was measured: open the model with ModelOptions(profiling_mode=True)")
        return self._profiler

    @torch.inference_mode()
    def logits(self, ids: Sequence[int], last: int | None = None) -> Tensor:
        """(T, V) in float32 of a text in one file, or only the last `last` rows. Raises UsageError for an empty text or
        one that is too long."""
        if not 0 < len(ids) <= self.context:
            raise UsageError(f"{self.name} takes 1 to {self.context} tokens, got {len(ids)}")
        tokens = torch.tensor([list(ids)], device=self.device)
        hidden = self.model(tokens, TokenMeta.plain(1, len(ids), device=self.device)).hidden[0]
        return self.model.logits(hidden if last is None else hidden[-last:])

    def generate(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> Generation:
        """Go on with a text, or with ids as they are. Raises UsageError for what cannot fit."""
        ids = [*self.tokenizer.start, *self.tokenizer.encode(prompt)] if isinstance(prompt, str) else list(prompt)
        asked = Request(
            ids=tuple(ids),
            max_tokens=max_new_tokens,
            sampling=Sampling(temperature=temperature, top_p=top_p, seed=seed),
            ends=self.tokenizer.ends,
            stop=tuple(stop),
        )
        return self.answer(asked)

    def answer(self, request: Request) -> Generation:
        """Ask the engine and wait. Raises ClientError when the model failed."""
        ticket = self.engine.submit(request)
        texts: list[str] = []
        written: list[int] = []
        try:
            while True:
                piece = ticket.next()
                assert piece is not None
                texts.append(piece.text)
                written += [token.id for token in piece.tokens]
                if piece.finish is not None and piece.usage is not None:
                    break
        except BaseException:
            ticket.cancel()
            raise
        if piece.finish == "error":
            raise ClientError(f"{self.name} failed: {piece.error}")
        return Generation(text="".join(texts), ids=tuple(written), finish_reason=piece.finish, timings=piece.usage)

    def close(self) -> None:
        """Stop the engine and free what it holds."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None


def device_named(name: str) -> torch.device:
    """Raises UsageError for one that cannot be used here."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device).tolist()  # "meta" has no numbers
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device
