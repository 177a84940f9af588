"""Staged unfreezing: what is named trains, from when it is named on, and nothing else moves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from riallm.core.errors import UsageError
from riallm.models.rxt import RxT
from riallm.recipes.tell_ask import smoke, source
from riallm.train.episodes import FullHistory, MemoryAware
from riallm.train.loop import Run, Step, TrainConfig
from riallm.train.optim import OptimiserConfig
from riallm.train.parallel import Ranks
from riallm.train.parts import READING, WRITING, Parts, Trains

TRIAL = replace(smoke(), rows=4)
STAGED = (Trains(parts=WRITING), Trains(begin=0.5, parts=READING), Trains(begin=0.75))
CONFIG = TrainConfig(
    max_steps=8, save_seconds=1e9, trains=STAGED, ema=0.0, optimiser=OptimiserConfig(kind="adamw", lr=0.001)
)


def run(folder: Path, config: TrainConfig = CONFIG, *, history: bool = False) -> Run:  # type: ignore[type-arg]
    model = RxT(TRIAL.model)
    model.initialise(0)
    objective = FullHistory() if history else MemoryAware()
    return Run(model, source(TRIAL, 8, TRIAL.phases, stage=1), objective, config, folder)


def moved(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in one if not torch.equal(one[name], other[name])}


def weights(model: RxT) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_each_phase_moves_what_it_names(tmp_path: Path) -> None:
    made = run(tmp_path)
    seen = [weights(made.model)]  # type: ignore[arg-type]
    made.on_step = lambda step: seen.append(weights(made.model))  # type: ignore[arg-type]
    made.train()
    writes = {name for name in seen[0] if name.startswith("memory_attention.")}
    reads = {name for name in seen[0] if any(part in name for part in (".read_attn.", ".read_norm.", ".slot_norm."))}
    assert writes and reads
    assert moved(seen[0], seen[4]) == writes
    assert moved(seen[4], seen[6]) == writes | reads
    rest = moved(seen[6], seen[8])
    assert rest > writes | reads and {"embed_tokens.weight", "lm_head.weight"} < rest
    assert all(p.requires_grad for p in made.model.parameters())  # the next run finds all of it


def test_a_staged_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    whole.train()

    class Stop(Exception):
        pass

    def stop(step: Step) -> None:
        if step.step == 5:
            first.save()
            raise Stop

    first = run(tmp_path / "parts")
    first.on_step = stop
    with pytest.raises(Stop):
        first.train()
    second = run(tmp_path / "parts")
    assert second.step == 5
    second.train()
    assert moved(weights(whole.model), weights(second.model)) == set()  # type: ignore[arg-type]


def test_what_cannot_train_is_refused(tmp_path: Path) -> None:
    def refused(name: str, *trains: Trains, history: bool = False) -> Run:  # type: ignore[type-arg]
        return run(tmp_path / name, replace(CONFIG, trains=trains), history=history)

    with pytest.raises(UsageError, match=r"no parameter is called 'memory'; names begin with embed_tokens, encoder"):
        refused("a", Trains(parts=("memory",)))
    with pytest.raises(UsageError, match=r"phases begin at \[0.5\]; expected 0 first"):
        refused("b", Trains(begin=0.5))
    with pytest.raises(UsageError, match="each later than the one before"):
        refused("c", Trains(), Trains(begin=0.5), Trains(begin=0.5))
    with pytest.raises(UsageError, match="parts name at least one"):
        Trains(parts=())
    with pytest.raises(UsageError, match="step 0: no part that trains has a share in the loss"):
        refused("d", Trains(parts=WRITING), history=True).train()
    with pytest.raises(UsageError, match="on one rank only"):
        Run(RxT(TRIAL.model), lambda number: None, MemoryAware(), replace(CONFIG, accumulate=2), tmp_path / "e",
            ranks=Ranks(world=2))  # type: ignore[arg-type, return-value]  # fmt: skip


def test_what_was_frozen_before_a_run_is_so_after_it(tmp_path: Path) -> None:
    made = run(tmp_path, replace(CONFIG, max_steps=1, trains=(Trains(parts=WRITING),)))
    frozen = made.model.get_parameter("lm_head.weight").requires_grad_(False)
    made.parts = Parts(made.model, made.config.trains)
    made.train()
    assert [name for name, p in made.model.named_parameters() if not p.requires_grad] == ["lm_head.weight"]
    assert not frozen.requires_grad


def test_settings_written_down_before_a_new_one_was_known_are_the_same(tmp_path: Path) -> None:
    plain = replace(CONFIG, trains=())
    run(tmp_path, plain)
    path = tmp_path / "train.json"
    known = json.loads(path.read_text())
    del known["trains"]
    path.write_text(json.dumps(known))
    assert run(tmp_path, plain).step == 0
    with pytest.raises(UsageError, match="a run of other settings"):
        run(tmp_path)
