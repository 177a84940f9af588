"""Whether a device computes what the processor computes: each check gives how far apart, and how far is allowed.

Distances are the largest difference over the largest value of the processor's, which is in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from riallm.models.ria import RIA
    from riallm.nn.meta import TokenMeta
    from riallm.train.objective import Batch, Objective

CLOSE, NEAR = 2e-4, 4e-2
"""Allowed distances in float32 and in bfloat16, which has eight bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A check's distance and what it may be."""

    name: str
    distance: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Within what is allowed; a distance that is no number is not."""
        return self.distance <= self.allowed


def distance(found: Tensor, wanted: Tensor) -> float:
    """See the module."""
    there, here = found.detach().float().cpu(), wanted.detach().float().cpu()
    return float((there - here).abs().max() / here.abs().max().clamp_min(1e-12))


def all_checks(device: str) -> Iterator[Found]:
    """Every check, cheap ones first."""
    for check in (_attention, _blocks, _model, _gradients, _compiled):
        yield from check(device)


def example(rows: int = 2, tokens: int = 64, vocab: int = 96) -> Batch:
    """Rows of three files in two segments, with relations, weights and targets that do not count."""
    import torch

    from riallm.nn.meta import Relation, TokenMeta
    from riallm.train.objective import IGNORED, Batch

    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocab, (rows, tokens + 1), generator=draw)
    place = torch.arange(tokens).expand(rows, tokens)
    second = (place >= tokens * 3 // 4).long()
    table = torch.full((rows, 4, 4), int(Relation.NONE))
    table[:, range(4), range(4)] = int(Relation.SAME)
    table[:, 1, 0], table[:, 2, 1] = int(Relation.IMPORT), int(Relation.MODULE)
    targets = ids[:, 1:].clone()
    targets[:, ::5] = IGNORED
    meta = TokenMeta(
        positions=place - second * (tokens * 3 // 4), segments=second, files=place * 3 // tokens, relations=table
    )
    weights = 1.0 + 3.0 * second.float()
    return Batch(tokens=ids[:, :-1].contiguous(), targets=targets, meta=meta, num_bytes=1.0, weights=weights)


def tiny(dtype: torch.dtype, *, context: int = 64) -> RIA:
    """A model with every part that RIA has, its zero output projections and file terms drawn."""
    import torch

    from riallm.models.ria import RIA
    from riallm.models.zoo import nano

    model = RIA(nano(hidden=256, layers=2, inner=256, vocab=96, context=context, head_dim=64), dtype=dtype)
    model.initialise(0)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0.0, 0.05, generator=draw)
    return model


def _attention(device: str) -> Iterator[Found]:
    """The fused kernel with file terms in its queries and keys against the document's formula, on the device."""
    import torch

    from riallm.nn.attention import Ranges, attend, attend_reference, file_terms, visible

    draw = torch.Generator().manual_seed(2)
    meta = example().meta
    size = (meta.positions.shape[0], 4, meta.positions.shape[1], 32)
    q, k, v = (torch.randn(size, generator=draw) for _ in range(3))
    alpha = torch.randn(4, 3, generator=draw)
    mask = visible(meta, meta, Ranges(local=8, file=24))
    there: TokenMeta = meta.to(device)
    for dtype, allowed in ((torch.float32, CLOSE), (torch.bfloat16, NEAR)):
        kind = str(dtype).removeprefix("torch.")
        for form, own, seen in (("files", alpha, mask), ("plain", None, None)):
            terms = None if own is None else file_terms(own, meta.relations)
            wanted = attend_reference(q, k[:, :2], v[:, :2], mask=seen, terms=terms, query=meta, key=meta)
            moved = [tensor.to(device, dtype) for tensor in (q, k[:, :2], v[:, :2])]
            more = {
                "mask": None if seen is None else seen.to(device),
                "terms": None if terms is None else terms.to(device),
            }
            kernels: dict[str, Callable[..., Tensor]] = {"fused": attend, "reference": attend_reference}
            for name, kernel in kernels.items():
                found = kernel(*moved, **more, query=there, key=there)
                yield Found(name=f"attention {form} {name} {kind}", distance=distance(found, wanted), allowed=allowed)


