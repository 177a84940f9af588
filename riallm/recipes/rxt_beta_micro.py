"""RxT-Beta-Micro's supervised training as its document has it, over files that the user brings."""

from __future__ import annotations

from dataclasses import replace

from riallm.models.zoo import RXT_BETA_MICRO
from riallm.nn.memory_attention import MemoryAttentionConfig
from riallm.train.episodes import MemoryAware
from riallm.train.joint import Joint
from riallm.train.loop import TrainConfig
from riallm.train.optim import OptimiserConfig
from riallm.train.parts import READING, WRITING, Trains
from riallm.train.schedule import Schedule
from riallm.train.staged import StagedRecipe, SupervisedStage
from riallm.train.writing import Blended

PRE_TRAINING = ("fineweb-edu-10bt.jsonl", "wikipedia-20231101-en.jsonl")
INTERACTIONS = ("smol-smoltalk-interaction-sft.jsonl", "cosmopedia-100k-interaction-sft.jsonl")
CHATS, BETTER_CHATS = ("real-chat-smat.jsonl",), ("real-chat-no-system-smat.jsonl",)

UNBOUNDED = 10**9
"""Steps: epochs alone say how many there are."""


def _train(*, accumulate: int, trains: tuple[Trains, ...] = ()) -> TrainConfig:
    return TrainConfig(
        max_steps=UNBOUNDED,
        accumulate=accumulate,
        clip=1.0,
        ema=0.0,
        save_seconds=1800.0,
        optimiser=OptimiserConfig(kind="adamw", lr=3e-4, weight_decay=0.01, cautious=False),
        schedule=Schedule(kind="cosine", warmup=0.0, final=0.0),
        trains=trains,
    )


def rxt_beta_micro() -> StagedRecipe:
    """The document's: sizes, data, order of stages, 15 % hidden, the aim's weights and their jitter, 30 % of the chats
    for it with memory attention alone, two epochs of memory-aware training and five on the better chats, AdamW, cosine,
    bfloat16 over float32 weights.

    Not in the document: the learning rate, weight decay and clipping, which are defaults of its authors' programs, the
    first two of other stages; and, as ours, batches, how much noise, one epoch of interactions, and which parts train
    from when on in the first epochs with the memory. Its authors' programs cut the gradient at each interaction; here
    it goes through all of a chat, as the document describes it. An interaction with more than 1024 tokens is cut, as
    theirs are.
    """
    unfreezing = (Trains(parts=WRITING), Trains(begin=0.25, parts=READING), Trains(begin=0.5))
    return StagedRecipe(
        name="rxt_beta_micro",
        model=RXT_BETA_MICRO,
        too_long="cut",
        stages=(
            SupervisedStage(
                name="joint",
                files=PRE_TRAINING,
                form="text",
                objective=Joint(),
                rows=8,
                train=_train(accumulate=32),
            ),
            SupervisedStage(
                name="interactions",
                files=INTERACTIONS,
                form="interaction",
                objective=Joint(),
                rows=8,
                train=_train(accumulate=16),
            ),
            SupervisedStage(
                name="memory",
                files=CHATS,
                form="conversation",
                objective=Blended(noise=0.05),
                rows=4,
                epochs=0.3,
                train=_train(accumulate=4, trains=(Trains(parts=WRITING),)),
            ),
            SupervisedStage(
                name="aware",
                files=CHATS,
                form="conversation",
                objective=MemoryAware(),
                rows=2,
                epochs=2.0,
                train=_train(accumulate=16, trains=unfreezing),
            ),
            SupervisedStage(
                name="aware-better",
                files=BETTER_CHATS,
                form="conversation",
                objective=MemoryAware(),
                rows=2,
                epochs=5.0,
                train=_train(accumulate=16),
            ),
        ),
    )


def narrow(recipe: StagedRecipe, *, vocab_size: int = 600, max_steps: int = 2) -> StagedRecipe:
    """The same stages at a width that a laptop trains in seconds: two layers of 32, 48 tokens and as many slots, two
    rows and one batch a step, `max_steps` of each stage at most."""
    model = replace(
        recipe.model,
        vocab_size=vocab_size,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        max_interaction=48,
        num_slots=48,
        decoder_heads=2,
        decoder_kv_heads=1,
        num_experts=4,
        experts_per_token=2,
        expert_size=24,
        encoder_heads=2,
        encoder_kv_heads=2,
        encoder_size=48,
        memory=MemoryAttentionConfig(num_heads=2, num_kv_heads=2),
    )
    stages = tuple(
        replace(stage, rows=2, train=replace(stage.train, max_steps=max_steps, accumulate=1)) for stage in recipe.stages
    )
    return replace(recipe, name=f"{recipe.name}_narrow", model=model, stages=stages)
