"""A source that is told what came of the step before: place by place, and across a kill."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from riallm.core.errors import UsageError
from riallm.models.base import Model
from riallm.models.ria import RIA
from riallm.models.zoo import nano
from riallm.nn.meta import TokenMeta
from riallm.train.loop import Carried, Carry, Run, Step, TrainConfig
from riallm.train.objective import Batch, Loss, next_token
from riallm.train.parallel import Ranks

CONFIG = TrainConfig(max_steps=8, accumulate=2, save_seconds=1e9)
Seen = list[tuple[int, Tensor | None]]


def made(seen: Seen) -> Callable[[int, Carry | None], Batch]:
    """Rows that go on from the last tokens of the batch before."""

    def source(number: int, carry: Carry | None) -> Batch:
        first = torch.full((3, 1), number) if carry is None else carry["last"]
        seen.append((number, None if carry is None else carry["last"]))
        tokens = (first + torch.arange(17)) % 50
        return Batch(tokens=tokens[:, :-1], targets=tokens[:, 1:], meta=TokenMeta.plain(3, 16), num_bytes=48.0)

    return source


def objective(model: Model, batch: Batch) -> Loss:
    return dataclasses.replace(next_token(model, batch), carry={"last": batch.targets[:, -1:] + 1})


def start(folder: Path, seen: Seen) -> Run[Batch]:
    model = RIA(nano(hidden=128, layers=1, inner=128, vocab=50, context=16))
    model.initialise(seed=0)
    return Run(model, Carried(made(seen)), objective, CONFIG, folder)


def test_a_batch_is_told_of_the_one_at_its_place(tmp_path: Path) -> None:
    seen: Seen = []
    start(tmp_path, seen).train()
    assert [number for number, _ in seen] == list(range(16))
    assert [at for _, at in seen[:2]] == [None, None]
    lasts = [at[0, 0].item() for _, at in seen[2:] if at is not None]
    assert lasts[:4] == [17, 18, 34, 35]  # numbers 0 and 1, each 17 further with every step


def test_a_resumed_run_has_the_carry_that_it_left(tmp_path: Path) -> None:
    whole, first, second = [], [], []  # type: Seen, Seen, Seen

    class Stop(Exception):
        pass

    def stop(step: Step) -> None:
        if step.step == 3:
            run.save()
        if step.step == 5:
            raise Stop

    uninterrupted = start(tmp_path / "whole", whole)
    uninterrupted.train()
    run = start(tmp_path / "parts", first)
    run.on_step = stop
    with pytest.raises(Stop):
        run.train()
    resumed = start(tmp_path / "parts", second)
    resumed.train()
    told = [(number, at.tolist() if at is not None else None) for number, at in whole[6:]]
    assert [(number, at.tolist() if at is not None else None) for number, at in second] == told
    ours, theirs = (dict(each.model.named_parameters()) for each in (resumed, uninterrupted))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_several_ranks_cannot_carry(tmp_path: Path) -> None:
    model = RIA(nano(hidden=128, layers=1, inner=128, vocab=50, context=16))
    with pytest.raises(UsageError, match="one rank"):
        Run(model, Carried(made([])), objective, CONFIG, tmp_path, ranks=Ranks(rank=0, world=2))