def _blocks(device: str) -> Iterator[Found]:
    """Weights in blocks: made, undone and multiplied on the device."""
    import torch

    from riallm.quant.packed import Kind, Packed, dequantise, quantise

    draw = torch.Generator().manual_seed(3)
    weight, x = torch.randn(96, 256, generator=draw), torch.randn(8, 256, generator=draw)
    kinds: tuple[Kind, ...] = ("int4", "int8", "nf4")
    for kind in kinds:
        packed = quantise(weight, kind)
        assert packed.scales is not None
        moved = Packed(kind=kind, codes=packed.codes.to(device), scales=packed.scales.to(device))
        made = quantise(weight.to(device), kind)
        whole, there = dequantise(packed), dequantise(moved)
        yield Found(name=f"{kind} undone", distance=distance(there, whole), allowed=0.0)
        yield Found(name=f"{kind} made", distance=distance(dequantise(made), whole), allowed=CLOSE)
        product = x.to(device) @ there.T
        yield Found(name=f"{kind} product", distance=distance(product, x @ whole.T), allowed=CLOSE)


def _model(device: str) -> Iterator[Found]:
    """Logits and loss of the whole model."""
    import torch

    from riallm.train.objective import next_token

    batch = example()
    with torch.inference_mode():
        whole = tiny(torch.float32)
        wanted = whole.logits(whole(batch.tokens, batch.meta).hidden)
        nats = next_token(whole, batch).terms["nats"]
        for dtype, allowed in ((torch.float32, CLOSE), (torch.bfloat16, NEAR)):
            kind = str(dtype).removeprefix("torch.")
            model, there = tiny(dtype).to(device), batch.to(device)
            found = model.logits(model(there.tokens, there.meta).hidden)
            yield Found(name=f"logits {kind}", distance=distance(found, wanted), allowed=allowed)
            loss = next_token(model, there).terms["nats"]
            yield Found(name=f"loss {kind}", distance=distance(loss, nats), allowed=allowed)


def _gradient(model: RIA, batch: Batch, objective: Objective[Batch]) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient by every parameter as one vector."""
    import torch

    loss = objective(model, batch).terms["nats"]
    loss.backward()  # type: ignore[no-untyped-call]
    return loss, torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None])


def _gradients(device: str) -> Iterator[Found]:
    """The gradient of the loss: float32, then bfloat16 activations."""
    import torch

    from riallm.train.objective import next_token

    batch = example()
    _, wanted = _gradient(tiny(torch.float32), batch, next_token)
    for dtype, allowed in ((torch.float32, CLOSE), (torch.bfloat16, NEAR)):
        _, found = _gradient(tiny(dtype).to(device), batch.to(device), next_token)
        kind = str(dtype).removeprefix("torch.")
        yield Found(name=f"gradient {kind}", distance=distance(found, wanted), allowed=allowed)


def _compiled(device: str) -> Iterator[Found]:
    """Loss and gradient of the compiled objective, on rows long enough for attention in blocks, which a GPU then takes.
    On the processor the graph alone is compiled, no code."""
    import torch

    from riallm.train.objective import compiled, next_token

    tokens = 384
    batch = example(tokens=tokens)
    loss, wanted = _gradient(tiny(torch.float32, context=tokens), batch, next_token)
    for dtype, allowed in ((torch.float32, NEAR), (torch.bfloat16, NEAR)):  # the kernel's own products are in tf32
        objective = compiled("inductor" if device == "cuda" else "eager")
        found, gradient = _gradient(tiny(dtype, context=tokens).to(device), batch.to(device), objective)
        kind = str(dtype).removeprefix("torch.")
        yield Found(name=f"compiled loss {kind}", distance=distance(found, loss), allowed=allowed)
        yield Found(name=f"compiled gradient {kind}", distance=distance(gradient, wanted), allowed=allowed)
