"""The tell/ask experiment: `python -m riallm.recipes.tell_ask --out DIR`.

Trains the small model of RxT on conversations whose answers stand in earlier interactions alone, with several seeds and
variants, and asks it beside its controls. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import torch

from riallm.core.config import to_json
from riallm.core.errors import RiallmError, UsageError
from riallm.core.files import atomic_write, made_folder
from riallm.core.picture import check_plot, picture
from riallm.core.workers import worker_begins
from riallm.data.tell_ask import TellAskConfig
from riallm.eval.probes.counted import Reader
from riallm.eval.probes.recall import ask, ask_reader, batch, table
from riallm.models.episodes import Episodes
from riallm.models.rxt import RxT, RxTConfig
from riallm.nn.memory_attention import MemoryAttentionConfig
from riallm.nn.memory_gate import GateConfig
from riallm.train.episodes import FullHistory, MemoryAware, Overheard
from riallm.train.loop import Run, Step, TrainConfig
from riallm.train.objective import Objective
from riallm.train.optim import OptimiserConfig
from riallm.train.schedule import Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EARLY = 0.2
"""Phases with at least so many asks for what was never told do nothing but tell, and then ask."""

LENGTHS = (1, 2, 4)
"""Conversations that are asked in, as multiples of the longest that were trained on."""

TESTED = 1_000_000
"""Added to the seed of conversations that are asked in."""

Reads = Literal["memory"] | Reader
Result = dict[str, Any]
"""What `measured` writes down: the trial, and for each of LENGTHS the table of `recall.table`."""

COMPETING = GateConfig(kind="competing", status="learned", weight=1.0, bias=2.0)
"""Ours: slots compete for what is new, and the one that gets it decides from old and new content how much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """From a share of a stage on: interactions of a conversation, facts at a time, how often what was never told is
    asked, and how often a fact is told anew. The former often at first, else "say one of the values" is learned, and
    the key is never compared; the latter more often than it will be, else the old value stays."""

    begin: float
    num_turns: int
    max_live: int
    untold: float
    retell: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One model and its questions. It is trained in two stages: `joint` steps in which the decoder has the encoder's
    output of earlier interactions in the memory's place, then `steps` with the memory. reads: what the decoder has of
    the conversation in the end; a ceiling has all of it (`recall.ask_reader`), history from the first step on. window:
    `MemoryAware.window`."""

    model: RxTConfig
    task: TellAskConfig
    joint: int
    steps: int
    joint_phases: tuple[Phase, ...]
    phases: tuple[Phase, ...]
    rows: int = 64
    window: int | None = None
    reads: Reads = "memory"
    lr: float = 0.001
    seed: int = 0


def model(
    *,
    vocab: int,
    hidden: int = 64,
    layers: int = 2,
    slots: int = 16,
    experts: int = 4,
    places: int = 1,
    max_interaction: int = 12,
) -> RxTConfig:
    """A small model: heads of 16, two experts a token, a competing gate, slots that are told apart, a learned start."""
    heads = hidden // 16
    return RxTConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        max_interaction=max_interaction,
        num_slots=slots,
        decoder_heads=heads,
        decoder_kv_heads=heads,
        num_experts=experts,
        experts_per_token=2,
        expert_size=hidden,
        encoder_heads=heads,
        encoder_kv_heads=heads,
        encoder_size=2 * hidden,
        memory=MemoryAttentionConfig(
            variant="simple",
            num_heads=heads,
            num_kv_heads=heads,
            gate=replace(COMPETING, places=places),
            slot_identity=True,
        ),
        trained_start=True,
        final_norm=True,
    )


def phases(*rows: tuple[float, int, int, float, float]) -> tuple[Phase, ...]:
    """Each as begin, num_turns, max_live, untold, retell."""
    return tuple(Phase(begin=a, num_turns=b, max_live=c, untold=d, retell=e) for a, b, c, d, e in rows)


def full(seed: int = 0) -> Trial:
    """The headline's size."""
    task = TellAskConfig(num_turns=12)
    return Trial(
        model=model(vocab=task.vocab_size),
        task=task,
        joint=1600,
        steps=3600,
        joint_phases=phases((0.0, 8, 4, 0.4, 0.0)),
        phases=phases(
            (0.0, 4, 1, 0.4, 0.0),
            (0.04, 6, 2, 0.4, 0.0),
            (0.1, 8, 4, 0.3, 0.0),
            (0.2, 8, 4, 0.3, 0.25),
            (0.45, 12, 8, 0.1, 0.15),
        ),
        seed=seed,
    )


