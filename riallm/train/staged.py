"""Supervised stages one after the other on one model with a memory: a value, and the run that it becomes, from files of
rows to a model folder."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from riallm.core.errors import UsageError
from riallm.core.files import atomic_write
from riallm.data.conversations.tokens import make_tokenizer
from riallm.data.interaction_rows import Form, Rows
from riallm.models.episodes import Episodes
from riallm.models.load import TOKENIZER, save_rxt
from riallm.models.rxt import RxTConfig
from riallm.quant.blocks import Bits
from riallm.tokenizer import saved as tokenizers
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.interaction import markers, with_markers
from riallm.tokenizer.training import train as train_vocabulary
from riallm.train import saved
from riallm.train.conversations import ConversationFeed, Conversations, Phase
from riallm.train.episodes import MemoryAware, Overheard
from riallm.train.interactions import Interactions, TooLong
from riallm.train.joint import HIDDEN, Joint, JointRxT
from riallm.train.loop import Following, Run, Source, Step, TrainConfig
from riallm.train.stage import Dtype, alone, same, written
from riallm.train.writing import Blended, Reconstructed

Supervised = MemoryAware | Joint | Blended | Reconstructed | Overheard
Heard = Callable[[Step], None]

MAX_TOKENIZER_CHARS = 20_000_000
"""Of text that a vocabulary is learned from."""

UNTIL_THE_CLOCK = 10**9
"""Steps of a stage of conversations that ends by the clock."""

SAVES = 5
"""At least so many in a stage that ends by the clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedStage:
    """One stage. files: of rows of the form, in the folder of data; epochs: how often every row is seen, which may be
    less than once; `train.max_steps` bounds the steps that this makes. Or phases: conversations in English that are
    made as they are needed, for `train.max_steps`. rows: of a batch."""

    name: str
    objective: Supervised
    rows: int
    train: TrainConfig
    files: tuple[str, ...] = ()
    form: Form = "conversation"
    epochs: float = 1.0
    phases: tuple[Phase, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.files) == bool(self.phases) or self.rows < 1 or not self.epochs > 0.0:
            raise UsageError(
                f"stage {self.name}: either files or phases, at least one row a batch, epochs above 0; got "
                f"{self.files}, {len(self.phases)} phases, {self.rows} and {self.epochs}"
            )

    def num_steps(self, num_items: int) -> int:
        """Of an epoch of so many rows."""
        return min(self.train.max_steps, max(1, math.ceil(self.epochs * num_items / self.rows / self.train.accumulate)))


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedRecipe:
    """data: the folder of the files, and of a tokenizer.json with the markers of interactions; without that one, a
    vocabulary is learned from the rows of the first stage, which are text, or from conversations. too_long: what
    becomes of interactions that the model has no room for. bits: what the model is written in (None: bfloat16). Where
    data lie and what device is used is no part of what a run is.

    seconds: of training in all stages together, divided among them as `shares` are, or else as their steps are. Then a
    stage is over with its time: conversations are made for as long as that is and their phases follow the clock; files
    end with their epochs where that is earlier."""

    name: str
    model: RxTConfig
    stages: tuple[SupervisedStage, ...]
    data: str = ""
    too_long: TooLong = "refuse"
    dtype: Dtype = "bfloat16"
    device: str = "cpu"
    bits: Bits | None = None
    seed: int = 0
    seconds: float | None = None
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise UsageError(f"a recipe has stages with names of their own; got {', '.join(names) or 'none'}")
        if self.seconds is not None and not self.seconds > 0.0:
            raise UsageError(f"seconds is {self.seconds}; a time above 0, or none")
        if self.shares and (self.seconds is None or len(self.shares) != len(names) or not min(self.shares) > 0.0):
            raise UsageError(
                f"shares divide seconds among {len(names)} stages, each above 0; got {self.shares} of {self.seconds}"
            )

    def seconds_of(self, number: int) -> float | None:
        """Of training in a stage; None where steps alone say when it is over."""
        if self.seconds is None:
            return None
        parts = self.shares or [float(stage.train.max_steps) for stage in self.stages]
        return self.seconds * parts[number] / sum(parts)

    def files(self, stage: SupervisedStage) -> list[Path]:
        """Those of a stage."""
        return [Path(self.data) / name for name in stage.files]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """folder: the model. steps: of all stages."""

    folder: Path
    steps: int


