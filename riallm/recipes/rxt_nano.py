"""rxt-nano: the small model with a memory that ships, from conversations in English that are made as they are needed.

Two stages. In the first the decoder has what the encoder makes of earlier interactions in the memory's place, in the
second the memory: so it learns to find things by what they are about before anything has to fit into slots.
"""

from __future__ import annotations

from dataclasses import replace

from riallm.data.conversations.conversation import ConversationConfig
from riallm.data.conversations.tokens import VOCAB
from riallm.models.rxt import RxTConfig
from riallm.recipes.tell_ask import model
from riallm.train.conversations import MAX_TOKENS, Phase
from riallm.train.episodes import MemoryAware, Overheard
from riallm.train.loop import TrainConfig
from riallm.train.optim import OptimiserConfig
from riallm.train.schedule import Schedule
from riallm.train.staged import StagedRecipe, SupervisedStage

MIXED = 0.4
"""Of the values, how many are two words of any kinds; without them pairs are learned by heart (docs/log.md)."""


def few(live: int, *, turns: int, untold: float, retell: float = 0.0) -> ConversationConfig:
    """So many facts, told first; then questions, also for what was not told, so that keys have to be compared."""
    return ConversationConfig(
        num_turns=turns, max_live=live, opening=live, untold=untold, retell=retell, chat=0.0, mixed=MIXED
    )


def many(*, turns: int, live: int) -> ConversationConfig:
    """Conversations as they are held: told, changed, asked, and small talk in between; changed and asked for what was
    not told more often than they will be, else old values stay and gaps are filled."""
    return ConversationConfig(num_turns=turns, max_live=live, untold=0.1, retell=0.15, mixed=MIXED)


def _train(steps: int, *, lr: float, schedule: Schedule) -> TrainConfig:
    optimiser = OptimiserConfig(kind="adamw", lr=lr, weight_decay=0.01, cautious=False, beta2=0.99)
    return TrainConfig(max_steps=steps, clip=1.0, ema=0.0, save_seconds=300.0, optimiser=optimiser, schedule=schedule)


def _recipe(
    name: str, sizes: RxTConfig, *, rows: int, joint: int, steps: int, lr: float, last: ConversationConfig
) -> StagedRecipe:
    phases = (
        Phase(config=few(1, turns=4, untold=0.4)),
        Phase(begin=0.02, config=few(2, turns=6, untold=0.4)),
        Phase(begin=0.06, config=few(4, turns=8, untold=0.3)),
        Phase(begin=0.15, config=few(4, turns=8, untold=0.3, retell=0.25)),
        Phase(begin=0.3, config=last),
    )
    return StagedRecipe(
        name=name,
        model=sizes,
        dtype="float32",
        bits=8,
        stages=(
            SupervisedStage(
                name="joint",
                phases=(Phase(config=few(4, turns=8, untold=0.4)),),
                objective=Overheard(),
                rows=rows,
                train=_train(joint, lr=lr, schedule=Schedule(kind="wsd", warmup=0.05, decay=0.0)),
            ),
            SupervisedStage(
                name="memory",
                phases=phases,
                objective=MemoryAware(),
                rows=rows,
                train=_train(steps, lr=lr, schedule=Schedule(kind="cosine", warmup=0.02, final=0.05)),
            ),
        ),
    )


def rxt_nano() -> StagedRecipe:
    """For a CPU: 72 minutes on two cores with nothing beside it (docs/models/rxt.md has its speed)."""
    sizes = model(hidden=128, layers=2, slots=32, places=4, vocab=VOCAB, max_interaction=MAX_TOKENS)
    return _recipe("rxt_nano", sizes, rows=32, joint=2000, steps=3000, lr=0.001, last=many(turns=12, live=8))


def rxt_nano_gpu() -> StagedRecipe:
    """The same for a GPU: as wide and deep as 5 MB allow, 64 slots, conversations of 16 interactions."""
    sizes = model(hidden=160, layers=3, slots=64, places=3, vocab=VOCAB, max_interaction=MAX_TOKENS)
    recipe = _recipe("rxt_nano_gpu", sizes, rows=256, joint=600, steps=1200, lr=0.0006, last=many(turns=16, live=10))
    return replace(recipe, device="cuda", dtype="bfloat16")


def rxt_smoke() -> StagedRecipe:
    """A few steps of each stage, as a test."""
    sizes = model(hidden=32, layers=1, slots=8, places=4, vocab=VOCAB, max_interaction=MAX_TOKENS)
    return _recipe("rxt_smoke", sizes, rows=4, joint=2, steps=4, lr=0.001, last=many(turns=4, live=2))
