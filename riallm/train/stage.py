"""A stage as a value: what is trained on what and how; and the run that it becomes, from raw text to a model folder."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch

from riallm.checkpoint import folder as folders
from riallm.core.config import differing, to_json
from riallm.core.errors import CheckpointError, UsageError
from riallm.core.files import atomic_write, made_folder
from riallm.core.locks import only_one
from riallm.data.corpus.rows import Document
from riallm.models.base import Model
from riallm.models.load import TOKENIZER, save_ria
from riallm.models.ria import RIA, RIAConfig
from riallm.quant.blocks import Bits
from riallm.tokenizer import saved as tokenizers
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.training import train as train_vocabulary
from riallm.train import documents
from riallm.train.batches import BatchConfig, Batches
from riallm.train.documents import TextConfig
from riallm.train.feed import Feed
from riallm.train.loop import Run, Source, Step, TrainConfig
from riallm.train.objective import Batch, compiled, next_token

Dtype = Literal["float32", "bfloat16"]
BEFORE = "before.md"
"""In a run's folder: the card of the model that it starts from, which may be replaced by what the run makes."""
BEGUN = ("saves/step-*", "*/saves/step-*", "model")
"""In a run's folder, any of which would be lost if the run began anew."""
SHOWN = 3
"""Settings that differ, of a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One training run. start: folder of a model whose weights and tokenizer it begins with, momentum anew; empty for
    drawn weights. bits: what the model is written in at the end (None: bfloat16). device: "cpu" or "cuda"; where
    a run is carried out is no part of what it is, so that one may go on elsewhere."""

    name: str
    model: RIAConfig
    text: TextConfig
    batches: BatchConfig
    train: TrainConfig
    dtype: Dtype = "bfloat16"
    compile: bool = False
    device: str = "cpu"
    start: str = ""
    bits: Bits | None = 8
    validation_batches: int = 8
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.train.round_bits not in (None, self.bits):
            raise UsageError(
                f"trained for {self.train.round_bits} bits, but written in {self.bits}; give both the same"
            )
        if self.batches.context > self.model.max_position_embeddings:
            raise UsageError(
                f"rows of {self.batches.context} tokens, but the model takes {self.model.max_position_embeddings}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """folder: the model. bits_per_byte: of the held-out packages, causal, the running mean of the weights."""

    folder: Path
    bits_per_byte: float
    num_validation_bytes: int
    steps: int


def tokenizer_of(stage: Stage, rows: Sequence[Sequence[Document]], folder: Path) -> HybridTokenizer:
    """The tokenizer of a run: learned once from its training text, then read from its folder."""
    path = folder / TOKENIZER
    if stage.start and not path.exists():
        atomic_write(path, (Path(stage.start) / TOKENIZER).read_bytes())
    if path.exists():
        return tokenizers.load(path)
    known = [document.text for row in rows for document in row]
    every = max(1, math.ceil(sum(map(len, known)) / stage.text.max_tokenizer_chars))
    texts = known[::every]  # of all packages
    made = HybridTokenizer(train_vocabulary(texts, size=stage.model.vocab_size))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizers.save(made, path)
    return made


def bytes_per_token(tokenizer: HybridTokenizer, rows: Sequence[Sequence[Document]], *, sample: int = 60) -> float:
    """Of a sample of the documents, evenly spread."""
    texts = [document.text for row in rows for document in row]
    chosen = texts[:: max(1, len(texts) // sample)]
    return sum(len(text.encode()) for text in chosen) / max(1, sum(map(len, tokenizer.encode_batch(chosen))))


def run(stage: Stage, folder: Path, *, on_step: Callable[[Step], None] = lambda step: None) -> Trained:
    """Train in `folder`, going on from what is there; the model lies in `folder`/model in the end.

    Raises UsageError when the folder holds another stage or another process trains there, or the machine lacks the
    stage's device; CheckpointError for weights to start with, or a model in the folder, that are damaged or of another
    shape.
    """
    if stage.device != "cpu" and not torch.cuda.is_available():
        raise UsageError(f"the stage wants the device {stage.device}, but PyTorch sees no GPU here; give device=cpu")
    if stage.start:
        folders.verify(Path(stage.start))
    with alone(folder):
        same(stage, folder)
        return _run(stage, folder, on_step)


def _run(stage: Stage, folder: Path, on_step: Callable[[Step], None]) -> Trained:
    card = Path(stage.start) / "README.md"
    if stage.start and card.exists() and not (folder / BEFORE).exists():
        atomic_write(folder / BEFORE, card.read_bytes())
    rows = documents.rows(stage.text, "train")
    tokenizer = tokenizer_of(stage, rows, folder)
    if tokenizer.vocab_size != stage.model.vocab_size:
        raise UsageError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model {stage.model.vocab_size}")
    ratio = bytes_per_token(tokenizer, rows)
    asks = any((mixture or {}).get("repair") for mixture in (stage.batches.mixture, stage.batches.later))
    repairs = documents.repairs(stage.text, "train") if asks else []
    source = Batches(rows, tokenizer, stage.batches, bytes_per_token=ratio, repairs=repairs)
    model = RIA(stage.model, dtype=getattr(torch, stage.dtype))
    if stage.start:
        folders.fill(model, folders.read(Path(stage.start)), what=stage.start)
    else:
        model.initialise(stage.train.seed)  # on the processor, so that every device begins with the same weights
    model.to(stage.device)
    objective = compiled() if stage.compile else next_token
    with contextlib.ExitStack() as stack:
        made: Source[Batch] = source
        if stage.device != "cpu":
            made = stack.enter_context(Feed(source, device=stage.device))
        training = Run(model, made, objective, stage.train, folder, on_step=on_step)
        training.train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in training.mean:
                parameter.copy_(training.mean[name])
    bits, num_bytes = validation(stage, model, tokenizer, ratio)
    model.cpu()
    place = folder / "model"
    if not written(place):
        save_ria(model, place, bits=stage.bits, files={TOKENIZER: (folder / TOKENIZER).read_bytes()})
    found = Trained(folder=place, bits_per_byte=bits, num_validation_bytes=num_bytes, steps=training.step)
    told = {
        "bits_per_byte": bits,
        "num_validation_bytes": num_bytes,
        "steps": training.step,
        "device": "processor" if stage.device == "cpu" else torch.cuda.get_device_name(),
    }
    atomic_write(folder / "result.json", json.dumps(told, indent=1).encode())
    return found


def same(stage: Any, folder: Path, *, apart: Sequence[str] = ("device",)) -> None:
    """Write down what is run in a folder, all but the settings `apart`. A setting that came later has its default
    there. A run of which nothing was saved yet leaves nothing behind.

    Raises UsageError, which names what differs, where the folder holds a run of other settings; CheckpointError where
    what it holds cannot be read.
    """
    told = {name: value for name, value in to_json(stage).items() if name not in apart}
    path, text = folder / "stage.json", json.dumps(told, indent=1, sort_keys=True)
    if path.exists() and not any(list(folder.glob(each)) for each in BEGUN):
        for made in (folder / TOKENIZER, folder / BEFORE, *folder.glob("train.json"), *folder.glob("*/train.json")):
            made.unlink(missing_ok=True)
    elif path.exists():
        later = {each.name: to_json(each.default) for each in fields(stage) if each.default is not MISSING}
        known = {**{name: value for name, value in later.items() if name in told}, **_written(path)}
        differ = [f"{name} is {_short(was)} there and {_short(now)} now" for name, was, now in differing(known, told)]
        if differ:
            more = f"; and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
            raise UsageError(
                f"{folder} holds a run of other settings ({path.name}): {'; '.join(differ[:SHOWN])}{more}. Give those, "
                "or name another folder by --out"
            )
    atomic_write(path, text.encode())


def _written(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        found = error
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{path} does not say what is run here ({found}). Remove it, and the same command goes on from the last "
            "save, if its settings are those of the run; or name another folder by --out"
        )
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The folder of a run, made where it is not there, for one process. Raises UsageError where it cannot be."""
    busy = f"another training (process {{holder}}) is at work in {folder}; wait for it, or name another folder by --out"
    with only_one(made_folder(folder) / ".lock", busy):
        yield


def written(place: Path) -> bool:
    """Whether the model of a run is there. Raises CheckpointError for one that is damaged."""
    try:
        return place.exists() and bool(folders.verify(place))
    except CheckpointError as error:
        raise CheckpointError(f"{error}. Remove {place}; the same command writes it again from the last save") from None


def validation(stage: Stage, model: Model, tokenizer: HybridTokenizer, ratio: float) -> tuple[float, int]:
    """(bits per byte, bytes) of text from the held-out packages, next token by next token."""
    found = validation_batches(stage, model, tokenizer, ratio)
    num_bytes = sum(size for _, size in found)
    return sum(bits for bits, _ in found) / max(1.0, num_bytes), int(num_bytes)


@torch.inference_mode()
def validation_batches(
    stage: Stage, model: Model, tokenizer: HybridTokenizer, ratio: float
) -> list[tuple[float, float]]:
    """(bits, bytes) of each batch of `validation`."""
    config = BatchConfig(
        rows=stage.batches.rows, context=stage.batches.context, mixture={"causal": 1.0}, seed=stage.batches.seed
    )
    source = Batches(documents.rows(stage.text, "validation"), tokenizer, config, bytes_per_token=ratio)
    found = []
    for number in range(stage.validation_batches):
        batch = source(number).to(stage.device)
        found.append((float(next_token(model, batch).terms["nats"]) / math.log(2), batch.num_bytes))
    return found