def run(
    recipe: StagedRecipe, folder: Path, *, on_stage: Callable[[str, int], Heard] = lambda name, steps: lambda step: None
) -> Finished:
    """Train in `folder`, each stage in one of its own, going on from what is there; the model lies in `folder`/model in
    the end. on_stage: hears name and steps of a stage that begins or goes on, and gives who hears its steps.

    Raises UsageError when files are missing or rows malformed, when the folder holds another recipe or another process
    trains there, or the machine lacks the device; CheckpointError when the model in the folder is damaged.
    """
    if recipe.device != "cpu" and not torch.cuda.is_available():
        raise UsageError(f"the recipe wants the device {recipe.device}, but PyTorch sees no GPU here; give device=cpu")
    check_files(recipe)
    with alone(folder):
        same(recipe, folder, apart=("device", "data"))
        return _run(recipe, folder, on_stage)


def _run(recipe: StagedRecipe, folder: Path, on_stage: Callable[[str, int], Heard]) -> Finished:
    tokenizer = tokenizer_of(recipe, folder)
    mask_token = tokenizer.special(HIDDEN)
    model = JointRxT(recipe.model, mask_token=mask_token, dtype=getattr(torch, recipe.dtype))
    model.initialise(recipe.seed)  # on the processor, so that every device begins with the same weights
    model.to(recipe.device)
    places = [place_of(folder, number, stage.name) for number, stage in enumerate(recipe.stages)]
    begun = [number for number, place in enumerate(places) if saved.latest(place / "saves")]
    for number in range(max(begun, default=0), len(places)):  # of those before, what comes behind holds the weights
        _train(recipe, number, model, tokenizer, places[number], on_stage)
    steps = {stage.name: saved.steps(place / "saves")[-1] for stage, place in zip(recipe.stages, places, strict=True)}
    place = folder / "model"
    if not written(place):
        files = {TOKENIZER: (folder / TOKENIZER).read_bytes()}
        save_rxt(model.cpu().shipped(), place, bits=recipe.bits, files=files)
    told = {
        "steps": sum(steps.values()),
        "stages": steps,
        "device": "processor" if recipe.device == "cpu" else torch.cuda.get_device_name(),
    }
    atomic_write(folder / "result.json", json.dumps(told, indent=1).encode())
    return Finished(folder=place, steps=sum(steps.values()))


def place_of(folder: Path, number: int, name: str) -> Path:
    """Where a run has its stage of a number and name."""
    return folder / f"{number}-{name}"


def check_files(recipe: StagedRecipe) -> None:
    """Raises UsageError, which names all that are missing and their forms; and for a folder that nothing reads."""
    if recipe.data and not any(stage.files for stage in recipe.stages) and not _given(recipe).is_file():
        raise UsageError(
            f"{recipe.name} reads no files, and {recipe.data} has no {TOKENIZER} for it; leave out data={recipe.data}"
        )
    if not recipe.data and any(stage.files for stage in recipe.stages):
        wanted = sorted({f"{name} ({stage.form})" for stage in recipe.stages for name in stage.files})
        raise UsageError(
            f"{recipe.name} reads files of yours, JSON lines in a folder: {', '.join(wanted)}. Give the folder: "
            "data=FOLDER; docs/models/rxt.md says what the rows are"
        )
    found = {path: stage.form for stage in recipe.stages for path in recipe.files(stage)}
    missing = [f"{path.name} ({form})" for path, form in found.items() if not path.is_file()]
    if missing:
        raise UsageError(
            f"{recipe.data} lacks {', '.join(missing)}, which {recipe.name} reads; write these files of JSON lines, or "
            "give another folder: data=FOLDER. docs/models/rxt.md says what the rows are"
        )


