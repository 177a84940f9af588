"""Batches made ahead are the batches of the source, in order; errors come through; the end leaves nobody behind."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import pytest
import torch

from riallm.nn.meta import TokenMeta
from riallm.train.feed import Feed
from riallm.train.objective import Batch

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")


def batch(number: int) -> Batch:
    if number == 9:
        raise ValueError("nine cannot be made")
    tokens = torch.full((2, 4), number)
    return Batch(
        tokens=tokens, targets=tokens + 1, meta=TokenMeta.plain(2, 4), num_bytes=float(number), weights=tokens * 0.5
    )


@pytest.mark.parametrize("makers", [0, 2])
def test_batches_come_in_order_and_any_number_may_be_asked_for(makers: int) -> None:
    with Feed(batch, device="cpu", makers=makers) as feed:
        for number in (3, 4, 5, 0, 1):
            found = feed(number)
            assert int(found.tokens[0, 0]) == number and found.num_bytes == number
            assert found.weights is not None and torch.equal(found.weights, torch.full((2, 4), number / 2))
            assert found.num_units == batch(number).num_units and found.meta.positions.tolist()[0] == [0, 1, 2, 3]
    assert not [thread for thread in threading.enumerate() if thread.name == "feed"]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("makers", [0, 1])
def test_what_the_source_raises_is_raised_when_its_number_is_due(makers: int) -> None:
    with Feed(batch, device="cpu", makers=makers) as feed:
        assert feed(8).num_bytes == 8.0
        with pytest.raises(ValueError, match="nine cannot be made"):
            feed(9)
        assert feed(10).num_bytes == 10.0


def test_a_batch_moves_whole() -> None:
    moved = batch(3).to("meta")
    assert moved.weights is not None
    meta = moved.meta
    tensors = (moved.tokens, moved.targets, moved.weights, meta.positions, meta.segments, meta.files, meta.relations)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    same = batch(3)
    assert same.to("cpu").tokens is same.tokens  # a run on the processor copies nothing


def test_the_device_is_no_part_of_what_a_stage_is(tmp_path: Path) -> None:
    from dataclasses import replace

    from riallm.core.errors import UsageError
    from riallm.recipes.ria import ria_smoke
    from riallm.train.stage import run, same

    same(ria_smoke(), tmp_path)
    same(replace(ria_smoke(), device="cuda"), tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="PyTorch sees no GPU here"):
            run(replace(ria_smoke(), device="cuda"), tmp_path / "run")
