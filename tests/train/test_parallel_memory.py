"""Two real ranks train a model with a memory as one does, and each keeps the conversations of its own batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from riallm.data.tell_ask import TellAskConfig
from riallm.eval.probes.recall import batch
from riallm.models.episodes import Episodes, written
from riallm.models.rxt import RxT
from riallm.recipes.tell_ask import model
from riallm.train import saved
from riallm.train.episodes import MemoryAware
from riallm.train.loop import Run, TrainConfig
from riallm.train.optim import OptimiserConfig

TASK = TellAskConfig(num_turns=4, num_keys=8, num_values=8, num_fillers=4, max_live=3)
CONFIG = TrainConfig(max_steps=6, accumulate=2, ema=0.0, optimiser=OptimiserConfig(kind="adamw", lr=0.001))

RANKED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_parallel_memory import CONFIG, made, numbered, remembered
from riallm.train.episodes import MemoryAware
from riallm.train.loop import Run
from riallm.train.parallel import join, leave, shard
ranks = join()
assert ranks.world == 2
rxt = made()
shard(rxt, ranks)
Run(rxt, numbered, MemoryAware(), CONFIG, Path({folder!r}), ranks=ranks).train()
remembered(rxt, ranks.rank).save(Path({folder!r}) / f"rank-{{ranks.rank}}")
leave()
"""


def made() -> RxT:
    rxt = RxT(model(hidden=32, layers=2, slots=4, vocab=TASK.vocab_size))
    rxt.initialise(0)
    return rxt


def numbered(number: int) -> Episodes:
    return batch(TASK, 4 * number, 4)[1]


def remembered(rxt: RxT, number: int):  # type: ignore[no-untyped-def]
    """What the model makes of the conversations of a batch."""
    data = numbered(number)
    with torch.no_grad():
        return written(rxt, data.tokens, data.mask)[-1]


@pytest.mark.slow
def test_two_ranks_are_one_and_do_not_mix_their_conversations(tmp_path: Path) -> None:
    from riallm.nn.memory_state import load_memory

    script = tmp_path / "ranked.py"
    script.write_text(RANKED.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "two")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = Run(made(), numbered, MemoryAware(), CONFIG, tmp_path / "one")
    alone.train()
    place = saved.latest(tmp_path / "two" / "saves")
    assert place is not None
    found = saved.read(place).tensors
    for name, parameter in alone.model.named_parameters():
        torch.testing.assert_close(found[f"model.{name}"], parameter.detach(), atol=2e-5, rtol=0.0)
    states = [load_memory(tmp_path / "two" / f"rank-{rank}").slots for rank in (0, 1)]
    assert isinstance(alone.model, RxT)
    for rank, state in enumerate(states):
        assert (state - remembered(alone.model, rank).slots).abs().max() < 1e-3
    assert (states[0] - states[1]).abs().max() > 0.1
