"""Training recipes of the RIA family: small ones for a machine of two cores, and the document's own."""

from __future__ import annotations

from dataclasses import replace

from riallm.models.ria import RIAConfig
from riallm.models.zoo import entry, nano
from riallm.train.batches import BatchConfig
from riallm.train.documents import TextConfig
from riallm.train.loop import TrainConfig
from riallm.train.optim import OptimiserConfig
from riallm.train.schedule import Schedule
from riallm.train.stage import Stage

LIBRARY = (
    "asyncio",
    "concurrent",
    "email",
    "html",
    "http",
    "importlib",
    "json",
    "logging",
    "multiprocessing",
    "unittest",
)
HELD_OUT = ("urllib", "xml")
MIXTURE = {"causal": 0.45, "middle": 0.45, "spans": 0.05, "statements": 0.05}


def ria_nano() -> Stage:
    """An hour and a half on two cores, from the corpus `python_full` and its repairs.

    Wide and shallow, since a narrower model is hardly faster on such a machine; the share of repairs grows when the
    learning rate begins to fall. Rows are half as long as the context: a token looks no further back than 512 tokens of
    its own file, so every distance is trained all the same.
    """
    return Stage(
        name="ria_nano",
        model=nano(hidden=512, layers=4, inner=1024, vocab=4096, context=1024),
        text=TextConfig(corpus="python_full"),
        batches=BatchConfig(
            rows=16,
            context=512,
            mixture={"causal": 0.35, "middle": 0.45, "spans": 0.03, "statements": 0.02, "repair": 0.15},
            later={"causal": 0.20, "middle": 0.33, "spans": 0.01, "statements": 0.01, "repair": 0.45},
            later_from=2_150,
            repair_weight=4.0,
        ),
        train=TrainConfig(
            max_steps=2_500,
            max_seconds=4_700.0,
            accumulate=2,
            optimiser=OptimiserConfig(lr=0.01, embedding_lr=0.012, weight_decay=0.2),
        ),
        compile=True,
        validation_batches=64,
    )


def ria_nano_repair() -> Stage:
    """Goes on from the model of `ria_nano` (`start=FOLDER`): an hour and a quarter more, most of it on repairs.

    A repair's function counts as text too, so that reading on is not given up; what counts most is the choice of the
    line and what it becomes. The learning rate is half of the first run's, and falls over most of this one.
    """
    first = ria_nano()
    return replace(
        first,
        name="ria_nano_repair",
        batches=replace(
            first.batches,
            mixture={"causal": 0.14, "middle": 0.24, "spans": 0.01, "statements": 0.01, "repair": 0.60},
            later=None,
            later_from=0,
            repair_weight=6.0,
            given_weight=0.5,
            seed=1,
        ),
        train=replace(
            first.train,
            max_steps=2_600,
            max_seconds=4_500.0,
            optimiser=OptimiserConfig(lr=0.005, embedding_lr=0.006, weight_decay=0.2),
        ),
    )


def ria_small() -> Stage:
    """26 million parameters in eight minutes of one large GPU: 28 MB in 8 bits, and a laptop still scores with it.

    Heads of 64, which with the numbers that tell files apart fit the GPU's kernels. `later_from` is where 45 % of
    eight minutes are over at 780,000 tokens a second, what an H200 does. The shipped model was made by it.
    """
    return Stage(
        name="ria_small",
        model=nano(hidden=512, layers=8, inner=1280, vocab=8192, context=1024, head_dim=64),
        text=TextConfig(corpus="python_full"),
        batches=BatchConfig(
            rows=64,
            context=1024,
            mixture={"causal": 0.36, "middle": 0.40, "spans": 0.02, "statements": 0.02, "repair": 0.20},
            later={"causal": 0.14, "middle": 0.26, "spans": 0.01, "statements": 0.01, "repair": 0.58},
            later_from=2_570,
            repair_weight=4.0,
            given_weight=0.5,
        ),
        train=TrainConfig(
            max_steps=20_000,
            max_seconds=480.0,
            accumulate=2,
            save_seconds=120.0,
            optimiser=OptimiserConfig(lr=0.02, embedding_lr=0.02, weight_decay=0.1),
        ),
        compile=True,
        device="cuda",
        validation_batches=32,
    )


def ria_medium() -> Stage:
    """`ria_small` with 58 million parameters, 36 MB in 4 bits, for longer runs. `later_from` is where 45 % of twenty
    minutes are over at 400,000 tokens a second, an estimate."""
    small = ria_small()
    return replace(
        small,
        name="ria_medium",
        model=nano(hidden=768, layers=8, inner=2048, vocab=8192, context=1024, head_dim=64),
        batches=replace(small.batches, later_from=3_300),
        train=replace(small.train, max_seconds=1_200.0),
        bits=4,
    )


def ria_trial() -> Stage:
    """Two minutes on two cores, from the interpreter's own library: shows that all parts work, and no more."""
    model = nano(hidden=256, layers=4, inner=768, vocab=2048, context=256)
    return Stage(
        name="ria_trial",
        model=model,
        text=TextConfig(train=LIBRARY, held_out=HELD_OUT),
        batches=BatchConfig(rows=8, context=256, mixture=MIXTURE),
        train=TrainConfig(max_steps=200, max_seconds=120.0, optimiser=OptimiserConfig(lr=0.01)),
    )


def ria_smoke() -> Stage:
    """Twelve steps of a tiny model, for tests."""
    return replace(
        ria_trial(),
        name="ria_smoke",
        model=nano(hidden=128, layers=2, inner=256, vocab=700, context=128),
        text=TextConfig(train=("json", "html"), held_out=("dbm",)),
        batches=BatchConfig(rows=4, context=128, mixture=MIXTURE),
        train=TrainConfig(max_steps=12, optimiser=OptimiserConfig(lr=0.01)),
        validation_batches=2,
    )


def as_written(tier: str) -> Stage:
    """The document's training configuration of a tier (3.2.3, appendix B.1): AdamW, cosine, its learning rate, batch
    and length. The warm-up is its share of the run, since no number of steps is given for two trillion tokens."""
    learning_rate, tokens, context = {
        "ria-1b": (3e-4, 2_097_152, 4096),
        "ria-8b": (3e-4, 4_194_304, 8192),
        "ria-64b": (1.5e-4, 8_388_608, 16_384),
        "ria-128b": (1e-4, 16_777_216, 32_768),
    }[tier]
    model = entry(tier).config
    assert isinstance(model, RIAConfig)
    return Stage(
        name=f"{tier}_as_written",
        model=model,
        text=TextConfig(train=LIBRARY, held_out=HELD_OUT),
        batches=BatchConfig(rows=1, context=context, mixture={"causal": 0.75, "spans": 0.15, "statements": 0.10}),
        train=TrainConfig(
            max_steps=2 * 10**12 // tokens,
            accumulate=tokens // context,
            clip=1.0,
            ema=0.0,
            optimiser=OptimiserConfig(kind="adamw", lr=learning_rate, weight_decay=0.1, cautious=False),
            schedule=Schedule(kind="cosine", warmup=0.05, final=0.1),
        ),
        bits=None,
    )


def narrow(stage: Stage) -> Stage:
    """The same stage at a width that a laptop trains: two layers of 256, short rows, two batches a step, two steps."""
    model = replace(
        stage.model,
        vocab_size=700,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return replace(
        stage,
        name=f"{stage.name}_narrow",
        model=model,
        text=TextConfig(train=("json",), held_out=("dbm",)),
        batches=replace(stage.batches, context=128),
        train=replace(stage.train, max_steps=2, accumulate=2),
        dtype="float32",
        validation_batches=1,
    )