def smoke(seed: int = 0) -> Trial:
    """A minute or two: for ablations."""
    task = TellAskConfig(num_turns=6, num_keys=16, num_values=16, num_fillers=8, max_live=4)
    return Trial(
        model=model(hidden=32, slots=8, vocab=task.vocab_size),
        task=task,
        joint=500,
        steps=1000,
        joint_phases=phases((0.0, 6, 3, 0.4, 0.0)),
        phases=phases((0.0, 4, 1, 0.4, 0.0), (0.1, 6, 2, 0.4, 0.2), (0.4, 6, 4, 0.1, 0.2)),
        lr=0.002,
        seed=seed,
    )


SIZES: dict[str, Callable[[int], Trial]] = {"full": full, "smoke": smoke}


def _silent(step: Step) -> None:
    """Nobody listens."""


def memory_of(trial: Trial, **changes: Any) -> Trial:
    """With another memory attention."""
    return replace(trial, model=replace(trial.model, memory=replace(trial.model.memory, **changes)))


def joint_left_out(trial: Trial) -> Trial:
    """With as many steps in all."""
    return replace(trial, joint=1, steps=trial.steps + trial.joint)


VARIANTS: dict[str, Callable[[Trial], Trial]] = {
    "ours": lambda trial: trial,
    "encodings": lambda trial: replace(trial, reads="encodings"),
    "history": lambda trial: replace(trial, reads="history"),
    "window 1": lambda trial: replace(trial, window=1),
    "window 2": lambda trial: replace(trial, window=2),
    "window 4": lambda trial: replace(trial, window=4),
    "no joint stage": joint_left_out,
    "no joint stage and window 1": lambda trial: replace(joint_left_out(trial), window=1),
    "document gate": lambda trial: memory_of(trial, gate=GateConfig()),
    "static gate": lambda trial: memory_of(trial, gate=GateConfig(kind="static")),
    "keeping gate": lambda trial: memory_of(trial, gate=GateConfig(status="learned", weight=1.0, bias=-2.0)),
    "no identity": lambda trial: memory_of(trial, slot_identity=False),
    "no identity and drawn": lambda trial: memory_of(
        replace(trial, model=replace(trial.model, trained_start=False)), slot_identity=False
    ),
    "self": lambda trial: memory_of(trial, variant="self"),
    "interlayer": lambda trial: memory_of(trial, variant="interlayer"),
    "gated self interlayer": lambda trial: memory_of(trial, variant="gated_self_interlayer"),
    "4 slots": lambda trial: replace(trial, model=replace(trial.model, num_slots=4)),
    "32 slots": lambda trial: replace(trial, model=replace(trial.model, num_slots=32)),
}
"""What is changed of a trial. "window 1" and "document gate" are what the document's authors do."""


def source(trial: Trial, steps: int, phases: Sequence[Phase], *, stage: int) -> Callable[[int], Episodes]:
    """The batch of a number of a stage; no two stages and no question share a conversation."""

    def made(number: int) -> Episodes:
        phase = [each for each in phases if each.begin <= number / steps][-1]
        early = phase.untold >= EARLY
        task = replace(
            trial.task,
            opening=phase.max_live if early else 1,
            retell=phase.retell,
            chat=0.0 if early else trial.task.chat,
            num_turns=phase.num_turns,
            max_live=phase.max_live,
            untold=phase.untold,
            seed=10 * trial.seed + stage,
        )
        return batch(task, number * trial.rows, trial.rows)[1]

    return made


