"""How fast a device trains and decodes, by the clock: steps until the time is over, after those that warm up."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from riallm.models.ria import RIAConfig
    from riallm.train.objective import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """tokens_per_second, flops_per_second by the model's own count; warm_seconds: before the first timed step."""

    steps: int
    tokens_per_second: float
    flops_per_second: float
    warm_seconds: float
    peak_bytes: int


def wait(device: str) -> None:
    """Until the device has done everything that was asked of it."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def _peak(device: str) -> int:
    import torch

    return 0 if device == "cpu" else int(torch.cuda.max_memory_allocated())


def random_batch(config: RIAConfig, rows: int, context: int, device: str) -> Batch:
    """Drawn tokens of one file a row; what they are does not change how long they take."""
    import torch

    from riallm.nn.meta import TokenMeta
    from riallm.train.objective import Batch

    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, config.vocab_size, (rows, context + 1), generator=draw)
    meta = TokenMeta.plain(rows, context)
    whole = Batch(
        tokens=ids[:, :-1].contiguous(),
        targets=ids[:, 1:].contiguous(),
        meta=TokenMeta(
            positions=meta.positions.contiguous(),
            segments=meta.segments,
            files=meta.files,
            relations=meta.relations.expand(-1, 16, 16).contiguous(),
        ),
        num_bytes=1.0,
        weights=torch.ones(rows, context),
    )
    return whole.to(device)


def training(
    config: RIAConfig, *, rows: int, context: int, device: str, seconds: float, compile: bool, dtype: torch.dtype
) -> Speed:
    """Forward, backward and both optimisers, on one batch again and again."""
    import torch

    from riallm.models.ria import RIA
    from riallm.train.objective import compiled, next_token
    from riallm.train.optim import OptimiserConfig, optimisers

    began = time.monotonic()
    model = RIA(config, dtype=dtype)
    model.initialise(0)
    model.to(device)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    batch = random_batch(config, rows, context, device)
    objective = compiled() if compile else next_token
    made = optimisers(model, OptimiserConfig(lr=1e-3, embedding_lr=1e-3, scalar_lr=1e-3))

    def step() -> None:
        loss = objective(model, batch).terms["nats"] / batch.tokens.numel()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in made:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    for _ in range(3 if device != "cpu" else 1):
        step()
    wait(device)
    first, steps = time.monotonic(), 0
    while steps == 0 or time.monotonic() - first < seconds:
        step()
        wait(device)
        steps += 1
    rate = steps * batch.tokens.numel() / (time.monotonic() - first)
    flops = model.costs().training_flops(batch.tokens.numel(), context) / batch.tokens.numel()
    return Speed(
        steps=steps,
        tokens_per_second=rate,
        flops_per_second=rate * flops,
        warm_seconds=first - began,
        peak_bytes=_peak(device),
    )


def decoding(config: RIAConfig, *, rows: int, prefix: int, device: str, seconds: float, dtype: torch.dtype) -> Speed:
    """Greedy tokens behind a prefix, one a row and step, until the context is full; then from the prefix again."""
    import torch

    from riallm.models.ria import RIA
    from riallm.nn.meta import TokenMeta

    began = time.monotonic()
    model = RIA(config, dtype=dtype)
    model.initialise(0)
    model.to(device).eval()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    with torch.inference_mode():
        tokens = random_batch(config, rows, prefix, device).tokens
        meta = TokenMeta.plain(rows, prefix, device=device)
        read = model(tokens, meta, model.empty_state(meta))
        first_ids = model.logits(read.hidden[:, -1]).argmax(-1)
        wait(device)
        state, ids, place = read.state, first_ids, prefix
        first, steps = time.monotonic(), 0
        while steps == 0 or time.monotonic() - first < seconds:
            if place == config.max_position_embeddings:
                state, ids, place = read.state, first_ids, prefix
            out = model(ids[:, None], TokenMeta.plain(rows, 1, start=place, device=device), state)
            state, ids, place, steps = out.state, model.logits(out.hidden[:, -1]).argmax(-1), place + 1, steps + 1
        wait(device)
    rate = rows * steps / (time.monotonic() - first)
    return Speed(
        steps=steps,
        tokens_per_second=rate,
        flops_per_second=rate * model.costs().flops_per_token,
        warm_seconds=first - began,
        peak_bytes=_peak(device),
    )
