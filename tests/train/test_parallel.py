"""Two real ranks under torchrun compute what one rank computes, and either goes on from the other's save."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from riallm.core.errors import UsageError
from riallm.models.ria import RIA
from riallm.train import saved
from riallm.train.loop import Run
from riallm.train.objective import next_token
from riallm.train.parallel import Ranks

sys.path.insert(0, str(Path(__file__).parent))
import test_loop

RANKED = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_loop
from riallm.models.ria import RIA
from riallm.train.loop import Run
from riallm.train.objective import next_token
from riallm.train.parallel import join, leave, shard
ranks = join()
assert ranks.world == 2
model = RIA(test_loop.TINY)
model.initialise(seed=0)
shard(model, ranks)
config = replace(test_loop.CONFIG, max_steps={steps})
Run(model, test_loop.batch, next_token, config, Path({folder!r}), ranks=ranks).train()
leave()
"""


def two_ranks(folder: Path, steps: int, script: Path) -> None:
    script.write_text(RANKED.format(tests=str(Path(__file__).parent), folder=str(folder), steps=steps))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, env=env)
    assert done.returncode == 0, done.stderr[-3000:]


def one_rank(folder: Path, steps: int) -> Run:
    from dataclasses import replace

    model = RIA(test_loop.TINY)
    model.initialise(seed=0)
    return Run(model, test_loop.batch, next_token, replace(test_loop.CONFIG, max_steps=steps), folder)


@pytest.mark.slow
def test_two_ranks_are_one(tmp_path: Path) -> None:
    two_ranks(tmp_path / "two", 20, tmp_path / "ranked.py")
    alone = one_rank(tmp_path / "one", 20)
    alone.train()
    place = saved.latest(tmp_path / "two" / "saves")
    assert place is not None and place.name == "step-00000020"
    found = saved.read(place).tensors
    for name, parameter in alone.model.named_parameters():
        torch.testing.assert_close(found[f"model.{name}"], parameter.detach(), atol=1e-5, rtol=0.0)
    assert len((tmp_path / "two" / "metrics.jsonl").read_text().splitlines()) == 20
    again = one_rank(tmp_path / "two", 20)  # a save of two ranks serves one
    assert again.step == 20


def test_the_batches_of_a_step_must_divide(tmp_path: Path) -> None:
    model = RIA(test_loop.TINY)
    with pytest.raises(UsageError, match="must divide among 3 ranks"):
        Run(model, test_loop.batch, next_token, test_loop.CONFIG, tmp_path, ranks=Ranks(rank=0, world=3))
