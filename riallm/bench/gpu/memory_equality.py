"""As `equality`, for models with a memory: what a device writes into it, answers from it and learns through it.

Letters: B conversations, N interactions, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from riallm.bench.gpu.equality import CLOSE, NEAR, Found, distance

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from riallm.models.episodes import Episodes
    from riallm.models.rxt import RxT, RxTConfig
    from riallm.train.objective import Objective

VOCAB, TOKENS = 96, 24


def all_checks(device: str) -> Iterator[Found]:
    """Of the shape that the recipes train, and of the document's, whose memory is written in another way."""
    for form, config in forms().items():
        yield from _conversation(form, config, device)
        yield from _learning(form, config, device)


def forms() -> dict[str, RxTConfig]:
    """Tiny models by name."""
    from riallm.recipes.tell_ask import model
    from riallm.testing.tiny_rxt import tiny_rxt

    return {
        "memory": model(vocab=VOCAB, hidden=64, slots=12, max_interaction=TOKENS),
        "memory as written": tiny_rxt(vocab_size=VOCAB, max_interaction=TOKENS),
    }


def tiny(config: RxTConfig, dtype: torch.dtype) -> RxT:
    """With drawn weights."""
    from riallm.models.rxt import RxT

    model = RxT(config, dtype=dtype)
    model.initialise(0)
    return model


def example(*, num: int, rows: int = 3) -> Episodes:
    """Ragged conversations of drawn tokens, the last shorter by an interaction; the later half of each interaction is
    its answer."""
    import torch

    from riallm.models.episodes import Interaction, episodes

    draw = torch.Generator().manual_seed(0)

    def interaction(length: int) -> Interaction:
        return Interaction(torch.randint(1, VOCAB, (length,), generator=draw).tolist(), length // 2)

    return episodes(
        [[interaction(TOKENS - 3 * at - row) for at in range(num - (row == rows - 1))] for row in range(rows)],
        num_tokens=TOKENS,
    )


class Kind(NamedTuple):
    """A dtype's checks: the model and the conversations, and how far apart results may be."""

    name: str
    dtype: torch.dtype
    config: RxTConfig
    batch: Episodes
    allowed: float


def kinds(config: RxTConfig) -> list[Kind]:
    """Float32 as it is. In bfloat16 a token near the border between two experts may go to either, and each write makes
    differences larger: so every token goes to all experts there, and one interaction is written."""
    import torch

    every = replace(config, experts_per_token=config.num_experts)
    return [
        Kind("float32", torch.float32, config, example(num=4), CLOSE),
        Kind("bfloat16", torch.bfloat16, every, example(num=2), NEAR),
    ]


def _held(model: RxT, batch: Episodes) -> tuple[Tensor, Tensor]:
    """The memory behind all interactions but the last, and the logits of the first one's tokens with that memory,
    decoded as an answer is: all at once, then one more."""
    import torch

    from riallm.nn.meta import TokenMeta

    device = batch.tokens.device
    with torch.inference_mode():
        memory = model.start(len(batch.tokens))
        for at in range(batch.tokens.shape[1] - 1):
            memory = model.end_turn(batch.tokens[:, at], batch.mask[:, at], memory)
        tokens, mask = batch.tokens[:, 0], batch.mask[:, 0]
        known = int(mask.sum(dim=-1).min()) - 1
        out = model(tokens[:, :known], TokenMeta.padded(mask[:, :known]), model.turn(memory))
        meta = TokenMeta.plain(len(tokens), 1, start=known, device=device)
        more = model(tokens[:, known : known + 1], meta, out.state)
        return memory.slots, model.logits(torch.cat((out.hidden, more.hidden), dim=1))


def _conversation(form: str, config: RxTConfig, device: str) -> Iterator[Found]:
    """What is written and what is answered."""
    import torch

    for kind in kinds(config):
        slots, logits = _held(tiny(kind.config, torch.float32), kind.batch)
        written, said = _held(tiny(kind.config, kind.dtype).to(device), kind.batch.to(device))
        yield Found(name=f"{form} slots {kind.name}", distance=distance(written, slots), allowed=kind.allowed)
        yield Found(name=f"{form} logits {kind.name}", distance=distance(said, logits), allowed=kind.allowed)


def _gradient(model: RxT, batch: Episodes, objective: Objective[Episodes]) -> tuple[Tensor, Tensor]:
    """The sum of all terms, as the loop takes it, and its gradient by every parameter as one vector."""
    import torch

    loss = torch.stack(tuple(objective(model, batch).terms.values())).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss, torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None])


def _learning(form: str, config: RxTConfig, device: str) -> Iterator[Found]:
    """The loss of both stages of rxt-nano, and its gradient, which goes through the writes."""
    import torch

    from riallm.train.episodes import MemoryAware, Overheard

    objectives: dict[str, Objective[Episodes]] = {"joint": Overheard(), "aware": MemoryAware()}
    for name, objective in objectives.items():
        for kind in kinds(config):
            loss, gradient = _gradient(tiny(kind.config, torch.float32), kind.batch, objective)
            found, learned = _gradient(tiny(kind.config, kind.dtype).to(device), kind.batch.to(device), objective)
            for what, there, here in (("loss", found, loss), ("gradient", learned, gradient)):
                told = f"{form} {name} {what} {kind.name}"
                yield Found(name=told, distance=distance(there, here), allowed=kind.allowed)
