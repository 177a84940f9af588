"""Two aims for training memory attention alone: `python -m riallm.recipes.memory_aims --out DIR`.

A small model learns interactions of the tell/ask task jointly. Then its memory attention trains by the document's aim,
by saying again, or not at all. What is in the memory then is asked in two ways: how well the decoder says interactions
again after it alone was trained to read them there, beside the memory of another conversation; and how many nats an
answer costs after training with the memory. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from riallm.core.errors import RiallmError, UsageError
from riallm.core.files import atomic_write, made_folder
from riallm.data.tell_ask import TellAskConfig
from riallm.eval.probes.recall import batch
from riallm.models.episodes import Episodes, written
from riallm.models.rxt import RxTConfig
from riallm.nn.memory_attention import MemoryAttentionConfig
from riallm.recipes.tell_ask import TESTED, model
from riallm.train.episodes import MemoryAware
from riallm.train.joint import Joint, JointRxT
from riallm.train.loop import Run, TrainConfig
from riallm.train.objective import Objective
from riallm.train.optim import OptimiserConfig
from riallm.train.parts import WRITING, Trains
from riallm.train.schedule import Schedule
from riallm.train.writing import Blended, Reconstructed, again

TASK = TellAskConfig(num_turns=6, num_keys=16, num_values=16, num_fillers=8, max_live=4)
ROWS = 16
STEPS = {"joint": 300, "aim": 150, "reading": 100, "aware": 100}
ASKED = 12
"""Batches of conversations that nothing was trained on."""

AIMS: dict[str, Objective[Episodes] | None] = {
    "none": None,
    "document": Blended(noise=0.05),
    "again": Reconstructed(),
    "again, 2 later": Reconstructed(delay=2),
}

DECODER = ("layers.*", "norm.*", "lm_head.*")
"""What learns to read a memory that stays as it is."""

Result = dict[str, Any]


def small(*, ours: bool) -> RxTConfig:
    """32 wide, two layers, as many slots as tokens; the memory attention of the document, or the one that the tell/ask
    experiment has."""
    made = model(hidden=32, slots=TASK.max_tokens, vocab=TASK.vocab_size)
    if ours:
        return made
    heads = made.num_heads
    return replace(made, memory=MemoryAttentionConfig(num_heads=heads, num_kv_heads=heads), trained_start=False)


def measured(aim: str, seed: int, folder: Path, *, ours: bool, steps: dict[str, int] | None = None) -> Result:
    """One aim and seed, in `folder`; the joint stage is shared by all aims of a seed. Raises UsageError when the folder
    holds runs of other sizes."""
    path = folder / aim / f"{seed}.json"
    num = steps or STEPS
    if path.exists():
        found: Result = json.loads(path.read_text("utf-8"))
        if found["steps"] != num:
            raise UsageError(f"{path} is of other steps, {found['steps']}; name another folder by --out")
        return found
    made = JointRxT(small(ours=ours), mask_token=0)
    made.initialise(seed)

    def train(stage: str, objective: Objective[Episodes], place: Path, *parts: str) -> None:
        trains = (Trains(parts=parts),) if parts else ()
        config = TrainConfig(
            max_steps=num[stage],
            clip=1.0,
            ema=0.0,
            optimiser=OptimiserConfig(kind="adamw", lr=0.002, weight_decay=0.01, cautious=False),
            schedule=Schedule(kind="cosine", warmup=0.05, final=0.05),
            trains=trains,
        )
        run = Run(made, source(10 * seed + list(num).index(stage)), objective, config, place / str(seed) / stage)
        if run.elapsed < 1.0:
            run.train()

    train("joint", Joint(), folder)
    own = folder / aim
    objective = AIMS[aim]
    if objective is not None:
        train("aim", objective, own, *WRITING)
    kept = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    train("reading", Reconstructed(), own, *DECODER)
    told: Result = {"aim": aim, "seed": seed, "ours": ours, "steps": num}
    for delay in (0, 2):
        told[f"again {delay}"] = said_again(made, seed, delay=delay)
    made.load_state_dict(kept)
    train("aware", MemoryAware(), own)
    told["answers"] = answers(made, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(told).encode())
    return told


def source(seed: int) -> Callable[[int], Episodes]:
    """Batches of conversations; a seed has its own."""
    task = replace(TASK, seed=seed)

    def made(number: int) -> Episodes:
        return replace(batch(task, number * ROWS, ROWS)[1], seed=number)

    return made


@torch.inference_mode()
def said_again(made: JointRxT, seed: int, *, delay: int) -> dict[str, float]:
    """Nats of a token with the memory, and with that of another conversation."""
    found: dict[str, list[float]] = {"own": [], "other": []}
    for number in range(ASKED):
        data = source(TESTED + seed)(number)
        memories = written(made, data.tokens, data.mask, seed=number)
        others = [memory.rows(torch.arange(ROWS).roll(1)) for memory in memories]
        for name, seen in (("own", memories), ("other", others)):
            found[name].append(float(again(made, data, seen, delay=delay)[0]))
    return {name: fmean(values) for name, values in found.items()}


@torch.inference_mode()
def answers(made: JointRxT, seed: int) -> float:
    """Nats of a token of an answer, by the memory."""
    batches = [source(TESTED + seed)(number) for number in range(ASKED)]
    total = sum(float(MemoryAware()(made, data).terms["nats"]) for data in batches)
    return total / sum(data.num_units for data in batches)


def line(aim: str, results: Sequence[Result]) -> str:
    """What a person reads: means over seeds, and each seed's; nats of a token."""

    def told(values: Sequence[float]) -> str:
        return f"{fmean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})"

    def both(delay: int) -> str:
        own, other = ([each[f"again {delay}"][name] for each in results] for name in ("own", "other"))
        return f"{told(own)}, another's {told(other)}"

    answered = told([each["answers"] for each in results])
    return f"{aim:16} again {both(0)}; two writes later {both(2)}; answers {answered}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each aim and, last, one JSON object."""
    parser = argparse.ArgumentParser(
        prog="python -m riallm.recipes.memory_aims", description="what two aims leave in the memory"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="runs and results; goes on where it was")
    parser.add_argument("--ours", action="store_true", help="the memory attention of tell_ask, else the document's")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    folder = options.out / ("ours" if options.ours else "document")
    results: dict[str, list[Result]] = {aim: [] for aim in AIMS}
    try:
        if options.seeds < 1:
            raise UsageError(f"--seeds is {options.seeds}; at least 1")
        made_folder(options.out)
        for seed in range(options.seeds):
            for aim in AIMS:
                results[aim].append(measured(aim, seed, folder, ours=options.ours))
    except RiallmError as error:
        sys.stderr.write(f"memory_aims: {error}\n")
        return error.exit_code
    for aim in AIMS:
        sys.stdout.write(line(aim, results[aim]) + "\n")
    sys.stdout.write(json.dumps({"task": "memory_aims", "ours": options.ours, "results": results}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
