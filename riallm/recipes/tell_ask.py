"""The tell/ask experiment: `python -m riallm.recipes.tell_ask --out DIR`.

Trains the small model of RxT on conversations whose answers stand in earlier interactions alone, with several seeds and
variants, and asks it beside its controls. What is finished is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from riallm.core.config import to_json
from riallm.core.errors import UsageError
from riallm.core.files import atomic_write
from riallm.data.tell_ask import TellAskConfig
from riallm.eval.probes.recall import ask, ask_reader, batch, table
from riallm.models.episodes import Episodes
from riallm.models.rxt import RxT, RxTConfig
from riallm.nn.memory_attention import MemoryAttentionConfig
from riallm.nn.memory_gate import GateConfig
from riallm.train.episodes import FullHistory, MemoryAware
from riallm.train.loop import Run, Step, TrainConfig
from riallm.train.optim import OptimiserConfig
from riallm.train.schedule import Schedule

KEEPING = GateConfig(kind="elementwise", status="learned", weight=1.0, bias=-2.0)
"""Ours: a slot decides from old and new content, and keeps unless it is told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training run and its questions. curriculum: shares of the run at which conversations get longer, with their
    lengths. history: the decoder re-reads the conversation, instead of a memory."""

    model: RxTConfig
    task: TellAskConfig
    steps: int
    rows: int = 64
    window: int | None = None
    history: bool = False
    curriculum: tuple[tuple[float, int], ...] = ((0.0, 2), (0.1, 4), (0.25, 8), (0.5, 12))
    lr: float = 0.003
    seed: int = 0


def model(*, hidden: int = 64, layers: int = 2, slots: int = 16, vocab: int) -> RxTConfig:
    """The small model; our gate, slots that are told apart, a learned start."""
    return RxTConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=hidden // 8,
        max_interaction=12,
        num_slots=slots,
        decoder_heads=hidden // 16,
        decoder_kv_heads=hidden // 32,
        num_experts=4,
        experts_per_token=2,
        expert_size=hidden,
        encoder_heads=hidden // 16,
        encoder_kv_heads=hidden // 16,
        encoder_size=2 * hidden,
        memory=MemoryAttentionConfig(
            num_heads=hidden // 16, num_kv_heads=hidden // 16, gate=KEEPING, slot_identity=True
        ),
        trained_start=True,
        final_norm=True,
    )


def full(seed: int = 0) -> Trial:
    """The headline's size."""
    task = TellAskConfig(num_turns=12)
    return Trial(model=model(vocab=task.vocab_size), task=task, steps=3000, seed=seed)


def smoke(seed: int = 0) -> Trial:
    """A minute or two: for ablations."""
    task = TellAskConfig(num_turns=6, num_keys=16, num_values=16, num_fillers=8, max_live=4)
    small = model(hidden=32, layers=1, slots=8, vocab=task.vocab_size)
    curriculum = ((0.0, 2), (0.2, 3), (0.4, 6))
    return Trial(model=small, task=task, steps=1000, rows=32, curriculum=curriculum, seed=seed)


def source(trial: Trial) -> Callable[[int], Episodes]:
    """The batch of a number; test conversations have other seeds."""

    def made(number: int) -> Episodes:
        elapsed = number / trial.steps
        num_turns = [length for begin, length in trial.curriculum if begin <= elapsed][-1]
        task = replace(trial.task, num_turns=num_turns, seed=trial.seed)
        return batch(task, number * trial.rows, trial.rows)[1]

    return made


def run(trial: Trial, folder: Path, *, questions: int, on_step: Callable[[Step], None] = lambda step: None) -> Any:
    """Train where it was not done, ask where it was not done; the figures."""
    path = folder / "recall.json"
    wanted = to_json(trial)
    if path.exists():
        found = json.loads(path.read_text("utf-8"))
        if found["trial"] != wanted:
            raise UsageError(f"{folder} holds another trial; name another folder by --out")
        return found
    trained = RxT(trial.model)
    trained.initialise(trial.seed)
    config = TrainConfig(
        max_steps=trial.steps,
        clip=1.0,
        ema=0.0,
        seed=trial.seed,
        optimiser=OptimiserConfig(kind="adamw", lr=trial.lr, weight_decay=0.01, cautious=False, beta2=0.99),
        schedule=Schedule(kind="cosine", warmup=0.03, final=0.05),
    )
    objective = FullHistory() if trial.history else MemoryAware(window=trial.window)
    Run(trained, source(trial), objective, config, folder, on_step=on_step).train()
    told: dict[str, Any] = {"trial": wanted}
    for factor in (1, 2, 4):
        task = replace(trial.task, num_turns=factor * trial.task.num_turns, seed=1_000_000 + trial.seed)
        asked = (ask_reader if trial.history else ask)(trained, task, num=questions)
        told[f"{factor}x"] = table(asked, num_values=task.num_values)
    atomic_write(path, json.dumps(told).encode())
    return told