def train(trial: Trial, folder: Path, on_step: Callable[[Step], None]) -> tuple[RxT, float]:
    """Both stages, going on from what is there; the model, and the seconds that they took."""
    trained = RxT(trial.model)
    trained.initialise(trial.seed)

    def settings(steps: int, schedule: Schedule) -> TrainConfig:
        optimiser = OptimiserConfig(kind="adamw", lr=trial.lr, weight_decay=0.01, cautious=False, beta2=0.99)
        return TrainConfig(max_steps=steps, clip=1.0, ema=0.0, seed=trial.seed, optimiser=optimiser, schedule=schedule)

    first = settings(trial.joint, Schedule(kind="wsd", warmup=0.1, decay=0.0))
    second = settings(trial.steps, Schedule(kind="cosine", warmup=0.02, final=0.05))
    objectives: dict[Reads, tuple[Objective[Episodes], Objective[Episodes]]] = {
        "memory": (Overheard(), MemoryAware(window=trial.window)),
        "encodings": (Overheard(), Overheard()),
        "history": (FullHistory(), FullHistory()),
    }
    seconds = 0.0
    for stage, (config, phases, objective) in enumerate(
        zip((first, second), (trial.joint_phases, trial.phases), objectives[trial.reads], strict=True)
    ):
        batches = source(trial, config.max_steps, phases, stage=stage)
        run = Run(trained, batches, objective, config, folder / ("joint", "memory")[stage], on_step=on_step)
        run.train()
        seconds += run.seconds
    return trained, seconds


def measured(trial: Trial, folder: Path, *, questions: int, on_step: Callable[[Step], None] = _silent) -> Result:
    """Train where it was not done, ask where it was not done. Raises UsageError when the folder holds another trial."""
    path = folder / "recall.json"
    wanted = to_json(trial)
    if path.exists():
        found: Result = json.loads(path.read_text("utf-8"))
        if found["trial"] != wanted or found["asked"] != questions:
            raise UsageError(f"{folder} holds another trial or other questions; name another folder by --out")
        return found
    trained, seconds = train(trial, folder, on_step)
    told: Result = {"trial": wanted, "asked": questions, "seconds": seconds}
    for factor in LENGTHS:
        task = replace(trial.task, num_turns=factor * trial.task.num_turns, seed=TESTED + trial.seed)
        if trial.reads == "memory":
            asked = ask(trained, task, num=questions)
        else:
            asked = ask_reader(trained, task, num=questions, reader=trial.reads)
        told[f"{factor}x"] = table(asked, num_values=task.num_values)
    atomic_write(path, json.dumps(told).encode())
    return told


def work(size: str, variant: str, seed: int, folder: Path, questions: int) -> Result:
    """One trial, in a process of its own."""
    torch.set_num_threads(1)
    return measured(VARIANTS[variant](SIZES[size](seed)), folder, questions=questions)


def line(variant: str, results: Sequence[Result]) -> str:
    """What a person reads of a variant: exact answers, mean over seeds, at distances 1 and 8, and by its controls."""

    def average(*path: str) -> str:
        found = []
        for result in results:
            value: Any = result
            for key in path:
                value = value.get(key, {})
            if value:
                found.append(value["value"])
        return f"{100 * fmean(found):5.1f}" if found else "    -"

    main = results[0]["trial"]["reads"]
    near, far = (average("1x", main, "by_distance", distance) for distance in ("1", "8"))
    controls = " ".join(average("1x", name, "exact") for name in ("reset", "swap", "unread"))
    return (
        f"{variant:24} {average('1x', main, 'exact')} at 1:{near} at 8:{far}  reset, swap, unread {controls}  "
        f"donor {average('1x', 'swap', 'donor')}  2x {average('2x', main, 'exact')} 4x {average('4x', main, 'exact')}"
    )


ROWS = {
    "all": ("1x", None, "exact"),
    "one interaction after it was told": ("1x", None, "by_distance", "1"),
    "eight after": ("1x", None, "by_distance", "8"),
    "values that were never changed": ("1x", None, "told_once"),
    "after a change": ("1x", None, "retold"),
    "with a new memory": ("1x", "reset", "exact"),
    "with another conversation's": ("1x", "swap", "exact"),
    "without a look": ("1x", "unread", "exact"),
    "with another's, that one's value": ("1x", "swap", "donor"),
    "in conversations twice as long": ("2x", None, "exact"),
    "four times": ("4x", None, "exact"),
}
"""Where each share stands in a result; None: what `Trial.reads` names."""