def _given(recipe: StagedRecipe) -> Path:
    """Where a tokenizer of the user's would be."""
    return Path(recipe.data) / TOKENIZER


def tokenizer_of(recipe: StagedRecipe, folder: Path) -> HybridTokenizer:
    """That of the run: from the folder of data, or learned once. Raises UsageError for one without markers, or with
    more tokens than the model has."""
    folder.mkdir(parents=True, exist_ok=True)
    path, given = folder / TOKENIZER, _given(recipe)
    first = recipe.stages[0]
    if not path.exists() and recipe.data and given.is_file():
        tokenizers.load(given)  # one that is damaged never gets here
        atomic_write(path, given.read_bytes())
    if not path.exists() and first.phases:
        tokenizers.save(make_tokenizer(size=recipe.model.vocab_size, seed=recipe.seed), path)
    if not path.exists():
        if first.form != "text":
            raise UsageError(f"{recipe.data} has no {TOKENIZER}, and the first stage reads no text to learn one from")
        rows = Rows(recipe.files(first), "text")
        every = max(1, math.ceil(sum(rows.sizes) / MAX_TOKENIZER_CHARS))
        texts = (rows.text(number) for number in range(0, len(rows), every))
        made = with_markers(train_vocabulary(texts, size=recipe.model.vocab_size))
        tokenizers.save(HybridTokenizer(made), path)
    found = tokenizers.load(path)
    markers(found)
    if found.vocab_size > recipe.model.vocab_size:
        raise UsageError(f"the tokenizer has {found.vocab_size} tokens, the model {recipe.model.vocab_size}")
    return found


def _train(
    recipe: StagedRecipe,
    number: int,
    model: JointRxT,
    tokenizer: HybridTokenizer,
    folder: Path,
    on_stage: Callable[[str, int], Heard],
) -> None:
    stage, seconds = recipe.stages[number], recipe.seconds_of(number)
    batches, steps = _batches(recipe, number, tokenizer)
    config = replace(stage.train, max_steps=steps)
    if seconds is not None:
        save_seconds = min(config.save_seconds, seconds / SAVES)
        config = replace(config, max_seconds=seconds, save_seconds=save_seconds)
    with _brought(batches, recipe.device) as source:
        training = Run(model, source, stage.objective, config, folder)
        if training.elapsed < 1.0:
            training.on_step = on_stage(stage.name, config.max_steps)
            training.train()


def _batches(recipe: StagedRecipe, number: int, tokenizer: HybridTokenizer) -> tuple[Conversations | Interactions, int]:
    """Of a stage, and its steps. No two stages share a conversation that was made."""
    stage, seed = recipe.stages[number], 100 * recipe.seed + number
    if stage.phases:
        phases = tuple(replace(each, config=replace(each.config, seed=seed)) for each in stage.phases)
        steps = stage.train.max_steps if recipe.seconds is None else UNTIL_THE_CLOCK
        made = Conversations(
            phases=phases,
            num=steps * stage.train.accumulate,
            tokenizer=tokenizer,
            rows=stage.rows,
            num_tokens=recipe.model.max_interaction,
        )
        return made, steps
    found = Interactions(
        Rows(recipe.files(stage), stage.form),
        tokenizer,
        batch_rows=stage.rows,
        num_tokens=recipe.model.max_interaction,
        too_long=recipe.too_long,
        seed=seed,
    )
    return found, stage.num_steps(found.num_items)


@contextmanager
def _brought(batches: Conversations | Interactions, device: str) -> Iterator[Source[Episodes] | Following[Episodes]]:
    """The batches on the device. Conversations are made ahead for a GPU, which would wait for them otherwise."""
    if isinstance(batches, Interactions):
        yield partial(_on_device, batches, device)
    elif device == "cpu":
        yield Following(batches)
    else:
        with ConversationFeed(batches, device=device) as feed:
            yield Following(feed)


def _on_device(batches: Source[Episodes], device: str, number: int) -> Episodes:
    return batches(number).to(device)
