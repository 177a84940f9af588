"""The reinforcement and preference stages at smoke size: `python -m riallm.recipes.memory_rl --out DIR`.

A half-trained model of the tell/ask task goes on in several ways, each from the same weights and for as many steps, and
is asked the same questions before and after. Beside each stage stand controls: supervised steps, rewards that are dealt
out anew, pairs of which half are turned round. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from riallm.core.config import to_json
from riallm.core.errors import RiallmError, UsageError
from riallm.core.files import atomic_write, made_folder
from riallm.data.tell_ask import END, TellAskConfig, Turn, conversation, interaction
from riallm.data.tell_ask_rejected import rejected
from riallm.eval.probes import counted
from riallm.eval.probes.recall import Asked, ask, batch
from riallm.eval.stats import grouped_mean, share
from riallm.models.episodes import Episodes, Interaction
from riallm.models.load import load_rxt, save_rxt
from riallm.models.reward import RewardModel
from riallm.models.rxt import RxT
from riallm.recipes.tell_ask import TESTED, model
from riallm.train.answers import frozen
from riallm.train.dialogues import Pair, Question, preferences, quiz, repeated
from riallm.train.episodes import MemoryAware
from riallm.train.loop import Carried, Run, Source, Step, TrainConfig
from riallm.train.objective import Objective
from riallm.train.optim import OptimiserConfig
from riallm.train.preference import DirectPreference, Preferences, PreferredReward
from riallm.train.reinforce import MemoryReinforcement, Quiz
from riallm.train.rewards import Learned, Reward, Shuffled, exact
from riallm.train.schedule import Schedule

Result = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """task: of every stage. begun: supervised steps of the start, where none is given. steps: of each stage; rows:
    conversations a step, of which a quiz has a part, `quizzed`, each `samples` times; updates: steps that the same
    samples serve. judged: conversations that the reward model learns from, in so many steps as `judging` says."""

    task: TellAskConfig
    begun: int
    steps: int = 120
    rows: int = 64
    quizzed: int = 16
    samples: int = 8
    updates: int = 2
    judged: int = 1024
    judging: int = 120
    lr: float = 0.001
    beta: float = 0.1
    seed: int = 0


def one(seed: int = 0) -> Settings:
    """One fact at a time, told anew now and then: a start that has begun to remember it."""
    return Settings(task=_task(1), begun=30, seed=seed)


def three(seed: int = 0) -> Settings:
    """Up to three facts: a start that says one of the values that were told, and does not know which."""
    return Settings(task=_task(3), begun=250, seed=seed)


def _task(live: int) -> TellAskConfig:
    return TellAskConfig(
        num_turns=6,
        num_keys=16,
        num_values=16,
        num_fillers=8,
        max_live=live,
        tell=0.3,
        retell=0.1,
        ask=0.5,
        untold=0.1,
        chat=0.2,
    )


CASES: dict[str, Callable[[int], Settings]] = {"one": one, "three": three}


# Batches: no two stages, no seeds and no questions of the test share a conversation


def _turns(settings: Settings, stage: int, first: int, num: int) -> tuple[TellAskConfig, list[list[Turn]]]:
    task = replace(settings.task, seed=100 * settings.seed + stage)
    return task, [conversation(task, number) for number in range(first, first + num)]


def _quiz(settings: Settings, number: int) -> Quiz:
    task, turns = _turns(settings, 3, number * settings.quizzed, settings.quizzed)
    rows = [
        [
            Question(
                right=Interaction(*interaction(turn)), asked=turn.kind in ("ask", "untold"), told=turn.kind == "ask"
            )
            for turn in each
        ]
        for each in turns
    ]
    return quiz(rows, num_tokens=task.max_tokens, samples=settings.samples, end=END, seed=number)


def _pairs(settings: Settings, number: int, *, stage: int, of: int | None = None, mixed: bool = False) -> Preferences:
    """of: conversations in all, which come again and again. mixed: every second conversation prefers what is wrong."""
    first = number * settings.rows % (of or sys.maxsize)
    task, turns = _turns(settings, stage, first, settings.rows)
    rows = []
    for at, each in enumerate(turns, first):
        pairs = []
        for turn, wrong in zip(each, rejected(task, each, at), strict=True):
            right = Interaction(*interaction(turn))
            worse = None if wrong is None else Interaction(*interaction(replace(turn, answer=(wrong,))))
            turned = mixed and at % 2 and worse is not None
            pairs.append(Pair(worse, right) if turned and worse else Pair(right, worse))
        rows.append(pairs)
    return preferences(rows, num_tokens=task.max_tokens, seed=number)


# Stages: each goes on from the same start, and from where it was


def _run(
    trained: RxT,
    source: Source[Any] | Carried[Any],
    objective: Objective[Any],
    settings: Settings,
    folder: Path,
    *,
    steps: int | None = None,
    lr: float | None = None,
) -> None:
    optimiser = OptimiserConfig(kind="adamw", lr=lr or settings.lr, weight_decay=0.01, cautious=False, beta2=0.99)
    config = TrainConfig(
        max_steps=steps or settings.steps,
        clip=1.0,
        ema=0.0,
        seed=settings.seed,
        optimiser=optimiser,
        schedule=Schedule(kind="wsd", warmup=0.05, decay=0.0),
    )

    def on_step(step: Step) -> None:
        if step.step % 20 == 0:
            sys.stderr.write(f"{folder.name} {step.step}: {step.nats:.3f}\n")

    Run(trained, source, objective, config, folder, on_step=on_step).train()


def begun(settings: Settings, folder: Path) -> RxT:
    """The start, trained where it is not there."""
    if not (folder / "model").exists():
        made = RxT(model(hidden=32, slots=8, vocab=settings.task.vocab_size))
        made.initialise(settings.seed)
        _supervised(settings, made, folder / "run", stage=1, steps=settings.begun, lr=2 * settings.lr)
        save_rxt(made, folder / "model", bits=None, plain="float32")
    return load_rxt(folder / "model")


def _supervised(
    settings: Settings, trained: RxT, folder: Path, *, stage: int, steps: int | None = None, lr: float | None = None
) -> None:
    task = replace(settings.task, seed=100 * settings.seed + stage)

    def source(number: int) -> Episodes:
        return batch(task, number * settings.rows, settings.rows)[1]

    _run(trained, source, MemoryAware(), settings, folder, steps=steps, lr=lr)


def supervised(settings: Settings, trained: RxT, folder: Path) -> Result:
    """More of what the start was trained by."""
    _supervised(settings, trained, folder, stage=2)
    return {}


def reinforced(settings: Settings, trained: RxT, folder: Path, *, reward: Reward = exact) -> Result:
    """Memory reinforcement learning, and what was drawn in each tenth of it: the reward beside what was right."""
    objective = MemoryReinforcement(reference=frozen(trained), reward=reward)
    source = repeated(partial(_quiz, settings), updates=settings.updates)
    _run(trained, source, objective, settings, folder)
    lines = [json.loads(line)["metrics"] for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    tenth = max(1, len(lines) // 10)
    curve = [lines[at : at + tenth] for at in range(0, len(lines), tenth)]
    names = ("memory.reward", "memory.right", "reset.right", "swap.right", "kl")
    return {"drawn": [{name: sum(each[name] for each in part) / len(part) for name in names} for part in curve]}


def preferred(settings: Settings, trained: RxT, folder: Path, *, mixed: bool = False) -> Result:
    """Direct preference optimisation."""
    objective = DirectPreference(reference=frozen(trained), beta=settings.beta)
    _run(trained, partial(_pairs, settings, stage=4, mixed=mixed), objective, settings, folder)
    return {}


def from_feedback(settings: Settings, trained: RxT, folder: Path) -> Result:
    """A reward model from few preferences, and reinforcement by what it thinks."""
    judge = RewardModel.of(trained)
    source = partial(_pairs, settings, stage=5, of=settings.judged)
    _run(judge, source, PreferredReward(), settings, folder / "judge", steps=settings.judging, lr=2 * settings.lr)
    judge.requires_grad_(False)
    with torch.no_grad():
        held = [_pairs(settings, number, stage=6) for number in range(8)]
        right = [(PreferredReward()(judge, each).metrics["right"], each.num_units) for each in held]
    told = asdict(share(round(sum(part * num for part, num in right)), int(sum(num for _, num in right))))
    return {"judge": told, **reinforced(settings, trained, folder, reward=Learned(model=judge))}


STAGES: dict[str, Callable[[Settings, RxT, Path], Result]] = {
    "supervised": supervised,
    "memory reinforcement": reinforced,
    "memory reinforcement, shuffled": lambda *given: reinforced(*given, reward=Shuffled()),
    "preference": preferred,
    "preference, half turned round": lambda *given: preferred(*given, mixed=True),
    "feedback": from_feedback,
}


# Measuring


def asked(trained: RxT, settings: Settings, questions: int) -> dict[str, list[Asked]]:
    """The same questions to whomever, by condition; the likeliest token counts."""
    found = ask(trained.eval(), replace(settings.task, seed=TESTED + settings.seed), num=questions)
    return {name: [each for each in found if each.condition == name] for name in ("memory", "reset", "swap")}


def told(answers: dict[str, list[Asked]], before: dict[str, list[Asked]]) -> Result:
    """Shares with intervals, and the difference to the start over the same questions; by conversation, as `counted`."""
    pairs = zip(before["memory"], answers["memory"], strict=True)
    gains = counted.by_conversation((now, float(now.right) - float(first.right)) for first, now in pairs)
    donor = [each for each in answers["swap"] if each.donor is not None]
    return {
        **{name: counted.told(these, lambda each: each.right) for name, these in answers.items()},
        "donor": counted.told(donor, lambda each: bool(each.donor)),
        "gain": {"estimate": asdict(grouped_mean(gains))},
    }


def measured(settings: Settings, folder: Path, *, start: RxT | None, questions: int) -> dict[str, Result]:
    """All stages from one start. Raises UsageError when the folder holds other settings."""
    known, wanted = folder / "settings.json", {"settings": to_json(settings), "questions": questions}
    wanted["start"] = start and start.fingerprint
    folder.mkdir(parents=True, exist_ok=True)
    if known.exists() and json.loads(known.read_text("utf-8")) != wanted:
        raise UsageError(f"{folder} holds other settings; name another folder by --out")
    atomic_write(known, json.dumps(wanted).encode())
    first = start or begun(settings, folder / "start")
    if first.config.vocab_size != settings.task.vocab_size:
        raise UsageError(
            f"the start has {first.config.vocab_size} tokens, the task {settings.task.vocab_size}; take a start of it"
        )
    before = asked(first, settings, questions)
    results = {"start": told(before, before)}
    for name, stage in STAGES.items():
        place = folder / name.replace(", ", "-").replace(" ", "-")
        path = place / "recall.json"
        if not path.exists():
            trained, began = RxT(first.config), time.process_time()
            trained.load_state_dict(first.state_dict())
            extra = stage(settings, trained, place)
            minutes = (time.process_time() - began) / 60
            found = {**told(asked(trained, settings, questions), before), "minutes": minutes, **extra}
            atomic_write(path, json.dumps(found).encode())
        results[name] = json.loads(path.read_text("utf-8"))
    return results


def line(name: str, result: Result) -> str:
    """What a person reads of a stage."""

    def percent(share: Result, signed: str = "") -> str:
        return " ".join(f"{100 * share[part]:{signed}.1f}" for part in ("value", "low", "high"))

    gain = percent(result["gain"]["estimate"], "+") if name != "start" else "-"
    minutes = f"{result['minutes']:.1f} min" if "minutes" in result else ""
    more = f"  judge right {percent(result['judge'])}" if "judge" in result else ""
    if "drawn" in result:
        ends = [result["drawn"][at] for at in (0, -1)]
        for what in ("reward", "right"):
            more += f"  {what} drawn " + " to ".join(f"{each[f'memory.{what}']:.2f}" for each in ends)
    return (
        f"{name:31} recall {percent(result['memory']):16} gain {gain:18} reset {100 * result['reset']['value']:4.1f} "
        f"swap {100 * result['swap']['value']:4.1f} donor {100 * result['donor']['value']:5.1f}  {minutes}{more}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each stage and, last, one JSON object."""
    parser = argparse.ArgumentParser(
        prog="python -m riallm.recipes.memory_rl",
        description="reinforcement and preferences on a memory, with controls",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="runs and results; goes on where it was")
    parser.add_argument("--case", choices=list(CASES), default="one", help="facts at a time")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="a model of the task; none: one is trained")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=120, help="of each stage (default 120)")
    parser.add_argument("--questions", type=int, default=2000, help="at least so many (default 2000)")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    results = {}
    try:
        if min(options.seeds, options.questions, options.steps) < 1:
            raise UsageError(
                f"--seeds is {options.seeds}, --questions {options.questions}, --steps {options.steps}; at least 1 each"
            )
        made_folder(options.out)
        start = None if options.start is None else load_rxt(options.start)
        for seed in range(options.seeds):
            settings = replace(CASES[options.case](seed), steps=options.steps)
            folder = options.out / f"{options.case}-{seed}"
            results[seed] = measured(settings, folder, start=start, questions=options.questions)
            sys.stdout.write(f"seed {seed}, in % with intervals of 95 %\n")
            sys.stdout.writelines(line(name, each) + "\n" for name, each in results[seed].items())
    except RiallmError as error:
        sys.stderr.write(f"memory_rl: {error}\n")
        return error.exit_code
    sys.stdout.write(json.dumps({"task": "memory_rl", "case": options.case, "results": results}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