def details(variant: str, results: Sequence[Result]) -> str:
    """A table of a variant: the mean over seeds, and each seed with its interval and how many were asked."""
    lines = [
        f"{variant}: exact answers in %, mean over seeds, and each seed with its interval of 95 % and its questions"
    ]
    main = results[0]["trial"]["reads"]
    for row, path in ROWS.items():
        shares = []
        for result in results:
            found: Any = result
            for key in path:
                found = found.get(main if key is None else key, {})
            if found and found["num"]:
                shares.append(found)
        if shares:
            each = "  ".join(
                f"{100 * share['value']:5.1f} [{100 * share['low']:.1f}, {100 * share['high']:.1f}] of {share['num']:,}"
                for share in shares
            )
            lines.append(f"  {row:34} {100 * fmean(share['value'] for share in shares):5.1f}   {each}")
    return "\n".join(lines)


def draw(results: Mapping[str, Sequence[Result]], path: Path) -> None:
    """Exact answers by distance, a line a variant, with each seed as a dot; controls of the first one below."""

    def curve(axis: Axes, name: str, condition: str, these: Sequence[Result], style: str) -> None:
        by: dict[int, list[float]] = {}
        for result in these:
            for distance, share in result["1x"][condition]["by_distance"].items():
                by.setdefault(int(distance), []).append(100 * share["value"])
        places = sorted(by)
        drawn = axis.plot(places, [fmean(by[place]) for place in places], style, label=name, linewidth=1.5)
        for place in places:
            axis.plot([place] * len(by[place]), by[place], ".", color=drawn[0].get_color(), markersize=3)

    with picture(path) as [axis]:
        for name, these in results.items():
            curve(axis, name, these[0]["trial"]["reads"], these, "-")
        first = next(iter(results.values()))
        for condition in ("reset", "swap", "unread"):
            if condition in first[0]["1x"]:
                curve(axis, f"{condition} (control)", condition, first, ":")
        axis.set_xlabel("interactions between telling and asking")
        axis.set_ylabel("exact answers, %")
        axis.set_ylim(-2, 102)
        axis.legend(fontsize=8)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line and a table for each variant and, last, one JSON object."""
    parser = argparse.ArgumentParser(
        prog="python -m riallm.recipes.tell_ask", description="what a memory of fixed size carries, beside controls"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="runs and results; goes on where it was")
    parser.add_argument(
        "--size", choices=list(SIZES), default="full", help="full: 12 interactions, 64 values; smoke: 6, 16"
    )
    parser.add_argument("--variants", default="ours", help=f"with commas between, or all: {', '.join(VARIANTS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=2000, help="at least so many a seed (default 2000)")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time, a core each (default 2)")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="draw exact answers by distance")
    options = parser.parse_args(argv)
    names = list(VARIANTS) if options.variants == "all" else options.variants.split(",")
    try:
        if unknown := [name for name in names if name not in VARIANTS]:
            raise UsageError(f"no variant '{unknown[0]}'; there are {', '.join(VARIANTS)}")
        if min(options.seeds, options.questions, options.jobs) < 1:
            raise UsageError(
                f"--seeds is {options.seeds}, --questions {options.questions}, --jobs {options.jobs}; at least 1 each"
            )
        if options.plot:
            check_plot(options.plot)
        made_folder(options.out)
        results = _all(options, names)
    except RiallmError as error:
        sys.stderr.write(f"tell_ask: {error}\n")
        return error.exit_code
    for name, these in results.items():
        sys.stdout.write(line(name, these) + "\n")
    for name, these in results.items():
        sys.stdout.write("\n" + details(name, these) + "\n")
    if options.plot:
        draw(results, options.plot)
    sys.stdout.write(json.dumps({"task": "tell_ask", "size": options.size, "results": results}) + "\n")
    return 0


def _all(options: argparse.Namespace, names: Sequence[str]) -> dict[str, list[Result]]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context, initializer=worker_begins) as pool:
        asked = {
            name: [
                pool.submit(work, options.size, name, seed, _folder(options, name, seed), options.questions)
                for seed in range(options.seeds)
            ]
            for name in names
        }
        results = {}
        for name, waiting in asked.items():
            results[name] = [each.result() for each in waiting]
            sys.stderr.write(f"{name}: done\n")
        return results


def _folder(options: argparse.Namespace, name: str, seed: int) -> Path:
    folder: Path = options.out / f"{options.size}-{name.replace(' ', '-')}-{seed}"
    return folder


if __name__ == "__main__":
    sys.exit(main())
